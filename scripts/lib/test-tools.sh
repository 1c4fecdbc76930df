#!/usr/bin/env bash
# Puts the programs that tests run into a directory of their own; nothing of it is installed.
#
#   kubectl-1.20/usr/bin/kubectl   Debian's package kubernetes-client, unpacked
#   prometheus                     the program of Debian's package prometheus, unpacked: no service is set up
#   kubectl-1.36                   built from tests/tools/kubectl-1.36, where Go is new enough
#   client-go                      built from tests/tools/client-go, likewise
#   etcd-3.6                       built from tests/tools/etcd-3.6, likewise
#   etcd-3.5                       likewise, with --long only
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

# The version of a Go module that a folder of tests/tools asks for: required NAME MODULE.
required() {
    awk -v module="$2" '$1 == module { print $2; exit } $2 == module { print $3; exit }' "tests/tools/$1/go.mod"
}

# build NAME FOUND WANTED [LINKER-FLAGS]: builds tests/tools/NAME unless the version FOUND is the one WANTED; the
# version is part of what must match, so that a newer module is built again.
build() {
    local name="$1" found="$2" wanted="$3" go_wanted go_found
    [ "$found" != "$wanted" ] || return 0
    go_wanted=$(awk '$1 == "go" { print $2; exit }' "tests/tools/$name/go.mod")
    go_found=$(go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//' || true)
    if [ -n "$go_found" ] && [ "$(printf '%s\n%s\n' "$go_wanted" "$go_found" | sort -V | head -n1)" = "$go_wanted" ]; then
        # One package at a time: the machine is also building Rust.
        (cd "tests/tools/$name" && GOFLAGS="-p=1 -mod=readonly -trimpath" GOTOOLCHAIN=local CGO_ENABLED=0 go build \
            -buildvcs=false -ldflags "-s -w ${4:-}" -o "$scratch/$name" .)
        mv "$scratch/$name" "$tools/$name"
        echo "$name"
    else
        echo "test-tools: $name is not built: it needs Go $go_wanted or newer, found ${go_found:-none}; the tests that run it will fail" >&2
    fi
}

version=$(required kubectl-1.36 k8s.io/kubectl | sed 's/^v0/v1/')
build kubectl-1.36 "$("$tools/kubectl-1.36" version --client 2>/dev/null | awk '/^Client Version/ { print $3 }')" \
    "$version" "-X k8s.io/component-base/version.gitVersion=$version"

# A program of ours: its sources are its version.
sources=$(cat tests/tools/client-go/{main.go,go.mod,go.sum} | sha256sum | cut -d' ' -f1)
build client-go "$("$tools/client-go" --version 2>/dev/null)" "$sources" "-X main.sources=$sources"

releases=(etcd-3.6)
if [ "${1:-}" = --long ]; then releases+=(etcd-3.5); fi
for release in "${releases[@]}"; do
    build "$release" "$("$tools/$release" --version 2>/dev/null | awk '/^etcd Version/ { print "v" $3 }')" \
        "$(required "$release" go.etcd.io/etcd/server/v3)"
done
