"""Python side of kvgauge: INT4 compression of KV caches in safetensors files, and what it costs.

Importing this package needs the standard library only. ``save_kv_cache`` and ``load_kv_cache``
import torch, transformers and safetensors when they are called; ``python -m kvgauge.perplexity``
does too.
"""

from importlib import metadata as _metadata

from .cache import CacheError, load_kv_cache, save_kv_cache
from .compression_bridge import (
    BinaryNotFound,
    CompressionError,
    CompressionMetrics,
    compress_kv_cache,
    decompress_kv_cache,
    find_binary,
    measure_kv_cache,
)

try:
    __version__ = _metadata.version("kvgauge")
except _metadata.PackageNotFoundError:
    # A source checkout that is on the path without having been installed.
    __version__ = "0+source"

__all__ = [
    "BinaryNotFound",
    "CacheError",
    "CompressionError",
    "CompressionMetrics",
    "__version__",
    "compress_kv_cache",
    "decompress_kv_cache",
    "find_binary",
    "load_kv_cache",
    "measure_kv_cache",
    "save_kv_cache",
]
