"""Writes architectures/NAME.safetensors beside itself: what PyTorch transformers computes with tiny
random models, at least one for each architecture and for each option that its config has.

    pip install torch==2.15.0 transformers==5.24.0 safetensors==0.8.0 numpy
    python make_architectures.py [NAME ...]
    pip install transformers==4.57.6        # in a second environment
    python make_architectures.py --second [NAME ...]
    python make_architectures.py --check [NAME ...]     # in either, as often as you like

A file holds no weights: a weight is a function of its tensor's name (`weight`), computed alike by
`tests/common/architectures.rs`. It holds, as F32,

- `logits` [tokens, vocab]: of every position;
- `keys.N`, `values.N` [kv_heads, tokens, head_dim]: layer N's cache, keys after RoPE, all tokens,
  also where a layer's window would let a server forget them;

and one metadata entry, `golden`, whose JSON has

- `tokens`: the input;
- `tensors`: [name on disk, shape, centre, spread] of each;
- `renamed`: further names on disk, as lists of [old prefix, new prefix];
- `configs`: [by whom, config.json], all of which mean this model. "transformers VERSION": as that
  version's `save_pretrained` writes it. "..., minimal": without the keys which that version's class
  fills in with the same value when they are absent. "hand": see `by_hand`;
- `window`: 0, or the number of tokens for whose length frequencies are computed, where they depend
  on it.

Everything is computed in f32 on the CPU with attention written out ("eager") from weights that
transformers loaded from disk, in one pass. Checked here, within 3e-6 of the largest value of each
tensor: sdpa gives the same (softcaps apart, which it does not have), and so do two passes over a
cache taken from the first to the second, for every split that is tried.

RoPE of type `dynamic` and `longrope` depends on how long the sequence is. transformers takes the
length so far, so that two passes mix keys of both kinds of frequencies. Here a window has one
length: its frequencies are those of the whole window from its first token on. The second of two
passes is compared with the frequencies of the whole window in both (`freeze`).

`--second` computes the same models with transformers 4.57, which must agree, and adds the config as
it writes it. Where the versions disagree:

- Qwen2Moe with `use_sliding_window`: 4.57 knows no `layer_types` and slides in every layer; 5 follows
  `layer_types`. 5 is compared, with `layer_types` in the config.
- Olmo3, 4.57's config with `rope_theta` other than 500000: 5 uses it for full layers only and 500000 for
  sliding ones. 4.57 is right (its config meant both); given as `rope_parameters`, 5 agrees.
- `rope_theta` absent: Cohere 10000 in 4.57 and 500000 in 5, Olmo3 likewise. Both kinds of config are
  stored with the key.
- Longrope with `factor` and `original_max_position_embeddings`: 4.57 takes the quotient of lengths for
  `factor`, 5 the key. They agree where both are the same, as in released models.
- Ministral3 exists in 5 only.
"""

import argparse
import copy
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from golden_weights import weight
from safetensors import safe_open
from safetensors.numpy import save_file

FOLDER = Path(__file__).parent / "architectures"
VERSION = transformers.__version__
FIVE = int(VERSION.split(".")[0]) >= 5
TOLERANCE = 3e-6

SLIDING, FULL = "sliding_attention", "full_attention"


def case(kind, tokens=16, four=True, hand=None, renamed=None, length=False, **config):
    """A model. `four`: whether 4.57 has it; a dict: what its config has instead. `length`: whether
    frequencies depend on the window's length."""
    shape = dict(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, max_position_embeddings=64,
    )
    return dict(kind=kind, tokens=tokens, four=four, hand=hand, renamed=renamed, length=length,
                config={**shape, **config})


def rope(kind, **config):
    """A case about RoPE: more frequencies."""
    return case(kind, **{**dict(num_attention_heads=2, head_dim=16), **config})


def moe(kind, **config):
    return case(kind, **{**dict(intermediate_size=32, num_experts_per_tok=2), **config})


