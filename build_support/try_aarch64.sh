#!/usr/bin/env bash
# Cross-compile the extension for aarch64, and check it there: qemu-user runs Debian's Python with PyPI's torch.
# Debian as root: packages of arm64 are fetched and unpacked into a folder, none is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=${TORCH:-torch==2.10.0}  # of later ones PyPI has CUDA builds alone for aarch64
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

dpkg --add-architecture arm64
apt-get update -qq
apt-get install -y -qq g++-aarch64-linux-gnu qemu-user
(
    cd "$work"
    apt-get download -qq {python3.11,libpython3.11}-minimal:arm64 libpython3.11-stdlib:arm64 libc6:arm64 libgcc-s1:arm64 \
        libstdc++6:arm64 zlib1g:arm64 libssl3:arm64 libffi8:arm64 libexpat1:arm64 libbz2-1.0:arm64 liblzma5:arm64 \
        libsqlite3-0:arm64 libuuid1:arm64
    for package in *.deb; do dpkg -x "$package" root; done
)
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)
# By name, as pip would take the dependencies of this machine.
python3 -m pip install -q --target "$work/site" --only-binary=:all: "${platforms[@]}" --python-version 3.11 --abi cp311 \
    --abi none --no-deps "$torch" filelock fsspec jinja2 markupsafe mpmath networkx sympy typing_extensions numpy

version=$(sed -n 's/^__version__ = .\(.*\).$/\1/p' "$work/site/torch/version.py")
flags=(-O3 -g0 -std=c++20 -fPIC -fvisibility=hidden -Wno-psabi -Icsrc -I"$work/site/torch/include"
    -I"$work/site/torch/include/torch/csrc/api/include" -I"$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')")
stable=(-DTORCH_TARGET_VERSION=0x020a000000000000ULL "-DREBLUR_TORCH_VERSION=\"$version\"" '-DREBLUR_CUDA_ARCHITECTURES=""')
aarch64-linux-gnu-g++ "${flags[@]}" -c csrc/cpu/kernels_default.cpp -o "$work/kernels.o"
aarch64-linux-gnu-g++ "${flags[@]}" "${stable[@]}" -c csrc/cpu/ops.cpp -o "$work/ops.o"
aarch64-linux-gnu-g++ "${flags[@]}" "${stable[@]}" -c csrc/module.cpp -o "$work/module.o"
mkdir -p "$work/elsewhere/reblur_ops"
cp reblur_ops/*.py "$work/elsewhere/reblur_ops"
aarch64-linux-gnu-g++ -shared "$work"/{kernels,ops,module}.o -L"$work/site/torch/lib" -lc10 -ltorch_cpu \
    -Wl,--allow-shlib-undefined -o "$work/elsewhere/reblur_ops/_C.abi3.so"

cd "$work/elsewhere"
qemu-aarch64 -L "$work/root" -E PYTHONPATH="$work/site" -E LD_LIBRARY_PATH="$work/site/torch/lib" \
    "$work/root/usr/bin/python3.11" -m reblur_ops --check
