"""Model, tokenizer and text, opened with transformers the way ``kvgauge`` opens them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ._problem import Problem, first_line

_DEFAULT_CONTEXT = 2048
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where a model is: a folder or a hub repository, a revision, perhaps a GGUF file in it."""

    place: str
    revision: Optional[str]
    gguf_file: Optional[str]

    @classmethod
    def parse(cls, model: str, gguf_file: Optional[str]) -> Source:
        if os.path.isfile(model) and model.lower().endswith(".gguf") and gguf_file is None:
            return cls(os.path.dirname(model) or os.curdir, None, os.path.basename(model))
        if os.path.isdir(model):
            return cls(model, None, gguf_file)
        if os.path.exists(model) or os.path.isabs(model) or model.startswith("."):
            raise Problem(
                f"--model {model}: expected a folder or a .gguf file",
                "--model takes OWNER/NAME[@REVISION], a Hugging Face folder or a .gguf file",
            )
        place, _, revision = model.partition("@")
        return cls(place, revision or None, gguf_file)

    def arguments(self) -> Dict[str, Any]:
        """For ``from_pretrained``, beside the place."""
        named = {"revision": self.revision, "gguf_file": self.gguf_file}
        return {name: value for name, value in named.items() if value is not None}

    def file(self, name: str) -> Optional[str]:
        """The path of one of its small files, fetched if need be; ``None`` if it has none."""
        if os.path.isdir(self.place):
            path = os.path.join(self.place, name)
            return path if os.path.isfile(path) else None
        from transformers.utils import cached_file

        with contextlib.suppress(OSError):
            found = cached_file(self.place, name, revision=self.revision)
            return None if found is None else str(found)
        return None

    def commit(self) -> Optional[str]:
        """The hub's commit, from where its cache keeps the files; ``None`` for local files."""
        if os.path.isdir(self.place):
            return None
        parts = os.path.normpath(self.file("config.json") or "").split(os.sep)
        return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None

    def hashes(self) -> Dict[str, str]:
        """SHA-256 of a local model's files by name; nothing for the hub, whose commit says it."""
        if not os.path.isdir(self.place):
            return {}
        names = [self.gguf_file] if self.gguf_file else _model_files(self.place)
        return {name: _sha256(os.path.join(self.place, name)) for name in names}


def _model_files(folder: str) -> List[str]:
    names = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.isfile(os.path.join(folder, "model.safetensors")):
        names.append("model.safetensors")
    elif os.path.isfile(index):
        with open(index, encoding="utf-8") as file:
            shards = json.load(file).get("weight_map", {}).values()
        names += [*sorted(set(shards)), os.path.basename(index)]
    else:
        names += sorted(name for name in os.listdir(folder) if name.endswith(".bin"))
    return [name for name in names if os.path.isfile(os.path.join(folder, name))]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Tokenizer:
    encode: Callable[[str], List[int]]
    bos_id: Optional[int]
    #: Whether it puts that token before a text.
    adds_bos: bool


def open_tokenizer(source: Source, config: Any) -> Tokenizer:
    """``tokenizer.json`` as it is, where there is one: some tokenizer classes of transformers
    rebuild the tokenizer their own way instead of reading it."""
    import transformers

    settings: Dict[str, Any] = {}
    path = None if source.gguf_file else source.file("tokenizer.json")
    if path is None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.place, **source.arguments())
    else:
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=path)
        settings_path = source.file("tokenizer_config.json")
        if settings_path is not None:
            with open(settings_path, encoding="utf-8") as file:
                settings = json.load(file)

    def encode(text: str, special: bool = False) -> List[int]:
        # verbose: no warning that a text is longer than the model's context; windows are not.
        ids = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return [int(token) for token in ids]

    plain, special = encode("a"), encode("a", True)
    template = special[0] if special[:1] != plain[:1] and special[1:2] == plain[:1] else None
    named = settings.get("bos_token")
    named = named.get("content") if isinstance(named, dict) else named
    bos_id = template
    if bos_id is None and isinstance(named, str):
        # A name the vocabulary lacks maps to the unknown token, or to nothing.
        candidate = tokenizer.convert_tokens_to_ids(named)
        if candidate is not None and tokenizer.convert_ids_to_tokens(candidate) == named:
            bos_id = candidate
    if bos_id is None:
        bos_id = tokenizer.bos_token_id
    if bos_id is None:
        bos_id = getattr(config, "bos_token_id", None)
    adds_bos = template is not None
    if str(settings.get("tokenizer_class")).startswith("LlamaTokenizer"):
        # These classes follow this key, whatever the file's template says.
        adds_bos = bool(settings.get("add_bos_token", adds_bos))
    return Tokenizer(encode, bos_id, adds_bos)


