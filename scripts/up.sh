#!/usr/bin/env bash
# From a fresh Debian machine to a running cluster: installs what is missing, builds, starts minik8s in the
# background and runs the quickstart pods. Harmless to run again. Flags go to `minik8s up` (--store etcd, …).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"

scripts/setup.sh
# shellcheck source=scripts/lib/images.sh
source scripts/lib/images.sh

cargo build --workspace --bins
bin="${CARGO_TARGET_DIR:-target}/debug"

# The quickstart's image is made here, so that nothing depends on a registry.
make_busybox_image minik8s/busybox:quickstart

"$bin/minik8s" up --detach "$@"

kubectl="$bin/kubectl"
"$kubectl" apply -f examples/quickstart
# Not for every pod with its label: of a set that somebody has scaled up, some are just ending.
if ! "$kubectl" wait --for=condition=Ready pod/hello --timeout=60s >/dev/null ||
    ! "$kubectl" wait --for=jsonpath='{.status.readyReplicas}'=2 replicaset/quickstart --timeout=60s >/dev/null; then
    echo "up: the quickstart's pods do not run; this is what the cluster says:" >&2
    "$kubectl" get events >&2
    exit 1
fi
"$kubectl" get pods -o wide
cat <<TEXT

Your cluster is up. To go on:
  export PATH="$(realpath "$bin"):\$PATH"
  kubectl get pods -A
  kubectl scale replicaset quickstart --replicas=5
  kubectl logs -l app=quickstart --tail=3
Any other kubectl: export KUBECONFIG=${MINIK8S_HOME:-$HOME/.minik8s}/kubeconfig
To stop: ./scripts/down.sh
TEXT
