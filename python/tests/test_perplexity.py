"""The evaluation: windows, scores, its command line, and agreement with ``kvgauge validate``."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import unittest
from typing import Any, Dict, List, Tuple
from unittest import mock

from support import BUILTIN, FolderTest, need_kv_compress, need_kvgauge, need_modules, skip

from kvgauge import (
    CompressionError,
    _codecs,
    _command_line,
    _model,
    _protocol,
    load_kv_cache,
    perplexity,
)
from kvgauge.cache import cache_layers

TEXT = BUILTIN / "text.txt"


def run(*arguments: str) -> Tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = perplexity.main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


class Windows(unittest.TestCase):
    def test_windows_are_cut_as_kvgauge_cuts_them(self) -> None:
        tokens = list(range(10, 23))
        cut = perplexity.cut_windows
        self.assertEqual(cut(tokens, 4, 1, None, None), [[14, 15, 16, 17], [18, 19, 20, 21]])
        self.assertEqual(cut(tokens, 4, 0, 1, 7), [[7, 11, 12, 13]])
        for arguments, expected in (
            ((tokens, 14, 0, None, None), "at least 14 tokens, one window, found 13"),
            ((tokens, 4, 3, None, None), "--first-window: expected at most 2"),
        ):
            with self.assertRaisesRegex(perplexity.Problem, expected):
                cut(*arguments)


class Scores(unittest.TestCase):
    """The numbers that a measurement holds, worked out one by one in plain Python."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch")

    def test_scores_of_two_caches(self) -> None:
        import torch

        generator = torch.Generator().manual_seed(4)
        # More targets than are in float64 at once.
        targets = torch.randint(11, (300,), generator=generator)
        base, logits = (torch.randn(300, 11, generator=generator) * 3 for _ in range(2))
        logits[:200] = base[:200] + logits[:200] / 100
        nll, rows = _protocol._score_baseline(base, targets)
        scores = _protocol._score(logits, base, rows, targets)
        self.assertEqual((len(nll), len(scores)), (300, 300))
        for index, score in enumerate(scores):
            p, q = (_log_softmax(arm[index].tolist()) for arm in (base, logits))
            target = int(targets[index])
            self.assertAlmostEqual(nll[index], -p[target], delta=1e-12)
            self.assertAlmostEqual(score.nll, -q[target], delta=1e-12)
            kld = math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q))
            self.assertAlmostEqual(score.kld, kld, delta=1e-12)
            self.assertEqual(score.same_top, p.index(max(p)) == q.index(max(q)))
        # The same logits: no divergence at all, not even of rounding.
        same = _protocol._score(base, base, rows, targets)
        self.assertEqual([(score.kld, score.same_top) for score in same], [(0.0, True)] * 300)
        self.assertEqual([score.nll for score in same], nll)

    def test_logits_that_are_not_finite(self) -> None:
        import torch

        targets = torch.tensor([1])
        good = torch.zeros(1, 3)
        _, rows = _protocol._score_baseline(good, targets)
        for odd in (math.nan, math.inf):
            bad = torch.tensor([[0.0, odd, 0.0]])
            with self.assertRaisesRegex(perplexity.Problem, "logits: expected finite"):
                _protocol._score_baseline(bad, targets)
            with self.assertRaisesRegex(perplexity.Problem, "logits: expected finite"):
                _protocol._score(bad, good, rows, targets)

    def test_distortion_sums(self) -> None:
        import torch

        generator = torch.Generator().manual_seed(6)
        x = torch.randn(1, 2, 5, 8, generator=generator)
        y = x + torch.randn(1, 2, 5, 8, generator=generator) / 10
        x[0, 0, 0] = y[0, 0, 0] = 0.0  # both zero: they agree
        y[0, 1, 1] = 0.0  # one of them: orthogonal
        found = _protocol._distortion(x, y)
        vectors = list(zip(x.reshape(-1, 8).tolist(), y.reshape(-1, 8).tolist()))
        cosines = [
            sum(a * b for a, b in zip(u, v)) / math.hypot(*u) / math.hypot(*v)
            for u, v in vectors
            if any(u) and any(v)
        ]
        self.assertEqual((found.values, found.vectors, len(cosines)), (80, 10, 8))
        self.assertAlmostEqual(found.energy, sum(a * a for u, _ in vectors for a in u), places=10)
        error = sum((a - b) ** 2 for u, v in vectors for a, b in zip(u, v))
        self.assertAlmostEqual(found.error, error, places=10)
        self.assertAlmostEqual(found.cosine, sum(cosines) + 1.0, places=10)


