#!/usr/bin/env bash
# Installs what is missing and runs every test: format, lints, one build, all tests, dependencies.
# --long tells the tests to take their time (MINIK8S_TEST_LONG=1); no test has a longer form yet.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"

export MINIK8S_TEST_LONG=
if [ "${1:-}" = --long ]; then
    MINIK8S_TEST_LONG=1
elif [ $# -gt 0 ]; then
    echo "usage: scripts/test.sh [--long]" >&2
    exit 64
fi

step() { printf '\n== %s\n' "$*"; }

step "set-up"
scripts/setup.sh --test

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

step "tests"
cargo test --workspace --no-fail-fast