def text_config(config: Any) -> Any:
    """The part of a config that is the language model's. Models of more than text nest it; older
    versions have no such models."""
    nested: Callable[[], Any] = getattr(config, "get_text_config", lambda: config)
    return nested()


def check_kind(whole_config: Any, config: Any) -> None:
    """Whether the config is of a decoder that caches keys and values in every layer, as far as it
    says."""
    kind = getattr(whole_config, "model_type", None) or type(whole_config).__name__
    if getattr(whole_config, "is_encoder_decoder", False):
        raise Problem(
            f"--model: expected a decoder-only language model, found an encoder-decoder ({kind})",
            "the cache of its encoder is computed once and never grows: it is not what is "
            "compressed here",
        )
    if not getattr(config, "num_attention_heads", None):
        raise Problem(
            f"--model: expected a model that caches keys and values, found none of it ({kind}, "
            "whose config names no attention heads)",
            "a recurrent state is no cache of keys and values: there is nothing to compress",
        )
    if getattr(config, "kv_lora_rank", None):
        raise Problem(
            "--model: expected a cache of keys and values of every head, found multi-head latent "
            f"attention ({kind}), which caches one latent vector a token",
            "codecs for such caches are not built here",
        )
    layers = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    others = [str(layer) for layer in layers or [] if "attention" not in str(layer)]
    linear = [str(layer) for layer in layers or [] if "linear" in str(layer)]
    if others or linear:
        raise Problem(
            f"--model: expected keys and values in every layer, found layers of type "
            f"{(others or linear)[0]} ({kind})",
            "models with recurrent or convolution states beside keys and values cannot be "
            "evaluated here",
        )


def load_model(source: Source, attention: Optional[str], device: str) -> Tuple[Any, str]:
    """The model in float32, and how it computes attention. ``attention``: ``None`` is sdpa, or
    eager for models that have no other, such as Gemma 2 with its softcap."""
    import torch
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    dtype = "dtype" if version >= (4, 56) else "torch_dtype"
    wanted = attention or "sdpa"
    arguments: Dict[str, Any] = {dtype: torch.float32, "attn_implementation": wanted}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source.place, **source.arguments(), **arguments
        )
    except ValueError as error:
        if "attention implementation" not in str(error):
            raise
        if attention is None:
            return load_model(source, "eager", device)
        raise Problem(
            f"--attention {attention}: transformers has no such attention for this model",
            "use --attention eager",
        ) from error
    try:
        return model.to(device).eval(), wanted
    except (RuntimeError, AssertionError) as error:
        raise Problem(
            f"--device {device}: {first_line(error)}", "use --device cpu, or install its support"
        ) from error


def forward(model: Any, tokens: Any, cache: Any, **more: Any) -> Tuple[Any, Any]:
    """Logits [batch, tokens, vocab] of a pass that goes on from ``cache``, and the cache after
    it; ``None`` if the model returns none. transformers has renamed it on the way."""
    named = "cache" in inspect.signature(model.forward).parameters
    given = {"cache" if named else "past_key_values": cache}
    output = model(input_ids=tokens, use_cache=True, **given, **more)
    # Not both: the old name of a new version warns.
    found = getattr(output, "cache", None) if named else getattr(output, "past_key_values", None)
    return output.logits, found


