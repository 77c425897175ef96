"""Writes golden/NAME/ beside itself: tiny random models and what PyTorch transformers makes of them.

    pip install torch==2.15.0 transformers==4.57.6 safetensors==0.8.0
    python make_golden_models.py
    pip install transformers==5.23.0        # in a second environment
    python make_golden_models.py --second

Each folder holds a model as `save_pretrained` writes it (config.json and one or two safetensors
files) and `expected.safetensors`:

- `tokens` I64 [tokens]: the input.
- `logits` F32 [tokens, vocab]: of every position.
- `keys.N`, `values.N` F32 [kv_heads, tokens, head_dim]: layer N's cache, keys after RoPE.

The models are computed in f32 on the CPU with attention written out ("eager"), from the weights
as they are on disk. `--second` computes them again with transformers 5, which must agree, and adds
`config.transformers5.json`, the same config as that version writes it.

Seeded: the weights are the same bits on every run, the expected numbers up to f32 rounding.
"""

import argparse
import math
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

GOLDEN = Path(__file__).parent / "golden"

SHARED = dict(num_hidden_layers=2, vocab_size=64, max_position_embeddings=256)

# name: (config, model class, dtype on disk, number of tokens, largest file)
MODELS = {
    # Eight frequencies from 1 down to 0.018 radians a position: against an original context of 48
    # two are kept, two blended and four divided. 80 tokens: more than one block of queries.
    "llama_grouped_llama3_rope": (
        LlamaConfig(
            hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            tie_word_embeddings=False, rope_theta=100.0,
            rope_scaling=dict(
                rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=48,
            ),
            **SHARED,
        ),
        LlamaForCausalLM, torch.float32, 80, "1GB",
    ),
    # `type` is the key's old name; transformers 4.43 and later write both names side by side.
    "llama_tied_linear_rope": (
        LlamaConfig(
            hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=4,
            tie_word_embeddings=True, rope_theta=500000.0, rope_scaling=dict(type="linear", factor=4.0), **SHARED,
        ),
        LlamaForCausalLM, torch.float16, 48, "1GB",
    ),
    "llama_biases": (
        LlamaConfig(
            hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=1, head_dim=12,
            attention_bias=True, mlp_bias=True, tie_word_embeddings=False, rms_norm_eps=1e-3, **SHARED,
        ),
        LlamaForCausalLM, torch.float32, 48, "1GB",
    ),
    "mistral": (
        MistralConfig(
            hidden_size=32, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            sliding_window=64, rope_theta=1000000.0, tie_word_embeddings=False, **SHARED,
        ),
        MistralForCausalLM, torch.float32, 48, "1GB",
    ),
    "llama_sharded_bf16": (
        LlamaConfig(
            hidden_size=48, intermediate_size=40, num_attention_heads=6, num_key_value_heads=1,
            tie_word_embeddings=False, **SHARED,
        ),
        LlamaForCausalLM, torch.bfloat16, 48, "32KB",
    ),
}


def randomise(model, generator):
    """Wide enough that attention is sharp, norms differ from 1 and biases from 0."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.25 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            elif "embed" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * 1.4 / math.sqrt(parameter.shape[1]))


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def run(model, tokens):
    """Logits and cache by name."""
    with torch.no_grad():
        out = model(tokens[None], use_cache=True)
    tensors = {"tokens": tokens, "logits": out.logits[0]}
    for index, layer in enumerate(out.past_key_values.layers):
        tensors[f"keys.{index}"] = layer.keys[0]
        tensors[f"values.{index}"] = layer.values[0]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def distance(a, b):
    """The largest difference over all tensors, relative to the largest value of its tensor."""
    assert a.keys() == b.keys() and torch.equal(a["tokens"], b["tokens"])
    return max(((a[k] - b[k]).abs().max() / b[k].abs().max()).item() for k in a if k != "tokens")


def window_reaches_back_its_own_length(folder, tokens):
    """A sliding window of 16 changes nothing up to and with 16 tokens, and the 17th: the tests
    take the window for the longest context that is computed exactly."""
    model = load(folder)
    whole = run(model, tokens)["logits"]
    model.config.sliding_window = 16
    narrow = run(model, tokens)["logits"]
    assert torch.allclose(whole[:16], narrow[:16], atol=1e-5)
    assert not torch.allclose(whole[16], narrow[16], atol=1e-2)


def bands(model):
    """How many RoPE frequencies llama3's scaling keeps, blends and divides."""
    config = model.config
    scaling = config.rope_scaling
    plain = config.rope_theta ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
    ratio = plain / model.model.rotary_emb.inv_freq
    kept, divided = (ratio - 1).abs() < 1e-4, (ratio / scaling["factor"] - 1).abs() < 1e-4
    return [int(band.sum()) for band in (kept, ~kept & ~divided, divided)]


def first():
    for seed, (name, (config, kind, dtype, count, shard)) in enumerate(MODELS.items()):
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        generator = torch.Generator().manual_seed(seed)
        model = kind(config)
        randomise(model, generator)
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
        (folder / "generation_config.json").unlink()
        tokens = torch.randint(0, config.vocab_size, (count,), generator=generator)
        tokens[5], tokens[6] = 0, config.vocab_size - 1
        model = load(folder)
        if "llama3" in name:
            assert bands(model) == [2, 2, 4], bands(model)
        expected = run(model, tokens)
        save_file(expected, folder / "expected.safetensors")
        if name == "mistral":
            window_reaches_back_its_own_length(folder, tokens)
        logits = expected["logits"]
        print(f"{name}: largest logit {logits.abs().max():.3g}, files", sorted(p.name for p in folder.iterdir()))


def second():
    for name in MODELS:
        folder = GOLDEN / name
        expected = load_file(folder / "expected.safetensors")
        model = load(folder)
        far = distance(run(model, expected["tokens"]), expected)
        print(f"{name}: {far:.2g} of the largest from transformers 4")
        assert far < 1e-6
        (folder / "config.transformers5.json").write_text(model.config.to_json_string(use_diff=True))


parser = argparse.ArgumentParser()
parser.add_argument("--second", action="store_true")
major = int(transformers.__version__.split(".")[0])
if parser.parse_args().second:
    assert major == 5, transformers.__version__
    second()
else:
    assert major == 4, transformers.__version__
    first()
