#!/usr/bin/env bash
# Shows what scripts/lib/docker.sh decides, with programs that only pretend: a real daemon is nobody's to stop.
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "docker-test: $*" >&2
    exit 1
}

# world NAME: an empty world with the commands that the script needs, besides those that a case adds.
world() {
    world="$scratch/$1"
    mkdir -p "$world/bin"
    local command
    for command in cat grep rm setsid nohup sleep touch; do ln -s "$(command -v "$command")" "$world/bin/"; done
    pretend id 'echo 0'
    # Answers once somebody has started it.
    pretend docker "[ -e '$world/started' ] && echo 99.0"
}

# pretend COMMAND SCRIPT: puts a command into the world.
pretend() {
    printf '#!/bin/sh\n%s\n' "$2" >"$world/bin/$1"
    chmod +x "$world/bin/$1"
}

# ensure: the decision in this world; its words go to $said, its exit code to $code.
ensure() {
    code=0
    said=$(env -i PATH="$world/bin" MINIK8S_SYSTEMD="$world/systemd" MINIK8S_DOCKER_PID="$world/pid" \
        MINIK8S_DOCKER_LOG="$world/log" MINIK8S_DOCKER_TRIES=5 \
        "$BASH" -c 'source scripts/lib/docker.sh; ensure_docker' 2>&1) || code=$?
}

# expect CODE TEXT
expect() {
    [ "$code" = "$1" ] || fail "$world: exit code $code instead of $1: $said"
    case "$said" in *"$2"*) ;; *) fail "$world: said '$said', not '$2'" ;; esac
}

world answers
touch "$world/started"
pretend dockerd "touch '$world/restarted'"
ensure
expect 0 ""
[ -z "$said" ] && [ ! -e "$world/restarted" ] || fail "a daemon that answers was not left alone: $said"

world not-installed
ensure
expect 1 "dockerd is not installed; install the package docker.io"

world not-root
pretend id 'echo 1000'
pretend dockerd "touch '$world/started'"
ensure
expect 1 "start one as root, or join the group docker"
[ ! -e "$world/started" ] || fail "it was started without being root"

world without-init
pretend dockerd "[ ! -e '$world/pid' ] || exit 1; echo hello; touch '$world/started'"
# A process that is no dockerd has the number by now.
echo $$ >"$world/pid"
ensure
expect 0 "docker: started dockerd 99.0"
grep -q hello "$world/log" || fail "the daemon's words are not in its log"

world with-init
mkdir "$world/systemd"
pretend dockerd 'exit 1'
pretend systemctl "[ \"\$*\" = 'start docker' ] && touch '$world/started'"
ensure
expect 0 "docker: started dockerd 99.0"

world never-answers
pretend dockerd 'exit 1'
ensure
expect 1 "the daemon does not answer after 1 s; its log is $world/log"

echo "docker-test: six decisions are right"
