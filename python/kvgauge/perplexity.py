"""``python -m kvgauge.perplexity``: the cost of a compressed KV cache, for models of transformers.

The protocol is ``prefix``, as ``kvgauge validate`` runs it. The text is tokenised once, without
special tokens, and cut into windows of ``context`` tokens that do not overlap. In each window:

1. the model runs over the prefix, the first ``context // 2`` tokens;
2. the cache this leaves is written to a safetensors file, which ``kv-compress`` compresses and
   decompresses;
3. the model runs over the rest of the window, in one pass, on what was read back; for the
   baseline on a copy of the untouched cache;
4. every token behind the prefix is scored but the first of them, which is predicted in step 1,
   before anything compressed is read. In a window of 512 tokens, counted from 0, these are the
   tokens 257 to 511, which makes 255.

The model computes in float32; likelihoods and divergences are float64, from full logits. Figures,
intervals and verdicts are worked out by the binary: ``kvgauge figures``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import time
import traceback
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from . import __version__
from ._codecs import ask
from ._command_line import PROGRAM, Progress, parser, print_result, report_problem
from ._figures import Limits, check_binary, table, work_out
from ._measurement import measurement
from ._model import (
    Source,
    check_kind,
    context_for,
    load_model,
    open_tokenizer,
    read_text,
    text_config,
    window_bos,
)
from ._problem import Problem, first_line
from ._protocol import Evaluation, cut_windows, evaluate, prefix_length, scored_targets
from ._whole_file import check_target, whole_file
from .cache import CacheError
from .compression_bridge import CompressionError

__all__ = ["Evaluation", "Problem", "cut_windows", "evaluate", "main"]

SCHEMA = "kvgauge.validation/1"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command line; returns the exit status: 0 done; 1 done, and a codec did not pass
    (``--strict``); 2 the request or the input is wrong; 3 anything else."""
    options = parser().parse_args(arguments)
    try:
        printed, limit_missed = _run(options)
        print_result(printed)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return report_problem(*_explained(error))
    return 1 if options.strict and limit_missed else 0


def _check_output(path: str, force: bool) -> None:
    """Raises where ``path`` cannot be written, or is a file that an earlier result is not."""
    check_target(path)
    if force or not os.path.exists(path):
        return
    with open(path, "rb") as file:
        head = file.read(200)
    if head.strip() and f'"schema": "{SCHEMA}"'.encode() not in head:
        raise Problem(
            f"--output: {path}: expected a result of kvgauge or a new file, found another file",
            "choose another name; --force replaces it",
        )


