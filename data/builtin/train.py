#!/usr/bin/env python3
"""Train kvgauge's built-in model: a small Llama on Jane Austen's novels.

From the Debian package to the four files beside this script, in one command:

    apt-get download r-cran-janeaustenr
    pip install torch numpy tokenizers safetensors
    python train.py --data r-cran-janeaustenr_1.0.0-1_all.deb --out .

--data takes the .deb or a folder into which it was unpacked (dpkg -x).

The novels are read straight from R's lazy-load database; R is not needed.
Persuasion is held out: neither the tokenizer nor the model sees it, and it is
measured once, after the last step. The last 2 % of each of the other five
novels are a validation slice, printed now and then and not trained on.

Written to --out: text.txt (Persuasion), tokenizer.json (byte-level BPE, 2048
entries), config.json and model.safetensors (LlamaForCausalLM, f16).

README.md states the time that a run takes and the bits per byte it reaches.
Every random choice comes from --seed; the arithmetic differs a little between
processors and library versions, so another machine's run gives another model
of about the same quality, not the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import json
import math
import os
import struct
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HELD_OUT = "persuasion"
END_OF_TEXT = "<|endoftext|>"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 704,
    "max_position_embeddings": 1024,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 2048,
}


# --- The novels -------------------------------------------------------------

class RData:
    """Reads the part of R's XDR serialisation that the package uses."""

    def __init__(self, data):
        if data[:2] != b"X\n":
            raise ValueError("not XDR-serialised R data")
        self.data, self.at, self.symbols = data, 2, []
        version = self.integer()
        self.take(8)  # the versions of R that wrote it and that can read it
        if version == 3:
            self.take(self.integer())  # native encoding

    def take(self, count):
        self.at += count
        return self.data[self.at - count:self.at]

    def integer(self):
        return struct.unpack(">i", self.take(4))[0]

    def item(self):
        flags = self.integer()
        kind = flags & 0xFF
        if kind == 254:  # NULL
            return None
        if kind == 255:  # a symbol met before
            return self.symbols[(flags >> 8) - 1]
        if kind == 1:  # symbol
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == 2:  # tagged pairlist
            pairs = {}
            while flags & 0xFF == 2:
                tag = self.item()
                pairs[tag] = self.item()
                flags = self.integer()
            return pairs
        length = self.integer()
        if kind == 9:  # string
            return self.take(max(length, 0))
        if kind in (10, 13):  # logical, integer
            values = [self.integer() for _ in range(length)]
        elif kind in (16, 19):  # character vector, list
            values = [self.item() for _ in range(length)]
        else:
            raise ValueError(f"R type {kind} is not expected here")
        if flags & 0x200:  # attributes
            names = (self.item() or {}).get(b"names")
            if names:
                return dict(zip(names, values))
        return values


def package_file(source, name):
    """The bytes of the one file called `name` in a .deb or a folder."""
    if source.is_dir():
        return next(source.rglob(name)).read_bytes()
    archive = source.read_bytes()
    at = 8  # past "!<arch>\n"
    while at < len(archive):
        member = archive[at:at + 16].decode().strip().rstrip("/")
        size = int(archive[at + 48:at + 58])
        if member.startswith("data.tar"):
            body = io.BytesIO(archive[at + 60:at + 60 + size])
            with tarfile.open(fileobj=body) as tar:
                for entry in tar:
                    if Path(entry.name).name == name:
                        return tar.extractfile(entry).read()
        at += 60 + size + size % 2
    raise FileNotFoundError(f"{name} in {source}")


def read_novels(source):
    index = RData(gzip.decompress(package_file(source, "Rdata.rdx"))).item()
    database = package_file(source, "Rdata.rdb")
    novels = {}
    for name, (offset, length) in index[b"variables"].items():
        # four bytes of length, then a zlib stream
        lines = RData(zlib.decompress(database[offset + 4:offset + length])).item()
        text = b"".join(line + b"\n" for line in lines).decode("utf-8")
        novels[name.decode()] = text.replace("\r\n", "\n")
    return novels


def split(text):
    """The text's first 98 % and last 2 %, cut at a line's end."""
    cut = text.rindex("\n", 0, len(text) * 98 // 100) + 1
    return text[:cut], text[cut:]


# --- Tokenizer --------------------------------------------------------------

def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    ))
    return tokenizer


def token_bytes(tokenizer):
    """The bytes that each token stands for, by token id."""
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    hidden = [b for b in range(256) if b not in visible]
    byte_of = {chr(b): b for b in visible}
    byte_of.update({chr(256 + i): b for i, b in enumerate(hidden)})
    table = [b""] * tokenizer.get_vocab_size()
    for token, index in tokenizer.get_vocab().items():
        if token != END_OF_TEXT:
            table[index] = bytes(byte_of[c] for c in token)
    return table


# --- Model ------------------------------------------------------------------

