"""Every architecture of ``architectures.py``: passes over a cache against one pass without, rotary
embeddings against their definition, and ``python -m kvgauge.perplexity`` from a folder."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import unittest
from typing import TYPE_CHECKING, Any, Dict, List, Tuple
from unittest import mock

from architectures import (
    ARCHITECTURES,
    CONTEXT,
    LAYERS,
    SHORT_CONTEXT,
    VOCABULARY,
    WINDOW,
    Architecture,
    random_architecture,
    random_model,
)
from support import (
    BUILTIN,
    FolderTest,
    need_kv_compress,
    need_kvgauge,
    need_modules,
    read_raw,
    skip,
)

from kvgauge import _model, _protocol, _rotation, perplexity

if TYPE_CHECKING:
    import torch

PREFIX = CONTEXT // 2

#: Those that ``kvgauge validate`` does not load.
NOT_OF_VALIDATE = ("Cohere2ForCausalLM", "Llama4ForCausalLM")


def made(name: str) -> Any:
    """The model of that name, or ``None`` where this transformers is too old for it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    architecture = ARCHITECTURES[name]
    if {architecture.kind, architecture.within or architecture.kind} - set(CONFIG_MAPPING_NAMES):
        return None
    return random_architecture(architecture)


def window(seed: int = 3) -> "torch.Tensor":
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY - 8, (1, CONTEXT), generator=generator)


class Caches(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers")

    def test_passes_over_a_cache_equal_one_pass_without(self) -> None:
        import torch

        for name in ARCHITECTURES:
            model = made(name)
            if model is None:
                continue
            tokens = window()
            with self.subTest(name), _rotation.static_frequencies(model, CONTEXT), torch.no_grad():
                expected = model(input_ids=tokens, use_cache=False).logits[0]
                for split in (1, WINDOW - 1, WINDOW, PREFIX, CONTEXT - 1):
                    layers = _protocol._prefill(model, tokens[:, :split])
                    found = _protocol._continue(model, tokens[:, split:], layers)
                    # Nothing is dropped, also where a layer attends to a window.
                    self.assertEqual({key.shape[2] for key, _ in layers}, {split})
                    self.assertEqual(len(layers), LAYERS)
                    # torch's own rounding of other shapes, of the largest; observed: 1.4e-5.
                    off = (found - expected[split:]).abs().max() / expected.abs().max()
                    self.assertLess(float(off), 5e-5, split)

    def test_sliding_windows_are_attended_to_and_no_more(self) -> None:
        import torch

        for name, architecture in ARCHITECTURES.items():
            model = made(name)
            if model is None or architecture.settings.get("sliding_window") is None:
                continue
            config = _model.text_config(model.config)
            kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * LAYERS
            sliding = [kind == "sliding_attention" for kind in kinds]
            tokens = window()
            with self.subTest(name), torch.no_grad():
                self.assertIn(True, sliding)
                layers = _protocol._prefill(model, tokens[:, :PREFIX])
                before = _protocol._continue(model, tokens[:, PREFIX:], layers)
                # What lies before the window of the first token of the continuation.
                unread = PREFIX - WINDOW + 1
                for at in range(LAYERS):
                    changed = [(key.clone(), value.clone()) for key, value in layers]
                    changed[at][1][:, :, :unread] += 1.0
                    after = _protocol._continue(model, tokens[:, PREFIX:], changed)
                    self.assertEqual(bool(torch.equal(before, after)), sliding[at], at)
                    changed[at][1][:, :, unread] += 1.0
                    after = _protocol._continue(model, tokens[:, PREFIX:], changed)
                    self.assertFalse(torch.equal(before[0], after[0]), at)

    def test_how_far_a_token_reaches(self) -> None:
        for name, expected in (
            ("LlamaForCausalLM", None),
            ("MistralForCausalLM", LAYERS * (WINDOW - 1)),
            ("Qwen2ForCausalLM", None),
            ("Qwen2ForCausalLM, sliding", None),
            ("Gemma3ForCausalLM", None),
            ("MixtralForCausalLM", LAYERS * (WINDOW - 1)),
        ):
            config = _model.text_config(random_architecture(ARCHITECTURES[name]).config)
            self.assertEqual(_model.attention_reach(config), expected, name)
        self.assertIsNone(_model.attention_reach(None))

    def test_targets_beyond_the_reach_feel_nothing(self) -> None:
        import torch

        model = random_model("mistral", sliding_window=5, head_dim=16)
        reach = _model.attention_reach(model.config)
        self.assertEqual(reach, LAYERS * 4)
        assert reach is not None
        tokens = window()
        with torch.no_grad():
            layers = _protocol._prefill(model, tokens[:, :PREFIX])
            before = _protocol._continue(model, tokens[:, PREFIX:], layers)
            other = [(key * 0.5, value + 1.0) for key, value in layers]
            after = _protocol._continue(model, tokens[:, PREFIX:], other)
        moved = (before != after).any(-1).tolist()
        self.assertEqual(moved, [True] * reach + [False] * (PREFIX - reach))


class Rotations(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers")

    def test_rotations_are_those_of_their_definitions(self) -> None:
        for name, architecture in ARCHITECTURES.items():
            model = made(name)
            if model is None:
                continue
            with self.subTest(name):
                self.check_rotations(model, architecture)

    def check_rotations(self, model: Any, architecture: Architecture) -> None:
        with _rotation.static_frequencies(model, CONTEXT):
            found = _rotation.rotations(model, 7, PREFIX, "kvgauge4")
        expected = architecture.by_layer()
        self.assertEqual(len(found), len(expected))
        for layer, (mine, theirs) in enumerate(zip(found, expected)):
            self.assertEqual(mine.channels, 2 * len(theirs))
            self.assertEqual(mine.head_dim, architecture.settings.get("head_dim", 16))
            self.assertEqual(mine.interleaved, architecture.interleaved and theirs != [])
            for one, other in zip(mine.frequencies, theirs):
                self.assertAlmostEqual(one, other, delta=1e-6 * other, msg=str(layer))

    def test_frequencies_are_those_of_the_window(self) -> None:
        """The prefix alone is within what the models were made for, the window is not."""
        import torch

        self.assertTrue(PREFIX <= SHORT_CONTEXT < CONTEXT)
        for name in ("LlamaForCausalLM, dynamic NTK", "Phi3ForCausalLM, LongRoPE"):
            model, tokens = random_architecture(ARCHITECTURES[name]), window()

            def keys(length: int, model: Any = model, tokens: Any = tokens) -> List[Any]:
                with torch.no_grad():
                    layers = _protocol._prefill(model, tokens[:, :length])
                return [key[:, :, :PREFIX] for key, _ in layers]

            def near(one: Any, other: Any) -> bool:
                return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other))

            with self.subTest(name):
                short = keys(PREFIX)
                # Of a longer window first: nothing of it may stay.
                with _rotation.static_frequencies(model, 4 * CONTEXT):
                    self.assertFalse(near(keys(PREFIX), short))
                with _rotation.static_frequencies(model, CONTEXT):
                    held = keys(PREFIX)
                    self.assertTrue(near(keys(CONTEXT), held))
                self.assertFalse(near(short, held))
                # What transformers itself makes of the whole window.
                self.assertTrue(near(keys(CONTEXT), held))
                # And it goes by the length again.
                with _rotation.static_frequencies(model, PREFIX):
                    self.assertTrue(near(keys(PREFIX), short))

    def test_a_transformers_that_cannot_be_held_is_refused(self) -> None:
        model = random_architecture(ARCHITECTURES["Phi3ForCausalLM, LongRoPE"])
        for module in model.modules():
            if hasattr(module, "rope_type"):
                del module.rope_type
        with self.assertRaisesRegex(perplexity.Problem, "of type longrope"):
            with _rotation.static_frequencies(model, CONTEXT):
                pass