def _run(options: argparse.Namespace) -> Tuple[str, bool]:
    """Everything but printing: the text to print, and whether a codec misses a limit. The result is
    in the file where one was asked for."""
    start = time.perf_counter()
    # Before torch is imported: everything that can be wrong without a model.
    if options.output is not None:
        _check_output(options.output, options.force)
    text, content = read_text(options.text)
    source = Source.parse(options.model, options.gguf_file)
    codecs = [ask(name).name for name in options.codec or ["int4-g64"]]
    check_binary()

    progress = Progress()
    if not progress.visible:
        # Read when tqdm is imported: some bars of transformers listen to nothing else.
        os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    import transformers

    if not progress.visible:
        transformers.utils.logging.disable_progress_bar()
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    progress.stage("opening the model")
    whole_config = transformers.AutoConfig.from_pretrained(source.place, **source.arguments())
    config = text_config(whole_config)
    check_kind(whole_config, config)
    context = context_for(options.context, config)
    _check_groups(codecs, config, context)
    for name in filter(lambda name: "@" in name, codecs):
        ask(name, config.num_hidden_layers)
    tokenizer = open_tokenizer(source, config)
    bos = window_bos(options.bos, tokenizer)

    progress.stage("tokenising the text")
    tokens = tokenizer.encode(text)
    windows = cut_windows(tokens, context, options.first_window, options.windows, bos)
    _check_vocabulary(windows, config.vocab_size)
    if options.windows is not None and len(windows) < options.windows:
        progress.note(f"windows: {len(windows)} instead of {options.windows}, the text ends there")
    files_sha256 = source.hashes()
    prepared = time.perf_counter()

    progress.stage("loading the weights")
    model, attention = load_model(source, options.attention, options.device)
    loaded = time.perf_counter()

    caches = 1 + len(codecs)
    progress.begin(len(windows) * (prefix_length(context) + caches * scored_targets(context)))
    evaluation = evaluate(
        model,
        windows,
        codecs,
        cache_dtype=options.cache_dtype,
        threads=options.threads,
        advanced=progress.advanced,
    )
    progress.clear()

    subject: Dict[str, Any] = {
        "protocol": "prefix",
        "model": {
            "source": options.model,
            "revision": source.commit(),
            "files_sha256": files_sha256,
            "architecture": (whole_config.architectures or [type(model).__name__])[0],
            "layers": len(evaluation.codecs[0].windows[0].layers),
            "heads": config.num_attention_heads,
            "kv_heads": evaluation.cache_shape[0],
            "head_dim": evaluation.cache_shape[1],
            "vocab_size": config.vocab_size,
            "max_position_embeddings": getattr(config, "max_position_embeddings", None),
        },
        "text": {
            "source": options.text,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "tokens": len(tokens),
            "windows_available": len(tokens) // context,
            "parse_special": True,
        },
        "context": context,
        "prefix": prefix_length(context),
        "first_window": options.first_window,
        "windows": len(windows),
        "scored_tokens": sum(map(len, evaluation.baseline)),
        "bos_id": bos,
        "dtype": "f32",
        "device": options.device,
        "instruction_set": _instruction_set(),
        "seed": 0,
    }
    limits = Limits(
        options.max_ppl_change, options.max_kld, options.min_top1, options.max_bytes_per_token
    )
    measured = measurement(_for_binary(subject), evaluation.baseline, evaluation.codecs)
    figures = work_out(measured, limits)
    result: Dict[str, Any] = {
        "schema": SCHEMA,
        "kvgauge_version": __version__,
        "engine": _engine(attention),
        **subject,
        "baseline": figures.result["baseline"],
        "codecs": figures.result["codecs"],
        "cross_check": None,
        "config": _config(options, source, context, codecs, torch.get_num_threads()),
        "timings_s": {
            "prepare": prepared - start,
            "load": loaded - prepared,
            "cross_check": 0.0,
            **evaluation.timings,
            "total": time.perf_counter() - start,
        },
        "peak_rss_bytes": _peak_rss_bytes(),
    }
    if options.output is not None:
        _check_output(options.output, options.force)
        with whole_file(options.output) as file:
            file.write(_json(result).encode())
    printed = _json(result) if options.json else _head(result) + table(measured, limits)
    return printed, figures.limit_missed


def _for_binary(subject: Dict[str, Any]) -> Dict[str, Any]:
    """The subject with values that the binary has words for: it knows three devices, and no model
    without a longest context."""
    kind = str(subject["device"]).partition(":")[0]
    known = {"cuda": "cuda", "mps": "metal"}.get(kind, "cpu")
    longest = subject["model"]["max_position_embeddings"]
    model = {**subject["model"], "max_position_embeddings": longest or 0}
    return {**subject, "model": model, "device": known}


def _head(result: Dict[str, Any]) -> str:
    """The lines above the binary's table."""
    engine, times = result["engine"], result["timings_s"]
    device, dtype = result["device"], result["config"]["cache_dtype"]
    return (
        f"engine    transformers {engine['transformers']}, torch {engine['torch']} on {device}, "
        f"attention {engine['attention']}\n"
        f"files     cache written in {dtype}\n"
        f"time      {times['total']:.1f} s, of which {times['load']:.1f} s loading, "
        f"{times['codec']:.2f} s codecs and files\n"
    )


def _engine(attention: str) -> Dict[str, str]:
    import torch
    import transformers

    return {
        "name": "transformers",
        "transformers": transformers.__version__,
        "torch": str(torch.__version__),
        "python": ".".join(map(str, sys.version_info[:3])),
        "attention": attention,
    }


def _config(
    options: argparse.Namespace, source: Source, context: int, codecs: List[str], threads: int
) -> Dict[str, Any]:
    """The settings as resolved: the keys of ``kvgauge validate``, and this command's own."""
    return {
        "model": options.model,
        "gguf_file": source.gguf_file,
        "text": options.text,
        "context": context,
        "windows": "all" if options.windows is None else options.windows,
        "first_window": options.first_window,
        "codec": codecs,
        "engine": [],
        "kv_scale": None,
        "protocol": "prefix",
        "residual": 0,
        "bos": options.bos,
        # transformers matches control tokens in a text as the model's own.
        "parse_special": True,
        "dtype": "f32",
        "cache_dtype": options.cache_dtype,
        "device": options.device,
        "threads": threads,
        "seed": 0,
        "max_ppl_increase": options.max_ppl_change,
        "max_kld": options.max_kld,
        "min_top1": options.min_top1,
        "max_bytes_per_token": options.max_bytes_per_token,
        "batch": 1,
        "strict": options.strict,
        "offline": _offline(),
        "weights": "f32",
        "cross_check": False,
        "attribute": False,
    }


