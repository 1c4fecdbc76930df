#!/usr/bin/env bash
# Runs Kubernetes' own end-to-end suite (v1.36) against the running cluster; what came of it is in docs/conformance.md.
#
#   scripts/conformance/run.sh                   the node's conformance tests, and those of what there is of the rest
#   scripts/conformance/run.sh FOCUS [SKIP]      tests whose name matches FOCUS, but not SKIP (regular expressions)
#
# The suite is built from its source through the Go proxy at the first run (a quarter of an hour, 6 GB of Go's caches);
# its images are made here under the names that it asks for, out of Debian's packages and the suite's own programs,
# for no registry is needed. As root, on the machine of the cluster; PROCESSES=N tests run at a time (10 by default).
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v1.36.2
tools="${MINIK8S_TEST_TOOLS:-$HOME/.cache/minik8s-test-tools}/e2e-$version"
kubeconfig="${KUBECONFIG:-${MINIK8S_HOME:-$HOME/.minik8s}/kubeconfig}"
registry=registry.k8s.io/e2e-test-images

# The module names its siblings by place; outside its own tree they come from the proxy as anybody's do.
build_suite() {
    local source
    source="$tools/source"
    mkdir -p "$tools"
    rm -rf "$source"
    cp -r --no-preserve=mode "$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" "$source"
    rm -rf "$source/vendor" "$source/staging" "$source/go.work" "$source/go.work.sum"
    sed -i -e '/^replace (/,/^)/d' -E -e "s#^(\tk8s\.io/[a-z-]+) v0\.0\.0( //.*)?\$#\1 ${version/v1/v0}\2#" "$source/go.mod"
    (
        cd "$source"
        export GOFLAGS=-mod=mod
        go test -c -o "$tools/e2e.test" ./test/e2e
        go build -o "$tools/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
        export CGO_ENABLED=0
        (cd test/images/agnhost && go build -o "$tools/agnhost" .)
        (cd test/images/nonewprivs && go build -o "$tools/nnp" .)
    )
}

# import_image NAME DOCKERFILE-INSTRUCTION...: the tree in $root as an image.
import_image() {
    local name="$1" changes=() instruction
    shift
    for instruction in "$@"; do changes+=(--change "$instruction"); done
    tar -C "$root" --owner=0 --group=0 -c . | docker import "${changes[@]}" - "$name" >/dev/null
}

# A program of this machine with the libraries that it needs.
add_program() {
    local path library
    path="$(command -v "$1")" || return 0
    cp --remove-destination -L "$path" "$root/bin/$1"
    for library in $(ldd "$path" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$library")"
        cp -Ln "$library" "$root$library"
    done
}

make_images() {
    root="$(mktemp -d)"
    mkdir -p "$root"/{bin,etc,home,proc,sys,dev,uploads,usr/bin,usr/local/bin,var/run} "$root/tmp"
    chmod 1777 "$root/tmp"
    chmod 755 "$root"
    cp /bin/busybox "$root/bin/busybox"
    local applet
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    # The user and group of the suite's tests of supplementary groups.
    printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/home:/bin/false \
        user-defined-in-image:x:1000:1000::/home:/bin/sh >"$root/etc/passwd"
    printf '%s\n' root:x:0: nobody:x:65534: user-defined-in-image:x:1000: \
        group-defined-in-image:x:50000:user-defined-in-image >"$root/etc/group"
    # The shell of Debian's busybox hands no variable on whose name it could not set itself, as that of the suite's does:
    # whoever asks for `sh` gets another, and whoever for `/bin/sh` reads busybox' own messages.
    add_program bash
    ln -s ../../../bin/bash "$root/usr/local/bin/sh"
    import_image "$registry/busybox:1.37.0-1" 'CMD ["sh"]'
    import_image "$registry/nonroot:1.5" 'USER 1234' 'CMD ["sh"]'
    cp "$tools/nnp" "$root/usr/local/bin/nnp"
    chmod u+s "$root/usr/local/bin/nnp"
    import_image "$registry/nonewprivs:1.4" 'CMD ["nnp"]'
    cp "$tools/agnhost" "$root/agnhost"
    ln -s agnhost "$root/agnhost-2"
    cp "$tools/source/test/images/agnhost/porter/"localhost.{crt,key} "$root/"
    local program
    for program in curl dig ip ss nsenter; do add_program "$program"; done
    ln -sf bash "$root/bin/sh"
    add_program nc.openbsd
    [ ! -e "$root/bin/nc.openbsd" ] || mv "$root/bin/nc.openbsd" "$root/bin/nc"
    local name
    for name in "$registry/agnhost:2.63.0" "$registry/agnhost:2.55" registry.k8s.io/pause:3.10.2; do
        import_image "$name" 'ENTRYPOINT ["/agnhost"]' 'CMD ["pause"]'
    done
    # Whatever serves a page will do.
    for name in nginx:1.15-4 nginx:1.27-0; do
        import_image "$registry/$name" 'ENTRYPOINT ["/agnhost"]' 'CMD ["test-webserver"]'
    done
    rm -rf "$root"
}

command -v go >/dev/null || { echo "conformance: Go is needed to build the suite" >&2; exit 1; }
[ -f "$kubeconfig" ] || { echo "conformance: no cluster: $kubeconfig is not there; ./scripts/up.sh starts one" >&2; exit 1; }
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -qq netcat-openbsd bind9-dnsutils curl iproute2 >/dev/null
fi
[ -x "$tools/nnp" ] || build_suite
docker image inspect "$registry/nginx:1.27-0" >/dev/null 2>&1 || make_images

# run NAME FOCUS SKIP: prints what failed, and the count.
run() {
    local log="$tools/$1.log"
    "$tools/ginkgo" --procs="${PROCESSES:-10}" --focus="$2" --skip="$3" --timeout=90m --no-color --silence-skips \
        "$tools/e2e.test" -- --provider=skeleton --kubeconfig="$kubeconfig" --minStartupPods=0 --disable-log-dump \
        >"$log" 2>&1 || true
    grep -A1 '^• \[FAILED\]' "$log" | grep -o '\[sig-.*' | sed 's/ \[sig-[^ ]*,.*//' | sort -u || true
    grep -a -E '^(Ran |SUCCESS|FAIL!)' "$log" || tail -5 "$log"
    echo "(all of it: $log)"
}

slow='\[Serial\]|\[Slow\]|\[Disruptive\]|\[Flaky\]'
# What these need is not there yet (docs/compatibility.md).
missing='AdmissionWebhook|Aggregator |CustomResource|for CRDs|FieldValidation.*CR|AdmissionPolicy|ResourceQuota|LimitRange'
missing+='|CronJob|Daemon set|[Dd]eployment|DisruptionController|Job |StatefulSet|ReplicationController|\brc\b|Preemption'
missing+='|DNS|Services should|EndpointSlice|EndpointsController|Proxy version|Service endpoints|Guestbook|OIDC'
missing+='|replication controller|SubjectReview|\[DRA\]|VolumeAttributesClass|Proxy server|untainted'
if [ $# -gt 0 ]; then
    run chosen "$1" "${2:-^$}"
else
    echo "== conformance of nodes"
    run node '\[NodeConformance\]' "$slow|\[Feature"
    echo "== conformance of what there is of the rest"
    run rest '\[Conformance\]' "\[NodeConformance\]|$slow|issue 500|$missing"
fi
