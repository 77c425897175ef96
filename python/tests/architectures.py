"""Tiny random models of transformers, one of every architecture and option that matters to a cache:
sliding windows shorter than a prefix, layer types mixed, rotary embeddings of every kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

#: Of the vocabulary, in ids.
VOCABULARY = 2048
LAYERS = 4
#: Layers of half the models attend to so many tokens, their own included.
WINDOW = 12
#: What models stretched by LongRoPE or dynamic NTK were made for, tokens.
SHORT_CONTEXT = 50

_COMMON: Dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": WINDOW}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA3: Dict[str, Any] = {
    **_MIXED,
    "head_dim": 16,
    "query_pre_attn_scalar": 20,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
_SHORT_FACTORS = [1.0 + i / 8 for i in range(8)]
_LONG_FACTORS = [2.0 + i for i in range(8)]


def powers(theta: float, channels: int, divisors: Sequence[float] = ()) -> List[float]:
    """The frequencies of plain RoPE over so many channels, each divided by its own number."""
    plain = [theta ** (-2 * i / channels) for i in range(channels // 2)]
    return [one / by for one, by in zip(plain, divisors or [1.0] * len(plain))]


def dynamic(theta: float, channels: int, factor: float, made_for: int, tokens: int) -> List[float]:
    """Dynamic NTK scaling at so many tokens, more than the model was made for."""
    stretched = factor * tokens / made_for - (factor - 1)
    return powers(theta * stretched ** (channels / (channels - 2)), channels)


def yarn(theta: float, channels: int, factor: float, made_for: int) -> List[float]:
    """YaRN (Peng et al. 2023): pairs that turn 32 times and more within the tokens that the model
    was made for keep their frequency, those that turn once and less have it divided by ``factor``,
    and those between are mixed by their index."""

    def index(turns: float) -> float:
        return channels * math.log(made_for / (2 * math.pi * turns)) / (2 * math.log(theta))

    first, last = max(math.floor(index(32)), 0), min(math.ceil(index(1)), channels - 1)
    mixed = [min(max((i - first) / (last - first), 0.0), 1.0) for i in range(channels // 2)]
    plain = powers(theta, channels)
    return [one * (1 - share) + one / factor * share for one, share in zip(plain, mixed)]


@dataclass(frozen=True)
class Architecture:
    """One model. ``kind``: its ``model_type``."""

    kind: str
    settings: Dict[str, Any]
    #: Of each layer: frequencies, none without RoPE; a list for all layers alike.
    frequencies: List[List[float]]
    #: Of the layers with RoPE.
    interleaved: bool = False
    #: Kind of an outer config, in which this one is the text's.
    within: Optional[str] = None
    outer: Dict[str, Any] = field(default_factory=dict)

    def by_layer(self) -> List[List[float]]:
        return self.frequencies * (LAYERS if len(self.frequencies) == 1 else 1)


def _plain(theta: float = 1e4, channels: int = 16) -> List[List[float]]:
    return [powers(theta, channels)]


#: Windows of the tests, tokens. Their prefix is within ``SHORT_CONTEXT``, they are not.
CONTEXT = 80

_NO_ROPE: List[float] = []

ARCHITECTURES: Dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", {"rope_theta": 1e4}, _plain()),
    "LlamaForCausalLM, dynamic NTK": Architecture(
        "llama",
        {
            "max_position_embeddings": SHORT_CONTEXT,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        },
        [dynamic(1e4, 16, 4.0, SHORT_CONTEXT, CONTEXT)],
    ),
    "MistralForCausalLM": Architecture(
        "mistral", {"sliding_window": WINDOW, "head_dim": 16, "rope_theta": 1e4}, _plain()
    ),
    "MinistralForCausalLM": Architecture(
        "ministral", {**_MIXED, "head_dim": 16, "rope_theta": 1e4}, _plain()
    ),
    "Ministral3ForCausalLM": Architecture(
        "ministral3",
        {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 2.0,
                "rope_theta": 1e6,
                "llama_4_scaling_beta": 0.1,
                "original_max_position_embeddings": 16,
            },
        },
        [powers(1e6, 16, [2.0] * 8)],
    ),
    "Ministral3ForCausalLM, YaRN": Architecture(
        "ministral3",
        {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 8.0,
                "rope_theta": 1e4,
                "llama_4_scaling_beta": 0.1,
                "original_max_position_embeddings": 64,
            },
        },
        [yarn(1e4, 16, 8.0, 64)],
    ),
    "Qwen2ForCausalLM": Architecture("qwen2", {"rope_theta": 1e6}, _plain(1e6)),
    "Qwen2ForCausalLM, sliding": Architecture(
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
        _plain(),
    ),
    "Qwen2MoeForCausalLM": Architecture(
        "qwen2_moe",
        {**_EXPERTS, "decoder_sparse_step": 2, "shared_expert_intermediate_size": 32},
        _plain(),
    ),
    "Qwen3ForCausalLM": Architecture(
        "qwen3", {"head_dim": 32, "rope_theta": 1e6}, _plain(1e6, 32)
    ),
    "Qwen3MoeForCausalLM": Architecture("qwen3_moe", {**_EXPERTS, "head_dim": 32}, _plain(1e4, 32)),
    "MixtralForCausalLM": Architecture(
        "mixtral",
        {"num_local_experts": 4, "sliding_window": WINDOW, "rope_theta": 1e6},
        _plain(1e6),
    ),
    "Gemma2ForCausalLM": Architecture(
        "gemma2",
        {
            **_MIXED,
            "head_dim": 16,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        _plain(),
    ),
    "Gemma3ForCausalLM": Architecture(
        "gemma3_text", _GEMMA3, [powers(1e4, 16), powers(1e6, 16, [8.0] * 8)] * 2
    ),
    "Gemma3ForConditionalGeneration": Architecture(
        "gemma3_text",
        _GEMMA3,
        [powers(1e4, 16), powers(1e6, 16, [8.0] * 8)] * 2,
        within="gemma3",
        outer={
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
            "image_token_index": VOCABULARY - 1,
            "boi_token_index": VOCABULARY - 2,
            "eoi_token_index": VOCABULARY - 3,
        },
    ),
    "Phi3ForCausalLM": Architecture("phi3", {"sliding_window": WINDOW}, _plain()),
    "Phi3ForCausalLM, partial": Architecture(
        "phi3", {"partial_rotary_factor": 0.5}, _plain(1e4, 8)
    ),
    "Phi3ForCausalLM, LongRoPE": Architecture(
        "phi3",
        {
            "original_max_position_embeddings": SHORT_CONTEXT,
            "rope_parameters": {
                "rope_type": "longrope",
                "short_factor": _SHORT_FACTORS,
                "long_factor": _LONG_FACTORS,
                "rope_theta": 1e4,
                "original_max_position_embeddings": SHORT_CONTEXT,
            },
        },
        [powers(1e4, 16, _LONG_FACTORS)],
    ),
    "SmolLM3ForCausalLM": Architecture(
        "smollm3",
        {"no_rope_layers": [1, 1, 0, 1], "rope_theta": 1e4},
        [powers(1e4, 16), powers(1e4, 16), _NO_ROPE, powers(1e4, 16)],
    ),
    "SmolLM3ForCausalLM, sliding": Architecture(
        "smollm3",
        {
            **_MIXED,
            "use_sliding_window": True,
            "no_rope_layers": [1, 0, 1, 0],
            "rope_theta": 1e4,
        },
        [powers(1e4, 16), _NO_ROPE] * 2,
    ),
    "GraniteForCausalLM": Architecture(
        "granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
        },
        _plain(),
    ),
    "Olmo2ForCausalLM": Architecture("olmo2", {"rope_theta": 5e5}, _plain(5e5)),
    "Olmo3ForCausalLM": Architecture("olmo3", {**_MIXED, "rope_theta": 5e5}, _plain(5e5)),
    "Glm4ForCausalLM": Architecture("glm4", {"head_dim": 16}, _plain(1e4, 8), interleaved=True),
    "CohereForCausalLM": Architecture(
        "cohere",
        {"use_qk_norm": True, "logit_scale": 0.5, "rope_theta": 1e4},
        _plain(),
        interleaved=True,
    ),
    "Cohere2ForCausalLM": Architecture(
        "cohere2",
        {
            "layer_types": [*["sliding_attention"] * 3, "full_attention"],
            "sliding_window": WINDOW,
            "rope_theta": 1e4,
        },
        [*_plain() * 3, _NO_ROPE],
        interleaved=True,
    ),
    "Llama4ForCausalLM": Architecture(
        "llama4_text",
        {
            "head_dim": 16,
            "no_rope_layers": [1, 1, 1, 0],
            "num_local_experts": 2,
            "moe_layers": [],
            "intermediate_size_mlp": 64,
            "rope_theta": 1e4,
        },
        [*_plain() * 3, _NO_ROPE],
        interleaved=True,
    ),
}


def random_model(kind: str, **settings: Any) -> Any:
    """With random norms and biases too."""
    return _random(_config(kind, {**_COMMON, **settings}))


def random_architecture(architecture: Architecture) -> Any:
    settings = {**_COMMON, **architecture.settings}
    if architecture.within is None:
        return random_model(architecture.kind, **settings)
    text = {**_config(architecture.kind, settings).to_dict(), "model_type": architecture.kind}
    return _random(_config(architecture.within, {"text_config": text, **architecture.outer}))


def _config(kind: str, settings: Dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **_spelled(kind, settings))


def _spelled(kind: str, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Settings as the installed transformers spells them: RoPE has keys of its own before 5."""
    import transformers

    rope = settings.get("rope_parameters")
    if rope is None or int(transformers.__version__.split(".")[0]) >= 5:
        return settings
    old = {key: value for key, value in settings.items() if key != "rope_parameters"}
    if "sliding_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if kind == "phi3":
        factors = ("short_factor", "long_factor")
        scaling = {"type": "longrope", **{key: rope[key] for key in factors}}
    return {**old, "rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def _random(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
            else:
                # As they are made, attention is so even that what it sees hardly matters.
                parameter.mul_(4.0)
    return model