def init_parameters(generator):
    """Parameters under their Hugging Face names."""
    c = CONFIG
    d, inner = c["hidden_size"], c["intermediate_size"]
    q = c["num_attention_heads"] * c["head_dim"]
    kv = c["num_key_value_heads"] * c["head_dim"]
    depth = c["num_hidden_layers"]

    def normal(rows, cols, std):
        return torch.randn(rows, cols, generator=generator) * std

    p = {"model.embed_tokens.weight": normal(c["vocab_size"], d, 0.02)}
    for i in range(depth):
        at = f"model.layers.{i}."
        p[at + "input_layernorm.weight"] = torch.ones(d)
        for name, rows, cols in (("self_attn.q_proj", q, d), ("self_attn.k_proj", kv, d),
                                 ("self_attn.v_proj", kv, d), ("self_attn.o_proj", d, q),
                                 ("mlp.gate_proj", inner, d), ("mlp.up_proj", inner, d),
                                 ("mlp.down_proj", d, inner)):
            std = 0.5 / math.sqrt(cols)
            if name.endswith(("o_proj", "down_proj")):  # these write to the residual stream
                std /= math.sqrt(2 * depth)
            p[f"{at}{name}.weight"] = normal(rows, cols, std)
        p[at + "post_attention_layernorm.weight"] = torch.ones(d)
    p["model.norm.weight"] = torch.ones(d)
    return {name: value.requires_grad_() for name, value in p.items()}


