#!/usr/bin/env bash
# What python/package_linux.sh made, where nothing else of kvgauge is: in a fresh virtual environment,
# and in Debian systems without a compiler, the older of which has an older glibc than any that builds
# this. Both commands and the Python package run there, and write what they write here, byte for byte.
# usage: tests/packages.sh FOLDER [CACHE]   (FOLDER of the packages; Debian systems are kept in CACHE)
# Needs python3 with venv; mmdebstrap and root for the Debian systems.
set -euo pipefail
packages=$(realpath "$1")
work=$(mktemp -d)
cache=$(realpath "${2:-$work}")
cd "$(dirname "$0")/.."
trap 'rm -rf "$work"' EXIT
wheel=$(ls "$packages"/kvgauge-*.whl)
archive=$(ls "$packages"/kvgauge-*.tgz)

# Run in a folder of its own by whatever has the wheel: the two commands and the package.
cat >"$work/use.sh" <<'EOF'
set -eu
python3 -m venv "$1/python"
PATH="$1/python/bin:$PATH"
cd "$1"
pip install --quiet --disable-pip-version-check --no-index ./*.whl
kvgauge --version
kvgauge validate --model builtin --context 64 --windows 2 --summary
kvgauge extract --model builtin --context 64 --output cache.safetensors
kv-compress -input cache.safetensors -output command.safetensors -group-size 32 >/dev/null
python - <<'END'
import kvgauge
import sys
metrics = kvgauge.compress_kv_cache("cache.safetensors", "package.safetensors", group_size=32)
assert metrics.quality_passed and metrics.compression_ratio > 3, metrics
kvgauge.decompress_kv_cache("package.safetensors", "restored.safetensors")
assert kvgauge.find_binary().startswith(sys.prefix), kvgauge.find_binary()
END
cmp command.safetensors package.safetensors
EOF
files=(cache.safetensors command.safetensors restored.safetensors)

mkdir "$work/venv"
cp "$wheel" "$work/venv"
sh "$work/use.sh" "$work/venv"
echo "ok: the wheel in a fresh virtual environment"

# Its archive, under the names by which `cargo binstall` asks for it.
python3 - "$archive" "$work/venv/python/bin" <<'END'
import os, subprocess, sys, tarfile
try:
    import tomllib
except ImportError:
    sys.exit("Python 3.11 or newer is needed to read Cargo.toml")
archive, scripts = sys.argv[1:]
package = tomllib.load(open("Cargo.toml", "rb"))["package"]
host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
known = {"name": package["name"], "version": package["version"], "repo": "", "binary-ext": "",
         "archive-format": "tgz", "target": host.split("host: ")[1].split()[0]}
def filled(template, **more):
    for key, value in {**known, **more}.items():
        template = template.replace("{ %s }" % key, value)
    assert "{" not in template, template
    return template
binstall = package["metadata"]["binstall"]
assert os.path.basename(filled(binstall["pkg-url"])) == os.path.basename(archive), archive
with tarfile.open(archive) as unpacked:
    for name in ("kvgauge", "kv-compress"):
        member = unpacked.getmember(filled(binstall["bin-dir"], bin=name))
        assert member.mode & 0o111
        assert unpacked.extractfile(member).read() == open(os.path.join(scripts, name), "rb").read()
END
echo "ok: the archive for cargo binstall"

for suite in bookworm bullseye; do
    system="$cache/debian-$suite-python.tar"
    if [ "$(id -u)" != 0 ]; then
        echo "skipped: a Debian $suite to try the wheel in needs root"
        continue
    fi
    if ! [ -e "$system" ]; then
        if ! why=$(mmdebstrap --quiet --format=tar --variant=minbase --include=python3-venv \
            "$suite" "$system.part" 2>&1); then
            echo "skipped: no Debian $suite could be made: $(tail -n 1 <<<"$why")"
            continue
        fi
        mv "$system.part" "$system"
    fi
    root="$work/$suite"
    mkdir "$root"
    tar -xf "$system" -C "$root"
    mkdir "$root/work"
    cp "$wheel" "$work/use.sh" "$root/work"
    chroot "$root" sh -c 'for p in cc gcc clang rustc cargo; do ! command -v "$p" || exit 1; done'
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" sh /work/use.sh /work
    for file in "${files[@]}"; do
        cmp "$work/venv/$file" "$root/work/$file"
    done
    echo "ok: the wheel in Debian $suite without compilers, $(chroot "$root" ldd --version | sed -n '1s/.* /glibc /p')"
done
