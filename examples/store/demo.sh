#!/usr/bin/env bash
# The cluster's store: checked and backed up while it is in use, restored elsewhere, moved into another store.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
home="${MINIK8S_HOME:-$HOME/.minik8s}"
if [ ! -d "$home/store" ]; then
    echo "store: this cluster's state is in an etcd; back that up with etcdctl snapshot save" >&2
    exit 1
fi
scratch=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } || true
    kubectl delete configmap precious --ignore-not-found >/dev/null
    rm -rf "$scratch"
}
trap clean_up EXIT

say "Every byte of the running cluster's store, checked"
show minik8s store verify --data-dir "$home"

say "An object, a backup, and a mistake"
show kubectl create configmap precious --from-literal=of=value
show minik8s store backup --data-dir "$home" "$scratch/backup"
show kubectl delete configmap precious

say "The backup, restored elsewhere: its revisions go on far beyond all that a client can have seen"
show minik8s store restore --data-dir "$scratch/again" "$scratch/backup"
show minik8s store verify --data-dir "$scratch/again"

say "An API server of its own on what was restored has what was lost"
# exec: what is killed in the end must be the server itself, not a shell around it.
(exec "$minik8s" apiserver --data-dir "$scratch/again" --secure-port 0 >"$scratch/log" 2>&1) &
server=$!
until kubectl --kubeconfig "$scratch/again/kubeconfig" get namespace default >/dev/null 2>&1; do
    kill -0 "$server" || { cat "$scratch/log" >&2; exit 1; }
done
show kubectl --kubeconfig "$scratch/again/kubeconfig" get configmap precious -o 'jsonpath={.data.of}{"\n"}'
kill "$server" && wait "$server" || true
server=

say "Moved into another store (URLs instead of a directory would be an etcd): nothing goes back"
show minik8s store migrate --from "$scratch/again/store" --to "$scratch/moved/store"
show minik8s store verify --data-dir "$scratch/moved"
