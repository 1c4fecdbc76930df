# Starts a Docker daemon where none answers. To be sourced; needs root for the start.
#
# A running daemon is never restarted or reconfigured: other people's containers may be on it.
# (scripts/lib/docker-test.sh shows each decision; the places that it replaces are variables.)

# Whether a daemon answers.
docker_answers() {
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# Makes a daemon answer, or says what to do. Uses the init system where there is one, else starts dockerd itself,
# detached, logging to $MINIK8S_DOCKER_LOG (default /var/log/dockerd.log).
ensure_docker() {
    docker_answers && return 0
    if ! command -v dockerd >/dev/null; then
        echo "docker: dockerd is not installed; install the package docker.io" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "docker: no daemon answers (or this user may not ask it); start one as root, or join the group docker" >&2
        return 1
    fi
    local log="${MINIK8S_DOCKER_LOG:-/var/log/dockerd.log}" pid_file="${MINIK8S_DOCKER_PID:-/var/run/docker.pid}"
    if [ -d "${MINIK8S_SYSTEMD:-/run/systemd/system}" ]; then
        systemctl start docker
    else
        # Docker refuses to start while an old daemon's pid file names a process that is not dockerd.
        if [ -f "$pid_file" ] && ! grep -qs dockerd "/proc/$(cat "$pid_file")/comm"; then
            rm -f "$pid_file"
        fi
        # Without an init system nobody may have mounted the control groups.
        if ! grep -q ' /sys/fs/cgroup' /proc/mounts && command -v cgroupfs-mount >/dev/null; then
            cgroupfs-mount
        fi
        setsid nohup dockerd >>"$log" 2>&1 </dev/null &
    fi
    local tries=0
    until docker_answers; do
        tries=$((tries + 1))
        if [ "$tries" -ge "${MINIK8S_DOCKER_TRIES:-300}" ]; then
            echo "docker: the daemon does not answer after $((tries / 5)) s; its log is $log (or: journalctl -u docker)" >&2
            return 1
        fi
        sleep 0.2
    done
    echo "docker: started dockerd $(docker version --format '{{.Server.Version}}')"
}
