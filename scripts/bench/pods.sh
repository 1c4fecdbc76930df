#!/usr/bin/env bash
# Measures pods on Docker (docs/performance.md): from the API's create to Running as a watch sees it, one at a time and
# many at once, beside the same Docker calls made bare in the same run; then the kubelet alone beside idle pods. API
# server, controllers and kubelet run as three processes of their own, in a directory of their own. Arguments go to
# the load program (--rounds N, --crowd N, --idle-pods N, --idle-seconds N); $MINIK8S names another binary than the one
# that is built here (target/small/minik8s). As root; leave the machine alone meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib/docker.sh
source scripts/lib/docker.sh
# shellcheck source=scripts/lib/images.sh
source scripts/lib/images.sh
# shellcheck source=scripts/lib/apart.sh
source scripts/lib/apart.sh

cargo build --quiet --workspace --bins
bin=${CARGO_TARGET_DIR:-target}/debug
minik8s=${MINIK8S:-$bin/minik8s}
ensure_docker
make_busybox_image minik8s/busybox:quickstart
trap stop_apart EXIT
start_apart
"$bin/minik8s-bench" pods --kubeconfig "$home/kubeconfig" --pid "$kubelet" "$@"