def _log_softmax(logits: List[float]) -> List[float]:
    log_sum = math.log(math.fsum(map(math.exp, logits)))
    return [logit - log_sum for logit in logits]


class CommandLine(FolderTest):
    def assert_refused(self, expected: str, *arguments: str) -> None:
        status, out, err = run(*arguments)
        self.assertEqual((status, out), (2, ""), err)
        lines = err.splitlines()
        self.assertEqual(len(lines), 2, err)
        self.assertTrue(lines[0].startswith("error: ") and lines[1].startswith("hint: "), err)
        self.assertIn(expected, lines[0])

    def test_what_is_wrong_before_anything_is_loaded(self) -> None:
        text = self.folder / "text"
        text.write_bytes(b"plain")
        asked = ["--model", "any/model", "--text", str(text)]
        self.assert_refused("--model", "--text", "x")
        self.assert_refused("--context: expected at least 4, found 3", *asked, "--context", "3")
        self.assert_refused("--windows: expected at least 1", *asked, "--windows", "0")
        self.assert_refused("whole number, found 'many'", *asked, "--windows", "many")
        for flag, value, expected in (
            ("--max-ppl-increase", "nan", "a percentage, 0 or more"),
            ("--max-ppl-change", "-1", "a percentage, 0 or more"),
            ("--max-kld", "-0.1", "nats a token, 0 or more"),
            ("--max-kld", "inf", "nats a token, 0 or more"),
            ("--min-top1", "95", "a share from 0 to 1"),
        ):
            self.assert_refused(expected, *asked, f"{flag}={value}")
        self.assert_refused("--cache-dtype", *asked, "--cache-dtype", "int4")
        self.assert_refused("absent", "--model", "any/model", "--text", str(self.folder / "absent"))
        self.assert_refused("found a folder", *asked, "--output", str(self.folder))
        self.assert_refused("no folder", *asked, "--output", str(self.folder / "absent" / "file"))
        # Somebody else's file stays.
        notes = self.folder / "notes.md"
        notes.write_text("# Mine\n")
        self.assert_refused("found another file", *asked, "--output", str(notes))
        self.assertEqual(notes.read_text(), "# Mine\n")
        notes.unlink()
        self.assert_refused("expected a folder or a .gguf file", "--model", "./absent", *asked[2:])
        text.write_bytes(b"caf\xe9")
        self.assert_refused("found the byte 0xe9 at offset 3", *asked)
        text.write_bytes(b"")
        self.assert_refused("found an empty file", *asked)
        self.assert_only("text")

    def test_codec_names_are_checked_first(self) -> None:
        need_kv_compress()
        text = self.folder / "text"
        text.write_text("plain")
        asked = ["--model", "any/model", "--text", str(text)]
        self.assert_refused("int4_g64", *asked, "--codec", "int4-g64", "--codec", "int4_g64")
        self.assert_refused("stores nothing", *asked, "--codec", "noise-int4-g64")
        for codec in ("int4-g64", "kvgauge4", "k:int4-g64-prerope/v:f16"):
            found = _codecs.ask(codec)
            self.assertEqual((found.name, found.needs_rotation), (codec, codec != "int4-g64"))
        for codec, rotated in (("int4-g64+q8_0@0-1,-1", False), ("q8_0+kvgauge4@40--2", True)):
            found = _codecs.ask(codec)
            self.assertEqual((found.name, found.needs_rotation), (codec, rotated))
        with self.assertRaisesRegex(CompressionError, "layer 3: expected one of 3 layers"):
            _codecs.ask("int4-g64+q8_0@3", layers=3)

    @unittest.skipIf(os.name == "nt", "scripts are no programs there")
    def test_the_other_binary_is_checked_before_anything_is_loaded(self) -> None:
        need_kv_compress()
        text, old = self.folder / "text", self.folder / "old"
        text.write_text("plain")
        asked = ["--model", "any/model", "--text", str(text)]
        self.environment(KVGAUGE_BINARY=str(old))
        self.assert_absent(3, "KVGAUGE_BINARY: expected the path of an executable file", *asked)
        old.write_text("#!/bin/sh\necho \"error: unrecognized subcommand 'figures'\" >&2; exit 2\n")
        old.chmod(0o755)
        self.assert_refused("expected a kvgauge that knows the command `figures`", *asked)

    def assert_absent(self, status: int, expected: str, *arguments: str) -> None:
        found, out, err = run(*arguments)
        self.assertEqual((found, out, err.count("\n")), (status, "", 2), err)
        self.assertIn(expected, err)
        self.assertIn("\nhint: point KVGAUGE_BINARY at kvgauge", err)

    def test_consoles_that_lack_characters(self) -> None:
        raw = io.BytesIO()
        with mock.patch.object(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii")):
            _command_line.print_result("±1 % × …\n")
            self.assertEqual(raw.getvalue(), b"?1 % ? ?\n")

    def test_values_that_the_binary_has_no_word_for(self) -> None:
        for device, expected in (
            ("cpu", "cpu"),
            ("cuda", "cuda"),
            ("cuda:1", "cuda"),
            ("mps", "metal"),
            ("mps:0", "metal"),
        ):
            subject = {"device": device, "model": {"max_position_embeddings": None, "layers": 2}}
            found = perplexity._for_binary(subject)
            self.assertEqual(found["device"], expected)
            self.assertEqual(found["model"], {"max_position_embeddings": 0, "layers": 2})
            self.assertEqual(subject["device"], device)

    def test_hints_are_of_this_command(self) -> None:
        general = "python -m kvgauge.perplexity --help lists what can be asked for"
        for hint, expected in (
            (None, general),
            ("for kv-compress say --rope-theta; `kvgauge extract` writes it", general),
            ("--force replaces it; or choose another name", general),
            ("--help, after a command too, lists what can be asked for", general),
            ("use -metrics-only", general),
            ("`kv-compress inspect FILE` lists the names", general),
            ("did you mean int4-g64?", "did you mean int4-g64?"),
            ("choose a group that divides 64", "choose a group that divides 64"),
            ("use fewer --threads", "use fewer --threads"),
        ):
            self.assertEqual(perplexity._own_hint(hint), expected)

    def test_models_without_keys_and_values_are_refused_by_name(self) -> None:
        need_modules("transformers")
        from transformers import AutoConfig

        def check(kind: str, **settings: Any) -> None:
            config = AutoConfig.for_model(kind, **settings)
            _model.check_kind(config, config.get_text_config())

        for kind, expected in (
            ("mamba", "no attention heads"),
            ("mamba2", "no attention heads"),
            ("rwkv", "no attention heads"),
            ("t5", "encoder-decoder"),
            ("jamba", "layers of type"),
            ("falcon_h1", "layers of type"),
            ("qwen3_next", "layers of type"),
            ("lfm2", "layers of type"),
            ("deepseek_v2", "multi-head latent attention"),
            ("deepseek_v3", "multi-head latent attention"),
        ):
            settings = {"full_attn_idxs": [2]} if kind == "lfm2" else {}
            pattern = f"{expected}.*{kind}|{kind}.*{expected}"
            with self.assertRaisesRegex(perplexity.Problem, pattern):
                check(kind, **settings)
        for kind in ("llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_oss", "mixtral"):
            check(kind)

    def test_a_context_names_the_limit_that_it_exceeds(self) -> None:
        config = type("Config", (), {"max_position_embeddings": 512, "sliding_window": 64})
        with self.assertRaisesRegex(perplexity.Problem, "at most 512, the model's longest context"):
            _model.context_for(1024, config)
        self.assertEqual(_model.context_for(None, config), 512)
        for kind, expected in (("dynamic", 2048), ("yarn", 2048), ("linear", 512)):
            config.rope_scaling = {"type": kind, "factor": 4.0}
            self.assertEqual(_model._longest_context(config), expected, kind)
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
        config.rope_scaling = yarn
        self.assertEqual(_model._longest_context(config), 512)


class Agreement(FolderTest):
    """The embedded model, which lies in the repository in Hugging Face layout."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers", "safetensors", "numpy")
        need_kv_compress()
        need_kvgauge()
        if not TEXT.is_file():
            skip(f"no {BUILTIN}: these tests need the repository's checkout")

    def python(self, *arguments: str) -> Dict[str, Any]:
        status, out, err = run("--model", str(BUILTIN), "--text", str(TEXT), *arguments, "--json")
        self.assertEqual((status, err), (0, ""))
        result = json.loads(out, parse_constant=self.fail)
        assert isinstance(result, dict)
        return result

    def rust(self, *arguments: str) -> Dict[str, Any]:
        command = [need_kvgauge(), "validate", "--model", "builtin", "--text", str(TEXT)]
        command += ["--protocol", "prefix"]
        done = subprocess.run(
            [*command, *arguments, "--json"], stdout=subprocess.PIPE, check=True, encoding="utf-8"
        )
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result

    def test_kvgauge_validate_says_the_same(self) -> None:
        codecs = ["int4-g64", "int4-g16", "k:int4-g32/v:f16", "f16", "kvgauge4"]
        codecs += ["k:int4-g64-prerope/v:f16", "q4_0", "int2-g64"]
        limits = ["--max-ppl-change", "0.7", "--max-kld", "0.02", "--min-top1", "0.9"]
        asked = ["--context", "200", "--windows", "9", "--first-window", "3", *limits]
        asked += [part for codec in codecs for part in ("--codec", codec)]
        mine, theirs = self.python(*asked), self.rust(*asked)
        self.assert_same_keys(mine, theirs)
        for key in ("schema", "protocol", "context", "prefix", "first_window", "windows"):
            self.assertEqual(mine[key], theirs[key], key)
        for key in ("scored_tokens", "bos_id", "text"):
            self.assertEqual(mine[key], theirs[key], key)
        for key, value in theirs["model"].items():
            if key != "source":
                self.assertEqual(mine["model"][key], value, key)
        self.assert_near(mine["baseline"], theirs["baseline"], 5e-4)
        self.assertEqual([codec["codec"] for codec in mine["codecs"]], codecs)
        for codec, expected in zip(mine["codecs"], theirs["codecs"]):
            # Searches and large errors turn the last digits of a key into other choices.
            near = 1e-5 if codec["codec"] in codecs[:4] else 2e-4
            with self.subTest(codec["codec"]):
                self.assert_near(codec["nll_per_window"], expected["nll_per_window"], 5e-4)
                self.assertEqual(codec["bits_per_value"], expected["bits_per_value"])
                self.assert_same_judgement(codec, expected)
                for part in ("key", "value"):
                    self.assert_near(codec[part], expected[part], 1e-3)
                self.assert_near(codec["layers"], expected["layers"], 1e-3)
                for part, other in zip(
                    codec["nll_change_by_position"], expected["nll_change_by_position"]
                ):
                    self.assertEqual((part["start"], part["end"]), (other["start"], other["end"]))
                    self.assertAlmostEqual(part["mean"], other["mean"], delta=5 * near)
                # The control's divergence is that of rounding noise, in both programs.
                if codec["codec"] != "f16":
                    for figure in ("kld_mean", "kld_mean_ci95", "kld_p99", "rms_delta_p"):
                        self.assert_near(codec[figure], expected[figure], 0.03)
                    mine_counts, counts = (c["kld_histogram"]["counts"] for c in (codec, expected))
                    moved = sum(abs(a - b) for a, b in zip(mine_counts, counts))
                    self.assertEqual(sum(mine_counts), sum(counts))
                    self.assertLessEqual(moved, 0.03 * sum(counts))
                    self.assert_near(
                        codec["kld_histogram"]["edges"], expected["kld_histogram"]["edges"], 1e-12
                    )
                    ends, other = (c["mean_log_ratio_ci95"] for c in (codec, expected))
                    self.assertTrue(all(abs(a - b) < near for a, b in zip(ends, other)))

    def assert_same_judgement(self, mine: Dict[str, Any], theirs: Dict[str, Any]) -> None:
        for key in ("verdict", "verdicts", "invalid_because", "targets_affected"):
            self.assertEqual(mine.get(key), theirs.get(key), key)
        pairs = [(mine["windows_needed"], theirs["windows_needed"])]
        ranges = (mine["windows_needed_ci80"], theirs["windows_needed_ci80"])
        if None not in ranges:
            pairs += zip(*ranges)
        for one, other in pairs:
            self.assertEqual(one is None, other is None)
            if one is not None:
                self.assertAlmostEqual(one, other, delta=1 + 0.05 * other)

    def test_a_model_that_guesses_is_invalid_in_both(self) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        folder = self.folder / "zero"
        shutil.copytree(BUILTIN, folder)
        weights = load_file(folder / "model.safetensors")
        zero = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        save_file(zero, folder / "model.safetensors", metadata={"format": "pt"})
        asked = ["--text", str(TEXT), "--context", "64", "--windows", "3"]
        status, out, err = run("--model", str(folder), *asked, "--strict")
        self.assertEqual((status, err), (1, ""))
        self.assertEqual(out.count("INVALID: the baseline's perplexity, 2048.0000"), 1, out)

    def assert_same_keys(self, mine: Any, theirs: Any, place: str = "") -> None:
        """Every key of ``kvgauge validate --json`` is there; more may be."""
        if isinstance(theirs, dict) and place != ".model.files_sha256":
            for key, value in theirs.items():
                self.assertIn(key, mine, place)
                self.assert_same_keys(mine[key], value, f"{place}.{key}")
        elif isinstance(theirs, list):
            for item, other in zip(mine, theirs):
                self.assert_same_keys(item, other, place + "[]")

    def assert_near(self, mine: Any, theirs: Any, relative: float) -> None:
        if isinstance(theirs, dict):
            for key, value in theirs.items():
                self.assert_near(mine[key], value, relative)
        elif isinstance(theirs, list):
            self.assertEqual(len(mine), len(theirs))
            for item, other in zip(mine, theirs):
                self.assert_near(item, other, relative)
        elif isinstance(theirs, float):
            self.assertAlmostEqual(mine, theirs, delta=relative * abs(theirs))
        else:
            self.assertEqual(mine, theirs)

    def test_what_kvgauge_extracts_is_the_cache_that_transformers_makes(self) -> None:
        import torch
        from transformers import AutoConfig

        path = self.folder / "cache.safetensors"
        asked = ["--text", str(TEXT), "--context", "64", "--first-window", "2", "--tokens", "40"]
        command = [need_kvgauge(), "extract", "--model", "builtin", *asked, "--dtype", "f32"]
        subprocess.run([*command, "--output", str(path)], stdout=subprocess.PIPE, check=True)
        found = cache_layers(load_kv_cache(path))

        source = _model.Source.parse(str(BUILTIN), None)
        tokenizer = _model.open_tokenizer(source, AutoConfig.from_pretrained(BUILTIN))
        tokens = tokenizer.encode(TEXT.read_text(encoding="utf-8"))[128 : 128 + 40]
        with torch.no_grad():
            output = _model.load_model(source, "sdpa", "cpu")[0](torch.tensor([tokens]))
        expected = cache_layers(output.past_key_values)
        self.assertEqual(len(found), len(expected))
        for mine, theirs in zip(found, expected):
            for tensor, other in zip(mine, theirs):
                self.assertEqual(tensor.shape, other.shape)
                error = (tensor - other).abs().max() / other.abs().max()
                self.assertLess(float(error), 1e-5)

    def test_bos_when_asked_for(self) -> None:
        asked = ["--context", "64", "--windows", "1", "--bos", "always"]
        mine, theirs = self.python(*asked), self.rust(*asked)
        self.assertEqual((mine["bos_id"], theirs["bos_id"]), (0, 0))
        self.assert_near(mine["baseline"], theirs["baseline"], 5e-4)

    def test_files_in_sixteen_bits_and_eager_attention(self) -> None:
        asked = ["--context", "64", "--windows", "2"]
        exact = self.python(*asked)
        for dtype in ("f16", "bf16"):
            short = self.python(*asked, "--cache-dtype", dtype, "--attention", "eager")
            self.assertEqual(short["config"]["cache_dtype"], dtype)
            self.assert_near(short["baseline"], exact["baseline"], 1e-5)
            codec, expected = short["codecs"][0], exact["codecs"][0]
            self.assertEqual(codec["bits_per_value"], expected["bits_per_value"])
            self.assert_near(codec["nll_per_window"], expected["nll_per_window"], 5e-3)
            self.assertAlmostEqual(codec["key"]["snr_db"], expected["key"]["snr_db"], delta=0.2)

    def test_the_table_the_file_and_the_exit_status(self) -> None:
        output = self.folder / "result.json"
        asked = ["--model", str(BUILTIN), "--text", str(TEXT), "--context", "64", "--windows", "2"]
        limits = ["--max-ppl-increase", "50", "--max-kld", "1e-4", "--min-top1", "0.001"]
        status, out, err = run(*asked, "--strict", *limits, "--output", str(output))
        self.assertEqual((status, err), (1, ""))
        self.assertIn("  FAIL, take more bits or another codec: the whole interval of the mean KLD", out)
        self.assertIn("2 of 2321 × 64 tokens, no BOS: 32 compressed, 31 scored in each", out)
        self.assertRegex(
            out, r"\Aengine    transformers .* on cpu, attention sdpa\nfiles     cache "
        )
        self.assertEqual(json.loads(output.read_text())["codecs"][0]["verdict"], "fail")
        self.assert_only("result.json")

    def test_what_the_model_refuses(self) -> None:
        short = self.folder / "short"
        short.write_text("A few words.")
        asked = ["--model", str(BUILTIN), "--text", str(TEXT)]
        for arguments, expected in (
            ([*asked, "--context", "2000"], "expected at most 1024"),
            ([*asked, "--context", "8", "--codec", "int4-g1024"], "at most 512 values"),
            ([*asked, "--first-window", "1000000"], "--first-window"),
            ([*asked[:3], str(short)], "at least 1024 tokens"),
        ):
            status, out, err = run(*arguments)
            self.assertEqual((status, out), (2, ""))
            self.assertIn(expected, err)

    def test_a_note_where_the_text_ends_early(self) -> None:
        short = self.folder / "short"
        short.write_bytes(TEXT.read_bytes()[:600])
        status, _, err = run("--model", str(BUILTIN), "--text", str(short), "--context", "64")
        self.assertEqual(status, 0)
        self.assertRegex(err, r"\Anote: windows: [0-9]+ instead of 20, the text ends there\n\Z")


class Untouched(FolderTest):
    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers", "safetensors")
        need_kv_compress()

    def test_a_lossless_round_trip_changes_nothing(self) -> None:
        """A cache that the codec leaves as it is gives the baseline's very logits, which shows
        that no arm sees what another arm appended to the cache."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(2)
        config = LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        model = LlamaForCausalLM(config).eval()
        for layer in model.model.layers:
            # Keys and values of zero survive every codec.
            torch.nn.init.zeros_(layer.self_attn.k_proj.weight)
            torch.nn.init.zeros_(layer.self_attn.v_proj.weight)
        windows = [torch.randint(40, (12,)).tolist() for _ in range(3)]
        told: List[int] = []
        result = perplexity.evaluate(
            model, windows, ["int4-g8", "f16"], folder=str(self.folder), advanced=told.append
        )
        for codec in result.codecs:
            scores = [score for window in codec.windows for score in window.scores]
            self.assertEqual({score.kld for score in scores}, {0.0})
            nll = [[score.nll for score in window.scores] for window in codec.windows]
            self.assertEqual(nll, result.baseline)
            self.assertEqual({window.layers[1][0].error for window in codec.windows}, {0.0})
        self.assertEqual(sum(told), 3 * (6 + 3 * 5))
        self.assertEqual(result.cache_shape, (1, 16))
        self.assert_only()

    def test_a_model_that_fails_on_a_plain_cache(self) -> None:
        import torch

        class Odd(torch.nn.Module):
            device = torch.device("cpu")

            def forward(self, input_ids: Any, past_key_values: Any, use_cache: bool) -> Any:
                raise AttributeError("'DynamicCache' object has no attribute 'conv_states'")

        with self.assertRaisesRegex(perplexity.Problem, "Odd: .* plain cache .*conv_states"):
            perplexity.evaluate(Odd(), [[1, 2, 3, 4]], ["int4-g64"])


if __name__ == "__main__":
    unittest.main()