def logits_of_last(model: Any, count: int) -> Dict[str, int]:
    """The argument of :func:`forward` for the logits of the last ``count`` tokens only, whose name
    depends on the version; none where the model has no such argument and returns all."""
    known = inspect.signature(model.forward).parameters
    for name in ("logits_to_keep", "num_logits_to_keep"):
        if name in known:
            return {name: count}
    return {}


def read_text(path: str) -> Tuple[str, bytes]:
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(
            f"--text {path}: expected UTF-8, found the byte 0x{content[error.start]:02x} at "
            f"offset {error.start}",
            "convert the text to UTF-8, for example with iconv",
        ) from error
    if not text:
        raise Problem(
            f"--text {path}: expected text, found an empty file",
            "a text of at least one window of tokens is needed",
        )
    return text, content


def window_bos(mode: str, tokenizer: Tokenizer) -> Optional[int]:
    if mode == "never" or (mode == "auto" and not tokenizer.adds_bos):
        return None
    if tokenizer.bos_id is None:
        raise Problem(
            "--bos: expected a beginning-of-sequence token, and the model names none",
            "use --bos never",
        )
    return tokenizer.bos_id


def context_for(asked: Optional[int], config: Any) -> int:
    """The window length: what was asked for, or the default, within what the model computes."""
    longest = _longest_context(config)
    if asked is None:
        return min(_DEFAULT_CONTEXT, longest or _DEFAULT_CONTEXT)
    if longest is not None and asked > longest:
        raise Problem(
            f"--context: expected at most {longest}, the model's longest context, found {asked}",
            f"use --context {longest} or less, or leave it out",
        )
    return asked


def _longest_context(config: Any) -> Optional[int]:
    """The longest window that the model was trained for or is stretched to, where its config says
    so."""
    made_for = getattr(config, "max_position_embeddings", None)
    if not isinstance(made_for, int) or made_for <= 0:
        return None
    longest: int = made_for
    for rope in rope_parameters(config):
        if rope_type(rope) in ("yarn", "dynamic"):
            original = rope.get("original_max_position_embeddings") or made_for
            longest = max(longest, int(float(rope.get("factor") or 1.0) * original))
    return longest


def attention_reach(config: Any) -> Optional[int]:
    """How many positions before its own a token can feel through all layers, each of which attends
    to a window: the sum of the windows but one position each. ``None``: all of them, since a layer
    attends to everything, or the config names no window."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int):
        return None
    sliding = getattr(config, "sliding_window", None)
    if not getattr(config, "use_sliding_window", True):
        sliding = None
    chunk = getattr(config, "attention_chunk_size", None)
    windows = {"sliding_attention": sliding, "chunked_attention": chunk}
    named = getattr(config, "layer_types", None)
    reach: List[Any] = [windows.get(kind) for kind in named] if named else [sliding] * layers
    if not all(isinstance(window, int) and window > 0 for window in reach):
        return None
    return int(sum(window - 1 for window in reach))


def rope_parameters(config: Any) -> List[Dict[str, Any]]:
    """What a config says of RoPE, once for each type of layers that has its own. Newer versions of
    transformers keep it as ``rope_parameters``, older ones what is not default as
    ``rope_scaling``."""
    config = text_config(config)
    for name in ("rope_parameters", "rope_scaling"):
        said = getattr(config, name, None)
        if isinstance(said, dict) and said:
            by_layer = [entry for entry in said.values() if isinstance(entry, dict)]
            return by_layer or [said]
    return []


def rope_type(parameters: Mapping[str, Any]) -> str:
    """The type in an entry of :func:`rope_parameters`."""
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def follows_length(parameters: Mapping[str, Any]) -> bool:
    """Whether its frequencies depend on how many tokens there are: dynamic NTK and LongRoPE, whose
    first name was ``su``."""
    kind = rope_type(parameters)
    return "dynamic" in kind or kind in ("longrope", "su")
