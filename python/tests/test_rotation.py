"""Rotary embeddings by layer, and codecs on keys as they were before RoPE, on tiny random models of
transformers: one table, two, parts of a head, interleaved pairs, and layers without RoPE."""

from __future__ import annotations

import json
import unittest
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Tuple
from unittest import mock

from architectures import random_model
from support import FolderTest, need_kv_compress, need_modules

from kvgauge import _protocol, _rotation, perplexity
from kvgauge._measurement import StoredSize
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


class Form(NamedTuple):
    """Of plain RoPE on heads of 16 channels."""

    theta: float
    channels: int = 16
    interleaved: bool = False


#: Each of which is none of another model's.
OTHER_FORMS = (Form(1e4), Form(1e6), Form(1e4, 8), Form(1e4, 16, True), Form(1e4, 0))


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
            self.assertIn(rotation.channels, (rotation.head_dim, 0))
            self.assertFalse(rotation.interleaved)
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

    def test_layers_without_rope_have_no_frequencies(self) -> None:
        near, none = frequencies(1e4), frequencies(1e4)[:0]
        self.assert_tables(self.tables("smollm3", **SMOLLM3), [near, near, none, near])
        found = self.tables("smollm3", **{**SMOLLM3, "no_rope_layers": [0, 0, 1, 0]})
        self.assert_tables(found, [none, none, near, none])

    def test_parts_of_a_head_and_interleaved_pairs(self) -> None:
        for kind, settings, channels, interleaved in (
            ("gpt_neox", {"rotary_pct": 0.25}, 4, False),
            ("stablelm", {"partial_rotary_factor": 0.25}, 4, False),
            ("phi3", {"partial_rotary_factor": 0.5}, 8, False),
            ("cohere", {}, 16, True),
            ("ernie4_5", {"head_dim": 16}, 16, True),
            ("glm4", {"head_dim": 16}, 8, True),
        ):
            with self.subTest(kind):
                found = self.rotations(kind, **settings)
                forms = {(one.channels, one.head_dim, one.interleaved) for one in found}
                self.assertEqual(forms, {(channels, 16, interleaved)})

    def test_interleaved_pairs_beside_layers_without_rope(self) -> None:
        layer_types = [*["sliding_attention"] * 3, "full_attention"]
        found = self.rotations("cohere2", layer_types=layer_types, rope_theta=10000.0)
        self.assertEqual([one.interleaved for one in found], [True] * 3 + [False])
        tables = [one.frequencies for one in found]
        self.assert_tables(tables, [frequencies(1e4)] * 3 + [[]])

    def test_what_files_say(self) -> None:
        whole, wide = Rotation((1.0, 0.5), 4), Rotation((1.0, 0.25), 4)
        part, pairs = Rotation((1.0, 0.5), 6), Rotation((1.0, 0.5), 4, True)
        none = Rotation((), 4)

        def said(*rotations: Rotation) -> Any:
            entries = _rotation.file_metadata(rotations)
            self.assertEqual(list(entries), ["kvgauge.extract"])
            return json.loads(entries["kvgauge.extract"])

        def entry(layers: List[int], frequencies: List[float], spelt: str, head_dim: int) -> Any:
            return {
                "layers": layers,
                "frequencies": frequencies,
                "pairs": spelt,
                "head_dim": head_dim,
            }

        self.assertEqual(said(whole, whole), {"rope_frequencies": [1.0, 0.5]})
        for alone, expected in (
            (part, entry([0, 1], [1.0, 0.5], "halves", 6)),
            (pairs, entry([0, 1], [1.0, 0.5], "neighbours", 4)),
        ):
            self.assertEqual(said(alone, alone), {"rotary": [expected]})
        several = [
            entry([0, 3], [1.0, 0.25], "halves", 4),
            entry([1], [], "halves", 4),
            entry([2], [1.0, 0.5], "halves", 4),
        ]
        self.assertEqual(said(wide, none, whole, wide), {"rotary": several})

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
        right = _rotation.forward

        def without_positions(*arguments: Any, position_ids: Any, **more: Any) -> Any:
            return right(*arguments, position_ids=position_ids * 0, **more)

        with mock.patch.object(_rotation, "forward", without_positions):
            with self.assertRaisesRegex(perplexity.Problem, "the same at every position"):
                _rotation.rotations(model, 7, TOKENS, "kvgauge4")
        gpt2 = random_model("gpt2", n_embd=64, n_head=4, n_layer=2)
        with self.assertRaisesRegex(perplexity.Problem, "found no rotary table in GPT2LMHeadModel"):
            _rotation.rotations(gpt2, 7, TOKENS, "kvgauge4")

    def test_large_channels_do_not_hide_that_others_were_not_turned_back(self) -> None:
        """Those of a pair so slow that no table is wrong for it."""
        import torch

        model = random_model("qwen2", rope_theta=1e6)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.k_proj.bias[[7, 15]] = 1e4
        found = _rotation.rotations(model, 7, TOKENS, "kvgauge4")
        self.assert_tables([one.frequencies for one in found], [frequencies(1e6)] * 4)
        right = _rotation._tables(model)[0]
        for wrong in (right * 1.5, right[:4], right.flip(0)):
            with mock.patch.object(_rotation, "_tables", lambda model, wrong=wrong: [wrong]):
                with self.assertRaisesRegex(perplexity.Problem, "found others in layer 0"):
                    _rotation.rotations(model, 7, TOKENS, "kvgauge4")

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

    MODELS: Tuple[Tuple[str, Dict[str, Any], List[Form]], ...] = (
        ("llama", {"rope_theta": 10000.0}, [Form(1e4)] * 4),
        ("gemma3_text", GEMMA3, [Form(1e4), Form(1e6)] * 2),
        ("smollm3", SMOLLM3, [Form(1e4), Form(1e4), Form(1e4, 0), Form(1e4)]),
        ("phi3", {"partial_rotary_factor": 0.5}, [Form(1e4, 8)] * 4),
        ("glm4", {"head_dim": 16}, [Form(1e4, 8, True)] * 4),
        ("cohere", {"rope_theta": 10000.0}, [Form(1e4, 16, True)] * 4),
    )

    def round_trip(
        self, layers: List[Layer], codec: str, metadata: Any
    ) -> Tuple[List[Layer], List[Tuple[StoredSize, StoredSize]]]:
        files = _protocol._Files(str(self.folder), "f32", None, metadata)
        files.save(layers)
        return files.round_trip(codec, "cpu")

    def test_keys_are_those_worked_out_by_hand(self) -> None:
        import torch

        for kind, settings, forms in self.MODELS:
            model = random_model(kind, **settings)
            ids = torch.randint(64, (1, TOKENS), generator=torch.Generator().manual_seed(3))
            with torch.no_grad():
                layers = _protocol._prefill(model, ids)
            rotations = _rotation.rotations(model, 7, TOKENS, "int4-g64-prerope")
            metadata = _rotation.file_metadata(rotations)
            returned, sizes = self.round_trip(layers, "int4-g64-prerope", metadata)
            # [2, 100, 16]: 3200 values, for keys and for values of four layers.
            side = StoredSize(bytes=3200 // 2 + 2 * 3200 // 64, values=3200, exact=0)
            self.assertEqual(sizes, [(side, side)] * 4)
            self.assertEqual(len(returned), 4)
            for layer, form in enumerate(forms):
                with self.subTest(kind, layer=layer):
                    self.check_keys(layers[layer][0], returned[layer][0], form)
                    found, expected = returned[layer][1], _int4(layers[layer][1][0])
                    self.assertTrue(torch.equal(found[0], expected.float()))
                    for other in {*OTHER_FORMS} - {form}:
                        with self.assertRaises(AssertionError):
                            self.check_keys(layers[layer][0], returned[layer][0], other)

    def check_keys(self, original: "torch.Tensor", returned: "torch.Tensor", form: Form) -> None:
        """[1, 2, tokens, 16] each."""
        turned_back = _turned(original[0].double(), form, -1.0)
        expected = _turned(_int4(turned_back.float()), form, 1.0)
        off = (returned[0].double() - expected).abs()
        # A value on the edge between two codes may fall to either side.
        far = int((off > 1e-5 * float(original.abs().max())).sum())
        self.assertLessEqual(far, 4)

    def test_codecs_behind_rope_have_no_use_for_rotations(self) -> None:
        import torch

        for kind, settings, _ in self.MODELS[1:]:
            model = random_model(kind, **settings)
            with torch.no_grad():
                layers = _protocol._prefill(model, torch.arange(32)[None])
            metadata = _rotation.file_metadata(_rotation.rotations(model, 7, 32, "kvgauge4"))
            for codec in ("int4-g64", "q4_0", "f16", "k:int4-g32/v:f16"):
                mine, sizes = self.round_trip(layers, codec, metadata)
                plain, plain_sizes = self.round_trip(layers, codec, {})
                self.assertEqual(sizes, plain_sizes, codec)
                for one, other in zip(mine, plain):
                    self.assertTrue(all(map(torch.equal, one, other)), (kind, codec))

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
                eight_bits = [codec.windows[0].sizes for codec in result.codecs[:2]]
                self.assertEqual(*eight_bits)
                self.assert_only()


def _turned(x: "torch.Tensor", form: Form, sign: float) -> "torch.Tensor":
    """Keys [heads, tokens, 16] turned by their position."""
    import torch

    count = form.channels // 2
    table = torch.tensor([form.theta ** (-i / count) for i in range(count)], dtype=torch.float64)
    angles = sign * torch.arange(x.shape[1], dtype=torch.float64)[:, None] * table
    turn = torch.polar(torch.ones_like(angles), angles)
    turned = x.double().clone()
    for i in range(count):
        low, high = (2 * i, 2 * i + 1) if form.interleaved else (i, i + count)
        pair = torch.complex(x[..., low].double(), x[..., high].double()) * turn[:, i]
        turned[..., low], turned[..., high] = pair.real, pair.imag
    return turned


def _int4(x: "torch.Tensor") -> "torch.Tensor":
    """Symmetric INT4 in groups of 64 values with scales in f16, there and back."""
    groups = x.reshape(-1, 64)
    scale = (groups.abs().amax(1, keepdim=True) / 7).half().float()
    return ((groups / scale).round().clamp(-7, 7) * scale).reshape(x.shape)


if __name__ == "__main__":
    unittest.main()
