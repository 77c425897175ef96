"""``kvgauge figures`` against statistics worked out here, and what is made of its answers."""

from __future__ import annotations

import json
import math
import os
import random
import re
import statistics
import subprocess
import unittest
from typing import Any, Dict, List, Sequence

import reference_statistics as reference
from support import CHECKOUT, FolderTest, need_kvgauge, skip

from kvgauge import BinaryNotFound, CompressionError, _figures, perplexity
from kvgauge._figures import Limits
from kvgauge._measurement import (
    CodecMeasurement,
    CodecWindow,
    DistortionSum,
    StoredSize,
    TokenScore,
    measurement,
)


def subject(windows: int, targets: int, vocab_size: int = 50_000, **more: Any) -> Dict[str, Any]:
    """Of a model of two layers."""
    return {
        "protocol": "prefix",
        "model": {
            "source": "somebody/model",
            "revision": None,
            "files_sha256": {},
            "architecture": "LlamaForCausalLM",
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 8,
            "vocab_size": vocab_size,
            "max_position_embeddings": 4096,
        },
        "text": {
            "source": "text.txt",
            "sha256": "00",
            "bytes": 4000,
            "tokens": 3000,
            "windows_available": 500,
            "parse_special": True,
        },
        "context": 2 * targets + 2,
        "prefix": targets + 1,
        "first_window": 0,
        "windows": windows,
        "scored_tokens": windows * targets,
        "bos_id": None,
        "dtype": "f32",
        "device": "cpu",
        "instruction_set": "x86-64 avx2",
        "seed": 0,
        **more,
    }


def work_out(measured: Dict[str, Any], **limits: float) -> _figures.Figures:
    return _figures.work_out(measured, Limits(**limits))


class Witness(unittest.TestCase):
    """The statistics of this folder against published numbers."""

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
            found = reference.t_quantile(0.975, df)
            self.assertAlmostEqual(found, expected, delta=2e-8, msg=str(df))
        # Sum and expansion meet.
        for p in (0.9, 0.975):
            summed, expanded = (
                f(p, 300) for f in (reference.t_quantile, reference.expanded_t_quantile)
            )
            self.assertAlmostEqual(summed, expanded, delta=1e-9)

    def test_intervals_of_known_values(self) -> None:
        low, high = reference.mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) or (0.0, 0.0)
        # 3 ± 2.776445 · √2.5 / √5
        self.assertAlmostEqual(low, 1.0367573, places=6)
        self.assertAlmostEqual(high, 4.9632427, places=6)
        # mean 1, standard error 1/√3, t(2) = 4.3027: exp(±2.4841)
        low, high = reference.kld_interval([0.0, 1.0, 2.0]) or (0.0, 0.0)
        self.assertAlmostEqual(low, 0.08340, delta=1e-5)
        self.assertAlmostEqual(high, 11.9906, delta=1e-3)
        # logs 0, 1, 2: s² = 1, Cox √(1/3 + 1/4); mean e^0+e^1+e^2 over 3, error/mean 0.516
        values = [1.0, math.e, math.e**2]
        low, high = reference.kld_interval(values) or (0.0, 0.0)
        factor = math.exp(4.302652730 * math.sqrt(1 / 3 + 1 / 4))
        self.assertAlmostEqual(high, sum(values) / 3 * factor, delta=1e-6 * high)
        self.assertAlmostEqual(low, sum(values) / 3 / factor, delta=1e-6)

    def test_windows_needed_of_known_values(self) -> None:
        # t(40)/√41 = 0.31565, t(39)/√40 = 0.31982
        needed, (low, high) = reference.windows_needed(0.3157, 1 / math.sqrt(10), 10) or (0, [0, 0])
        self.assertEqual((needed, high), (41, None))
        self.assertTrue(10 < (low or 0) < 20)
        self.assertIsNone(reference.windows_needed(0.3157, 1.0, 7))
        self.assertIsNone(reference.windows_needed(0.0, 1.0, 10))


