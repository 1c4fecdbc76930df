#!/usr/bin/env bash
# Installs what is missing and runs every test: format, lints, one build, all tests, dependencies.
#
#   scripts/test.sh          what continuous integration runs
#   scripts/test.sh --long   and what takes an hour besides: chaos and soak for minutes, many more random inputs for
#                            every property test, the whole end-to-end suite on etcd, the store on etcd 3.5, and
#                            setup.sh in a fresh Debian
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"

long=
if [ "${1:-}" = --long ]; then
    long=1
elif [ $# -gt 0 ]; then
    echo "usage: scripts/test.sh [--long]" >&2
    exit 64
fi
tools="${MINIK8S_TEST_TOOLS:-$HOME/.cache/minik8s-test-tools}"

step() { printf '\n== %s\n' "$*"; }

# Runs every test; what failed is said once more at the end, in brief: its panic is far up, and may stand behind a log.
every_test() {
    local log
    log="$(mktemp)"
    if cargo test --workspace --no-fail-fast 2>&1 | tee "$log"; then
        rm "$log"
        return
    fi
    step "what failed (all of it: $log)"
    awk '/^---- .* stdout ----$/ { print; getline; getline; left = 5 }
         /panicked at/ && !left { left = 5 }
         /answers were wrong:$/ { left = 60 }
         left > 0 { print substr($0, 1, 500); left-- }' "$log"
    return 1
}

step "set-up"
scripts/setup.sh --test ${long:+--long}

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets --quiet -- -D warnings

step "dependencies"
# Advisories only where their database can be reached; the rest always.
cargo deny --log-level error check bans licenses sources
cargo deny --log-level error check advisories 2>/dev/null || echo "dependencies: the advisory database is not reachable, or has something to say: run cargo deny check advisories"

step "build"
cargo build --workspace --bins

step "scripts"
scripts/lib/docker-test.sh

step "tests"
every_test

# Debian's etcd is older than those that tell a cache how far they are: the other half of the store needs a newer one.
step "the store on etcd 3.6"
MINIK8S_TEST_ETCD="$tools/etcd-3.6" cargo test --workspace --lib etcd::

[ -n "$long" ] || exit 0
export MINIK8S_TEST_LONG=1

step "the store on etcd 3.5"
MINIK8S_TEST_ETCD="$tools/etcd-3.5" cargo test --workspace --lib etcd::

step "random inputs: many"
# Optimised as everything is, 20,000 cases of each property take minutes; where one fails, its input is printed.
PROPTEST_CASES="${PROPTEST_CASES:-20000}" cargo test --workspace --lib --no-fail-fast

step "soak of the store"
cargo test --workspace --test soak -- --nocapture

step "chaos"
cargo test --workspace --test main chaos -- --nocapture

step "chaos on etcd"
MINIK8S_TEST_STORE=etcd cargo test --workspace --test main chaos -- --nocapture

step "the end-to-end suite on etcd"
# Chaos has had its minutes; the rules of the house and the embedded store's own tests know no etcd.
MINIK8S_TEST_STORE=etcd cargo test --workspace --test main -- --skip chaos --skip tidy --skip store::

step "set-up in a fresh Debian"
scripts/lib/setup-in-fresh-debian.sh
