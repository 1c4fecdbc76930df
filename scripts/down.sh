#!/usr/bin/env bash
# Stops the cluster and takes away its containers, network, mounts and rules. The data stays until
# `minik8s reset`; dockerd stays.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${CARGO_TARGET_DIR:-target}/debug/minik8s"
if [ ! -x "$bin" ]; then
    echo "down: nothing is built here, so nothing of it can run" >&2
    exit 0
fi
exec "$bin" down "$@"
