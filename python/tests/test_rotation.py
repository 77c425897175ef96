"""Rotary tables by layer, and codecs on keys as they were before RoPE, on tiny random models of
transformers: one table, two, and layers without RoPE."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any, Dict, List, Tuple
from unittest import mock

from architectures import random_model
from support import FolderTest, need_kv_compress, need_modules

from kvgauge import _protocol, _rotation, perplexity
from kvgauge._rotation import Rotation
from kvgauge.cache import Layer

if TYPE_CHECKING:
    import torch

#: Frequencies of one layer.
Table = Tuple[float, ...]

#: Two tables: those of the layers that attend to a window, and of the others.
GEMMA3: Dict[str, Any] = {
    "head_dim": 16,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
#: The third layer has no RoPE.
SMOLLM3: Dict[str, Any] = {"no_rope_layers": [1, 1, 0, 1], "rope_theta": 10000.0}

TOKENS = 100


def frequencies(theta: float) -> List[float]:
    """Of plain RoPE on heads of 16 channels."""
    return [theta ** (-i / 8) for i in range(8)]


class Tables(unittest.TestCase):
    """The tables that are found, and the models that are refused."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers")

    def rotations(self, kind: str, **settings: Any) -> List[Rotation]:
        return _rotation.rotations(random_model(kind, **settings), 7, TOKENS, "kvgauge4")

    def tables(self, kind: str, **settings: Any) -> List[Table]:
        found = self.rotations(kind, **settings)
        for rotation in found:
            self.assertEqual((rotation.channels, rotation.interleaved), (rotation.head_dim, False))
        return [one.frequencies for one in found]

    def one_table(self, kind: str, **settings: Any) -> Table:
        found = self.tables(kind, **settings)
        self.assertEqual((len(found), len(set(found))), (4, 1))
        return found[0]

    def assert_tables(self, found: List[Table], expected: List[List[float]]) -> None:
        self.assertEqual(len(found), len(expected))
        for layer, (mine, theirs) in enumerate(zip(found, expected)):
            self.assertEqual(len(mine), len(theirs))
            for one, other in zip(mine, theirs):
                self.assertAlmostEqual(one, other, delta=1e-6 * other, msg=str(layer))

    def test_plain_tables(self) -> None:
        expected = [10000.0 ** (-i / 8) for i in range(8)]
        for kind, settings in (
            ("llama", {}),
            ("qwen2", {}),
            ("olmo2", {}),
            ("gpt_neox", {"rotary_pct": 1.0}),
        ):
            found = self.one_table(kind, **settings)
            for mine, theirs in zip(found, expected):
                self.assertAlmostEqual(mine, theirs, delta=1e-6 * theirs, msg=kind)
            self.assertEqual(len(found), 8)
        qwen3 = self.one_table("qwen3", head_dim=32)
        self.assertEqual((len(qwen3), qwen3[0]), (16, 1.0))

    def test_scaled_tables_with_and_without_a_factor_on_attention(self) -> None:
        plain = self.one_table("llama")
        for scaling in (
            {"rope_type": "linear", "factor": 4.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ):
            found = self.one_table("llama", rope_scaling={**scaling, "rope_theta": 10000.0})
            self.assertEqual(len(found), 8)
            self.assertNotEqual(found, plain)
            self.assertAlmostEqual(found[-1], plain[-1] / scaling["factor"], delta=1e-6)

    def test_layers_of_two_tables(self) -> None:
        near, far = frequencies(1e4), frequencies(1e6)
        self.assert_tables(self.tables("gemma3_text", **GEMMA3), [near, far] * 2)
        types = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
        found = self.tables("gemma3_text", **{**GEMMA3, **types, "num_hidden_layers": 3})
        self.assert_tables(found, [far, near, near])

    def test_layers_without_rope_have_a_table_of_zeros(self) -> None:
        near, none = frequencies(1e4), [0.0] * 8
        self.assert_tables(self.tables("smollm3", **SMOLLM3), [near, near, none, near])
        found = self.tables("smollm3", **{**SMOLLM3, "no_rope_layers": [0, 0, 1, 0]})
        self.assert_tables(found, [none, none, near, none])

    def test_rotations_that_files_have_no_words_for(self) -> None:
        sliding = {"layer_types": ["sliding_attention"] * 4}
        for kind, settings, channels, interleaved, expected in (
            ("gpt_neox", {"rotary_pct": 0.25}, 4, False, "16 of each head, found .* of 4 channels"),
            ("cohere", {}, 16, True, "found interleaved pairs, of channels 2i and 2i \\+ 1"),
            ("cohere2", sliding, 16, True, "found interleaved pairs"),
            ("glm4", {"head_dim": 16}, 8, True, "found a partial rotation, of 8 channels"),
        ):
            with self.subTest(kind):
                found = self.rotations(kind, **settings)
                forms = {(one.channels, one.interleaved) for one in found}
                self.assertEqual(forms, {(channels, interleaved)})
                with self.assertRaisesRegex(perplexity.Problem, expected):
                    _rotation.file_metadata(found[0], "kvgauge4")

    def test_models_that_are_refused(self) -> None:
        import torch

        model = random_model("llama", rope_theta=10000.0)
        with torch.no_grad():
            # None of its layers' any more.
            model.model.rotary_emb.inv_freq.mul_(1.5)
            tables = _rotation._tables(model)
            model.model.rotary_emb.inv_freq.div_(1.5)
        with mock.patch.object(_rotation, "_tables", lambda model: tables):
            with self.assertRaisesRegex(perplexity.Problem, "found others in layer 0 in Llama"):
                _rotation.rotations(model, 7, TOKENS, "kvgauge4")
        gpt2 = random_model("gpt2", n_embd=64, n_head=4, n_layer=2)
        with self.assertRaisesRegex(perplexity.Problem, "found no rotary table in GPT2LMHeadModel"):
            _rotation.rotations(gpt2, 7, TOKENS, "kvgauge4")

    def test_attention_sinks_and_two_tables(self) -> None:
        types = {"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 16}
        plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
        settings = {**types, **plain, "num_local_experts": 4, "head_dim": 16}
        self.assert_tables(self.tables("gpt_oss", **settings), [frequencies(1e4)] * 4)


class BeforeRope(FolderTest):
    """Keys that went through ``kv-compress`` before RoPE, against the codec's definition."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers", "safetensors", "numpy")
        need_kv_compress()

    MODELS: Tuple[Tuple[str, Dict[str, Any], List[float]], ...] = (
        # Of each layer, the base of its rotary table; 0: none.
        ("llama", {"rope_theta": 10000.0}, [1e4] * 4),
        ("gemma3_text", GEMMA3, [1e4, 1e6, 1e4, 1e6]),
        ("smollm3", SMOLLM3, [1e4, 1e4, 0.0, 1e4]),
    )

    def round_trip(self, layers: List[Layer], tables: Any, codec: str) -> Tuple[List[Layer], int]:
        groups = _protocol._file_groups(str(self.folder), "f32", None, tables, codec)
        for group in groups:
            group.save(layers)
        return _protocol._round_trip(groups, codec, "cpu")

    def test_keys_are_those_worked_out_by_hand(self) -> None:
        import torch

        for kind, settings, bases in self.MODELS:
            model = random_model(kind, **settings)
            ids = torch.randint(64, (1, TOKENS), generator=torch.Generator().manual_seed(3))
            with torch.no_grad():
                layers = _protocol._prefill(model, ids)
            tables = _rotation.rotations(model, 7, TOKENS, "int4-g64-prerope")
            returned, size = self.round_trip(layers, tables, "int4-g64-prerope")
            # [2, 100, 16]: 3200 values, and keys and values of four layers.
            self.assertEqual(size, 2 * 4 * (3200 // 2 + 2 * 3200 // 64))
            self.assertEqual(len(returned), 4)
            for layer, base in enumerate(bases):
                with self.subTest(kind, layer=layer):
                    self.check_keys(layers[layer][0], returned[layer][0], base)
                    found, expected = returned[layer][1], _int4(layers[layer][1][0])
                    self.assertTrue(torch.equal(found[0], expected.float()))
                    other = 1e6 if base == 1e4 else 1e4
                    with self.assertRaises(AssertionError):
                        self.check_keys(layers[layer][0], returned[layer][0], other)

    def check_keys(self, original: "torch.Tensor", returned: "torch.Tensor", base: float) -> None:
        """[1, 2, tokens, 16] each."""
        turned_back = _turned(original[0].double(), base, -1.0)
        expected = _turned(_int4(turned_back.float()), base, 1.0)
        off = (returned[0].double() - expected).abs()
        # A value on the edge between two codes may fall to either side.
        far = int((off > 1e-5 * float(original.abs().max())).sum())
        self.assertLessEqual(far, 4)

    def test_sizes_and_order_are_those_of_one_file(self) -> None:
        import torch

        model = random_model("gemma3_text", **GEMMA3)
        with torch.no_grad():
            layers = _protocol._prefill(model, torch.arange(32)[None])
        tables = _rotation.rotations(model, 7, 32, "kvgauge4")
        for codec in ("int4-g64", "q4_0", "f16", "k:int4-g32/v:f16"):
            apart, apart_size = self.round_trip(layers, tables, codec)
            whole, whole_size = self.round_trip(layers, None, codec)
            self.assertEqual(apart_size, whole_size, codec)
            for mine, theirs in zip(apart, whole):
                self.assertTrue(all(map(torch.equal, mine, theirs)), codec)

    def test_codecs_before_rope_cost_what_they_cost_behind_it(self) -> None:
        import torch

        codecs = ["int8-g64", "int8-g64-prerope", "kvgauge4", "f16"]
        generator = torch.Generator().manual_seed(1)
        windows = [torch.randint(64, (64,), generator=generator).tolist() for _ in range(2)]
        for kind, settings, _ in self.MODELS:
            with self.subTest(kind):
                model = random_model(kind, **settings)
                result = perplexity.evaluate(model, windows, codecs, folder=str(self.folder))
                sums = [
                    sum(score.kld for window in codec.windows for score in window.scores)
                    for codec in result.codecs
                ]
                behind, before, _, exact = sums
                self.assertTrue(exact < behind and 0.5 < before / behind < 2.0, sums)
                eight_bits = [codec.windows[0].stored_bytes for codec in result.codecs[:2]]
                self.assertEqual(*eight_bits)
                self.assert_only()


def _turned(x: "torch.Tensor", base: float, sign: float) -> "torch.Tensor":
    """Keys [heads, tokens, 16] turned by their position, channels i and i + 8 a pair."""
    import torch

    table = torch.tensor(frequencies(base) if base else [0.0] * 8, dtype=torch.float64)
    angles = sign * torch.arange(x.shape[1], dtype=torch.float64)[:, None] * table
    turn = torch.polar(torch.ones_like(angles), angles)
    pairs = torch.complex(x[..., :8].double(), x[..., 8:].double()) * turn
    return torch.cat([pairs.real, pairs.imag], -1)


def _int4(x: "torch.Tensor") -> "torch.Tensor":
    """Symmetric INT4 in groups of 64 values with scales in f16, there and back."""
    groups = x.reshape(-1, 64)
    scale = (groups.abs().amax(1, keepdim=True) / 7).half().float()
    return ((groups / scale).round().clamp(-7, 7) * scale).reshape(x.shape)


if __name__ == "__main__":
    unittest.main()