def mrope(config):
    config["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 3, 3]}


def old_linear(config):
    config["rope_scaling"] = {"type": "linear", "factor": 4.0}


# Frequencies of a head of 16 with θ = 100 run from 1 to 0.018 radians a token: over 16 tokens and an
# original length of 16 every branch of llama3 and yarn has one.
CASES = {
    # -- Llama and RoPE ------------------------------------------------------------------------------
    "llama": case("Llama", num_hidden_layers=3, num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5),
    "llama_biases": case(
        "Llama", attention_bias=True, mlp_bias=True, head_dim=12, num_key_value_heads=None,
        tie_word_embeddings=True, rope_theta=500.0, rms_norm_eps=1e-3,
    ),
    "llama_rope_linear": rope(
        "Llama", rope_theta=100.0, rope_scaling=dict(rope_type="linear", factor=4.0), hand=old_linear,
    ),
    "llama_rope_llama3": rope(
        "Llama", rope_theta=100.0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=48),
    ),
    "llama_rope_yarn": rope(
        "Llama", rope_theta=100.0,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "llama_rope_yarn_mscale": rope(
        "Llama", rope_theta=100.0,
        rope_scaling=dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=8, beta_fast=4.0,
                          beta_slow=0.5, mscale=0.7, mscale_all_dim=1.4),
    ),
    "llama_rope_yarn_attention_factor": rope(
        "Llama", rope_theta=100.0,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=2.0,
                          beta_slow=0.25, attention_factor=1.3, truncate=False),
    ),
    "llama_rope_dynamic_within": rope(
        "Llama", rope_theta=100.0, rope_scaling=dict(rope_type="dynamic", factor=3.0), length=True,
        hidden_act="gelu",
    ),
    "llama_rope_dynamic_beyond": rope(
        "Llama", rope_theta=100.0, rope_scaling=dict(rope_type="dynamic", factor=3.0), max_position_embeddings=12,
        length=True,
    ),
    "llama_rope_longrope": rope(
        "Llama", rope_theta=100.0, max_position_embeddings=48, original_max_position_embeddings=12, length=True,
        rope_scaling=dict(rope_type="longrope", factor=4.0, short_factor=[1.0 + i / 16 for i in range(8)],
                          long_factor=[1.5 + i / 2 for i in range(8)]),
    ),
    "llama_rope_longrope_attention_factor": rope(
        "Llama", rope_theta=100.0, max_position_embeddings=64, original_max_position_embeddings=32, length=True,
        rope_scaling=dict(rope_type="longrope", factor=2.0, attention_factor=0.8,
                          short_factor=[1.0 + i / 16 for i in range(8)],
                          long_factor=[1.5 + i / 2 for i in range(8)]),
    ),
    # -- Mistral -------------------------------------------------------------------------------------
    "mistral": case("Mistral", num_key_value_heads=2, sliding_window=6, head_dim=12, rope_theta=1e6),
    "mistral_full": case(
        "Mistral", sliding_window=None, tie_word_embeddings=True, rms_norm_eps=1e-5,
    ),
    "mixtral": moe("Mixtral", num_local_experts=4, num_key_value_heads=2),
    "mixtral_sliding": moe(
        "Mixtral", num_local_experts=5, num_experts_per_tok=3, sliding_window=5, head_dim=12,
        tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh", rope_theta=1e4,
    ),
    "ministral": case("Ministral", sliding_window=5, layer_types=[SLIDING, FULL, SLIDING], head_dim=8, num_hidden_layers=3),
    "ministral_sliding": case("Ministral", hidden_act="relu", sliding_window=7, head_dim=12, tie_word_embeddings=True),
    "ministral3": case(
        "Ministral3", four=False, head_dim=16, num_attention_heads=2,
        rope_parameters=dict(rope_type="yarn", rope_theta=100.0, factor=8.0, original_max_position_embeddings=8,
                             max_position_embeddings=64, beta_fast=4.0, beta_slow=1.0, mscale=1.0,
                             mscale_all_dim=1.0, llama_4_scaling_beta=0.3),
    ),
    "ministral3_sliding": case(
        "Ministral3", four=False, head_dim=16, num_attention_heads=2,
        sliding_window=6, tie_word_embeddings=True,
        rope_parameters=dict(type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=4,
                             max_position_embeddings=64, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
                             mscale_all_dim=0.5, llama_4_scaling_beta=0.1),
    ),
    # -- Qwen ----------------------------------------------------------------------------------------
    "qwen2": case("Qwen2", tie_word_embeddings=True, rope_theta=1e6),
    "qwen2_sliding": case(
        "Qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1, rope_theta=1e6,
    ),
    "qwen2_layer_types": case(
        "Qwen2", use_sliding_window=True, sliding_window=7, layer_types=[SLIDING, FULL, SLIDING], num_hidden_layers=3,
        hidden_act="gelu", rms_norm_eps=1e-5,
    ),
    "qwen2_rope_yarn": rope(
        "Qwen2", rope_theta=1000.0, num_attention_heads=2, hidden_size=32,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "qwen2_rope_mrope": rope(
        "Qwen2", rope_theta=1000.0, hand=mrope, rope_scaling=dict(rope_type="default", mrope_section=[2, 3, 3]),
    ),
    "qwen3": case("Qwen3", head_dim=16, num_attention_heads=2, rope_theta=1e6),
    "qwen3_sliding": case(
        "Qwen3", head_dim=12, attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=1,
        num_key_value_heads=2,
        tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh",
    ),
    "qwen3_rope_yarn": rope(
        "Qwen3", rope_theta=1000.0,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0),
    ),
    "qwen2_moe": moe(
        "Qwen2Moe", num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=20, num_hidden_layers=4,
        decoder_sparse_step=2, mlp_only_layers=[3], norm_topk_prob=False,
    ),
    "qwen2_moe_plain": moe("Qwen2Moe", num_experts=3, moe_intermediate_size=32, shared_expert_intermediate_size=32),
    "qwen2_moe_norm": moe(
        "Qwen2Moe", num_experts=5, num_experts_per_tok=3, moe_intermediate_size=12, shared_expert_intermediate_size=16,
        norm_topk_prob=True, qkv_bias=False, rope_theta=1e6, tie_word_embeddings=True,
    ),
    "qwen2_moe_sliding": moe(
        "Qwen2Moe", four=False, num_experts=3, moe_intermediate_size=8, shared_expert_intermediate_size=8,
        use_sliding_window=True, sliding_window=5, layer_types=[FULL, SLIDING],
       
    ),
    "qwen3_moe": moe(
        "Qwen3Moe", num_experts=4, moe_intermediate_size=16, num_hidden_layers=4, decoder_sparse_step=2,
        mlp_only_layers=[1], norm_topk_prob=False, attention_bias=True, head_dim=12,
        use_sliding_window=True, sliding_window=6,
    ),
    "qwen3_moe_norm": moe(
        "Qwen3Moe", num_experts=4, moe_intermediate_size=32, norm_topk_prob=True, tie_word_embeddings=True, rope_theta=1e6,
    ),
    # -- Gemma ---------------------------------------------------------------------------------------
    "gemma2": case(
        "Gemma2", num_hidden_layers=3, num_key_value_heads=2, head_dim=12, query_pre_attn_scalar=12, sliding_window=5, attn_logit_softcapping=3.0,
        final_logit_softcapping=8.0,
    ),
    "gemma2_plain": case(
        "Gemma2", head_dim=8, query_pre_attn_scalar=20, sliding_window=6, attn_logit_softcapping=None,
        final_logit_softcapping=None, layer_types=[FULL, SLIDING], attention_bias=True,
        hidden_activation="gelu", tie_word_embeddings=False, rope_theta=1e3,
    ),
    "gemma3": case(
        "Gemma3Text", head_dim=12, query_pre_attn_scalar=12, sliding_window=5,
        sliding_window_pattern=3, num_hidden_layers=4, rope_theta=1000.0, rope_local_base_freq=50.0,
        rope_scaling=dict(rope_type="linear", factor=4.0),
    ),
    "gemma3_layers": case(
        "Gemma3Text", num_hidden_layers=7, num_attention_heads=2, head_dim=16, query_pre_attn_scalar=16,
        sliding_window=4, rope_scaling=dict(rope_type="linear", factor=8.0),
    ),
    "gemma3_options": case(
        "Gemma3Text", head_dim=8, query_pre_attn_scalar=20, sliding_window=7, layer_types=[FULL, SLIDING, SLIDING], num_hidden_layers=3,
        attention_bias=True, final_logit_softcapping=6.0, attn_logit_softcapping=2.0, tie_word_embeddings=False,
        hidden_activation="silu",
    ),
    "gemma3_rope_by_layer_type": case(
        "Gemma3Text", four=False, head_dim=16, num_attention_heads=2, query_pre_attn_scalar=16,
        sliding_window=6, layer_types=[SLIDING, FULL],
        rope_parameters={
            SLIDING: dict(rope_type="linear", factor=2.0, rope_theta=50.0),
            FULL: dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=1000.0),
        },
    ),
    "gemma3_conditional": case(
        "Gemma3", renamed=[
            [["vision_tower.", "vision_tower.vision_model."]],
            [["language_model.model.", "model.language_model."], ["vision_tower.", "model.vision_tower.vision_model."],
             ["multi_modal_projector.", "model.multi_modal_projector."]],
        ],
        text_config=dict(
            vocab_size=32, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=1, head_dim=12, max_position_embeddings=64, sliding_window=5, query_pre_attn_scalar=10,
            layer_types=[SLIDING, SLIDING, FULL], rope_scaling=dict(rope_type="linear", factor=8.0),
            final_logit_softcapping=None,
        ),
        vision_config=dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                           image_size=28, patch_size=14, vision_use_head=False),
        mm_tokens_per_image=1, image_token_index=31, boi_token_index=30, eoi_token_index=29,
    ),
    # -- Phi -----------------------------------------------------------------------------------------
    "phi3": case("Phi3", num_key_value_heads=2, sliding_window=6, pad_token_id=0, eos_token_id=1),
    "phi3_partial": case(
        "Phi3", partial_rotary_factor=0.75, num_attention_heads=2, num_key_value_heads=None,
        tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
    ),
    "phi3_longrope_short": rope(
        "Phi3", partial_rotary_factor=0.75, max_position_embeddings=64, original_max_position_embeddings=16, length=True,
        rope_theta=100.0, pad_token_id=0, eos_token_id=1, head_dim=None,
        rope_scaling=dict(type="longrope", short_factor=[1.0 + i / 8 for i in range(6)],
                          long_factor=[2.0 + i for i in range(6)]),
    ),
    "phi3_longrope_long": rope(
        "Phi3", partial_rotary_factor=0.75, max_position_embeddings=64, original_max_position_embeddings=15, length=True,
        rope_theta=100.0, pad_token_id=0, eos_token_id=1, head_dim=None, tie_word_embeddings=True,
        rope_scaling=dict(type="longrope", short_factor=[1.0 + i / 8 for i in range(6)],
                          long_factor=[2.0 + i for i in range(6)]),
    ),
    # -- others --------------------------------------------------------------------------------------
    "smollm3": case(
        "SmolLM3", num_hidden_layers=4, pad_token_id=0, rope_theta=5e3,
    ),
    "smollm3_sliding": case(
        "SmolLM3", no_rope_layers=[0, 1, 1], num_hidden_layers=3, num_key_value_heads=2, use_sliding_window=True, sliding_window=5, attention_bias=True,
        mlp_bias=True, tie_word_embeddings=False, pad_token_id=0, hidden_act="relu",
    ),
    "smollm3_layer_types": case(
        "SmolLM3", no_rope_layer_interval=2, use_sliding_window=True, sliding_window=6, pad_token_id=0,
        layer_types=[SLIDING, FULL], rope_scaling=dict(rope_type="linear", factor=2.0),
    ),
    "granite": case(
        "Granite", num_key_value_heads=2, embedding_multiplier=3.0, logits_scaling=2.5, residual_multiplier=0.6, attention_multiplier=0.2,
    ),
    "granite_biases": case(
        "Granite", attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        embedding_multiplier=0.5, logits_scaling=4, residual_multiplier=1.3, num_key_value_heads=None,
        attention_multiplier=0.5, rope_theta=1e6,
    ),
    "olmo2": case("Olmo2", num_key_value_heads=2, rope_theta=500000.0, pad_token_id=0),
    "olmo2_biases": case(
        "Olmo2", attention_bias=True, tie_word_embeddings=True, num_key_value_heads=None,
        hidden_act="gelu", pad_token_id=0, rope_scaling=dict(type="linear", factor=3.0), rms_norm_eps=1e-6,
    ),
    "olmo3": case(
        "Olmo3", num_hidden_layers=4, num_attention_heads=2, sliding_window=6, pad_token_id=0,
        rope_theta=500000.0,
        rope_scaling=dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=8, beta_fast=32.0,
                          beta_slow=1.0, attention_factor=1.2079441541679836),
    ),
    "olmo3_layer_types": case(
        "Olmo3", sliding_window=5, layer_types=[FULL, SLIDING], attention_bias=True, pad_token_id=0,
        num_key_value_heads=None, tie_word_embeddings=True,
        rope_parameters={
            SLIDING: dict(rope_type="default", rope_theta=300.0),
            FULL: dict(rope_type="linear", factor=2.0, rope_theta=300.0),
        },
        four=dict(rope_theta=300.0, rope_scaling=dict(rope_type="linear", factor=2.0)),
    ),
    "glm4": case("Glm4", head_dim=16, num_attention_heads=2, pad_token_id=0),
    "glm4_partial": case(
        "Glm4", num_key_value_heads=2, head_dim=12, partial_rotary_factor=1.0 / 3.0, attention_bias=False, tie_word_embeddings=True,
        hidden_act="gelu", rope_theta=1e3, rms_norm_eps=1e-5, pad_token_id=0,
    ),
    "cohere": case("Cohere", num_key_value_heads=2, rope_theta=8e6, logit_scale=0.25, layer_norm_eps=1e-4),
    "cohere_qk_norm": case(
        "Cohere", use_qk_norm=True, attention_bias=True, tie_word_embeddings=False, logit_scale=0.5,
        rope_theta=2e4, hidden_act="gelu",
    ),
}


