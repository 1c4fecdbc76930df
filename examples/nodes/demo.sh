#!/usr/bin/env bash
# A second node joins, a pod runs there, the node is lost and the pod moves.
#
# The second node is a network namespace with a Docker daemon and a kubelet of its own (as root).
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
source scripts/lib/images.sh
source scripts/lib/machines.sh
minik8s() { ${MINIK8S:-${CARGO_TARGET_DIR:-target}/debug/minik8s} "$@"; }

# Names of links have room for 15 letters.
machine="mkd$$"
machines=$(mktemp -d)
home="$machines/$machine/kubelet"
docker="unix://$machines/$machine/docker.sock"
cleanup() {
    kubectl delete -f examples/nodes/mover.yaml --ignore-not-found >/dev/null 2>&1 || true
    machine_stop "$home/minik8s.pid"
    kubectl delete node "$machine" --ignore-not-found >/dev/null 2>&1 || true
    machine_drop "$machines" "$machine"
    ip link del "$machine" 2>/dev/null || true
    rm -rf "$machines"
}
trap cleanup EXIT

say "A machine: a network of its own, a Docker daemon of its own, and a cable to this one"
machine_make "$machines" "$machine"
link=$((RANDOM % 250))
ip link add "$machine" type veth peer name eth0 netns "$machine"
ip addr add "10.255.$link.1/30" dev "$machine"
ip link set "$machine" up
ip -n "$machine" addr add "10.255.$link.2/30" dev eth0
ip -n "$machine" link set eth0 up
ip -n "$machine" route add default via "10.255.$link.1"
DOCKER_HOST="$docker" make_busybox_image minik8s/busybox:quickstart

say "It joins with a token"
show minik8s token create --ttl 600
read -ra join <<<"$(minik8s token create --ttl 600 | grep -- --join)"
cidr=$(kubectl get nodes -o jsonpath='{.items[0].spec.podCIDR}')
# It shares this machine's disk, however full that is.
machine_run "$machine" "${MINIK8S:-${CARGO_TARGET_DIR:-target}/debug/minik8s}" "${join[@]:1}" \
    --node-name "$machine" --node-labels example.minik8s.io/joined=true --root-dir "$home" --bridge mkd0 \
    --docker-socket "${docker#unix://}" --cluster-cidr "${cidr%.*.*}.0.0/16" --node-lease-duration-seconds 8 \
    --eviction-hard 'memory.available<50Mi' \
    >"$machines/kubelet.log" 2>&1 </dev/null &
until kubectl get node "$machine" >/dev/null 2>&1; do sleep 0.2; done
show kubectl wait --for=condition=Ready "node/$machine" --timeout=120s
show kubectl get nodes

say "A pod runs there, and is reached from here"
show kubectl apply -f examples/nodes/mover.yaml
show kubectl wait --for=condition=Ready pod -l app=mover --timeout=120s
kubectl get pods -l app=mover -o jsonpath='mover runs on {.items[0].spec.nodeName}{"\n"}' | sed "s/$machine/the second node/"

say "The cable is cut: the node falls silent, and the pod moves"
ip link set "$machine" down
show kubectl wait --for=condition=Ready=Unknown "node/$machine" --timeout=120s
until kubectl get pods -l app=mover -o jsonpath='{range .items[*]}{.spec.nodeName} {.status.phase}{"\n"}{end}' |
    grep -v "^$machine " | grep -q Running; do sleep 0.2; done
echo "mover runs on the first node"

say "The cable is mended: the node comes back and ends what it must"
ip link set "$machine" up
show kubectl wait --for=condition=Ready "node/$machine" --timeout=120s
until [ -z "$(kubectl get pods -l app=mover --field-selector "spec.nodeName=$machine" -o name)" ]; do sleep 0.2; done
echo "nothing of it is left on the second node"

say "It leaves"
show minik8s kubelet leave --node-name "$machine" --root-dir "$home" --bridge mkd0 --docker-socket "${docker#unix://}" \
    --cluster-cidr "${cidr%.*.*}.0.0/16"
