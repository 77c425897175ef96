"""The bridge: without a binary, with programs that misbehave, and with the real kv-compress."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, Dict, List
from unittest import mock

from support import FolderTest, need_kv_compress, need_modules, read_raw, write_raw

import kvgauge
from kvgauge import (
    BinaryNotFound,
    CompressionError,
    CompressionMetrics,
    _binaries,
    compress_kv_cache,
    compression_bridge,
    decompress_kv_cache,
    find_binary,
    measure_kv_cache,
)

SEVEN = {
    "compression_ratio": 3.76,
    "original_size_bytes": 1048576,
    "compressed_size_bytes": 278836,
    "rmse": 0.045,
    "snr_db": 25.2,
    "cosine_similarity": 0.9995,
    "quality_passed": True,
}


class Package(unittest.TestCase):
    def test_the_metrics_are_the_seven_json_keys(self) -> None:
        self.assertEqual([field.name for field in fields(CompressionMetrics)], list(SEVEN))
        metrics = CompressionMetrics(**SEVEN)  # type: ignore[arg-type]
        with self.assertRaises(FrozenInstanceError):
            metrics.rmse = 0.0  # type: ignore[misc]

    def test_importing_needs_the_standard_library_only(self) -> None:
        heavy = "{'numpy', 'safetensors', 'torch', 'transformers'}"
        program = f"import sys, kvgauge.perplexity; print({heavy} & set(sys.modules))"
        folder = str(Path(kvgauge.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": folder}
        run = [sys.executable, "-c", program]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "set()")

    def test_errors_survive_pickling(self) -> None:
        error = pickle.loads(pickle.dumps(CompressionError("what", "do this", 2)))
        self.assertEqual((error.message, error.hint, error.exit_status), ("what", "do this", 2))
        self.assertEqual(str(error), "what\nhint: do this")
        self.assertEqual(str(CompressionError("what")), "what")

    def test_a_codec_and_a_group_size_exclude_each_other(self) -> None:
        with self.assertRaisesRegex(ValueError, "int4-g32.*found 16"):
            compress_kv_cache("a", "b", 16, codec="int4-g32")
        with self.assertRaises(TypeError):
            measure_kv_cache("a", 3.5)  # type: ignore[arg-type]


class Finding(FolderTest):
    def program(self, *parts: str) -> str:
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return str(path)

    def look_only_in(self, *folders: str) -> None:
        no_record: List[str] = []
        for name, found in (("_scripts_folders", folders), ("_installed", no_record)):
            patch = mock.patch.object(_binaries, name, lambda *_, f=found: iter(f))
            patch.start()
            self.addCleanup(patch.stop)

    def test_the_variable_comes_first_and_alone(self) -> None:
        program = self.program("elsewhere", "any name")
        self.environment(KVGAUGE_KV_COMPRESS=program)
        self.assertEqual(find_binary(), program)
        for wrong in (str(self.folder), str(self.folder / "nothing")):
            self.environment(KVGAUGE_KV_COMPRESS=wrong)
            with self.assertRaisesRegex(BinaryNotFound, "KVGAUGE_KV_COMPRESS.*found") as caught:
                compress_kv_cache("a", "b")
            self.assertIn(wrong, str(caught.exception))
            self.assertIsNone(caught.exception.exit_status)

    @unittest.skipIf(os.name == "nt", "file names end in .exe there")
    def test_then_the_scripts_folders_then_the_path(self) -> None:
        scripts, on_path = self.program("scripts", "kv-compress"), self.program("p", "kv-compress")
        self.environment(KVGAUGE_KV_COMPRESS=None, PATH=os.path.dirname(on_path))
        self.look_only_in(str(self.folder / "absent"), os.path.dirname(scripts))
        self.assertEqual(find_binary(), scripts)
        os.chmod(scripts, stat.S_IRUSR)
        if not os.access(scripts, os.X_OK):
            self.assertEqual(find_binary(), on_path)
        os.unlink(scripts)
        self.assertEqual(find_binary(), on_path)
        # An empty variable is an unset one.
        self.environment(KVGAUGE_KV_COMPRESS="")
        self.assertEqual(find_binary(), on_path)

    @unittest.skipIf(os.name == "nt", "file names end in .exe there")
    def test_the_other_binary_is_found_in_the_same_places(self) -> None:
        named, scripts = self.program("elsewhere", "any"), self.program("scripts", "kvgauge")
        self.environment(KVGAUGE_BINARY=named, PATH=str(self.folder))
        self.look_only_in(os.path.dirname(scripts))
        self.assertEqual(_binaries.KVGAUGE.find(), named)
        self.environment(KVGAUGE_BINARY=None)
        self.assertEqual(_binaries.KVGAUGE.find(), scripts)
        os.unlink(scripts)
        with self.assertRaisesRegex(
            BinaryNotFound, "kvgauge: found neither.*\nhint: .*KVGAUGE_BINARY"
        ):
            _binaries.KVGAUGE.find()

    def test_none_anywhere(self) -> None:
        self.environment(KVGAUGE_KV_COMPRESS=None, PATH=str(self.folder))
        self.look_only_in(str(self.folder))
        with self.assertRaisesRegex(BinaryNotFound, "hint: .*KVGAUGE_KV_COMPRESS"):
            find_binary()

    def test_this_pythons_scripts_folders_are_looked_at(self) -> None:
        folders = list(_binaries._scripts_folders())
        self.assertIn(os.path.dirname(sys.executable), folders)
        self.assertTrue(all(os.path.isabs(folder) for folder in folders), folders)


@unittest.skipIf(os.name == "nt", "scripts are no programs there")
class Misbehaving(FolderTest):
    """Programs in the place of kv-compress."""

    def fake(self, body: str) -> str:
        path = self.folder / "fake"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        self.environment(KVGAUGE_KV_COMPRESS=str(path))
        return str(path)

    def says(self, printed: str) -> CompressionMetrics:
        (self.folder / "answer").write_text(printed)
        self.fake(f'cat "{self.folder}/answer"')
        return measure_kv_cache("any")

    def error(self) -> CompressionError:
        with self.assertRaises(CompressionError) as caught:
            measure_kv_cache("any")
        return caught.exception

    def test_the_result_is_read_whatever_else_is_in_it(self) -> None:
        result: Dict[str, Any] = {**SEVEN, "codec": "int4-g64", "tensors": []}
        self.assertEqual(self.says(json.dumps(result)), CompressionMetrics(**SEVEN))  # type: ignore[arg-type]
        nothing = {**SEVEN, "rmse": 0, "snr_db": None, "cosine_similarity": None}
        metrics = self.says(json.dumps({**nothing, "compression_ratio": None}))
        self.assertEqual((metrics.rmse, metrics.snr_db), (0.0, None))
        self.assertIsInstance(metrics.rmse, float)
        self.assertIsNone(metrics.compression_ratio)

    def test_what_is_not_a_result_is_an_error_that_quotes_it(self) -> None:
        for printed, expected in (
            ("", "found nothing"),
            ("Segmentation fault (core dumped)", "Segmentation fault"),
            ("[1, 2]", "expected one JSON object"),
            (json.dumps(SEVEN) * 2, "expected one JSON object"),
            (json.dumps({**SEVEN, "snr_db": float("nan")}), "expected one JSON object"),
            ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "expected one"),
            ("x" * 100_000, "…"),
            ("{}", "compression_ratio: expected a number or null, found nothing"),
            (json.dumps({**SEVEN, "rmse": "0.1"}), "rmse: expected a number or null, found '0.1'"),
            (json.dumps({**SEVEN, "rmse": True}), "rmse: .* found True"),
            (json.dumps({**SEVEN, "original_size_bytes": 1.5}), "whole number, found 1.5"),
            (json.dumps({**SEVEN, "original_size_bytes": None}), "whole number, found None"),
            (json.dumps({**SEVEN, "quality_passed": 1}), "true or false, found 1"),
        ):
            with self.subTest(printed=printed[:50]):
                with self.assertRaisesRegex(CompressionError, expected) as caught:
                    self.says(printed)
                self.assertLess(len(str(caught.exception)), 1000)

    def test_the_programs_own_words(self) -> None:
        self.fake("echo note: first >&2; echo error: what it is >&2; echo hint: do it >&2; exit 3")
        error = self.error()
        self.assertEqual((error.message, error.hint), ("what it is", "do it"))
        self.assertEqual(error.exit_status, 3)

    def test_flags_are_named_as_keywords(self) -> None:
        for said, expected in (
            ("--force replaces it", "force=True replaces it"),
            ("-decompress restores the tensors", "decompress_kv_cache restores the tensors"),
            ("say --rope-theta, the model's", "say rope_theta=, the model's"),
            ("leave --min-cosine out", "leave min_cosine= out"),
            ("--no-sync; --kv-axis (--head-dim)", "sync=False; kv_axis= (head_dim=)"),
            ("--an-unknown-one is there", "an_unknown_one is there"),
            ("did you mean k:int4-g64-ch/v:int4-g64?", "did you mean k:int4-g64-ch/v:int4-g64?"),
            ("./--force and a/--force.x stay", "./--force and a/--force.x stay"),
        ):
            (self.folder / "said").write_text(f"error: {said}\nhint: {said}\n")
            self.fake(f'cat "{self.folder}/said" >&2; exit 2')
            error = self.error()
            self.assertEqual(error.hint, expected)
            self.assertEqual(error.message.replace("=", ""), expected.replace("=", ""))
        (self.folder / "said").write_text(
            "error: invalid value '-1' for '--threads <N>': no number\n"
        )
        self.assertEqual(self.error().message, "invalid value '-1' for threads: no number")

    def test_a_death_without_words(self) -> None:
        path = self.fake("kill -9 $$")
        error = self.error()
        self.assertEqual(error.message, f"{path}: ended by SIGKILL")
        self.assertEqual(error.exit_status, -9)
        self.fake("echo thread main panicked >&2; exit 101")
        error = self.error()
        self.assertRegex(error.message, "exit status 101 .*thread main panicked")
        self.assertEqual(error.exit_status, 101)

    def test_what_cannot_be_run(self) -> None:
        path = self.folder / "fake"
        path.write_bytes(b"\x7fELF nonsense")
        path.chmod(0o755)
        self.environment(KVGAUGE_KV_COMPRESS=str(path))
        error = self.error()
        self.assertIn("cannot be run", error.message)
        self.assertIsNone(error.exit_status)

    def test_the_command_line_that_is_run(self) -> None:
        path = self.folder / "arguments"
        answer = json.dumps(SEVEN)
        self.fake(f"printf '%s\\n' \"$@\" >\"{path}\"; echo '{answer}'")

        def arguments() -> str:
            return path.read_text().replace("\n", " ").strip()

        compress_kv_cache("in put", Path("out"), 32)
        self.assertEqual(arguments(), "-input in put -output out -group-size 32")
        compress_kv_cache("-i", "-o", codec="f16", include="a*", exclude=["b", "-c"], threads=2)
        expected = "-input ./-i -output ./-o --codec=f16 --include=a* --exclude=b --exclude=-c"
        self.assertEqual(arguments(), expected + " --threads=2")
        compress_kv_cache("i", "o", min_cosine=0.5, min_snr_db=-3, force=True, sync=False)
        limits = "--min-cosine=0.5 --min-snr-db=-3.0"
        expected = f"-input i -output o -group-size 64 {limits} --force --no-sync"
        self.assertEqual(arguments(), expected)
        compress_kv_cache("i", "o", codec="kvgauge4", rope_theta=10000)
        expected = "-input i -output o --codec=kvgauge4 --rope-theta=10000.0"
        self.assertEqual(arguments(), expected)
        turning: Any = {"rope_theta": 1e4, "rope_channels": 32, "rope_pairs": "neighbours"}
        compress_kv_cache("i", "o", codec="kvgauge4", **turning)
        said = "--rope-channels=32 --rope-pairs=neighbours"
        self.assertEqual(arguments(), f"{expected} {said}")
        layout: Any = {"layout": "tokens-heads-dim", "kv_axis": 1, "head_dim": 64}
        compress_kv_cache("i", "o", codec="q4_0", **layout)
        said = "--layout=tokens-heads-dim --kv-axis=1 --head-dim=64"
        self.assertEqual(arguments(), f"-input i -output o --codec=q4_0 {said}")
        measure_kv_cache("i", **layout)
        self.assertEqual(arguments(), f"-input i -metrics-only -group-size 64 {said}")
        measure_kv_cache("i", min_snr_db=10)
        expected = "-input i -metrics-only -group-size 64 --min-snr-db=10.0"
        self.assertEqual(arguments(), expected)
        decompress_kv_cache("i", "o", force=True)
        self.assertEqual(arguments(), "-decompress -input i -output o --force")


class Real(FolderTest):
    """Everything against kv-compress itself."""

    @classmethod
    def setUpClass(cls) -> None:
        need_modules("numpy", "safetensors")
        need_kv_compress()

    def setUp(self) -> None:
        super().setUp()
        import numpy
        from safetensors.numpy import load_file, save_file

        self.np, self.load_file, self.save_file = numpy, load_file, save_file
        self.source = self.folder / "cache.safetensors"
        self.packed = self.folder / "packed.safetensors"
        self.unpacked = self.folder / "unpacked.safetensors"

    def write(self, dtype: str = "float32", layers: int = 2) -> Dict[str, Any]:
        """A small cache: [kv_heads 2, tokens 40, head_dim 64] a tensor."""
        random = self.np.random.default_rng(7)
        tensors = {
            f"layer.{layer}.{part}": random.normal(size=(2, 40, 64)).astype(dtype)
            for layer in range(layers)
            for part in ("key", "value")
        }
        self.save_file(tensors, self.source)
        return tensors

    def distortion(self, tensors: Dict[str, Any], decoded: Dict[str, Any]) -> Dict[str, float]:
        """rmse, snr_db and cosine_similarity as docs/kv-compress.md defines them, in f64."""
        x = self.np.concatenate([t.reshape(-1, 64) for t in tensors.values()]).astype("f8")
        y = self.np.concatenate([decoded[n].reshape(-1, 64) for n in tensors]).astype("f8")
        error = ((x - y) ** 2).sum()
        norms = self.np.sqrt((x**2).sum(1) * (y**2).sum(1))
        return {
            "rmse": float(self.np.sqrt(error / x.size)),
            "snr_db": float(10 * self.np.log10((x**2).sum() / error)),
            "cosine_similarity": float(((x * y).sum(1) / norms).mean()),
        }

    def assert_figures(self, metrics: CompressionMetrics, expected: Dict[str, float]) -> None:
        for name, value in expected.items():
            self.assertAlmostEqual(getattr(metrics, name) / value, 1.0, delta=1e-6, msg=name)

    def test_there_and_back(self) -> None:
        tensors = self.write()
        metrics = compress_kv_cache(self.source, self.packed)
        original, compressed = self.source.stat().st_size, self.packed.stat().st_size
        self.assertEqual(metrics.original_size_bytes, original)
        self.assertEqual(metrics.compressed_size_bytes, compressed)
        assert metrics.compression_ratio is not None
        self.assertAlmostEqual(metrics.compression_ratio, original / compressed, delta=1e-9)
        self.assertIs(metrics.quality_passed, True)
        back = decompress_kv_cache(self.packed, self.unpacked)
        self.assertEqual(back.compressed_size_bytes, compressed)
        self.assertEqual(back.original_size_bytes, self.unpacked.stat().st_size)
        decoded = self.load_file(self.unpacked)
        self.assertEqual(sorted(decoded), sorted(tensors))
        for name, tensor in tensors.items():
            self.assertEqual(decoded[name].shape, tensor.shape)
            self.assertEqual(decoded[name].dtype, tensor.dtype)
            groups = tensor.reshape(-1, 64)
            scale = self.np.abs(groups).max(1, keepdims=True) / 7
            off = self.np.abs(groups - decoded[name].reshape(-1, 64))
            # Half a step, and what rounding the scale to f16 adds at the ends of the range.
            self.assertLessEqual(float((off / scale).max()), 0.504)
        self.assert_figures(metrics, self.distortion(tensors, decoded))
        self.assert_only("cache.safetensors", "packed.safetensors", "unpacked.safetensors")

    def test_measuring_equals_compressing_and_writes_nothing(self) -> None:
        self.write()
        measured = measure_kv_cache(self.source, 32)
        self.assert_only("cache.safetensors")
        self.assertEqual(compress_kv_cache(self.source, self.packed, 32), measured)

    def test_smaller_groups_are_larger_and_better(self) -> None:
        self.write()
        coarse, fine = measure_kv_cache(self.source, 128), measure_kv_cache(self.source, 16)
        assert coarse.snr_db is not None and fine.snr_db is not None
        self.assertGreater(fine.snr_db, coarse.snr_db + 2)
        self.assertGreater(fine.compressed_size_bytes, coarse.compressed_size_bytes)
        self.assertEqual(measure_kv_cache(self.source, codec="int4-g16"), fine)

    def test_f16_files(self) -> None:
        tensors = self.write("float16")
        metrics = compress_kv_cache(self.source, self.packed)
        decompress_kv_cache(self.packed, self.unpacked)
        decoded = self.load_file(self.unpacked)
        self.assertEqual({t.dtype for t in decoded.values()}, {self.np.dtype("float16")})
        self.assert_figures(metrics, self.distortion(tensors, decoded))
        # f16 over 4.25 bits, less the header of a small file.
        assert metrics.compression_ratio is not None
        self.assertTrue(3.0 < metrics.compression_ratio < 16 / 4.25, metrics)

    def test_bf16_and_other_types_and_metadata(self) -> None:
        random = self.np.random.default_rng(3)
        bits = random.normal(size=(2, 40, 64)).astype("f4").view("u4") >> 16
        positions = random.integers(-(2**62), 2**62, size=5).astype("<i8")
        write_raw(
            self.source,
            {
                "layer.0.key": ("BF16", (2, 40, 64), bits.astype("<u2").tobytes()),
                "positions": ("I64", (5,), positions.tobytes()),
            },
            {"model": "someone/some model", "note": "äöü"},
        )
        metrics = compress_kv_cache(self.source, self.packed)
        decompress_kv_cache(self.packed, self.unpacked)
        header, tensors = read_raw(self.unpacked)
        self.assertEqual(header["__metadata__"], {"model": "someone/some model", "note": "äöü"})
        self.assertEqual(header["positions"]["dtype"], "I64")
        self.assertEqual(tensors["positions"], positions.tobytes())
        self.assertEqual(header["layer.0.key"]["dtype"], "BF16")
        self.assertEqual(header["layer.0.key"]["shape"], [2, 40, 64])

        def widened(raw: Any) -> Any:
            return (raw.astype("u4") << 16).view("f4").reshape(2, 40, 64)

        decoded = widened(self.np.frombuffer(tensors["layer.0.key"], "<u2"))
        self.assert_figures(metrics, self.distortion({"k": widened(bits)}, {"k": decoded}))

    def test_included_and_excluded(self) -> None:
        tensors = self.write()
        cases: Any = (
            ({"include": "*.key"}, {"layer.0.key", "layer.1.key"}),
            ({"exclude": ["layer.0.*", "*.key"]}, {"layer.1.value"}),
            ({"include": ["layer.1.*"], "exclude": "*.value"}, {"layer.1.key"}),
        )
        for options, compressed in cases:
            with self.subTest(options):
                compress_kv_cache(self.source, self.packed, force=True, **options)
                decompress_kv_cache(self.packed, self.unpacked, force=True)
                decoded = self.load_file(self.unpacked)
                changed = {n for n, t in tensors.items() if not (t == decoded[n]).all()}
                self.assertEqual(changed, compressed)

    def test_no_error_and_nothing_to_measure(self) -> None:
        self.save_file({"layer.0.key": self.np.zeros((1, 8, 64), "f4")}, self.source)
        metrics = measure_kv_cache(self.source)
        self.assertEqual((metrics.rmse, metrics.snr_db), (0.0, None))
        self.save_file({"positions": self.np.arange(9)}, self.source)
        metrics = measure_kv_cache(self.source)
        figures = (metrics.rmse, metrics.snr_db, metrics.cosine_similarity)
        self.assertEqual(figures, (None, None, None))
        self.assertIs(metrics.quality_passed, False)
        self.save_file({"layer.0.key": self.np.zeros((1, 8, 64), "f8")}, self.source)
        self.assertIs(measure_kv_cache(self.source, min_cosine=-1).quality_passed, False)

    def test_limits_are_reported_and_are_no_errors(self) -> None:
        self.write()
        self.assertTrue(measure_kv_cache(self.source, min_snr_db=10).quality_passed)
        self.assertFalse(measure_kv_cache(self.source, min_snr_db=60).quality_passed)
        self.assertFalse(measure_kv_cache(self.source, min_cosine=0.99999).quality_passed)
        missed = compress_kv_cache(self.source, self.packed, min_cosine=0.99999)
        self.assertFalse(missed.quality_passed)
        self.assertTrue(self.packed.exists())

    def test_an_existing_file_is_replaced_only_when_asked(self) -> None:
        self.write()
        self.packed.write_text("precious")
        with self.assertRaises(CompressionError) as caught:
            compress_kv_cache(self.source, self.packed)
        self.assertEqual(caught.exception.exit_status, 2)
        self.assertIn("packed.safetensors", caught.exception.message)
        self.assertIn("force", caught.exception.hint or "")
        self.assertEqual(self.packed.read_text(), "precious")
        compress_kv_cache(self.source, self.packed, force=True, sync=False)
        self.unpacked.write_text("precious")
        with self.assertRaises(CompressionError):
            decompress_kv_cache(self.packed, self.unpacked)
        self.assertEqual(self.unpacked.read_text(), "precious")
        decompress_kv_cache(self.packed, self.unpacked, force=True, sync=False)
        self.assertEqual(len(self.load_file(self.unpacked)), 4)

    def test_names_with_spaces_and_dashes(self) -> None:
        self.write()
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        for odd in ("-input", "--force", "two words", "-a b", "ünïcode", "[0-9]*"):
            with self.subTest(odd):
                os.replace(self.source, odd)
                compress_kv_cache(odd, odd + " out")
                decompress_kv_cache(Path(odd + " out"), Path("-back"))
                self.assertEqual(len(self.load_file(self.folder / "-back")), 4)
                os.unlink("-back")
                os.replace(odd, self.source)

    def test_errors_carry_the_binarys_words(self) -> None:
        tensors = self.write()
        cases: Any = (
            ("a missing input", {"input_path": self.folder / "absent"}, "absent"),
            ("an unknown codec", {"codec": "int4_g64"}, "int4_g64"),
            ("a codec that cannot be", {"codec": "int9"}, "int9"),
            ("a group too small", {"group_size": 1}, "1"),
        )
        for name, options, expected in cases:
            arguments = {"input_path": self.source, "output_path": self.packed, **options}
            with self.subTest(name):
                with self.assertRaises(CompressionError) as caught:
                    compress_kv_cache(**arguments)
                self.assertEqual(caught.exception.exit_status, 2)
                self.assertIn(expected, caught.exception.message)
                self.assertFalse(caught.exception.message.startswith("error"))
                self.assertTrue(caught.exception.hint)
        tensors["layer.1.key"][0, 1, 2] = float("nan")
        self.save_file(tensors, self.source)
        with self.assertRaisesRegex(CompressionError, "layer.1.key.*66"):
            compress_kv_cache(self.source, self.packed)
        self.source.write_bytes(b"not a tensor file at all")
        with self.assertRaisesRegex(CompressionError, "cache.safetensors"):
            compress_kv_cache(self.source, self.packed)
        self.assert_only("cache.safetensors")

    def test_hints_speak_python(self) -> None:
        """Whatever is wrong: a hint names keywords, and no flag."""
        tensors = self.write()
        self.save_file(
            {"x.key": self.np.zeros(99, "f2"), "y": self.np.ones((2, 9, 8), "f4")},
            self.folder / "odd",
        )
        nan = {**tensors, "layer.0.key": self.np.full((2, 40, 64), self.np.nan, "f4")}
        self.save_file(nan, self.folder / "nan")
        (self.folder / "text").write_text("no tensors")
        (self.folder / "page").write_text("<!DOCTYPE html>")
        (self.folder / "there").write_text("precious")
        compress_kv_cache(self.source, self.packed)
        odd, there = self.folder / "odd", self.folder / "there"
        cases: Any = (
            ({"output_path": there}, "force=True"),
            ({"input_path": self.packed}, "decompress_kv_cache"),
            ({"input_path": self.folder / "nan"}, "exclude="),
            ({"input_path": odd, "codec": "kivi4"}, "kv_axis="),
            ({"input_path": odd, "codec": "int4-g64-ch"}, "exclude="),
            ({"codec": "kvgauge4"}, "rope_theta="),
            ({"codec": "kvgauge4", "rope_theta": 0}, "rope_theta"),
            ({"codec": "int4_g64"}, "int4-g64"),
            ({"codec": "int4-64"}, "did you mean"),
            ({"group_size": 7}, ""),
            ({"group_size": 10**30}, ""),
            ({"threads": -1}, "threads=64"),
            ({"threads": 10**6}, ""),
            ({"min_cosine": float("nan")}, "min_cosine="),
            ({"include": "nosuch"}, "inspect"),
            ({"exclude": "["}, "bracket"),
            ({"layout": "nhd"}, "tokens-heads-dim"),
            ({"layout": "tokens-heads-dim", "head_dim": 48}, "exclude="),
            ({"kv_axis": 1}, "exclude="),
            ({"kv_axis": -1}, "counted"),
            ({"head_dim": 64}, "layout="),
            ({"input_path": self.folder / "text"}, "safetensors"),
            ({"input_path": self.folder / "page"}, "server"),
            ({"input_path": self.folder / "absent"}, "path"),
            ({"input_path": self.folder}, ""),
            ({"output_path": self.source, "force": True}, "in place"),
            ({"output_path": self.folder / "no" / "such"}, "folder"),
        )
        for options, expected in cases:
            arguments = {"input_path": self.source, "output_path": self.unpacked, **options}
            with self.subTest(options):
                with self.assertRaises(CompressionError) as caught:
                    compress_kv_cache(**arguments)
                error = caught.exception
                self.assertIn(expected, error.hint or "")
                self.assertNotIn("--", f"{error.message} {error.hint}")
                self.assertNotRegex(error.hint or "", r"(^|\s)-[a-z]")
        self.assertFalse(self.unpacked.exists())

    def test_every_flag_has_a_keyword(self) -> None:
        shown = subprocess.run(
            [find_binary(), "--help"], capture_output=True, text=True, check=True
        )
        flags = set(re.findall(r"^ +(?:-[a-zA-Z], )?(--[a-z-]+)", shown.stdout, re.MULTILINE))
        ours = flags - {"--per-tensor", "--strict", "--version"}
        self.assertEqual(ours, set(compression_bridge.KEYWORDS))

    def test_caches_of_engines(self) -> None:
        """vLLM's order, keys and values in one tensor: as if they were apart in the usual one."""
        random = self.np.random.default_rng(5)
        keys, values = random.normal(size=(2, 3, 40, 64)).astype("f2")
        keys[:, :, 3] += 9
        self.save_file({"0.key": keys, "0.value": values}, self.source)
        options: Any = {"codec": "kvgauge4", "rope_theta": 1e4, "force": True}
        usual = compress_kv_cache(self.source, self.packed, **options)
        decompress_kv_cache(self.packed, self.unpacked)
        expected = self.load_file(self.unpacked)
        both = self.np.stack([keys, values]).transpose(0, 2, 1, 3)
        for cache, layout in (
            (both, {"kv_axis": 0}),
            (both.transpose(1, 0, 2, 3), {"kv_axis": 1}),
            (both.reshape(2, 40, 192), {"kv_axis": 0, "head_dim": 64}),
        ):
            with self.subTest(shape=cache.shape):
                self.save_file({"kv_cache": self.np.ascontiguousarray(cache)}, self.source)
                layout = {"layout": "tokens-heads-dim", **layout}
                metrics = compress_kv_cache(self.source, self.packed, **options, **layout)
                self.assertAlmostEqual(metrics.snr_db or 0, usual.snr_db or 1, delta=1e-6)
                measured = measure_kv_cache(self.source, codec="kvgauge4", rope_theta=1e4, **layout)
                self.assertEqual(measured, metrics)
                decompress_kv_cache(self.packed, self.unpacked, force=True)
                back = self.load_file(self.unpacked)["kv_cache"]
                self.assertEqual(back.shape, cache.shape)
                sides = self.np.moveaxis(back, layout["kv_axis"], 0).reshape(2, 40, 3, 64)
                for side, name in zip(sides, ("0.key", "0.value")):
                    self.assertTrue((side.transpose(1, 0, 2) == expected[name]).all())

    def test_damage_is_an_error(self) -> None:
        self.write()
        compress_kv_cache(self.source, self.packed)
        with self.assertRaises(CompressionError):
            compress_kv_cache(self.packed, self.unpacked)
        content = bytearray(self.packed.read_bytes())
        content[-100] ^= 4
        self.packed.write_bytes(content)
        with self.assertRaises(CompressionError) as caught:
            decompress_kv_cache(self.packed, self.unpacked)
        self.assertEqual(caught.exception.exit_status, 2)
        with self.assertRaises(CompressionError):
            decompress_kv_cache(self.source, self.unpacked)
        self.assert_only("cache.safetensors", "packed.safetensors")

    def test_many_threads_at_once(self) -> None:
        self.write()

        def round_trip(index: int) -> bytes:
            packed, unpacked = self.folder / f"p{index}", self.folder / f"u{index}"
            compress_kv_cache(self.source, packed, threads=1)
            decompress_kv_cache(packed, unpacked)
            return unpacked.read_bytes()

        with ThreadPoolExecutor(8) as pool:
            results = set(pool.map(round_trip, range(16)))
        self.assertEqual(len(results), 1)


if __name__ == "__main__":
    unittest.main()