# -- weights ---------------------------------------------------------------------------------------------


def distribution(kind, name, shape):
    """Centre and spread of a tensor: attention is sharp, experts differ, norms are not 1 nor biases 0."""
    if "norm" in name and name.endswith("weight"):
        return (0.0 if kind.startswith("Gemma") else 1.0), 0.5
    if name.endswith("bias"):
        return 0.0, 0.5
    if "embed_tokens" in name:
        return 0.0, 0.3 if kind.startswith("Gemma") else 1.0
    gain = 4.0 if name.endswith((".gate.weight", "shared_expert_gate.weight")) else 2.4
    return 0.0, float(np.float32(gain / math.sqrt(shape[-1])))


# -- models ----------------------------------------------------------------------------------------------


def config_of(what):
    kind = getattr(transformers, what["kind"] + "Config")
    values = copy.deepcopy(what["config"])
    if what["kind"] == "Gemma3":
        values = {key: value for key, value in values.items() if key in (
            "text_config", "vision_config", "mm_tokens_per_image", "image_token_index", "boi_token_index",
            "eoi_token_index")}
    if not FIVE and isinstance(what["four"], dict):
        values.pop("rope_parameters")
        values.update(copy.deepcopy(what["four"]))
    if values.get("head_dim", 0) is None:
        values.pop("head_dim")
    return kind(**values)


