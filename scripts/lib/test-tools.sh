#!/usr/bin/env bash
# Puts the clients that the end-to-end tests run into a directory of their own; nothing of it is installed.
#
#   kubectl-1.20/usr/bin/kubectl   Debian's package kubernetes-client, unpacked
#   prometheus                     the program of Debian's package prometheus, unpacked: no service is set up
#   kubectl-1.36                   built from tests/tools/kubectl-1.36, where Go is new enough
#
# Idempotent: what is there stays. Prints the names of what it made, one a line; words for people go to stderr.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools="${MINIK8S_TEST_TOOLS:-$HOME/.cache/minik8s-test-tools}"
mkdir -p "$tools"

# Everything is made beside its place and renamed, so that an interrupted run leaves nothing half made.
scratch=$(mktemp -d "$tools/.making.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# Unpacks a package of Debian's into a folder, without installing it.
unpack() {
    # apt refuses to download into what its own user may not enter, and only warns about it.
    (cd "$scratch" && apt-get download -qq "$1" 2>/dev/null) || {
        echo "test-tools: Debian's $1 could not be downloaded: run apt-get update, or unpack it to $2" >&2
        exit 1
    }
    dpkg -x "$scratch/$1"_*.deb "$scratch/unpacked-$1"
}

if [ ! -x "$tools/kubectl-1.20/usr/bin/kubectl" ]; then
    unpack kubernetes-client "$tools/kubectl-1.20"
    rm -rf "$tools/kubectl-1.20"
    mv "$scratch/unpacked-kubernetes-client" "$tools/kubectl-1.20"
    echo kubectl-1.20
fi

if [ ! -x "$tools/prometheus" ]; then
    unpack prometheus "$tools/prometheus"
    mv "$scratch/unpacked-prometheus/usr/bin/prometheus" "$tools/prometheus"
    echo prometheus
fi

module=tests/tools/kubectl-1.36
version=$(awk '$1 == "k8s.io/kubectl" { print $2; exit }' "$module/go.mod" | sed 's/^v0/v1/')
# The version is part of what must match, so that a newer module is built again.
if [ "$("$tools/kubectl-1.36" version --client 2>/dev/null | awk '/^Client Version/ { print $3 }')" != "$version" ]; then
    wanted=$(awk '$1 == "go" { print $2; exit }' "$module/go.mod")
    found=$(go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//' || true)
    if [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)" = "$wanted" ]; then
        # One package at a time: the machine is also building Rust.
        (cd "$module" && GOFLAGS="-p=1 -mod=readonly -trimpath" GOTOOLCHAIN=local CGO_ENABLED=0 go build \
            -buildvcs=false -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
            -o "$scratch/kubectl-1.36" .)
        mv "$scratch/kubectl-1.36" "$tools/kubectl-1.36"
        echo kubectl-1.36
    else
        echo "test-tools: kubectl 1.36 is not built: it needs Go $wanted or newer, found ${found:-none}; the tests that run it will fail" >&2
    fi
fi
