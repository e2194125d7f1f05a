#!/usr/bin/env bash
# make arm64: the folder that the device arm64_emulated runs in: qemu, Debian's Python for arm64, the arm64 wheels of the runtimes.
# Without root: packages come through a private apt configuration and are unpacked, never installed. Nothing is done where all is there.
#   edgewise/devices/arm64.sh [FOLDER]      DEBIAN_MIRROR=...: another one than that of this machine's apt
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
target=$(realpath -m "${1:-$project/.arm64}")
wheels=(numpy onnxruntime ai-edge-litert openvino mnn ncnn)
# Debian 12 has the Python that constraints.txt is for; its qemu 7.2 crashes on onnxruntime, that of Debian 13 does not
suite=bookworm qemu_suite=trixie python=3.11 glibc=36
packages=(python$python-minimal libpython$python-minimal libpython$python-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8
    libssl3 libbz2-1.0 liblzma5 libuuid1)

fail() { echo "error: $*" >&2; exit 3; }

key=$({ cat "${BASH_SOURCE[0]}"; printf '%s\n' "${wheels[@]/#/^}" | sed 's/$/==/' | grep -f - "$project/constraints.txt"; } | sha256sum | cut -c1-32)
if [ "$(cat "$target/key" 2> /dev/null)" = "$key" ]; then
    echo "$target is up to date"
    exit 0
fi
for tool in apt-get dpkg-deb tar; do
    command -v "$tool" > /dev/null || fail "make arm64 needs $tool: it works on Debian and its relatives"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "$keyring is missing: install the package debian-archive-keyring"
mirror=${DEBIAN_MIRROR:-$(apt-get --print-uris update | sed -n "s#^'\(.*/debian\)/dists/.*#\1#p" | sed -n 1p)}
[ -n "$mirror" ] || fail "this machine's apt has no Debian mirror; name one: DEBIAN_MIRROR=http://... make arm64"

work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT

# fetch SUITE ARCHITECTURE PACKAGE...: the .deb files, into the current folder
fetch() {
    local apt=$work/apt suite=$1 architecture=$2
    shift 2
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,etc/preferences.d}
    echo "deb [arch=$architecture signed-by=$keyring] $mirror $suite main" > "$apt/etc/sources.list"
    : > "$apt/state/status"
    local options=(-qq -o "Dir=$apt" -o "Dir::Etc=$apt/etc" -o "Dir::Etc::sourcelist=$apt/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/state/status" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=
        -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o Acquire::Languages=none -o Acquire::Retries=3)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" download "$@"
}

mkdir -p "$work"/{debs,qemu,wheels,made/root,made/site}
echo "qemu from Debian $qemu_suite"
(cd "$work/qemu" && fetch "$qemu_suite" "$(dpkg --print-architecture)" qemu-user)
dpkg-deb --fsys-tarfile "$work"/qemu/*.deb | tar -x -C "$work/made" --strip-components=3 ./usr/bin/qemu-aarch64
echo "Python $python and its libraries for arm64 from Debian $suite"
(cd "$work/debs" && fetch "$suite" arm64 "${packages[@]}")
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/made/root"; done
echo "arm64 wheels of ${wheels[*]}"
pip=(python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all:
    --implementation cp --python-version "$python" --constraint "$project/constraints.txt" --dest "$work/wheels" --platform manylinux2014_aarch64)
for minor in $(seq "$glibc" -1 17); do pip+=(--platform "manylinux_2_${minor}_aarch64"); done
"${pip[@]}" "${wheels[@]}"
for wheel in "$work"/wheels/*.whl; do "${pip[0]}" -m zipfile -e "$wheel" "$work/made/site"; done

rm -rf "$target"
mv "$work/made" "$target"
echo "a first start, which compiles the Python files"
env -i PATH="$PATH" PYTHONHOME="$target/root/usr" PYTHONPATH="$target/site" PYTHONNOUSERSITE=1 \
    "$target/qemu-aarch64" -cpu cortex-a76 -L "$target/root" "$target/root/usr/bin/python$python" \
    -c "import numpy, onnxruntime, openvino, MNN, ncnn, ai_edge_litert.interpreter as litert, sys; litert.Interpreter; print(sys.version)"
echo "$key" > "$target/key"
echo "$target: $(du -sm "$target" | cut -f1) MB in $SECONDS s"
