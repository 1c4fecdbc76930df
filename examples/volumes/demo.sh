#!/usr/bin/env bash
# ConfigMaps, Secrets, scratch space and the files of an image in a pod; a changed ConfigMap reaches the running pod.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
trap 'kubectl delete -f examples/volumes --ignore-not-found >/dev/null' EXIT

show kubectl apply -f examples/volumes/settings.yaml
show kubectl wait --for=condition=Ready pod/settings --timeout=120s

say "As a variable, as a file, and as a file that only root may read"
show kubectl exec settings -- sh -c 'echo "$COLOUR"; cat /etc/settings/colour; echo; stat -Lc %a /etc/password/word'

say "Sixteen mebibytes of memory as a directory"
show kubectl exec settings -- df -m /scratch

say "A change reaches the running pod"
show kubectl patch configmap settings --type=merge -p '{"data":{"colour":"green"}}'
show kubectl exec settings -- sh -c 'until grep -q green /etc/settings/colour; do sleep 1; done; cat /etc/settings/colour; echo'

say "An image is a directory too, but nothing in it can be changed or run"
show kubectl apply -f examples/volumes/image.yaml
show kubectl wait --for=condition=Ready pod/borrower --timeout=120s
show kubectl exec borrower -- ls /files
show kubectl exec borrower -- touch /files/mine || echo "exit code $?"
