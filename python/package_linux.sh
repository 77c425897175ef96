#!/usr/bin/env bash
# What is handed to others: a wheel (both commands and the Python package) and an archive of the two
# binaries for `cargo binstall`, for every Linux of this architecture with glibc 2.17 or newer.
# usage: python/package_linux.sh FOLDER   (PYTHON, else python3, with maturin and ziglang)
#
# Which glibc a program needs is decided where it is linked. So zig links the two binaries against an
# old one, from the libraries that `cargo build --release` compiled: nothing is compiled twice, and
# the next `cargo build` links its own again. maturin refuses what needs a newer glibc than it says.
set -euo pipefail
glibc=2.17
mkdir -p "$1"
out=$(realpath "$1")
python=$(command -v "${PYTHON:-python3}")
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/cc" <<EOF
#!/bin/sh
exec "$python" -m ziglang cc -target $(uname -m)-linux-gnu.$glibc "\$@"
EOF
chmod +x "$work/cc"
"$python" -m maturin build --release --locked --quiet --compatibility "manylinux_${glibc/./_}" \
    --out "$work/wheel" -- -C linker="$work/cc"

# The names are those of [package.metadata.binstall] in Cargo.toml.
version=$(cargo pkgid --locked --manifest-path ../Cargo.toml | sed 's/.*[#@]//')
name=kvgauge-$(rustc -vV | sed -n 's/^host: //p')-v$version
mkdir "$work/$name"
"$python" -m zipfile -e "$work"/wheel/*.whl "$work/unpacked"
install -m 755 "$work"/unpacked/kvgauge-"$version".data/scripts/* "$work/$name"
install -m 644 ../LICENSE-* ../README.md "$work/$name"
tar -C "$work" --owner=0 --group=0 --numeric-owner --sort=name -czf "$out/$name.tgz" "$name"
mv "$work"/wheel/*.whl "$out"
