"""The evaluation: its statistics, its command line, and agreement with ``kvgauge validate``."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import subprocess
import unittest
from typing import Any, Dict, List, Optional, Sequence, Tuple

from support import BUILTIN, FolderTest, need_kv_compress, need_kvgauge, need_modules, skip

from kvgauge import (
    _codecs,
    _model,
    _report,
    _rotation,
    _statistics,
    _verdict,
    load_kv_cache,
    perplexity,
)
from kvgauge._statistics import Estimate
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


class Statistics(unittest.TestCase):
    def test_t_quantiles_equal_the_published_table(self) -> None:
        for df, expected in (
            (1, 12.706204736),
            (2, 4.302652730),
            (4, 2.776445105),
            (9, 2.262157163),
            (19, 2.093024054),
            (30, 2.042272456),
            (1000, 1.962339080),
            (10_000_000, 1.959964222),
        ):
            found = _statistics.t_quantile(0.975, df)
            self.assertAlmostEqual(found, expected, delta=2e-8, msg=str(df))

    def test_the_interval_of_known_values(self) -> None:
        low, high = Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0]).ci95() or (0.0, 0.0)
        # 3 ± 2.776445 · √2.5 / √5
        self.assertAlmostEqual(low, 1.0367573, places=6)
        self.assertAlmostEqual(high, 4.9632427, places=6)
        self.assertIsNone(Estimate.of([1.0]).ci95())
        self.assertEqual(_statistics.share_ci95(Estimate.of([1.0, 0.9, 1.0]))[1], 1.0)  # type: ignore[index]

    def test_an_interval_of_positive_figures(self) -> None:
        low, high = _statistics.positive_ci95([1e-6, 1.0, 2.0]) or (0.0, 0.0)
        self.assertTrue(0.0 < low < 1.0 < high)
        self.assertEqual(_statistics.positive_ci95([0.0, 0.0]), (0.0, 0.0))
        # mean 1, standard error 1/√3, t(2) = 4.3027: exp(±2.4841)
        low, high = _statistics.positive_ci95([0.0, 1.0, 2.0]) or (0.0, 0.0)
        self.assertAlmostEqual(low, 0.08340, delta=1e-5)
        self.assertAlmostEqual(high, 11.9906, delta=1e-3)
        for values in ([0.0, 0.0, 1e-9], [0.0, 3.0, 3.0], [1e-300, 0.0, 1.0]):
            low, high = _statistics.positive_ci95(values) or (0.0, 0.0)
            self.assertTrue(0.0 < low < sum(values) / 3 < high)
        self.assertIsNone(_statistics.positive_ci95([1e-300, 1.0]))
        self.assertIsNone(_statistics.positive_ci95([0.5]))
        # logs 0, 1, 2: s² = 1, Cox √(1/3 + 1/4); mean e^0+e^1+e^2 over 3, error/mean 0.516
        values = [1.0, math.e, math.e**2]
        low, high = _statistics.positive_ci95(values) or (0.0, 0.0)
        factor = math.exp(4.302652730 * math.sqrt(1 / 3 + 1 / 4))
        self.assertAlmostEqual(high, sum(values) / 3 * factor, delta=1e-6 * high)
        self.assertAlmostEqual(low, sum(values) / 3 / factor, delta=1e-6)

    CHANGE = (0.010, 0.012, 0.014, 0.011, 0.013)

    def change(self, values: Sequence[float], percent: float) -> _verdict.Criterion:
        return _verdict.Criterion.perplexity_change(Estimate.of(values), percent)

    def test_the_limit_has_two_sides(self) -> None:
        # +1.2 % ± 0.2
        falls = [-change for change in self.CHANGE]
        for values in (self.CHANGE, falls):
            for limit, expected in ((2.0, "pass"), (0.5, "fail"), (1.25, "inconclusive")):
                self.assertEqual(self.change(values, limit).verdict(), expected)
        # Both ends are inside the interval; one window has none.
        self.assertEqual(self.change([-0.03, 0.03, 0.0], 0.5).verdict(), "inconclusive")
        self.assertEqual(self.change([0.1], 1.0).verdict(), "inconclusive")
        # No perplexity falls by 150 %.
        self.assertEqual(self.change([-5.0, -5.1, -5.2], 150.0).verdict(), "pass")

    def test_an_interval_that_ends_at_the_limit_passes(self) -> None:
        self.assertEqual(self.change([0.0, 0.0, 0.0], 0.0).verdict(), "pass")
        self.assertEqual(_verdict.Criterion.kld([0.0, 0.0], 0.0).verdict(), "pass")
        exact = _verdict.Criterion.top1(Estimate.of([1.0, 1.0]), 1.0)
        self.assertEqual(exact.verdict(), "pass")

    def test_the_worst_verdict_counts(self) -> None:
        def judged(limits: _verdict.Limits, because: Optional[str] = None) -> Dict[str, Any]:
            top1 = Estimate.of([0.95, 0.94, 0.96])
            change = Estimate.of(self.CHANGE)
            return _verdict.judge(change, [0.010, 0.011, 0.012], top1, limits, because)

        for kld, top1, expected in (
            (None, None, "pass"),
            (0.02, 0.9, "pass"),
            (0.011, 0.9, "inconclusive"),
            (0.011, 0.99, "fail"),
            (0.005, None, "fail"),
        ):
            found = judged(_verdict.Limits(2.0, kld, top1))
            self.assertEqual(found["verdict"], expected)
            self.assertEqual(found["verdicts"]["perplexity_change"], "pass")
            self.assertEqual(len(found["verdicts"]), 1 + (kld is not None) + (top1 is not None))
            self.assertNotIn("invalid_because", found)
        found = judged(_verdict.Limits(2.0), "no text")
        self.assertEqual((found["verdict"], found["invalid_because"]), ("invalid", "no text"))

    def test_few_windows_do_not_tell_how_many_it_takes(self) -> None:
        self.assertIsNone(self.change(self.CHANGE, 1.25).windows_needed())
        twice = [*self.CHANGE, *self.CHANGE]
        spread = (Estimate.of(twice).standard_error or 0.0) * math.sqrt(10)
        percent = 100 * math.expm1(0.012 + 0.3157 * spread)
        needed, (low, high) = self.change(twice, percent).windows_needed() or (0, (0, 0))
        # t(40)/√41 = 0.31565, t(39)/√40 = 0.31982
        self.assertEqual((needed, high), (41, None))
        self.assertTrue(10 < low < 20)
        self.assertIsNone(self.change(twice, 100 * math.expm1(0.012)).windows_needed())

    def test_a_baseline_that_guesses_means_nothing(self) -> None:
        self.assertIsNone(_verdict.meaningless(1999.0, 2000))
        for perplexity_of in (2000.0, 1999.9999, 1e300, math.inf, math.nan):
            found = _verdict.meaningless(perplexity_of, 2000) or ""
            self.assertIn("not below the vocabulary's size, 2000", found)

    def test_quantiles_interpolate_as_numpy_does(self) -> None:
        values = [1.0, 2.0, 4.0, 8.0]
        for p, expected in ((0.5, 3.0), (0.9, 6.8), (1.0, 8.0), (0.0, 1.0)):
            self.assertAlmostEqual(_statistics.quantile(values, p), expected)
        self.assertEqual(_statistics.quantile([5.0], 0.99), 5.0)


class Report(unittest.TestCase):
    def outcome(self, windows: List[List[float]], worse: float) -> _report.CodecOutcome:
        outcome = _report.CodecOutcome("int4-g64", stored_bytes=34, values=64, cached_tokens=2)
        score = _report.TokenScore
        outcome.scores = [[score(nll + worse, 0.25, True, -0.5) for nll in w] for w in windows]
        parts = (
            _report.DistortionSum(8.0, 2.0, 1.5, 8, 2),
            _report.DistortionSum(8.0, 0.0, 2.0, 8, 2),
        )
        outcome.layers = [parts, parts]
        return outcome

    def test_figures_worked_out_by_hand(self) -> None:
        baseline = [[1.0, 2.0], [3.0, 4.0]]
        result = _report.codec_result(self.outcome(baseline, 0.5), baseline, 3, _verdict.Limits(100.0), 50)
        self.assertEqual((result["bits_per_value"], result["compression_ratio"]), (4.25, 16 / 4.25))
        self.assertEqual(result["cache_bytes_per_token_f16"], 64.0)
        self.assertEqual(result["cache_bytes_per_token"], 17.0)
        self.assertAlmostEqual(result["perplexity"], math.exp(3.0))
        self.assertAlmostEqual(result["perplexity_change"], math.exp(3.0) - math.exp(2.5))
        self.assertAlmostEqual(result["perplexity_change_percent"], 100 * math.expm1(0.5))
        self.assertEqual(result["nll_per_window"], [4.0, 8.0])
        self.assertEqual(result["kld_per_window"], [0.25, 0.25])
        places = [(part["start"], part["end"]) for part in result["nll_change_by_position"]]
        self.assertEqual(places, [(4, 5), (5, 6)])
        self.assertEqual(result["nll_change_by_position"][0]["mean"], 0.5)
        histogram = result["kld_histogram"]
        (full,) = (index for index, count in enumerate(histogram["counts"]) if count)
        self.assertEqual(histogram["counts"][full], 4)
        self.assertTrue(histogram["edges"][full] <= 0.25 < histogram["edges"][full + 1])
        self.assertEqual((result["top1_agreement"], result["rms_delta_p"]), (1.0, 0.5))
        self.assertEqual(result["key"]["rmse"], 0.5)
        self.assertAlmostEqual(result["key"]["snr_db"], 10 * math.log10(4.0))
        self.assertEqual(result["layers"][1]["key"]["cosine"], 0.75)
        self.assertEqual(result["value"], {"rmse": 0.0, "snr_db": None, "cosine": 1.0})
        self.assertEqual(result["verdict"], "pass")
        strict = _report.codec_result(self.outcome(baseline, 0.5), baseline, 3, _verdict.Limits(), 50)
        self.assertEqual(strict["verdict"], "fail")

    def test_one_window_has_no_interval(self) -> None:
        result = _report.codec_result(self.outcome([[1.0]], 0.0), [[1.0]], 3, _verdict.Limits(), 50)
        for key in ("perplexity_change_percent", "mean_log_ratio", "kld_mean", "top1_agreement"):
            self.assertIsNone(result[f"{key}_ci95"])
        self.assertEqual(result["verdict"], "inconclusive")

    def test_json_has_no_nan_and_no_infinity(self) -> None:
        nan, inf = math.nan, math.inf
        self.assertEqual(
            _report.finite({"a": [1.0, nan], "b": (inf, 2)}), {"a": [1.0, None], "b": [None, 2]}
        )
        outcome, limits = self.outcome([[900.0]], 0.0), _verdict.Limits()
        result = _report.codec_result(outcome, [[900.0]], 3, limits, 50)
        self.assertIsNone(_report.finite(result)["perplexity"])

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
        # What somebody else wrote stays.
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
        ):
            settings = {"full_attn_idxs": [2]} if kind == "lfm2" else {}
            pattern = f"{expected}.*{kind}|{kind}.*{expected}"
            with self.assertRaisesRegex(perplexity.Problem, pattern):
                check(kind, **settings)
        for kind in ("llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_oss", "mixtral"):
            check(kind)

    def test_a_context_names_the_limit_that_it_exceeds(self) -> None:
        config = type("Config", (), {"max_position_embeddings": 512, "sliding_window": 64})
        with self.assertRaisesRegex(perplexity.Problem, "at most 64, the model's sliding window"):
            _model.context_for(128, config)
        config.sliding_window = None
        with self.assertRaisesRegex(perplexity.Problem, "at most 512, the model's longest context"):
            _model.context_for(1024, config)
        self.assertEqual(_model.context_for(None, config), 512)


class Agreement(FolderTest):
    """The embedded model, which lies in the repository in Hugging Face layout."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers", "safetensors", "numpy")
        need_kv_compress()
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

    def test_the_verdict_of_the_same_figures_is_the_same(self) -> None:
        """Python's rule on the figures that ``kvgauge validate`` found, to the last window."""
        for flags, limits in (
            ([], _verdict.Limits()),
            (["--max-ppl-change", "0.2"], _verdict.Limits(0.2)),
            (["--max-ppl-change", "5", "--max-kld", "0.005"], _verdict.Limits(5.0, 0.005)),
            (["--max-ppl-increase", "3", "--min-top1", "0.93"], _verdict.Limits(3.0, None, 0.93)),
        ):
            for windows in ("1", "2", "8", "12"):
                asked = ["--context", "64", "--windows", windows, *flags]
                for codec in ("int4-g64", "int3-g64", "f16", "int2-g64", "int4-g16"):
                    asked += ["--codec", codec]
                theirs = self.rust(*asked)
                base = theirs["baseline"]["nll_per_window"]
                tokens = theirs["scored_tokens"] // theirs["windows"]
                for codec in theirs["codecs"]:
                    nll = zip(codec["nll_per_window"], base)
                    change = Estimate.of([(a - b) / tokens for a, b in nll])
                    ends = codec["top1_agreement_ci95"]
                    share = Estimate.from_interval(
                        codec["top1_agreement"], ends and tuple(ends), theirs["windows"]
                    )
                    klds = codec["kld_per_window"]
                    mine = _verdict.judge(change, klds, share, limits)
                    expected = {key: codec.get(key) for key in mine}
                    self.assertEqual(mine, expected, (codec["codec"], flags, windows))
                    interval = _statistics.positive_ci95(klds)
                    self.assertEqual(interval is None, codec["kld_mean_ci95"] is None)
                    if interval is not None:
                        self.assert_near(list(interval), codec["kld_mean_ci95"], 1e-9)

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
        self.assertTrue(out.isascii())

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
            output = _model.load_model(source, "sdpa", "cpu")(torch.tensor([tokens]))
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
        limits = ["--max-ppl-increase", "50", "--max-kld", "1e-9", "--min-top1", "0.001"]
        status, out, err = run(*asked, "--strict", *limits, "--output", str(output))
        self.assertEqual((status, err), (1, ""))
        self.assertIn("int4-g64: FAIL: the whole interval of the mean KLD is above 1e-09", out)
        self.assertIn("2 of 2321 x 64 tokens, no BOS: 32 compressed, 31 scored in each", out)
        self.assertTrue(out.isascii())
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


