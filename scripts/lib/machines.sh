# Machines out of network namespaces, each with a Docker daemon of its own, on this one. To be sourced; needs root,
# iproute2, nsenter and dockerd.
#
# A machine is a namespace NAME and a directory DIR/NAME with what its daemon needs. Processes enter with
# `machine_run`; nothing else of this machine is separated, so that Docker works in it as outside.

# machine_run NAME COMMAND...: runs a command on a machine's network.
machine_run() {
    local name="$1"
    shift
    nsenter --net="/run/netns/$name" "$@"
}

# machine_make DIR NAME: a machine without any way to others yet; its Docker answers under DIR/NAME/docker.sock.
machine_make() {
    local dir="$1/$2" name="$2"
    mkdir -p "$dir"
    ip netns add "$name"
    ip -n "$name" link set lo up
    # An own namespace in containerd: where one serves the whole machine, daemons must not see one another's.
    machine_run "$name" setsid dockerd --data-root "$dir/docker" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" \
        --host "unix://$dir/docker.sock" --bridge none --iptables=false --ip-forward=false \
        --containerd-namespace "$name" --containerd-plugins-namespace "$name-plugins" \
        >"$dir/docker.log" 2>&1 </dev/null &
    local tries=0
    until docker -H "unix://$dir/docker.sock" version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -ge 300 ]; then
            echo "machines: Docker of $name does not answer after 60 s; its log is $dir/docker.log" >&2
            return 1
        fi
        sleep 0.2
    done
}

# machine_stop PIDFILE: ends the process that a file names, and waits until it is gone.
machine_stop() {
    local pid tries=0
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 150 ] || kill -9 "$pid" 2>/dev/null
        sleep 0.2
    done
}

# machine_drop DIR NAME: takes a machine away with everything on it.
machine_drop() {
    local dir="$1/$2" name="$2" containers nodes="$2" node
    if [ -S "$dir/docker.sock" ]; then
        nodes="$nodes $(docker -H "unix://$dir/docker.sock" ps -a --format '{{.Label "minik8s.io/node"}}' 2>/dev/null | sort -u || true)"
        containers=$(docker -H "unix://$dir/docker.sock" ps -aq 2>/dev/null) || containers=""
        # shellcheck disable=SC2086  # one id a word
        [ -z "$containers" ] || docker -H "unix://$dir/docker.sock" rm -f $containers >/dev/null 2>&1 || true
    fi
    # A kubelet that was cut off left the control groups of its pods, which are this machine's own.
    for node in $nodes; do
        find /sys/fs/cgroup -depth -type d \( -path "*/minik8s-$node" -o -path "*/minik8s-$node/*" \) \
            -exec rmdir {} + 2>/dev/null || true
        [ ! -d /run/systemd/system ] || systemctl stop "minik8s_${node//-/_}.slice" 2>/dev/null || true
    done
    machine_stop "$dir/docker.pid"
    ip netns del "$name" 2>/dev/null || true
    grep -o " $dir/[^ ]*" /proc/mounts | sort -r | xargs -r -n1 umount -l 2>/dev/null || true
    rm -rf "$dir"
}
