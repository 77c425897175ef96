"""Writes architecture_ggufs/ beside itself: GGUF files of golden models (`make_architectures.py`), one
and more for each family, as llama.cpp's converter lays them out, but without their weights.

    pip install gguf==0.19.0 safetensors==0.8.0 numpy
    python make_architecture_ggufs.py [--keep FOLDER] [NAME ...]

A weight is a function of its name, so that a file can be put together again from

- `NAME.TYPE.head`: the file's first bytes, up to the data: all keys and all tensors' names, shapes
  and types;
- `NAME.json`: `config`, the folder's config.json that the file is to equal; `files`, the whole
  file's SHA-256 by type; `exact`, whether the file says everything in full precision; and
  `tensors`, in the file's order: [how it is made, from which tensors, with what number].

`tests/architecture_ggufs.rs` puts them together and checks the hash, so that what it loads is to the
bit what the `gguf` package wrote here. `--keep` writes the whole files.

TYPE is the converter's --outtype: F32, or Q8_0, where rows that are no multiple of 32 are F16, and
vectors, norms and routers F32.

All of this was compared with the converter's own output for these models: every key but those of
general.* and tokenizer.*, and every tensor's type, shape and bytes are equal, rope_freqs.weight up to the
last bit, as the converter computes it in f32.

What the converter does (llama-cpp-python 0.3.36, vendor/llama.cpp/conversion) and what llama.cpp takes for
granted (src/models) is in FAMILIES below, one line a family; for all of them:

- Keys: block_count, context_length, embedding_length, feed_forward_length, attention.head_count,
  attention.head_count_kv, rope.freq_base (gemma2 and nobody else: none, 10000 is assumed),
  rope.freq_base_swa (gemma3; olmo3, if transformers 5 is installed), attention.layer_norm_rms_epsilon (command-r: layer_norm_epsilon),
  attention.key_length and value_length where config.json has head_dim, or the installed transformers' class
  fills it in (granite and phi3: never),
  expert_count, expert_used_count; numbers are F32.
- RoPE: `linear` and `yarn` as rope.scaling.type and .factor, yarn with original_context_length,
  yarn_beta_fast, yarn_beta_slow and yarn_attn_factor where the config has them; `llama3` as the tensor
  rope_freqs.weight, by which frequencies are divided; phi3's `longrope` as rope.scaling.attn_factor,
  rope_factors_long.weight and rope_factors_short.weight, without rope.scaling.type; `dynamic` is lost.
- Tensors' names are those of the gguf package's map, and a tied head is absent.

A model that its GGUF does not describe is not here: a window in llama, qwen2, qwen2moe, qwen3, qwen3moe
and smollm3; layers without experts, or the other norm_topk_prob than the family's; gemma2's and gemma3's
query_pre_attn_scalar other than head_dim, and layer_types other than the family's pattern; smollm3's
no_rope_layers; an activation other than the family's.
"""

import argparse
import hashlib
import json
import math
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from golden_weights import weight
from safetensors import safe_open

HERE = Path(__file__).parent
FOLDER = HERE / "architecture_ggufs"

