#!/usr/bin/env bash
# The quickstart on the running cluster: pods run, answer, and are replaced when they are deleted.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
trap 'kubectl delete -f examples/quickstart --ignore-not-found >/dev/null' EXIT

say "One pod of its own, and a ReplicaSet of two"
show kubectl apply -f examples/quickstart/pod.yaml -f examples/quickstart/replicaset.yaml
kubectl wait --for=condition=Ready pod/hello --timeout=120s >/dev/null
kubectl wait --for=jsonpath='{.status.readyReplicas}'=2 replicaset/quickstart --timeout=120s >/dev/null
show kubectl get pods -l app=quickstart

say "What it says"
show kubectl logs hello --tail=1

say "A deleted pod is replaced"
victim=$(kubectl get pods -l role=web -o jsonpath='{.items[0].metadata.name}')
show kubectl delete pod "$victim"
show kubectl wait --for=jsonpath='{.status.readyReplicas}'=2 replicaset/quickstart --timeout=120s
show kubectl get pods -l role=web