def rotary_tables():
    half = torch.arange(0, CONFIG["head_dim"], 2) / CONFIG["head_dim"]
    angles = torch.outer(torch.arange(CONFIG["max_position_embeddings"]).float(),
                         CONFIG["rope_theta"] ** -half)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def forward(p, tables, tokens, dropout=0.0):
    """Logits for `tokens` (batch x length)."""
    d, head = CONFIG["hidden_size"], CONFIG["head_dim"]
    group = CONFIG["num_attention_heads"] // CONFIG["num_key_value_heads"]
    batch, length = tokens.shape

    def norm(x, name):
        return F.rms_norm(x, (d,), p[name], CONFIG["rms_norm_eps"])

    def drop(x):
        return F.dropout(x, dropout) if dropout else x

    def heads(x):
        return x.view(batch, length, -1, head).transpose(1, 2)

    def rotate(x):
        turned = torch.cat((-x[..., head // 2:], x[..., :head // 2]), -1)
        return x * cos + turned * sin

    x = drop(F.embedding(tokens, p["model.embed_tokens.weight"]))
    for i in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{i}."

        def project(x, name):
            return F.linear(x, p[f"{at}{name}.weight"])

        h = norm(x, at + "input_layernorm.weight")
        q, k, v = (heads(project(h, f"self_attn.{n}_proj")) for n in "qkv")
        cos, sin = (t[:length].to(q.dtype) for t in tables)
        k = rotate(k).repeat_interleave(group, 1)
        v = v.repeat_interleave(group, 1)
        h = F.scaled_dot_product_attention(rotate(q), k, v, is_causal=True)
        h = h.transpose(1, 2).reshape(batch, length, -1)
        x = x + drop(project(h, "self_attn.o_proj"))

        h = norm(x, at + "post_attention_layernorm.weight")
        h = F.silu(project(h, "mlp.gate_proj")) * project(h, "mlp.up_proj")
        x = x + drop(project(h, "mlp.down_proj"))
    return F.linear(norm(x, "model.norm.weight"), p["model.embed_tokens.weight"])


# --- Training ---------------------------------------------------------------

def orthogonalised(g):
    """Muon's Newton-Schulz iteration: g with its singular values near one."""
    g = g.bfloat16()
    g = g / (g.norm() + 1e-7)
    tall = g.shape[0] > g.shape[1]
    if tall:
        g = g.T
    for _ in range(5):
        a = g @ g.T
        g = 3.4445 * g + (-4.7750 * a + 2.0315 * a @ a) @ g
    return (g.T if tall else g).float()


class Muon:
    """Muon with Nesterov momentum and decoupled weight decay, for matrices."""

    def __init__(self, parameters, weight_decay, momentum=0.95):
        self.weight_decay, self.momentum = weight_decay, momentum
        self.state = [(p, torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def step(self, lr):
        for p, velocity in self.state:
            velocity.lerp_(p.grad, 1 - self.momentum)
            update = orthogonalised(p.grad.lerp(velocity, self.momentum))
            p.mul_(1 - lr * self.weight_decay)
            p.add_(update, alpha=-lr * math.sqrt(max(1, p.shape[0] / p.shape[1])))


def windows(ids, rng, steps, batch_tokens):
    """One batch of (inputs, targets) a step.

    Windows are 256 tokens long for 40 % of the steps, then 512 for 30 %, then
    1024. Each pass over the text cuts it at a new random phase into windows
    and takes these in a random order, so that a pass sees each token once.
    """
    length = 0
    for step in range(steps):
        done = step / steps
        wanted = 256 if done < 0.4 else 512 if done < 0.7 else 1024
        if wanted != length:
            length, queue = wanted, []
        rows = batch_tokens // length
        while len(queue) < rows:
            starts = np.arange(rng.integers(length), len(ids) - length, length)
            queue += list(rng.permutation(starts))
        batch = torch.from_numpy(np.stack([ids[s:s + length + 1] for s in queue[:rows]]))
        del queue[:rows]
        yield batch[:, :-1], batch[:, 1:]


@torch.no_grad()
def bits_per_byte(p, tables, ids, table, length=1024):
    """Over non-overlapping windows, all targets but each window's first token."""
    rounded = {name: value.half().float() for name, value in p.items()}
    nats = count = 0
    for at in range(0, len(ids) - 1, length):
        window = torch.from_numpy(ids[at:at + length])[None]
        logits = forward(rounded, tables, window[:, :-1])
        nats += F.cross_entropy(logits[0].double(), window[0, 1:], reduction="sum").item()
        count += sum(len(table[i]) for i in window[0, 1:].tolist())
    return nats / math.log(2) / count


def unigram_bits_per_byte(train, test, table, length=1024):
    """Byte and token unigram models (add-one), on bits_per_byte's targets."""
    targets = [i for at in range(0, len(test) - 1, length) for i in test[at + 1:at + length]]
    as_bytes = b"".join(table[i] for i in targets)

    def bits(train, test, size):
        counts = np.bincount(train, minlength=size) + 1
        return -np.log2(counts / counts.sum())[test].sum() / len(as_bytes)

    train_bytes = b"".join(table[i] for i in train)
    return (bits(np.frombuffer(train_bytes, np.uint8), np.frombuffer(as_bytes, np.uint8), 256),
            bits(train, targets, len(table)))


def export(p, path):
    """Writes the model in f16, and only a whole file under its name."""
    tensors = {name: value.detach().half().contiguous() for name, value in p.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    os.replace(partial, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=".deb or its unpacked folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the four files")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens in a step")
    parser.add_argument("--lr-muon", type=float, default=0.02, help="for the matrices")
    parser.add_argument("--lr-adam", type=float, default=0.003, help="for embeddings and norms")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1817)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=250, help="steps")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)  # dropout
    rng = np.random.default_rng(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    # Texts, tokenizer, configuration.
    novels = read_novels(args.data)
    held_out = novels.pop(HELD_OUT)
    (args.out / "text.txt").write_bytes(held_out.encode())
    parts = [split(text) for text in novels.values()]
    tokenizer = train_tokenizer([train for train, _ in parts])
    tokenizer.save(str(args.out / "tokenizer.json"))
    (args.out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")

    table = token_bytes(tokenizer)

    def encode(texts):
        return np.array([i for t in texts for i in tokenizer.encode(t).ids], dtype=np.int64)

    train_ids = encode(train for train, _ in parts)
    valid_ids = encode(valid for _, valid in parts)
    test_ids = encode([held_out])
    print(f"{len(train_ids)} training, {len(valid_ids)} validation, "
          f"{len(test_ids)} held-out tokens", flush=True)

    # Model and optimisers.
    p = init_parameters(torch.Generator().manual_seed(args.seed))
    tables = rotary_tables()
    matrices = [v for n, v in p.items() if n.endswith("_proj.weight")]
    others = [v for n, v in p.items() if not n.endswith("_proj.weight")]
    print(f"{sum(v.numel() for v in p.values())} parameters", flush=True)
    muon = Muon(matrices, args.weight_decay)
    adam = torch.optim.AdamW([{"params": [v for v in others if v.ndim == 2]},
                              {"params": [v for v in others if v.ndim == 1],
                               "weight_decay": 0.0}],
                             betas=(0.9, 0.98), weight_decay=args.weight_decay)

    begun = time.time()
    batches = windows(train_ids, rng, args.steps, args.batch_tokens)
    for step, (inputs, targets) in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(p, tables, inputs, args.dropout)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        for v in p.values():
            v.grad = None
        loss.backward()
        # Warm-up, then linear to zero over the second half.
        scale = min(1, step / 100, 2 * (1 - (step - 1) / args.steps))
        for group in adam.param_groups:
            group["lr"] = args.lr_adam * scale
        adam.step()
        muon.step(args.lr_muon * scale)
        if step % args.report_every == 0 or step == args.steps:
            seconds = time.time() - begun
            # At the length trained on just now: the model knows no longer one yet.
            valid = bits_per_byte(p, tables, valid_ids, table, inputs.shape[1])
            print(f"step {step} loss {loss.item():.3f} validation {valid:.4f} bits/byte, "
                  f"{seconds:.0f} s, {step * args.batch_tokens / seconds:.0f} tokens/s", flush=True)
            export(p, args.out / "model.safetensors")

    byte_bits, token_bits = unigram_bits_per_byte(train_ids, test_ids, table)
    print(f"held-out bits/byte: model {bits_per_byte(p, tables, test_ids, table):.4f}, "
          f"unigram bytes {byte_bits:.4f}, unigram tokens {token_bits:.4f}")
    for name in ("config.json", "model.safetensors", "text.txt", "tokenizer.json"):
        data = (args.out / name).read_bytes()
        print(hashlib.sha256(data).hexdigest(), len(data), name)


if __name__ == "__main__":
    main()
