#!/usr/bin/env bash
# The scheduler says why a pod waits, notices when that changes, and can be told how to choose.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
node=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
cleanup() {
    kubectl delete pod picky --ignore-not-found >/dev/null
    kubectl label node "$node" example.minik8s.io/flavour- >/dev/null
    kubectl cfg sched=default >/dev/null
}
trap cleanup EXIT

say "A pod that no node can take waits, and is told why"
show kubectl apply -f examples/scheduling/picky.yaml
show kubectl wait --for=condition=PodScheduled=False pod/picky --timeout=60s
show kubectl get pod picky -o jsonpath='{.status.conditions[?(@.type=="PodScheduled")].message}{"\n"}'

say "A label on the node changes that"
show kubectl label node "$node" example.minik8s.io/flavour=vanilla
show kubectl wait --for=condition=Ready pod/picky --timeout=120s

say "How nodes are chosen is followed live"
show kubectl cfg sched=min-pods