def _instruction_set() -> str:
    """Instruction set of torch on the CPU, in the words of ``kvgauge`` where it has them."""
    import torch

    machine = platform.machine().lower()
    machine = {"x86_64": "x86-64", "amd64": "x86-64", "arm64": "aarch64"}.get(machine, machine)
    backend = getattr(torch.backends, "cpu", None)
    capability = str(backend.get_cpu_capability()).lower() if backend else "default"
    if machine == "aarch64" and capability == "default":
        capability = "neon"
    return machine if capability == "default" else f"{machine} {capability}"


def _offline() -> bool:
    """Whether huggingface_hub makes no requests."""
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return offline.upper() in ("1", "ON", "YES", "TRUE")


def _peak_rss_bytes() -> Optional[int]:
    """Of this process, without kv-compress; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# Checks before weights are read.


def _check_groups(codecs: Iterable[str], config: Any, context: int) -> None:
    """A group larger than one layer's keys would be a scale for values that are not there."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values = heads * size * prefix_length(context)
    for codec in codecs:
        for group in map(int, re.findall(r"-g([0-9]+)", codec)):
            if group > values:
                raise Problem(
                    f"codec {codec}: expected a group of at most {values} values, which one "
                    f"layer's keys have, found {group}",
                    "choose a smaller group or a longer context",
                )


def _check_vocabulary(windows: Sequence[Sequence[int]], vocab_size: int) -> None:
    largest = max(map(max, windows))
    if largest >= vocab_size:
        raise Problem(
            f"tokenizer: expected ids below the vocabulary of {vocab_size}, found {largest}",
            "tokenizer and weights do not belong together",
        )


# Results and errors for the user.


def _json(result: Dict[str, Any]) -> str:
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def _explained(error: Exception) -> Tuple[str, str, int]:
    """Message, hint and exit status."""
    if isinstance(error, Problem):
        return str(error), error.hint, error.exit_status
    if isinstance(error, CompressionError):
        return error.message, _own_hint(error.hint), 2 if error.exit_status == 2 else 3
    if isinstance(error, CacheError):
        hint = "this command needs a model whose cache is plain keys and values"
        if "does not fit into" in str(error):
            hint = "try --cache-dtype bf16 or f32"
        return str(error), hint, 2
    if isinstance(error, ImportError):
        hint = "pip install 'kvgauge[transformers]', and for a .gguf file 'kvgauge[gguf]'"
        return first_line(error), hint, 3
    missing = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError)
    if isinstance(error, missing):
        return first_line(error), "check the paths", 2
    if isinstance(error, OSError) and error.errno is not None:
        # The system's own: transformers raises this type without a number.
        return first_line(error), "look at permissions, disk and memory", 3
    if type(error).__name__ == "OutOfMemoryError":
        return first_line(error), "try a smaller --context, or --device cpu", 3
    if isinstance(error, (OSError, ValueError, RuntimeError)):
        # transformers says many things with these: a missing repository, an unknown
        # architecture, a package that it would need.
        hint = (
            "--model takes OWNER/NAME[@REVISION], a Hugging Face folder or a .gguf file, which "
            "needs 'kvgauge[gguf]'"
        )
        return first_line(error), hint, 3
    traceback.print_exception(type(error), error, error.__traceback__)
    return f"{type(error).__name__}: {first_line(error)}", "the lines above say where", 3


def _own_hint(hint: Optional[str]) -> str:
    """The hint of a binary, unless it speaks of the binary's own flags or files: those here are in
    a temporary folder, and its flags are not this command's."""
    own = {flag for action in parser()._actions for flag in action.option_strings}
    # This one too means another file there.
    own -= {"--force"}
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]+", hint or ""))
    if not hint or not named <= own or "--help" in named or "kv-compress" in hint:
        return f"{PROGRAM} --help lists what can be asked for"
    return hint


if __name__ == "__main__":
    sys.exit(main())
