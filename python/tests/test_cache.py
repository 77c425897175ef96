"""Caches to files and back: the installed transformers, and stand-ins for its older APIs."""

from __future__ import annotations

import json
import os
import struct
import unittest
from typing import Any, List, Optional, Tuple

from support import FolderTest, need_modules, read_raw, write_raw

from kvgauge import load_kv_cache, save_kv_cache
from kvgauge.cache import CacheError, cache_layers, dynamic_cache

Pairs = List[Tuple[Any, Any]]


class OldCache:
    """transformers 4.36 to 4.53: two lists."""

    def __init__(self, pairs: Pairs) -> None:
        self.key_cache = [key for key, _ in pairs]
        self.value_cache = [value for _, value in pairs]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.key_cache[layer_idx].shape[-2])


class OneLayer:
    def __init__(self, keys: Any, values: Any, seen: Optional[int] = None) -> None:
        self.keys, self.values, self.seen = keys, values, seen

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2]) if self.seen is None else self.seen


class LayeredCache:
    """transformers 4.54 and newer: one object a layer."""

    def __init__(self, layers: List[Any]) -> None:
        self.layers = layers


class LegacyOnly:
    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def to_legacy_cache(self) -> Any:
        return tuple(self.pairs)


class IterableOnly:
    def __init__(self, items: List[Any]) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


class CacheTest(FolderTest):
    @classmethod
    def setUpClass(cls) -> None:
        need_modules("torch", "transformers", "safetensors")

    def setUp(self) -> None:
        super().setUp()
        import torch

        self.torch = torch
        self.path = self.folder / "cache.safetensors"

    def pairs(self, layers: int = 3, batch: int = 1, tokens: int = 5) -> Pairs:
        generator = self.torch.Generator().manual_seed(11)
        shape = (batch, 2, tokens, 8)

        def tensor() -> Any:
            return self.torch.randn(shape, generator=generator)

        return [(tensor(), tensor()) for _ in range(layers)]

    def assert_pairs(self, found: Any, expected: Pairs) -> None:
        found = cache_layers(found)
        self.assertEqual(len(found), len(expected))
        for (key, value), (expected_key, expected_value) in zip(found, expected):
            self.assertTrue(self.torch.equal(key, expected_key))
            self.assertTrue(self.torch.equal(value, expected_value))