def class_of(what):
    name = what["kind"].removesuffix("Text")
    return getattr(transformers, name + ("ForConditionalGeneration" if what["kind"] == "Gemma3" else "ForCausalLM"))


def saved(what):
    """config.json, and names and shapes of the tensors, as `save_pretrained` writes them."""
    model = class_of(what)(config_of(what))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "np") as file:
            return config, {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}


def load(what, config, tensors, attention="eager", renamed=()):
    with tempfile.TemporaryDirectory() as folder:
        weights = {}
        for name, shape, centre, spread in tensors:
            stored = name
            for old, new in renamed:
                if name.startswith(old):
                    stored = new + name.removeprefix(old)
            weights[stored] = weight(name, shape, centre, spread)
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        (Path(folder) / "config.json").write_text(json.dumps(config))
        model, told = class_of(what).from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
        )
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not told[problem], (problem, told[problem])
    return model.eval()


def freeze(model):
    """From now on frequencies stay as they are."""
    for module in model.modules():
        if hasattr(module, "inv_freq") and isinstance(module.rope_type, str):
            module.rope_type = "default"


def run(model, tokens, cache=None):
    """Logits and the whole cache. A cache without a config keeps every token in every layer."""
    cache = transformers.DynamicCache() if cache is None else cache
    tokens = torch.tensor([tokens])
    with torch.no_grad():
        name = "cache" if FIVE else "past_key_values"
        out = model(input_ids=tokens, use_cache=True, **{name: cache})
    return out.logits[0], cache