class Evaluations(FolderTest):
    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers", "safetensors", "numpy")
        need_kv_compress()
        need_kvgauge()
        if not BUILTIN.is_dir():
            skip(f"no {BUILTIN}: these tests need the repository's checkout")

    def run_command(self, folder: str, *arguments: str) -> Tuple[int, str, str]:
        text = self.folder / "text"
        text.write_bytes((BUILTIN / "text.txt").read_bytes()[:4000])
        asked = ["--model", folder, "--text", str(text), "--json"]
        asked += ["--context", str(CONTEXT), "--windows", "2", *arguments]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = perplexity.main(asked)
        return status, out.getvalue(), err.getvalue()

    def saved(self, model: Any) -> str:
        folder = self.folder / "model"
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        shutil.copy(BUILTIN / "tokenizer.json", folder)
        return str(folder)

    def test_the_command_works_on_every_architecture(self) -> None:
        for name, architecture in ARCHITECTURES.items():
            model = made(name)
            if model is None:
                continue
            with self.subTest(name):
                folder = self.saved(model)
                codecs = ["int8-g64", "int4-g64", "f16"]
                asked = [part for codec in codecs for part in ("--codec", codec)]
                status, out, err = self.run_command(folder, *asked)
                self.assertEqual(status, 0, err)
                self.check_result(json.loads(out), name, architecture)

    def test_keys_before_rope_cost_what_kvgauge_validate_says(self) -> None:
        """And files of ``kvgauge extract`` say the same of their rotations."""
        codecs = ["int8-g64-prerope", "int4-g16-prerope", "kvgauge4"]
        asked = ["--bos", "never", *(part for codec in codecs for part in ("--codec", codec))]
        for name in ARCHITECTURES:
            model = made(name)
            if model is None:
                continue
            with self.subTest(name):
                folder = self.saved(model)
                status, out, err = self.run_command(folder, *asked)
                self.assertEqual(status, 0, err)
                mine = json.loads(out)
                self.assertEqual([codec["codec"] for codec in mine["codecs"]], codecs)
                for codec, bits in zip(mine["codecs"], (8.25, 5.0)):
                    self.assertEqual(codec["bits_per_value"], bits)
                self.assertGreater(mine["codecs"][0]["key"]["snr_db"], 40.0)
                if name in NOT_OF_VALIDATE:
                    continue
                theirs = json.loads(self.run_binary("validate", folder, "--json", *asked))
                self.check_against(mine, theirs)
                self.check_metadata(model, folder)

    def run_binary(self, command: str, folder: str, *arguments: str) -> str:
        asked = [need_kvgauge(), command, "--model", folder, "--text", str(self.folder / "text")]
        asked += ["--context", str(CONTEXT), *arguments]
        if command == "validate":
            asked += ["--windows", "2", "--protocol", "prefix"]
        done = subprocess.run(
            asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def check_against(self, mine: Dict[str, Any], theirs: Dict[str, Any]) -> None:
        self.assertEqual(mine["scored_tokens"], theirs["scored_tokens"])
        self.assert_close(mine["baseline"], theirs["baseline"], "nll_per_window", 1e-5)
        for codec, expected in zip(mine["codecs"], theirs["codecs"]):
            self.assertEqual(codec["codec"], expected["codec"])
            self.assertEqual(codec["bits_per_value"], expected["bits_per_value"])
            self.assert_close(codec, expected, "nll_per_window", 5e-4)
            self.assert_close(codec, expected, "kld_mean", 0.03)
            for part in ("key", "value"):
                self.assert_close(codec[part], expected[part], "snr_db", 1e-3)

    def assert_close(
        self, mine: Dict[str, Any], theirs: Dict[str, Any], figure: str, tolerance: float
    ) -> None:
        """``tolerance``: of what ``kvgauge`` has."""
        found, expected = mine[figure], theirs[figure]
        if not isinstance(found, list):
            found, expected = [found], [expected]
        self.assertEqual(len(found), len(expected), figure)
        for one, other in zip(found, expected):
            self.assertAlmostEqual(one, other, delta=tolerance * abs(other), msg=figure)

    def check_metadata(self, model: Any, folder: str) -> None:
        with _rotation.static_frequencies(model, CONTEXT):
            found = _rotation.rotations(model, 7, PREFIX, "kvgauge4")
        mine = json.loads(_rotation.file_metadata(found)["kvgauge.extract"])
        path = self.folder / "extracted.safetensors"
        self.run_binary("extract", folder, "--output", str(path), "--force")
        header, _ = read_raw(path)
        origin = json.loads(header["__metadata__"]["kvgauge.extract"])
        self.assertEqual(set(mine), {"rope_frequencies", "rotary"} & set(origin))
        if "rope_frequencies" in mine:
            self.assert_close(mine, origin, "rope_frequencies", 1e-6)
        entries, expected = mine.get("rotary", []), origin.get("rotary", [])
        self.assertEqual(len(entries), len(expected))
        for one, other in zip(entries, expected):
            self.assertEqual(set(one), set(other))
            for key in ("layers", "pairs", "head_dim"):
                self.assertEqual(one[key], other[key], key)
            self.assert_close(one, other, "frequencies", 1e-6)

    def check_result(self, result: Dict[str, Any], name: str, architecture: Architecture) -> None:
        model = result["model"]
        self.assertEqual(model["architecture"], name.partition(",")[0])
        head_dim = architecture.settings.get("head_dim", 16)
        self.assertEqual(
            (model["layers"], model["kv_heads"], model["head_dim"]), (LAYERS, 2, head_dim)
        )
        eight, four, control = result["codecs"]
        self.assertEqual([eight["bits_per_value"], four["bits_per_value"]], [8.25, 4.25])
        divergences = [codec["kld_mean"] for codec in result["codecs"]]
        # Sixteen times the error, and random experts and softmaxes that switch where it is large.
        self.assertTrue(0 < 4 * eight["kld_mean"] < four["kld_mean"], divergences)
        self.assertLess(control["kld_mean"], eight["kld_mean"], divergences)
        self.assertEqual({len(codec["layers"]) for codec in result["codecs"]}, {LAYERS})
        self.assertGreater(eight["targets_affected"], 0.9)

    def test_a_cache_that_does_not_carry_everything_over_is_refused(self) -> None:
        """A model that forgets its window as soon as there is a cache."""
        model = random_model("mistral", sliding_window=WINDOW, head_dim=16)
        right = _protocol._continue

        def forgetful(model: Any, *arguments: Any) -> Any:
            with mock.patch.object(model.config, "sliding_window", None):
                return right(model, *arguments)

        tokens = [window(seed)[0].tolist() for seed in (1, 2)]
        perplexity.evaluate(model, tokens, ["int4-g64"], folder=str(self.folder))
        with mock.patch.object(_protocol, "_continue", forgetful):
            with self.assertRaisesRegex(perplexity.Problem, "a mean KL divergence of [0-9.e-]+"):
                perplexity.evaluate(model, tokens, ["int4-g64"], folder=str(self.folder))
        self.assert_only()


if __name__ == "__main__":
    unittest.main()
