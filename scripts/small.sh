#!/usr/bin/env bash
# Builds minik8s for machines with little memory: target/small/minik8s. (Some twenty minutes and 3 GB of disk; as root.)
#
# Two things are done. Everything is optimised for size, as one piece. And what runs stands together: a program's pages
# are mapped sixteen at a time around each one that is touched, and since functions stand in the order in which crates
# were linked, running a quarter of them maps nearly all. So the built program is watched once, as API server, as
# controllers and as kubelet, each by itself, while pods come and go; then it is linked again: in front the functions
# that a kubelet at rest calls, then those that it calls otherwise, those of the others, and what none of them called.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/docker.sh
source scripts/lib/docker.sh
# shellcheck source=scripts/lib/images.sh
source scripts/lib/images.sh
# shellcheck source=scripts/lib/apart.sh
source scripts/lib/apart.sh

scripts/setup.sh --small
# Rust's own linker is what links here (so far on x86_64 alone), and can be told in which order.
linker=$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin/gcc-ld/ld.lld
if [ ! -x "$linker" ]; then
    echo "small: this Rust has no $linker; one from rustup has, on x86_64" >&2
    exit 1
fi
small=${CARGO_TARGET_DIR:-target}/small
work=$(mktemp -d "${TMPDIR:-/var/tmp}/minik8s-small-XXXXXX")
trap 'rm -rf "$work"' EXIT

step() { printf '\n== %s\n' "$*"; }

step "build, and keep what the linker was given"
# Symbols stay in, for what watches.
cargo rustc --profile small --bin minik8s -- -C strip=none -C link-arg="-Wl,--reproduce=$work/link.tar"
mkdir "$work/link"
tar -C "$work/link" -xf "$work/link.tar"
minik8s=$small/minik8s

step "watch it run"
ensure_docker
make_busybox_image minik8s/busybox:quickstart
watched() { echo valgrind --tool=callgrind --demangle=no --log-file="$work/$1.log" --callgrind-out-file="$work/$1.calls"; }
# shellcheck disable=SC2034 # the arrays are read by start_apart
read -ra under_apiserver <<<"$(watched apiserver)"
# shellcheck disable=SC2034
read -ra under_controller_manager <<<"$(watched controllers)"
# shellcheck disable=SC2034
read -ra under_kubelet <<<"$(watched kubelet)"
trap 'stop_apart; rm -rf "$work"' EXIT
start_apart
kubectl() { "${kubectl[@]}" "$@" >/dev/null; }
kubectl apply -f examples/quickstart
kubectl wait --for=condition=Ready pod --all --timeout=300s
kubectl exec hello -- true
kubectl logs hello
kubectl get pods -A -o yaml
# What the kubelet calls from now on, it calls at rest: all that it has to do then comes within two minutes.
callgrind_control --dump "$kubelet" >/dev/null
sleep 130
callgrind_control --dump "$kubelet" >/dev/null
kubectl delete -f examples/quickstart --wait
stop_apart
trap 'rm -rf "$work"' EXIT

step "link again"
# A callgrind file names each function once, as "(number) name", where it runs (fn) or is called (cfn); each depth of a
# recursion has a number of its own behind a quotation mark. The kubelet's second dump is of its rest.
for calls in kubelet.calls.2 kubelet.calls.1 kubelet.calls apiserver.calls controllers.calls; do
    sed -En "s/^c?fn=\([0-9]+\) (.*)/\1/p" "$work/$calls" | sed "s/'[0-9]*\$//" | sort -u
done | awk '!seen[$0]++' >"$work/order"
# What was kept of the first link is a tree of files, and everything that its command names is looked for in there.
tree=$(dirname "$work"/link/*/response.txt)
cp "$work/order" "$tree/order"
(
    cd "$tree"
    "$linker" @response.txt --symbol-ordering-file=order --no-warn-symbol-ordering -z pack-relative-relocs \
        --strip-all -o small
)
mv "$tree/small" "$minik8s"
echo "$(wc -l <"$work/order") functions were called; $minik8s has $(stat -c %s "$minik8s") bytes"