class Rotation(unittest.TestCase):
    """What tiny models of transformers rotate their keys by, and who is refused."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers")

    def frequencies(self, kind: str, **settings: Any) -> List[float]:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(5)
        common = {
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
        }
        config = AutoConfig.for_model(kind, **{**common, **settings})
        model = AutoModelForCausalLM.from_config(config).float().eval()
        return _rotation.rotation_frequencies(model, 7, 100, "kvgauge4")

    def test_plain_tables(self) -> None:
        expected = [10000.0 ** (-i / 8) for i in range(8)]
        for kind, settings in (
            ("llama", {}),
            ("qwen2", {}),
            ("olmo2", {}),
            ("gpt_neox", {"rotary_pct": 1.0}),
        ):
            found = self.frequencies(kind, **settings)
            for mine, theirs in zip(found, expected):
                self.assertAlmostEqual(mine, theirs, delta=1e-6 * theirs, msg=kind)
            self.assertEqual(len(found), 8)
        qwen3 = self.frequencies("qwen3", head_dim=32)
        self.assertEqual((len(qwen3), qwen3[0]), (16, 1.0))

    def test_scaled_tables_with_and_without_a_factor_on_attention(self) -> None:
        plain = self.frequencies("llama")
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
            found = self.frequencies("llama", rope_scaling={**scaling, "rope_theta": 10000.0})
            self.assertEqual(len(found), 8)
            self.assertNotEqual(found, plain)
            self.assertAlmostEqual(found[-1], plain[-1] / scaling["factor"], delta=1e-6)

    def test_models_that_a_file_has_no_table_for(self) -> None:
        local = {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
        mixed = {"head_dim": 16, "sliding_window": 32, "rope_parameters": local}
        mixed["layer_types"] = ["sliding_attention", "full_attention"] * 2
        for kind, settings, expected in (
            ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 2}, "found no rotary table"),
            ("gpt_neox", {"rotary_pct": 0.25}, "all 16 channels of a head, found one for 4"),
            ("cohere", {}, "a pair, found others in layer 0"),
            ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}, "found others in layer 2"),
            ("gemma3_text", mixed, "one rotary table for all layers, found 2"),
        ):
            with self.subTest(kind), self.assertRaisesRegex(perplexity.Problem, expected):
                self.frequencies(kind, **settings)

    def test_a_model_that_fails_on_a_plain_cache(self) -> None:
        import torch

        class Odd(torch.nn.Module):
            device = torch.device("cpu")

            def forward(self, input_ids: Any, past_key_values: Any, use_cache: bool) -> Any:
                raise AttributeError("'DynamicCache' object has no attribute 'conv_states'")

        need_kv_compress()
        with self.assertRaisesRegex(perplexity.Problem, "Odd: .* plain cache .*conv_states"):
            perplexity.evaluate(Odd(), [[1, 2, 3, 4]], ["int4-g64"])


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
        for outcome in result.codecs:
            scores = [score for window in outcome.scores for score in window]
            self.assertEqual({score.kld for score in scores}, {0.0})
            nll = [[score.nll for score in window] for window in outcome.scores]
            self.assertEqual(nll, result.baseline)
            self.assertEqual(outcome.layers[1][0].error, 0.0)
        self.assertEqual(sum(told), 3 * (6 + 3 * 5))
        self.assertEqual(result.cache_shape, (1, 16))
        self.assert_only()


if __name__ == "__main__":
    unittest.main()