def tensors_of(logits, cache):
    found = {"logits": logits}
    for index, layer in enumerate(cache.layers):
        found[f"keys.{index}"], found[f"values.{index}"] = layer.keys[0], layer.values[0]
    return {name: tensor.contiguous().numpy().copy() for name, tensor in found.items()}


def distance(a, b):
    assert a.keys() == b.keys(), (a.keys(), b.keys())
    return max(float(np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()) for name in b)


def computed(model, what, tokens):
    """One pass; and that two passes give the same."""
    found = tensors_of(*run(model, tokens))
    if what["length"]:
        freeze(model)
    for split in (1, len(tokens) // 2, len(tokens) - 1):
        first, cache = run(model, tokens[:split])
        second, cache = run(model, tokens[split:], cache)
        parts = tensors_of(torch.cat([first, second]), cache)
        assert distance(parts, found) < TOLERANCE, (split, distance(parts, found))
    return found


def minimal(what, config):
    """Without the keys that the class fills in itself."""
    kind = type(config_of(what))
    small = {key: value for key, value in copy.deepcopy(config).items() if key != "dtype"}

    def meaning():
        return json.dumps(kind.from_dict(copy.deepcopy(small)).to_dict(), sort_keys=True)

    whole = meaning()
    for part in (small.get("text_config", {}), small):
        for key in [key for key in part if key not in ("architectures", "model_type")]:
            value = part.pop(key)
            try:
                same = meaning() == whole
            except Exception:  # the class needs it
                same = False
            if not same:
                part[key] = value
    return small


def sharpness(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return float(p.max(-1).mean())


# -- files -----------------------------------------------------------------------------------------------


def write(name, golden, found):
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(golden, separators=(",", ":"), ensure_ascii=False)
    save_file(found, FOLDER / f"{name}.safetensors", metadata={"golden": text})


def read(name):
    with safe_open(FOLDER / f"{name}.safetensors", "np") as file:
        return json.loads(file.metadata()["golden"]), {key: file.get_tensor(key) for key in file.keys()}


def by_hand(what, config):
    """The same config in a spelling that is found on the hub and that transformers does not write."""
    config = copy.deepcopy(config)
    what["hand"](config)
    return config


def first(name, what):
    config, shapes = saved(what)
    tensors = [[key, shape, *distribution(what["kind"], key, shape)] for key, shape in shapes.items()]
    random = np.random.default_rng(list(name.encode()))
    tokens = random.integers(0, 28, what["tokens"]).tolist()
    model = load(what, config, tensors)
    found = computed(model, what, tokens)
    if what["kind"] != "Gemma2":  # sdpa has no softcap
        other = tensors_of(*run(load(what, config, tensors, "sdpa"), tokens))
        assert distance(other, found) < TOLERANCE, distance(other, found)
    golden = dict(
        tokens=tokens, window=len(tokens) if what["length"] else 0, tensors=tensors, renamed=what["renamed"] or [],
        configs=[[f"transformers {VERSION}", config], [f"transformers {VERSION}, minimal", minimal(what, config)]],
    )
    write(name, golden, found)
    print(f"{name}: largest probability {sharpness(found['logits']):.2f} on average")
    check(name, what)


def second(name, what):
    if not what["four"]:
        return
    golden, found = read(name)
    config, shapes = saved(what)
    listed = {key: shape for key, shape, _, _ in golden["tensors"]}
    spellings = [listed] + [
        {rename(key, pairs): shape for key, shape in listed.items()} for pairs in golden["renamed"]
    ]
    assert shapes in spellings, set(shapes) ^ set(spellings[-1])
    ours = [[f"transformers {VERSION}", config]]
    if all(minimal(what, config) != other for _, other in golden["configs"]):
        ours.append([f"transformers {VERSION}, minimal", minimal(what, config)])
    if what["hand"]:
        ours.append(["hand", by_hand(what, config)])
    kept = [[by, other] for by, other in golden["configs"] if by.startswith("transformers 5")]
    golden["configs"] = kept + ours
    write(name, golden, found)
    check(name, what)


def rename(name, pairs):
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def check(name, what):
    golden, expected = read(name)
    for by, config in golden["configs"]:
        if by == "hand" or by.startswith("transformers 5") and not FIVE:
            continue
        if by.startswith("transformers 4") and FIVE and not what["four"]:
            continue
        if by.startswith("transformers 4") and FIVE and name in ("olmo3_layer_types",):
            continue  # 5 misreads this config: see above
        for renamed in [[]] + golden["renamed"]:
            if not FIVE and what["kind"] == "Gemma3" and not any("vision_model." in new for _, new in renamed):
                continue  # 4.57 does not know 5's names of the vision part
            model = load(what, config, golden["tensors"], renamed=renamed)
            found = computed(model, what, golden["tokens"])
            far = distance(found, expected)
            assert far < TOLERANCE, (name, by, renamed, far)
        print(f"{name}: {by}'s config under {VERSION}: {far:.1e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--second", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    step = second if arguments.second else check if arguments.check else first
    failed = []
    for name in arguments.names or CASES:
        try:
            step(name, CASES[name])
        except Exception as error:
            failed.append(name)
            print(f"{name}: FAILED: {type(error).__name__}: {error}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    main()
