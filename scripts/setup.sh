#!/usr/bin/env bash
# Installs what is missing to build, run and test minik8s on Debian, and starts dockerd if none answers.
# Idempotent: a second run changes nothing and says so in one line. Needs root and apt to install; without them
# it says exactly what to install.
#
#   scripts/setup.sh          what up.sh needs
#   scripts/setup.sh --test   and what test.sh needs besides; with --long, what test.sh --long needs
#   scripts/setup.sh --small  and what small.sh needs besides
#   scripts/setup.sh --other-debian  and what other-debian.sh needs besides
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/docker.sh
source scripts/lib/docker.sh

installed=()

# A command, and the Debian package that brings it.
declare -A packages=(
    [gcc]=gcc [make]=make [pkg-config]=pkg-config [curl]=curl [iptables]=iptables [ip]=iproute2
    [protoc]=protobuf-compiler [dockerd]=docker.io [busybox]=busybox-static [script]=bsdutils [ipcmk]=util-linux
)
if [ "${1:-}" = --test ]; then
    packages[etcd]=etcd-server
    packages[debootstrap]=debootstrap
elif [ "${1:-}" = --small ]; then
    packages[valgrind]=valgrind
elif [ "${1:-}" = --other-debian ]; then
    packages[qemu-system-x86_64]=qemu-system-x86
    packages[mke2fs]=e2fsprogs
    packages[rsync]=rsync
fi

missing=()
for command in "${!packages[@]}"; do
    command -v "$command" >/dev/null || [ -x "/usr/sbin/$command" ] || missing+=("${packages[$command]}")
done
# Files rather than commands: protoc's standard definitions (the etcd client is generated with them) and the
# certificates of public registries.
[ -f /usr/include/google/protobuf/empty.proto ] || missing+=(libprotobuf-dev)
[ -f /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
# The C library that examples/pod-ipc is linked with.
[ -f /usr/include/features.h ] || missing+=(libc6-dev)
# A busybox with shared libraries cannot run in an empty image.
if [ -x /bin/busybox ] && ldd /bin/busybox >/dev/null 2>&1; then missing+=(busybox-static); fi

if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
fi
rust_is_new_enough() {
    local version
    version=$(rustc --version 2>/dev/null | awk '{print $2}') || return 1
    [ -n "$version" ] && [ "$(printf '1.95.0\n%s\n' "$version" | sort -V | head -n1)" = 1.95.0 ]
}
if ! rust_is_new_enough; then
    # Debian's own rustc is too old; the one kept for browsers is new enough.
    missing+=(rustc-web cargo-web rustfmt-web rust-web-clippy)
fi

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: please install (Debian's names): ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Nothing here may start or restart a service by itself; what is needed is started below.
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    installed+=("${missing[@]}")
fi

if ! rust_is_new_enough; then
    echo "setup: Rust 1.95 or newer is needed and was not found: install it with rustup, or rustc-web and cargo-web" >&2
    exit 1
fi

if [ "${1:-}" = --test ]; then
    if ! command -v cargo-deny >/dev/null; then
        cargo install --quiet --locked cargo-deny --version 0.20.2
        installed+=(cargo-deny)
    fi
    made=$(scripts/lib/test-tools.sh "${2:-}")
    [ -z "$made" ] || mapfile -t -O "${#installed[@]}" installed <<<"$made"
fi

ensure_docker
if [ "${#installed[@]}" -eq 0 ]; then
    echo "setup: everything is there"
else
    echo "setup: installed ${installed[*]}"
fi