class Random:
    """A measurement of several codecs, drawn at random."""

    #: Mean change of the NLL, its spread over windows, mean KLD, share of windows without any.
    CODECS = (
        (0.002, 0.004, 0.01, 0.0),
        (0.012, 0.010, 0.02, 0.0),
        (-0.030, 0.008, 0.10, 0.0),
        (0.000, 0.002, 0.005, 0.3),
        (0.200, 0.200, 0.50, 0.0),
    )

    def __init__(self, seed: int, windows: int, targets: int) -> None:
        draw = random.Random(seed)
        self.windows, self.targets = windows, targets
        each = range(windows)
        self.baseline = [[draw.expovariate(1 / 3) for _ in range(targets)] for _ in each]
        self.codecs = [
            CodecMeasurement(
                f"int4-g{index}", [self._window(draw, base, *codec) for base in self.baseline]
            )
            for index, codec in enumerate(self.CODECS)
        ]
        self.json = measurement(subject(windows, targets), self.baseline, self.codecs)

    def _window(
        self,
        draw: random.Random,
        base: Sequence[float],
        change: float,
        spread: float,
        kld: float,
        zero: float,
    ) -> CodecWindow:
        own, size = draw.gauss(change, spread), kld * math.exp(draw.gauss(0, 0.7))
        size *= draw.random() >= zero
        scores = [
            TokenScore(
                max(nll + own + draw.gauss(0, 0.02), 0.0),
                size * math.exp(draw.gauss(0, 1.5)),
                draw.random() < 0.93,
            )
            for nll in base
        ]

        def tensor() -> DistortionSum:
            energy = draw.uniform(50, 90)
            return DistortionSum(energy, draw.uniform(0, 1), draw.uniform(15, 16), 128, 16)

        layers = [(tensor(), tensor()) for _ in range(2)]
        sizes = [
            (StoredSize(draw.randrange(50, 75), 128, 0), StoredSize(draw.randrange(50, 75), 128, 8))
            for _ in range(2)
        ]
        return CodecWindow(scores, layers, sizes, 8, len(scores))


