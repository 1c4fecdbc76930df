#!/usr/bin/env bash
# Data that outlives pods: a claim gets its volume with its first pod, grows, is protected while in use, and is cleaned up.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
examples=examples/persistent-volumes
clean_up() {
    kubectl delete --ignore-not-found -f "$examples" >/dev/null
    rm -rf /tmp/minik8s-archive
}
trap clean_up EXIT

say "A claim of the default class waits for a pod"
show kubectl apply -f "$examples/claim.yaml"
show kubectl get storageclass standard
kubectl wait --for=jsonpath='{.spec.storageClassName}'=standard persistentvolumeclaim/data --timeout=60s >/dev/null
show kubectl get persistentvolumeclaim data

say "With the pod comes the volume"
show kubectl apply -f "$examples/writer.yaml"
show kubectl wait --for=condition=Ready pod/writer --timeout=120s
show kubectl exec writer -- sh -c 'echo "still here" >/data/note'
volume=$(kubectl get persistentvolumeclaim data -o jsonpath='{.spec.volumeName}')
show kubectl get persistentvolumeclaim data
show kubectl get persistentvolume "$volume"

say "The data outlives the pod; the next one may only read"
show kubectl delete pod writer
show kubectl apply -f "$examples/reader.yaml"
show kubectl wait --for=condition=Ready pod/reader --timeout=120s
show kubectl exec reader -- cat /data/note
show kubectl exec reader -- touch /data/note || echo "exit code $?"

say "The claim asks for more and gets it, while its pod runs"
show kubectl patch persistentvolumeclaim data -p '{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}'
show kubectl wait --for=jsonpath='{.status.capacity.storage}'=128Mi persistentvolumeclaim/data --timeout=60s
show kubectl get persistentvolume "$volume" -o custom-columns=NAME:.metadata.name,CAPACITY:.spec.capacity.storage

say "A claim in use is not deleted, only marked"
show kubectl delete persistentvolumeclaim data --wait=false
show kubectl get persistentvolumeclaim data
show kubectl delete pod reader
show kubectl wait --for=delete persistentvolumeclaim/data --timeout=60s
show kubectl wait --for=delete "persistentvolume/$volume" --timeout=60s

say "A volume reserved for a claim"
show kubectl apply -f "$examples/reserved.yaml"
show kubectl wait --for=jsonpath='{.status.phase}'=Bound persistentvolumeclaim/archive --timeout=60s
show kubectl delete persistentvolumeclaim archive
show kubectl wait --for=jsonpath='{.status.phase}'=Released persistentvolume/archive --timeout=60s

say "A volume for one pod alone"
show kubectl apply -f "$examples/scratch.yaml"
show kubectl wait --for=condition=Ready pod/scratch --timeout=120s
show kubectl get persistentvolumeclaim scratch-data
volume=$(kubectl get persistentvolumeclaim scratch-data -o jsonpath='{.spec.volumeName}')
show kubectl delete pod scratch
show kubectl wait --for=delete persistentvolumeclaim/scratch-data --timeout=60s
show kubectl wait --for=delete "persistentvolume/$volume" --timeout=60s