# By transformers' class: GGUF's name; whether rows of Q and K are permuted (RoPE on neighbours in the
# file, on halves in Hugging Face's order); what is added to norms' weights; keys beyond the usual ones.
FAMILIES = {
    # No window is ever written, so that Mistral 7B v0.1 becomes a model without one.
    "LlamaForCausalLM": ("llama", True, 0, ["vocab_size", "rope_dimensions"]),
    "MistralForCausalLM": ("llama", True, 0, ["vocab_size", "rope_dimensions"]),
    # Experts are stacked; the chosen ones' weights are normalised.
    "MixtralForCausalLM": ("llama", True, 0, ["vocab_size", "rope_dimensions"]),
    # attention.temperature_scale (llama_4_scaling_beta), over original_context_length; yarn_log_multiplier is
    # mscale_all_dim, with 1 for mscale.
    "Ministral3ForCausalLM": ("mistral3", True, 0, ["vocab_size", "rope_dimensions", "ministral3"]),
    "Qwen2ForCausalLM": ("qwen2", False, 0, []),
    # Every layer has experts, whose weights are not normalised, and a shared one.
    "Qwen2MoeForCausalLM": ("qwen2moe", False, 0, ["expert_lengths"]),
    "Qwen3ForCausalLM": ("qwen3", False, 0, []),
    # Every layer has experts, whose weights are normalised.
    "Qwen3MoeForCausalLM": ("qwen3moe", False, 0, ["expert_lengths"]),
    # Layers 0, 2, ... have the window. Norms are stored as 1 + w. attention's scale is key_length^-0.5 but for
    # 46 layers (27B), where it is (embedding_length / head_count)^-0.5.
    "Gemma2ForCausalLM": ("gemma2", False, 1, ["softcaps", "window"]),
    # All but every sixth layer have the window, and rope.freq_base_swa (10000 if absent) without scaling. The
    # scale as gemma2's, for 62 layers.
    "Gemma3ForCausalLM": ("gemma3", False, 1, ["softcaps", "window"]),
    # Fused: attn_qkv, and gate and up as ffn_up. The window is 0 where there is none. (llama.cpp reads it and
    # computes without.)
    "Phi3ForCausalLM": ("phi3", False, 0, ["phi3"]),
    # Every fourth layer has no RoPE: assumed, not written.
    "SmolLM3ForCausalLM": ("smollm3", True, 0, ["vocab_size", "rope_dimensions"]),
    "GraniteForCausalLM": ("granite", True, 0, ["vocab_size", "rope_dimensions", "multipliers"]),
    "Olmo2ForCausalLM": ("olmo2", False, 0, []),
    # attention.sliding_window_pattern: a bool for each layer. Those with a window have RoPE without scaling.
    "Olmo3ForCausalLM": ("olmo2", False, 0, ["window", "pattern", "swa_theta"]),
    # Fused: gate and up as ffn_up. RoPE on neighbours in both.
    "Glm4ForCausalLM": ("glm4", False, 0, ["rope_partial"]),
    # RoPE on neighbours in both; rope.scaling.type is "none"; the head is always tied.
    "CohereForCausalLM": ("command-r", False, 0, ["cohere"]),
}

# Golden models that a GGUF can hold, and whether to the bit: frequencies and factors that it stores
# as F32 are computed from others in a folder.
CASES = {
    "llama": True,
    "llama_biases": True,
    "llama_rope_linear": True,
    "llama_rope_llama3": False,
    "llama_rope_yarn": True,
    "mistral_full": True,
    "mixtral": True,
    "ministral3": True,
    "qwen2": True,
    "qwen2_rope_yarn": True,
    "qwen2_moe_plain": True,
    "qwen3": True,
    "qwen3_moe_norm": True,
    "gemma2": True,
    "gemma3_layers": True,
    "phi3": True,
    "phi3_partial": True,
    "phi3_longrope_short": False,
    "phi3_longrope_long": False,
    "smollm3": True,
    "granite": True,
    "granite_biases": True,
    "olmo2": True,
    "olmo3": True,
    "glm4": True,
    "cohere": True,
}


def golden(name):
    """The last config that transformers wrote in full, and the tensors."""
    with safe_open(HERE / "architectures" / f"{name}.safetensors", "np") as file:
        found = json.loads(file.metadata()["golden"])
    full = [config for by, config in found["configs"] if by.startswith("transformers") and "minimal" not in by]
    return full[-1], {key: (key, shape, centre, spread) for key, shape, centre, spread in found["tensors"]}