class Figures(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        need_kvgauge()

    def near(self, found: Any, expected: Any, what: str, relative: float = 1e-9) -> None:
        if isinstance(expected, (list, tuple)):
            self.assertEqual(len(found), len(expected), what)
            for one, other in zip(found, expected):
                self.near(one, other, what, relative)
        elif isinstance(expected, float):
            self.assertAlmostEqual(
                found, expected, delta=relative * abs(expected) + 1e-12, msg=what
            )
        else:
            self.assertEqual(found, expected, what)

    def test_figures_of_random_measurements(self) -> None:
        for seed, (windows, targets) in enumerate(
            [(1, 7), (2, 31), (3, 16), (5, 5), (8, 40), (9, 17), (13, 3), (20, 33), (60, 20)]
        ):
            drawn = Random(seed, windows, targets)
            result = work_out(drawn.json).result
            base = [sum(window) for window in drawn.baseline]
            perplexity_of_base = math.exp(sum(base) / windows / targets)
            self.near(result["baseline"]["perplexity"], perplexity_of_base, "baseline")
            self.near(result["baseline"]["nll_per_window"], base, "baseline")
            self.assertEqual(len(result["codecs"]), len(drawn.codecs))
            for codec, found in zip(drawn.codecs, result["codecs"]):
                with self.subTest(codec=codec.codec, windows=windows):
                    self.check_figures(drawn, codec, found)

    def check_figures(self, drawn: Random, codec: CodecMeasurement, found: Dict[str, Any]) -> None:
        each, targets = codec.windows, drawn.targets
        nll = [[score.nll for score in window.scores] for window in each]
        sums = [sum(window) for window in nll]
        ratios = [(a - sum(b)) / targets for a, b in zip(sums, drawn.baseline)]
        klds = [statistics.fmean(score.kld for score in window.scores) for window in each]
        shares = [statistics.fmean(score.same_top for score in window.scores) for window in each]
        every_kld = [score.kld for window in each for score in window.scores]
        thousandths = statistics.quantiles(every_kld, n=1000, method="inclusive")
        perplexity = math.exp(sum(sums) / len(sums) / targets)
        base_perplexity = math.exp(sum(map(sum, drawn.baseline)) / len(sums) / targets)
        sizes = [size for window in each for layer in window.sizes for size in layer]
        stored, values = (sum(size.bytes for size in sizes), sum(size.values for size in sizes))
        tokens = sum(window.cached_tokens for window in each)
        change = reference.mean_interval(ratios)
        share = reference.mean_interval(shares)
        squares = [
            (math.exp(-score.nll) - math.exp(-base)) ** 2
            for window, bases in zip(each, drawn.baseline)
            for score, base in zip(window.scores, bases)
        ]
        for key, expected in (
            ("codec", codec.codec),
            ("targets_affected", 1.0),
            ("bits_per_value", 8 * stored / values),
            ("compression_ratio", 2 * values / stored),
            ("cache_bytes_per_token_f16", 2 * values / tokens),
            ("cache_bytes_per_token", stored / tokens),
            ("perplexity", perplexity),
            ("perplexity_change_percent", 100 * math.expm1(statistics.fmean(ratios))),
            (
                "perplexity_change_percent_ci95",
                change and [100 * math.expm1(end) for end in change],
            ),
            ("mean_log_ratio", statistics.fmean(ratios)),
            ("mean_log_ratio_ci95", change),
            ("kld_mean", statistics.fmean(klds)),
            ("kld_mean_ci95", reference.kld_interval(klds)),
            ("kld_p50", thousandths[499]),
            ("kld_p90", thousandths[899]),
            ("kld_p99", thousandths[989]),
            ("kld_p999", thousandths[998]),
            ("kld_max", max(every_kld)),
            ("top1_agreement", statistics.fmean(shares)),
            ("top1_agreement_ci95", share and [max(share[0], 0.0), min(share[1], 1.0)]),
            ("rms_delta_p", math.sqrt(statistics.fmean(squares))),
            ("nll_per_window", sums),
            ("kld_per_window", klds),
        ):
            self.near(found[key], expected, key)
        # A difference of two near ones.
        difference = perplexity - base_perplexity
        self.assertAlmostEqual(found["perplexity_change"], difference, delta=1e-9 * perplexity)
        self.check_positions(drawn, nll, found["nll_change_by_position"])
        edges, counts = found["kld_histogram"]["edges"], found["kld_histogram"]["counts"]
        for low, high, count in zip(edges, [*edges[1:], math.inf], counts):
            self.assertEqual(count, sum(low <= kld < high for kld in every_kld))
        for layer in range(2):
            for part, name in enumerate(("key", "value")):
                tensors = [window.layers[layer][part] for window in each]
                self.check_distortion(tensors, found["layers"][layer][name])
        for part, name in enumerate(("key", "value")):
            self.check_distortion([w.layers[i][part] for w in each for i in (0, 1)], found[name])

    def check_positions(
        self, drawn: Random, nll: List[List[float]], found: List[Dict[str, Any]]
    ) -> None:
        targets = drawn.targets
        self.assertEqual(len(found), min(16, targets))
        first = targets + 2
        self.assertEqual((found[0]["start"], found[-1]["end"]), (first, first + targets))
        for part in found:
            start, end = part["start"] - first, part["end"] - first
            changes = [
                statistics.fmean(a - b for a, b in zip(mine[start:end], base[start:end]))
                for mine, base in zip(nll, drawn.baseline)
            ]
            self.near(part["mean"], statistics.fmean(changes), "position", 1e-7)
            self.near(part["ci95"], reference.mean_interval(changes), "position", 1e-7)

    def check_distortion(self, tensors: List[DistortionSum], found: Dict[str, Any]) -> None:
        energy, error = (sum(getattr(t, name) for t in tensors) for name in ("energy", "error"))
        values, vectors = sum(t.values for t in tensors), sum(t.vectors for t in tensors)
        self.near(found["rmse"], math.sqrt(error / values), "rmse")
        self.near(found["snr_db"], 10 * math.log10(energy / error), "snr_db")
        self.near(found["cosine"], sum(t.cosine for t in tensors) / vectors, "cosine")

    def test_verdicts_of_random_measurements(self) -> None:
        seen: Dict[str, int] = {}
        planned = 0
        for seed, windows in enumerate((1, 2, 4, 7, 8, 9, 12, 20, 20, 40, 150)):
            drawn = Random(100 + seed, windows, 24)
            for limits in (
                {"max_ppl_change": 1.0},
                {"max_ppl_change": 0.3},
                {"max_ppl_change": 3.0, "max_kld": 0.02},
                {"max_ppl_change": 150.0, "min_top1": 0.93},
                {"max_ppl_change": 2.0, "max_kld": 0.1, "min_top1": 0.9},
            ):
                figures = work_out(drawn.json, **limits)
                for codec, found in zip(drawn.codecs, figures.result["codecs"]):
                    expected = self.expected_judgement(drawn, codec, limits)
                    with self.subTest(codec=codec.codec, windows=windows, limits=limits):
                        self.assertEqual({key: found.get(key) for key in expected}, expected)
                        self.assertNotIn("invalid_because", found)
                    seen[found["verdict"]] = seen.get(found["verdict"], 0) + 1
                    planned += found["windows_needed"] is not None
                missed = any(codec["verdict"] != "pass" for codec in figures.result["codecs"])
                self.assertEqual(figures.limit_missed, missed)
        # Enough of each kind for that to mean something.
        self.assertTrue(min(seen[kind] for kind in reference.VERDICTS) >= 20, seen)
        self.assertGreaterEqual(planned, 20)

    def expected_judgement(
        self, drawn: Random, codec: CodecMeasurement, limits: Dict[str, float]
    ) -> Dict[str, object]:
        each = codec.windows
        return reference.judgement(
            [
                (sum(score.nll for score in window.scores) - sum(base)) / drawn.targets
                for window, base in zip(each, drawn.baseline)
            ],
            [statistics.fmean(score.kld for score in window.scores) for window in each],
            [statistics.fmean(score.same_top for score in window.scores) for window in each],
            limits,
        )

    def hand_made(self, nll: List[List[float]], worse: float) -> Dict[str, Any]:
        """Plain arrays in the place of base64, and keys that no version has yet."""
        key = {"energy": 8.0, "error": 2.0, "cosine": 1.5, "values": 8, "vectors": 2}
        value = {**key, "error": 0.0, "cosine": 2.0}
        windows = [
            {
                "nll": [number + worse for number in window],
                "kld": [0.25] * len(window),
                "same_top": "1" * len(window),
                "targets_affected": len(window),
                "layers": [{"key": key, "value": value}] * 2,
                "stored_bytes": 17,
                "values": 32,
                "cached_tokens": 1,
                "entropy": [],
            }
            for window in nll
        ]
        return {
            "schema": "kvgauge.measurement/1",
            "subject": subject(len(nll), len(nll[0]), 5000),
            "baseline": nll,
            "codecs": [{"codec": "int4-g64", "windows": windows}],
            "written_by": "hand",
        }

    def test_figures_worked_out_by_hand(self) -> None:
        measured = self.hand_made([[1.0, 2.0], [3.0, 4.0]], 0.5)
        figures = work_out(measured, max_ppl_change=100.0)
        (result,) = figures.result["codecs"]
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
        self.assertEqual(result["top1_agreement"], 1.0)
        self.assertEqual(result["key"]["rmse"], 0.5)
        self.assertAlmostEqual(result["key"]["snr_db"], 10 * math.log10(4.0))
        self.assertEqual(result["layers"][1]["key"]["cosine"], 0.75)
        self.assertEqual(result["value"], {"rmse": 0.0, "snr_db": None, "cosine": 1.0})
        self.assertEqual((result["verdict"], figures.limit_missed), ("pass", False))
        figures = work_out(measured)
        self.assertEqual(figures.result["codecs"][0]["verdict"], "fail")
        self.assertTrue(figures.limit_missed)

    def test_the_measurement_of_the_documentation(self) -> None:
        page = CHECKOUT / "docs" / "python.md"
        if not page.is_file():
            skip(f"no {page}: this test needs the repository's checkout")
        (block,) = re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        measured = json.loads(block)
        result = work_out(measured).result
        self.assertEqual(result["schema"], "kvgauge.figures/1")
        # Subject and limits as they were given.
        for key, value in measured["subject"].items():
            self.assertEqual(result[key], value, key)
        self.assertEqual((result["max_ppl_increase"], result["max_kld"]), (1.0, None))
        (codec,) = result["codecs"]
        self.assertEqual(codec["verdict"], "inconclusive")
        self.assertAlmostEqual(codec["kld_mean"], 0.00225)
        self.assertAlmostEqual(codec["key"]["rmse"], math.sqrt(1.1 / 96))
        self.assertEqual((codec["top1_agreement"], codec["targets_affected"]), (0.75, 1.0))

    def test_one_window_has_no_interval(self) -> None:
        (result,) = work_out(self.hand_made([[1.0]], 0.0)).result["codecs"]
        for key in ("perplexity_change_percent", "mean_log_ratio", "kld_mean", "top1_agreement"):
            self.assertIsNone(result[f"{key}_ci95"])
        self.assertEqual(result["verdict"], "inconclusive")

    def test_a_baseline_that_guesses_means_nothing(self) -> None:
        for nll in (math.log(5000), 900.0):
            figures = work_out(self.hand_made([[nll], [nll]], 0.0), max_ppl_change=100.0)
            (result,) = figures.result["codecs"]
            self.assertEqual((result["verdict"], figures.limit_missed), ("invalid", True))
            self.assertIn("not below the vocabulary's size, 5000", result["invalid_because"])
        # e^900 is no number of JSON.
        self.assertIsNone(result["perplexity"])

    def test_the_limit_has_two_sides_and_its_ends_are_within(self) -> None:
        for worse, limit, expected in (
            (0.012, 2.0, "pass"),
            (-0.012, 2.0, "pass"),
            (0.012, 0.5, "fail"),
            (-0.012, 0.5, "fail"),
            # No perplexity falls by 150 %.
            (-5.0, 150.0, "pass"),
            (0.0, 0.0, "pass"),
        ):
            measured = self.hand_made([[8.0], [8.0], [8.0]], worse)
            (result,) = work_out(measured, max_ppl_change=limit).result["codecs"]
            self.assertEqual(result["verdict"], expected, (worse, limit))
        (result,) = work_out(measured, max_kld=0.25, min_top1=1.0).result["codecs"]
        self.assertEqual(set(result["verdicts"].values()), {"pass"})

    def test_packed_numbers_are_the_same_numbers(self) -> None:
        drawn = Random(7, 4, 9)
        plain = json.loads(json.dumps(drawn.json))
        plain["baseline"] = drawn.baseline
        for codec, measured in zip(plain["codecs"], drawn.codecs):
            for window, own in zip(codec["windows"], measured.windows):
                window["nll"] = [score.nll for score in own.scores]
                window["kld"] = [score.kld for score in own.scores]
        self.assertEqual(work_out(plain).result, work_out(drawn.json).result)

    def test_measurements_that_are_refused(self) -> None:
        for change, expected in (
            ({"schema": "kvgauge.measurement/9"}, 'found "kvgauge.measurement/9"'),
            ({"baseline": [[1.0, 2.0]]}, "expected 2 windows of the baseline"),
            ({"codecs": []}, "at least one window and one codec"),
        ):
            measured = {**self.hand_made([[1.0, 2.0], [3.0, 4.0]], 0.5), **change}
            with self.assertRaisesRegex(CompressionError, expected) as caught:
                work_out(measured)
            self.assertEqual(caught.exception.exit_status, 2)
        with self.assertRaises(ValueError):
            work_out(self.hand_made([[math.nan]], 0.0))

    def test_the_table_is_the_binarys(self) -> None:
        drawn = Random(3, 9, 24)
        printed = _figures.table(drawn.json, Limits(0.5, None, 0.2))
        command = [need_kvgauge(), "figures", "-", "--max-ppl-change", "0.5", "--min-top1", "0.2"]
        done = subprocess.run(
            command, input=json.dumps(drawn.json).encode(), capture_output=True, check=True
        )
        self.assertEqual(printed, done.stdout.decode("utf-8"))
        for codec in drawn.codecs:
            self.assertIn(f"\n{codec.codec}: ", printed)


@unittest.skipIf(os.name == "nt", "scripts are no programs there")
class Misbehaving(FolderTest):
    """Programs in the place of ``kvgauge``."""

    def fake(self, body: str) -> str:
        path = self.folder / "fake"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        self.environment(KVGAUGE_BINARY=str(path))
        return str(path)

    def test_one_that_is_too_old_is_found_out_before_anything_is_loaded(self) -> None:
        path = self.fake("echo \"error: unrecognized subcommand 'figures'\" >&2; exit 2")
        with self.assertRaisesRegex(perplexity.Problem, "knows the command `figures`") as caught:
            _figures.check_binary()
        self.assertIn(path, str(caught.exception))
        self.assertIn("KVGAUGE_BINARY", caught.exception.hint)
        self.environment(KVGAUGE_BINARY=str(self.folder / "absent"))
        with self.assertRaisesRegex(BinaryNotFound, "KVGAUGE_BINARY"):
            _figures.check_binary()
        self.fake("exit 0")
        _figures.check_binary()

    def test_errors_keep_the_binarys_words_and_status(self) -> None:
        self.fake("cat >/dev/null; echo error: --max-kld says so >&2; echo hint: do it >&2; exit 3")
        with self.assertRaises(CompressionError) as caught:
            work_out({})
        error = caught.exception
        self.assertEqual((error.message, error.hint), ("--max-kld says so", "do it"))
        self.assertEqual(perplexity._explained(error)[2], 3)
        self.fake("kill -9 $$")
        with self.assertRaisesRegex(CompressionError, "SIGKILL"):
            work_out({"much": "x" * 1_000_000})
        self.fake("echo nothing")
        with self.assertRaisesRegex(CompressionError, "this kvgauge's|expected one JSON object"):
            work_out({})

    def test_limits_are_handed_over(self) -> None:
        path = self.folder / "arguments"
        self.fake(f"cat >/dev/null; printf '%s ' \"$@\" >\"{path}\"; echo '{{}}'; exit 1")
        figures = work_out({}, max_ppl_change=0.1, max_kld=1e-5, min_top1=0.5, max_bytes_per_token=9.5)
        self.assertEqual((figures.result, figures.limit_missed), ({}, True))
        limits = "--max-ppl-change=0.1 --max-kld=1e-05 --min-top1=0.5 --max-bytes-per-token=9.5"
        self.assertEqual(path.read_text().strip(), f"figures - --json --strict {limits}")


if __name__ == "__main__":
    unittest.main()
