#!/usr/bin/env bash
# Measures pods on Docker (docs/performance.md): from the API's create to Running as a watch sees it, one at a time and
# many at once, beside the same Docker calls made bare in the same run; then the kubelet alone beside idle pods. API
# server, controllers and kubelet run as three processes of their own, in a directory of their own. Arguments go to
# the load program (--rounds N, --crowd N, --idle-pods N, --idle-seconds N). As root; leave the machine alone meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib/docker.sh
source scripts/lib/docker.sh
# shellcheck source=scripts/lib/images.sh
source scripts/lib/images.sh

cargo build --quiet --workspace --bins
bin=${CARGO_TARGET_DIR:-target}/debug
ensure_docker
make_busybox_image minik8s/busybox:quickstart

home=$(mktemp -d "${MINIK8S_BENCH_DIR:-/var/tmp}/minik8s-bench-XXXXXX")
pids=()
node=minik8s-bench-$$
export MINIK8S_HOME="$home"
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    "$bin/minik8s" down --node-name "$node" --bridge mkbench --cluster-cidr 10.248.0.0/16 >/dev/null || true
    rm -rf "$home"
}
trap cleanup EXIT

port=$((20000 + RANDOM % 10000))
identities="$home/kubeconfigs"
"$bin/apiserver" --data-dir "$home" --secure-port $port --service-cluster-ip-range 172.31.0.0/24 \
    --log error >"$home/apiserver.log" 2>&1 &
pids+=($!)
until curl -sk "https://127.0.0.1:$port/readyz" | grep -qx ok; do sleep 0.1; done
"$bin/controller-manager" --kubeconfig "$identities/kube-controller-manager.kubeconfig" --cluster-cidr 10.248.0.0/16 \
    --scheduler-kubeconfig "$identities/kube-scheduler.kubeconfig" --root-ca-file "$home/pki/ca.crt" \
    --cluster-signing-cert-file "$home/pki/ca.crt" --cluster-signing-key-file "$home/pki/ca.key" >"$home/controllers.log" 2>&1 &
pids+=($!)
# A node with a name of its own joins, so that no other cluster's kubelet takes its containers for orphans.
read -ra join <<<"$("$bin/minik8s" token create --ttl 600 | grep -- --join)"
"$bin/kubelet" "${join[@]:2}" --node-name "$node" --root-dir "$home/kubelet" --bridge mkbench --cluster-cidr 10.248.0.0/16 \
    --port 0 --max-pods 250 --eviction-hard 'memory.available<50Mi' --image-gc-high-threshold 100 >"$home/kubelet.log" 2>&1 &
kubelet=$!
pids+=("$kubelet")
kubectl=("$bin/kubectl" --kubeconfig "$home/kubeconfig")
until "${kubectl[@]}" get node "$node" >/dev/null 2>&1; do
    kill -0 "$kubelet" || { cat "$home"/*.log >&2 && exit 1; }
    sleep 0.2
done
"${kubectl[@]}" wait --for=condition=Ready "node/$node" --timeout=60s >/dev/null
"$bin/minik8s-bench" pods --kubeconfig "$home/kubeconfig" --pid "$kubelet" "$@"