def f32(value):
    """The same JSON with numbers that an F32 holds."""
    if isinstance(value, dict):
        return {key: f32(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [f32(inner) for inner in value]
    return float(np.float32(value)) if isinstance(value, float) else value


class Model:
    """A golden model on its way into a file."""

    def __init__(self, name):
        self.config, self.weights = golden(name)
        self.config = f32(self.config)
        self.kind = self.config["architectures"][0]
        self.arch, self.permuted, self.shift, self.extra = FAMILIES[self.kind]
        self.rope = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        # Olmo3 and Gemma3 in transformers 4.57's form have one dict, for full layers.
        self.theta = self.config.get("rope_theta", self.rope.get("rope_theta"))
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        self.head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads

    # -- keys ---------------------------------------------------------------------------------------

    def keys(self, writer, kind):
        config, add = self.config, Adder(writer, self.arch)
        writer.add_string("general.name", "tiny random model")
        writer.add_uint32("general.file_type", 0 if kind == "F32" else 7)
        add.integer("block_count", config["num_hidden_layers"])
        add.integer("context_length", config["max_position_embeddings"])
        add.integer("embedding_length", config["hidden_size"])
        add.integer("feed_forward_length", config["intermediate_size"])
        add.integer("attention.head_count", self.heads)
        add.integer("attention.head_count_kv", self.kv_heads)
        if self.arch != "gemma2":
            add.float("rope.freq_base", self.theta)
        if "rms_norm_eps" in config:
            add.float("attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
        filled_in = self.kind == "MistralForCausalLM"
        if (config.get("head_dim") or filled_in) and self.arch not in ("granite", "phi3"):
            add.integer("attention.key_length", self.head_dim)
            add.integer("attention.value_length", self.head_dim)
        experts = config.get("num_local_experts", config.get("num_experts"))
        if experts:
            add.integer("expert_count", experts)
            add.integer("expert_used_count", config["num_experts_per_tok"])
        if self.arch not in ("gemma2", "phi3"):
            self.scaling(add)
        for extra in self.extra:
            getattr(self, extra)(add)
        tokenizer(writer, config["vocab_size"])

    def scaling(self, add):
        kind = self.rope.get("rope_type", self.rope.get("type"))
        if kind in ("linear", "yarn"):
            add.string("rope.scaling.type", kind)
            add.float("rope.scaling.factor", self.rope["factor"])
        if kind == "yarn":
            add.integer("rope.scaling.original_context_length", self.rope["original_max_position_embeddings"])
            for key, name in (("attention_factor", "attn_factor"), ("beta_fast", "beta_fast"), ("beta_slow", "beta_slow")):
                if self.rope.get(key) is not None:
                    add.float(f"rope.scaling.yarn_{name}", self.rope[key])
        if "rope_local_base_freq" in self.config:
            add.float("rope.freq_base_swa", self.config["rope_local_base_freq"])

    def vocab_size(self, add):
        add.integer("vocab_size", self.config["vocab_size"])

    def rope_dimensions(self, add):
        add.integer("rope.dimension_count", self.head_dim)

    def rope_partial(self, add):
        add.integer("rope.dimension_count", int(self.head_dim * self.config["partial_rotary_factor"]))

    def ministral3(self, add):
        add.float("rope.scaling.yarn_log_multiplier", self.rope["mscale_all_dim"])
        add.float("attention.temperature_scale", self.rope["llama_4_scaling_beta"])

    def expert_lengths(self, add):
        add.integer("expert_feed_forward_length", self.config["moe_intermediate_size"])
        if "shared_expert_intermediate_size" in self.config:
            add.integer("expert_shared_feed_forward_length", self.config["shared_expert_intermediate_size"])

    def softcaps(self, add):
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if self.config[key] is not None:
                add.float(key, self.config[key])

    def window(self, add):
        add.integer("attention.sliding_window", self.config["sliding_window"])

    def pattern(self, add):
        sliding = [kind == "sliding_attention" for kind in self.config["layer_types"]]
        add.writer.add_array(f"{self.arch}.attention.sliding_window_pattern", sliding)

    def swa_theta(self, add):
        add.float("rope.freq_base_swa", self.theta)

    def multipliers(self, add):
        for key, name in (
            ("attention_multiplier", "attention.scale"), ("embedding_multiplier", "embedding_scale"),
            ("residual_multiplier", "residual_scale"), ("logits_scaling", "logit_scale"),
        ):
            add.float(name, self.config[key])

    def phi3(self, add):
        long, short = self.config["max_position_embeddings"], self.config["original_max_position_embeddings"]
        rotated = int(self.config["partial_rotary_factor"] * self.config["hidden_size"]) // self.heads
        add.integer("rope.scaling.original_context_length", short)
        add.integer("rope.dimension_count", rotated)
        add.integer("attention.sliding_window", self.config["sliding_window"] or 0)
        if self.rope.get("long_factor"):
            factor = math.sqrt(1 + math.log(long / short) / math.log(short)) if long > short else 1.0
            add.float("rope.scaling.attn_factor", factor)

    def cohere(self, add):
        add.float("attention.layer_norm_epsilon", self.config["layer_norm_eps"])
        add.float("logit_scale", self.config["logit_scale"])
        add.string("rope.scaling.type", "none")

    # -- tensors ------------------------------------------------------------------------------------

    def tensors(self):
        """(name, how, sources, number) of each tensor, in the file's order."""
        names = gguf.get_tensor_name_map(
            next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.arch),
            self.config["num_hidden_layers"],
        )
        kind = self.rope.get("rope_type", self.rope.get("type"))
        if kind == "llama3":
            yield "rope_freqs.weight", "values", [], self.llama3()
        if self.rope.get("long_factor"):
            yield "rope_factors_long.weight", "values", [], self.rope["long_factor"]
            yield "rope_factors_short.weight", "values", [], self.rope["short_factor"]
        stacks = {}
        for source in self.weights:
            how, number = "same", 0
            stem, _, end = source.rpartition(".")
            if ".experts." in stem:
                before, after = stem.split(".experts.")
                expert, part = after.split(".")
                if "block_sparse_moe" in before:
                    part = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}[part]
                    before = before.replace("block_sparse_moe", "mlp")
                stacks.setdefault(f"{before}.experts.{part}", []).append((int(expert), source))
                continue
            if self.permuted and stem.endswith(("q_proj", "k_proj")):
                how, number = "permuted", self.heads if stem.endswith("q_proj") else self.kv_heads
            if self.shift and stem.endswith("norm"):
                how, number = "added", self.shift
            yield f"{names.get_name(stem)}.{end}", how, [source], number
        for stem, experts in stacks.items():
            yield f"{names.get_name(stem)}.weight", "stacked", [source for _, source in sorted(experts)], 0

    def llama3(self):
        """What each frequency is divided by."""
        rope, factors = self.rope, []
        long = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
        short = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
        for channel in range(0, self.head_dim, 2):
            wave = 2 * math.pi * self.theta ** (channel / self.head_dim)
            smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            blended = 1 / ((1 - smooth) / rope["factor"] + smooth)
            factors.append(1.0 if wave < short else rope["factor"] if wave > long else blended)
        return factors

    def values(self, how, sources, number):
        if how == "values":
            return np.array(number, dtype=np.float32)
        parts = [weight(*self.weights[source]) for source in sources]
        if how == "stacked":
            return np.stack(parts)
        if how == "permuted":
            rows = parts[0].reshape(number, 2, -1, *parts[0].shape[1:])
            return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(parts[0].shape)
        return parts[0] + np.float32(number) if how == "added" else parts[0]


class Adder:
    def __init__(self, writer, arch):
        self.writer, self.arch = writer, arch

    def integer(self, key, value):
        self.writer.add_uint32(f"{self.arch}.{key}", value)

    def float(self, key, value):
        self.writer.add_float32(f"{self.arch}.{key}", value)

    def string(self, key, value):
        self.writer.add_string(f"{self.arch}.{key}", value)


def tokenizer(writer, vocab):
    """A token a character, and one of two, as the package leaves out an empty list of merges."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<unk>"] + [chr(ord("a") + id) for id in range(vocab - 2)] + ["ab"])
    writer.add_token_types([1] * vocab)
    writer.add_token_merges(["a b"])


def type_of(kind, name, values):
    """The converter's choice."""
    plain = values.ndim == 1 or name.endswith("_norm.weight") or ".ffn_gate_inp" in name
    if kind == "F32" or plain:
        return Type.F32
    return Type.Q8_0 if values.shape[-1] % 32 == 0 else Type.F16


def write(path, model, kind, plan):
    writer = gguf.GGUFWriter(path, model.arch)
    model.keys(writer, kind)
    for name, how, sources, number in plan:
        values = model.values(how, sources, number)
        stored = type_of(kind, name, values)
        data = values.astype(np.float16) if stored == Type.F16 else gguf.quants.quantize(values, stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name in arguments.names or CASES:
        model = Model(name)
        plan = list(model.tensors())
        files = {}
        for kind in ("F32", "Q8_0"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.gguf"
                write(path, model, kind, plan)
                data = path.read_bytes()
                start = gguf.GGUFReader(path).data_offset
            files[kind] = hashlib.sha256(data).hexdigest()
            (FOLDER / f"{name}.{kind}.head").write_bytes(data[:start])
            if arguments.keep:
                (arguments.keep / f"{name}.{kind}.gguf").write_bytes(data)
        described = dict(
            config=model.config, exact=CASES[name], files=files,
            tensors=[[how, sources, number] for _, how, sources, number in plan],
        )
        (FOLDER / f"{name}.json").write_text(json.dumps(described, separators=(",", ":")) + "\n")
        print(name, model.arch, len(plan), "tensors")


if __name__ == "__main__":
    main()
