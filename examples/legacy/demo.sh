#!/usr/bin/env bash
# Manifests in the dialect of the course project that minik8s grew from: translated aloud, and run.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
trap 'kubectl delete pod/viewer replicaset/web node/worker --ignore-not-found >/dev/null' EXIT

say "cmd, ports as strings, no selector, a node's address at the top: all of it is understood"
for file in pod replicaset node; do
    show kubectl apply -f "examples/legacy/$file.yaml"
done
show kubectl wait --for=condition=Ready pod/viewer --timeout=120s
show kubectl wait --for=jsonpath='{.status.readyReplicas}'=2 replicaset/web --timeout=120s

say "Its plurals are known as well"
show kubectl get rss

say "Containers of one pod share network and volumes"
show kubectl exec viewer -c downloader -- wget -qO- http://127.0.0.1:80/
