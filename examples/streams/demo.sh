#!/usr/bin/env bash
# Into a pod and out of it: ports forwarded, files copied, commands with a terminal, a pod for one command.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
folder=$(mktemp -d)
forwarding=
cleanup() {
    [ -z "$forwarding" ] || kill "$forwarding" 2>/dev/null || true
    kubectl delete -f examples/streams/pod.yaml --ignore-not-found >/dev/null
    rm -rf "$folder"
}
trap cleanup EXIT

show kubectl apply -f examples/streams/pod.yaml
show kubectl wait --for=condition=Ready pod/streams --timeout=120s

say "A port of the pod, here: the server listens on the pod's loopback only"
echo '$ kubectl port-forward pod/streams :http &'
: >"$folder/ports"  # there before it is followed
# The process itself, not a shell around it, so that it can be ended.
# shellcheck disable=SC2086  # "minik8s kubectl" is two words on purpose
${KUBECTL:-${CARGO_TARGET_DIR:-target}/debug/kubectl} port-forward pod/streams :http >>"$folder/ports" &
forwarding=$!
grep -m 1 Forwarding < <(tail --pid="$forwarding" -n +1 -f "$folder/ports")
port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$folder/ports")
show curl -sS "http://127.0.0.1:$port/"

say "Files over, and back"
echo "second page" >"$folder/index.html"
show kubectl cp "$folder/index.html" streams:/var/www/index.html
show curl -sS "http://127.0.0.1:$port/"
show kubectl cp streams:/var/www "$folder/www"
show cat "$folder/www/index.html"

say "A command with a terminal of its own"
echo "\$ kubectl exec -it streams -- sh -c 'tty && id -un'"
script -qec "${KUBECTL:-${CARGO_TARGET_DIR:-target}/debug/kubectl} exec -it streams -- sh -c 'tty && id -un'" /dev/null </dev/null

say "A pod for one command: its input is ours, and it is gone afterwards"
echo '$ echo one two three | kubectl run counter -i --rm --quiet --restart=Never --image=minik8s/busybox:quickstart -- wc -w'
echo "one two three" | kubectl run counter -i --rm --quiet --restart=Never --image=minik8s/busybox:quickstart -- wc -w
