#!/usr/bin/env bash
# Builds minik8s for machines with little memory: target/small/minik8s. (Some twenty minutes and 3 GB of disk; as root.)
#
# Two things are done. Everything is optimised for size, as one piece. And what runs stands together: a program's pages
# are mapped sixteen at a time around each one that is touched, and since functions stand in the order in which crates
# were linked, running a quarter of them maps nearly all. So the built program is watched once, as API server, as
# controllers and as kubelet, each by itself, while pods come and go; then it is linked again with the functions that
# the kubelet called in front, followed by those of the others, and what none of them called behind.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/docker.sh
source scripts/lib/docker.sh
# shellcheck source=scripts/lib/images.sh
source scripts/lib/images.sh
# shellcheck source=scripts/lib/apart.sh
source scripts/lib/apart.sh

scripts/setup.sh
if ! command -v valgrind >/dev/null; then apt-get install -y -qq --no-install-recommends valgrind >/dev/null; fi
small=${CARGO_TARGET_DIR:-target}/small
work=$(mktemp -d "${TMPDIR:-/var/tmp}/minik8s-small-XXXXXX")
trap 'rm -rf "$work"' EXIT

step() { printf '\n== %s\n' "$*"; }

step "build, and keep what the linker was given"
# The linker (lld, which rustc brings along) is not run again unless something changed; and it has to be.
rm -f "$small"/deps/minik8s-*
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
kubectl delete -f examples/quickstart --wait
# Leases, node status and housekeeping come every ten seconds, the rest of an idle agent's work within a minute.
sleep 70
stop_apart
trap 'rm -rf "$work"' EXIT

step "link again"
# A callgrind file names each function once, as "(number) name"; those that ran themselves stand behind "fn=", and each
# depth of a recursion has a number behind a quotation mark.
functions() { sed -n "s/^fn=([0-9]*) \(.*\)/\1/p; s/^cfn=([0-9]*) \(.*\)/\1/p" "$work/$1.calls" | sed "s/'[0-9]*\$//" | sort -u; }
for part in kubelet apiserver controllers; do functions $part; done | awk '!seen[$0]++' >"$work/order"
linker=$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin/gcc-ld/ld.lld
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