class Saving(CacheTest):
    def test_every_kind_of_cache_gives_the_same_file(self) -> None:
        pairs = self.pairs()
        files = set()
        for cache in (
            dynamic_cache(pairs),
            LayeredCache([OneLayer(*pair) for pair in pairs]),
            OldCache(pairs),
            LegacyOnly(pairs),
            IterableOnly(list(pairs)),
            IterableOnly([(*pair, None) for pair in pairs]),
            tuple(pairs),
            [list(pair) for pair in pairs],
        ):
            with self.subTest(type(cache).__name__):
                save_kv_cache(cache, self.path)
                files.add(self.path.read_bytes())
                self.assert_pairs(load_kv_cache(self.path), pairs)
        self.assertEqual(len(files), 1)

    def test_names_order_and_shapes(self) -> None:
        pairs = self.pairs(layers=12)
        save_kv_cache(pairs, self.path, metadata={"model": "a", "revision": "b"})
        header, tensors = read_raw(self.path)
        self.assertEqual(header.pop("__metadata__"), {"model": "a", "revision": "b"})
        expected = [f"layer.{i}.{part}" for i in range(12) for part in ("key", "value")]
        self.assertEqual(list(header), expected)
        self.assertEqual(header["layer.3.key"]["shape"], [2, 5, 8])
        self.assertEqual(tensors["layer.11.value"], pairs[11][1].numpy().tobytes())
        save_kv_cache(self.pairs(batch=3), self.path)
        self.assertEqual(read_raw(self.path)[0]["layer.0.key"]["shape"], [3, 2, 5, 8])

    def test_safetensors_reads_it(self) -> None:
        from safetensors.torch import load_file

        pairs = self.pairs()
        save_kv_cache(pairs, self.path)
        loaded = load_file(self.path)
        self.assertTrue(self.torch.equal(loaded["layer.2.key"], pairs[2][0][0]))

    def test_types(self) -> None:
        torch = self.torch
        pairs = self.pairs()
        for dtype, stored, kind in (
            (None, "F32", torch.float32),
            ("f16", "F16", torch.float16),
            ("bfloat16", "BF16", torch.bfloat16),
            (torch.bfloat16, "BF16", torch.bfloat16),
        ):
            with self.subTest(dtype=dtype):
                save_kv_cache(pairs, self.path, dtype=dtype)
                self.assertEqual(read_raw(self.path)[0]["layer.0.key"]["dtype"], stored)
                self.assert_pairs(
                    load_kv_cache(self.path), [(k.to(kind), v.to(kind)) for k, v in pairs]
                )
                widened = [(k.to(kind).float(), v.to(kind).float()) for k, v in pairs]
                self.assert_pairs(load_kv_cache(self.path, dtype="f32"), widened)
        doubled = [(k.double(), v.double()) for k, v in pairs]
        save_kv_cache(doubled, self.path, dtype="f32")
        self.assert_pairs(load_kv_cache(self.path), pairs)
        with self.assertRaisesRegex(CacheError, "layer.0.key.*float64"):
            save_kv_cache(doubled, self.path)
        with self.assertRaisesRegex(CacheError, "dtype.*int8"):
            save_kv_cache(pairs, self.path, dtype="int8")
        with self.assertRaisesRegex(CacheError, "layer.1.value: 70000.0 does not fit"):
            pairs[1][1][0, 0, 0, 0] = 70000.0
            save_kv_cache(pairs, self.path, dtype="f16")

    def test_views_and_gradients(self) -> None:
        # As a model computes them: [batch, tokens, heads, size] transposed, tracked by autograd.
        key = self.torch.randn(1, 5, 2, 8, requires_grad=True).transpose(1, 2)
        value = self.torch.randn(1, 9, 2, 8).transpose(1, 2)[:, :, 2:7]
        save_kv_cache([(key, value)], self.path)
        self.assert_pairs(load_kv_cache(self.path), [(key, value)])

    def test_the_cache_stays_as_it_was(self) -> None:
        pairs = self.pairs()
        cache = dynamic_cache(pairs)
        save_kv_cache(cache, self.path, dtype="f16")
        self.assert_pairs(cache, pairs)

    def test_whole_or_not_at_all(self) -> None:
        pairs = self.pairs()
        save_kv_cache(pairs, self.path, sync=False)
        save_kv_cache(self.pairs(layers=1), self.path)
        self.assertEqual(len(load_kv_cache(self.path, legacy=True)), 1)
        before = self.path.read_bytes()
        pairs[2] = (pairs[2][0], pairs[2][1].to(self.torch.int32))
        with self.assertRaises(CacheError):
            save_kv_cache(pairs, self.path)
        with self.assertRaises(TypeError):
            save_kv_cache(self.pairs(), self.path, metadata={"layers": 3})  # type: ignore[dict-item]
        with self.assertRaisesRegex(CacheError, "kvgauge"):
            save_kv_cache(self.pairs(), self.path, metadata={"kvgauge": "x"})
        self.assertEqual(self.path.read_bytes(), before)
        with self.assertRaises(IsADirectoryError):
            save_kv_cache(self.pairs(), self.folder)
        with self.assertRaises(FileNotFoundError):
            save_kv_cache(self.pairs(), self.folder / "absent" / "file")
        self.assert_only("cache.safetensors")

    @unittest.skipIf(os.name == "nt", "links need a privilege there")
    def test_a_link_stays_a_link_and_the_file_is_an_ordinary_one(self) -> None:
        link = self.folder / "link"
        link.symlink_to(self.path)
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        save_kv_cache(self.pairs(), link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.assert_only("cache.safetensors", "link")

    def test_what_is_no_plain_whole_cache(self) -> None:
        pairs = self.pairs()
        key, value = pairs[1]
        quantised = OneLayer(key, value)
        quantised._quantized_keys = object()  # type: ignore[attr-defined]
        static = OldCache(pairs)
        static.max_cache_len = 64  # type: ignore[attr-defined]
        both = LegacyOnly(pairs)
        both.self_attention_cache = both  # type: ignore[attr-defined]
        first = OneLayer(*pairs[0])
        empty = self.torch.tensor([])
        cases: Any = (
            (None, "use_cache"),
            ((), "at least one layer"),
            (LayeredCache([]), "at least one layer"),
            (3, "int: expected a cache"),
            ("cache", "layer 0: expected a key and a value"),
            (LayeredCache([first, OneLayer(None, None)]), "layer 1 key: missing"),
            (OldCache([pairs[0], (empty, empty)]), "layer 1"),
            (tuple(pairs[:1]) + ((key, None),), "layer 1 value: missing"),
            ([pairs[0], (key, value, key, value)], "layer 1: .* found 4 of them"),
            ([(key[0], value[0])], r"layer 0 key: .*\[2, 5, 8\]"),
            ([(key[:, :, :0], value[:, :, :0])], "layer 0 key: empty"),
            ([(key, value[..., :4])], "layer 0: expected keys and values of one shape"),
            ([pairs[0], (key[:, :, :4], value[:, :, :4])], "layer 1: .* 5 tokens .* 1 and 4"),
            ([(key.numpy(), value.numpy())], "layer 0 key: expected a tensor, found ndarray"),
            (LayeredCache([first, quantised]), "layer 1 .*quantised"),
            (LayeredCache([OneLayer(key, value, seen=9)]), "all 9 tokens seen, found 5"),
            (static, "static"),
            (both, "self_attention_cache"),
        )
        for cache, expected in cases:
            with self.subTest(expected), self.assertRaisesRegex(CacheError, expected):
                save_kv_cache(cache, self.path)
        self.assert_only()

    def test_the_other_caches_of_the_installed_transformers(self) -> None:
        import transformers

        if hasattr(transformers, "StaticCache"):
            config = transformers.LlamaConfig(
                hidden_size=16, num_attention_heads=2, num_hidden_layers=2, head_dim=8
            )
            # Not every version takes the first and the last; none minds them.
            sizes: Any = {"max_batch_size": 1, "max_cache_len": 16, "device": "cpu"}
            static = transformers.StaticCache(config=config, **sizes)
            for index, (key, value) in enumerate(self.pairs(layers=2)):
                positions = {"cache_position": self.torch.arange(5)}
                static.update(key, value, index, positions)
            with self.assertRaisesRegex(CacheError, "static"):
                save_kv_cache(static, self.path)
        try:
            from transformers.cache_utils import DynamicSlidingWindowLayer
        except ImportError:
            return
        for window, whole in ((6, True), (4, False)):
            layer = DynamicSlidingWindowLayer(sliding_window=window)
            layer.update(*self.pairs(layers=1)[0])
            cache = transformers.DynamicCache()
            cache.layers.append(layer)
            if whole:
                save_kv_cache(cache, self.path)
                self.assert_pairs(load_kv_cache(self.path), self.pairs(layers=1))
            else:
                with self.assertRaisesRegex(CacheError, "sliding"):
                    save_kv_cache(cache, self.path)


class Loading(CacheTest):
    def test_legacy_pairs(self) -> None:
        pairs = self.pairs(batch=2)
        save_kv_cache(pairs, self.path)
        loaded = load_kv_cache(self.path, legacy=True, device="cpu")
        self.assertIsInstance(loaded, tuple)
        self.assert_pairs(loaded, pairs)

    def test_growing_a_loaded_cache_leaves_the_file_alone(self) -> None:
        pairs = self.pairs(layers=1)
        save_kv_cache(pairs, self.path)
        loaded = load_kv_cache(self.path)
        self.assertEqual(int(loaded.get_seq_length()), 5)
        loaded.update(*self.pairs(layers=1, tokens=2)[0], 0)
        self.assertEqual(int(loaded.get_seq_length()), 7)
        cache_layers(loaded)[0][0].zero_()
        self.assert_pairs(load_kv_cache(self.path), pairs)

    def test_other_tensors_are_left_alone(self) -> None:
        raw = bytes(4 * 16)
        tensors: Any = {
            "layer.0.value": ("F32", (1, 2, 8), raw),
            "positions": ("I64", (8,), raw),
            "layer.0.key": ("F32", (1, 2, 8), raw),
        }
        write_raw(self.path, tensors)
        (pair,) = load_kv_cache(self.path, legacy=True)
        self.assertEqual([tuple(tensor.shape) for tensor in pair], [(1, 1, 2, 8)] * 2)

    def test_files_that_hold_something_else(self) -> None:
        raw = bytes(4 * 16)
        good: Any = ("F32", (1, 2, 8), raw)
        cases: Any = (
            ({"positions": ("I64", (8,), raw)}, None, r"found \['positions'\]"),
            ({"layer.0.key": good}, None, "expected a tensor layer.0.value"),
            (
                {"layer.1.key": good, "layer.1.value": good},
                None,
                "expected a tensor layer.0.key, found none",
            ),
            (
                {"layer.0.key": ("F32", (16,), raw), "layer.0.value": good},
                None,
                r"layer.0.key: expected \[kv_heads, tokens, head_dim\].*\[16\]",
            ),
            (
                {"layer.0.key": ("I32", (1, 2, 8), raw), "layer.0.value": good},
                None,
                "layer.0.key: expected a float tensor",
            ),
            (
                {"layer.0.key": ("F32", (2, 1, 8), raw), "layer.0.value": good},
                None,
                "layer 0: expected keys and values of one shape",
            ),
        )
        for tensors, metadata, expected in cases:
            write_raw(self.path, tensors, metadata)
            with self.subTest(expected), self.assertRaisesRegex(CacheError, expected) as caught:
                load_kv_cache(self.path)
            self.assertIn(str(self.path), str(caught.exception))
        # A compressed file is known by how it begins; a key of its name is anybody's.
        pair = {"layer.0.key": good, "layer.0.value": good}
        write_raw(self.path, pair, {"kvgauge": '{"format":"kvgauge-kv"}'})
        self.assertEqual(len(load_kv_cache(self.path, legacy=True)), 1)
        metadata = {"kvgauge": '{"header_crc32":"00000000"}'}
        part = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
        header = {"__metadata__": metadata, "layer.0.key.codes": part}
        text = json.dumps(header, separators=(",", ":")).encode()
        self.path.write_bytes(struct.pack("<Q", len(text)) + text)
        with self.assertRaisesRegex(CacheError, "decompress_kv_cache"):
            load_kv_cache(self.path)
        self.path.write_bytes(b"\xff" * 40)
        with self.assertRaisesRegex(CacheError, "not a safetensors file"):
            load_kv_cache(self.path)
        with self.assertRaises(FileNotFoundError):
            load_kv_cache(self.folder / "absent")

    def test_a_model_goes_on_from_a_file_as_from_its_own_cache(self) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        self.torch.manual_seed(5)
        config = LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model = LlamaForCausalLM(config).eval()
        for batch in (1, 2):
            tokens = self.torch.randint(50, (batch, 20))
            with self.subTest(batch=batch), self.torch.no_grad():
                cache = model(tokens[:, :12], use_cache=True).past_key_values
                save_kv_cache(cache, self.path)
                expected = model(tokens[:, 12:], past_key_values=cache).logits
                found = model(tokens[:, 12:], past_key_values=load_kv_cache(self.path)).logits
                self.assertTrue(self.torch.equal(found, expected))


if __name__ == "__main__":
    unittest.main()
