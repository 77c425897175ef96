#!/bin/bash
# Makes the tables of docs/frontier.md and docs/frontier.html again:
#
#   bash docs/frontier.sh MODELS TEXT FOLDER
#
# MODELS: a folder with the four GGUF files named below. TEXT: the raw test split of WikiText-2. FOLDER: for
# the cells, which are measured once: the same command goes on where it was interrupted, and after a change
# of the codecs measures the new ones only. Two to four hours on two cores.
# KVGAUGE=PATH for another binary than the kvgauge on the PATH; KVGAUGE_MEASURE=no takes the cells as they are.
set -euo pipefail
docs=$(cd "$(dirname "$0")" && pwd)
models=$(realpath "$1") text=$(realpath "$2")
kvgauge=$(realpath "$(command -v "${KVGAUGE:-kvgauge}")")
mkdir -p "$3" && cd "$3"
# So that no page names a path of this machine.
ln -sfn "$models" models
ln -sfn "$text" wiki.test.raw
cp "$docs/../configs/frontier.toml" .

sweep() { # folder, file, context, windows, more flags
    echo "$2, $4 windows of $3" >&2
    "$kvgauge" sweep frontier.toml --output "$1" --model "models/$2" --text wiki.test.raw \
        --context "$3" --windows "$4" "${@:5}" > /dev/null
}
smollm2=SmolLM2-135M-Instruct.Q4_1.gguf
gemma=gemma-3-270m-q4_k_m.gguf
qwen=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
qwen15=qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
long=kvgauge4,kvgauge3,kvgauge2,q8_0-had,q4_0-had,fp8-e4m3,turboquant-4bit-nc,kivi4,kvarn4,kvarn2
recent=kvgauge4,kvgauge3,kvgauge2,kivi4
if [ "${KVGAUGE_MEASURE:-}" != no ]; then
    for of in "$smollm2 10" "$gemma 10" "$qwen 6"; do
        # TurboQuant in all layers is in the config; as vLLM has it, two at each end are left alone.
        sweep frontier "${of% *}" 512 "${of#* }" --engine vllm:turboquant_4bit_nc
    done
    sweep frontier "$qwen15" 512 2 --codec $long
    sweep frontier "$smollm2" 2048 4 --codec $long
    sweep frontier "$gemma" 2048 2 --codec $long
    sweep frontier "$qwen" 2048 2 --codec $long
    sweep frontier "$qwen15" 2048 1 --codec $long --protocol prefix
    for of in "$smollm2 6" "$gemma 6" "$qwen 4"; do
        sweep recent "${of% *}" 512 "${of#* }" --protocol decode --residual 8 --chunk 8 --codec $recent
    done
fi
for folder in frontier recent; do
    "$kvgauge" report $folder --output $folder > /dev/null
    test -s $folder/models.md
    grep -qxF "<!-- tables of $folder -->" "$docs/frontier.md"
    # The tables take the place of those between two marks.
    awk -v page=$folder/models.md -v begins="<!-- tables of $folder -->" '
        $0 == begins {
            print
            while ((getline line < page) > 0) if (line !~ /^<!--/ && line !~ /^## /) print line
            print ""
            inside = 1
        }
        inside && /^<!-- end/ { inside = 0 }
        !inside { print }' "$docs/frontier.md" > frontier.md
    cp frontier.md "$docs/frontier.md"
done
cp frontier/report.html "$docs/frontier.html"
