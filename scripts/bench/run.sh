#!/usr/bin/env bash
# Measures the API server of this tree (docs/performance.md): builds it and the load program optimised, then
# runs the whole suite and prints its table. Further arguments go to the suite (--quick, --only TEXT, --json FILE).
# MINIK8S_BENCH_SERVER replaces the server's command; {data} and {port} stand for its directory and port.
# The client shares the machine's processors with the server: leave the machine alone meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The whole workspace, as up.sh and test.sh build it: a part alone would need other features of its dependencies.
cargo build --quiet --workspace --bins
target=${CARGO_TARGET_DIR:-target}/debug
default="$target/apiserver --data-dir {data} --secure-port {port} --bind-address 127.0.0.1 --log error"
read -ra server <<<"${MINIK8S_BENCH_SERVER:-$default}"
exec "$target/minik8s-bench" suite "$@" -- "${server[@]}"
