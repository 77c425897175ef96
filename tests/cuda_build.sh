#!/usr/bin/env bash
# Builds kvgauge for CUDA on a machine that needs no GPU, and no toolkit: the compiler, headers and
# libraries come from PyPI. Needs Rust, pip, a C++ compiler, about 3 GB of disk and twenty minutes on
# two cores.
#
# tests/cuda_build.sh [FOLDER]     the toolkit goes to FOLDER (target/cuda-toolkit unless named)
# CUDA_COMPUTE_CAP=90              the GPU's compute capability, without the point (90: H100, H200)
#
# The binary, target/release/kvgauge, needs the driver and the libraries of CUDA 13 where it runs:
# libcublas, libcublasLt, libcurand, libnvrtc (a PyTorch of CUDA 13 has them).
set -euo pipefail
cd "$(dirname "$0")/.."
toolkit=$(realpath -m "${1:-target/cuda-toolkit}")
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}

if [ ! -e "$toolkit/.whole" ]; then
    rm -rf "$toolkit"
    mkdir -p "$toolkit/wheels"
    python3 -m pip download --quiet --no-deps --dest "$toolkit/wheels" \
        'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' \
        'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' \
        'nvidia-cublas==13.*' 'nvidia-curand==10.*'
    for wheel in "$toolkit"/wheels/*.whl; do
        python3 -m zipfile --extract "$wheel" "$toolkit/wheels"
    done
    mv "$toolkit"/wheels/nvidia/cu13/* "$toolkit"
    rm -r "$toolkit/wheels"
    chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/*
    # A linker looks for libNAME.so, and candle's build for lib64.
    for library in "$toolkit"/lib/lib*.so.*; do
        ln -sf "$(basename "$library")" "${library%%.so.*}.so"
    done
    ln -s lib "$toolkit/lib64"
    touch "$toolkit/.whole"
fi
export CUDA_HOME=$toolkit CUDA_PATH=$toolkit CUDA_ROOT=$toolkit CUDA_TOOLKIT_ROOT_DIR=$toolkit
export PATH=$toolkit/bin:$PATH LIBRARY_PATH=$toolkit/lib
# candle's kernels for quantised weights, which kvgauge does not call, are most of the binary.
export NVCC_APPEND_FLAGS="-Xfatbin=-compress-all ${NVCC_APPEND_FLAGS:-}"

# The driver's library comes with the driver: here one of its names, which the linker wants, and of
# its functions, which the header names, stands in for it. It is not shipped.
if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    grep -ohE '\bcu[A-Z][A-Za-z0-9_]*' "$toolkit/include/cuda.h" | sort -u |
        sed 's/.*/void &(void) {}/' > "$toolkit/driver.c"
    sed -i '1i #pragma GCC diagnostic ignored "-Wbuiltin-declaration-mismatch"' "$toolkit/driver.c"
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/libcuda.so" "$toolkit/driver.c"
fi

cargo build --release --features cuda --bin kvgauge
strip target/release/kvgauge
size=$(stat --format %s target/release/kvgauge)
echo "target/release/kvgauge: $((size / 1048576)) MiB, compute capability $CUDA_COMPUTE_CAP"
if [ "$size" -gt $((64 * 1048576)) ]; then
    echo "error: expected at most 64 MiB, so that it can be carried" >&2
    exit 1
fi
