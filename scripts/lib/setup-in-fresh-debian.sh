#!/usr/bin/env bash
# Runs scripts/setup.sh in a fresh Debian 12 that has neither Rust nor Docker: as nobody it says exactly what to
# install, as root it installs that, and the second time there is nothing to do. Needs root, debootstrap and a mirror
# ($MINIK8S_DEBIAN_MIRROR, default http://deb.debian.org/debian).
#
# No dockerd can be started in there, so the machine's own is lent to it: that setup.sh leaves one alone that answers
# is right there, too. (How one is started is shown by scripts/lib/docker-test.sh.)
set -euo pipefail
cd "$(dirname "$0")/../.."
mirror="${MINIK8S_DEBIAN_MIRROR:-http://deb.debian.org/debian}"

fail() {
    echo "fresh-debian: $*" >&2
    exit 1
}

# in_it COMMAND...: runs a command in there, with nothing of the environment out here.
in_it() {
    chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" -eq 0 ] || fail "root is needed for a chroot"
    root=$(mktemp -d)
    # Not only for root: the first run in there is nobody's.
    chmod 755 "$root"
    # The mounts end with the namespace; then there is nothing left but files.
    trap 'rm -rf --one-file-system "$root"' EXIT
    unshare --mount --propagation private "$0" --inside "$root"
    exit
fi
root="$2"

debootstrap --variant=minbase bookworm "$root" "$mirror" >/dev/null
printf 'deb %s bookworm main\ndeb %s bookworm-updates main\ndeb %s-security bookworm-security main\n' \
    "$mirror" "$mirror" "$mirror" >"$root/etc/apt/sources.list"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir "$root/minik8s"
mount --bind "$PWD" "$root/minik8s"
mount -o remount,bind,ro "$root/minik8s"
mkdir -p "$root/var/run"
touch "$root/run/docker.sock"
mount --bind /var/run/docker.sock "$root/run/docker.sock"

for command in cargo rustc docker dockerd gcc protoc; do
    ! in_it which "$command" >/dev/null || fail "$command is there already: this is no fresh Debian"
done

code=0
said=$(in_it setpriv --reuid=65534 --regid=65534 --clear-groups bash /minik8s/scripts/setup.sh 2>&1) || code=$?
[ "$code" -eq 1 ] || fail "without root it ended with $code: $said"
case "$said" in "setup: please install (Debian's names): "*) ;; *) fail "without root it said: $said" ;; esac
named="${said#*: *: }"

said=$(in_it bash /minik8s/scripts/setup.sh) || fail "it failed: $said"
case "$said" in "setup: installed "*) ;; *) fail "it said: $said" ;; esac
echo "fresh-debian: $said"
for package in $named; do
    case " $said " in *" $package "*) ;; *) fail "$package was named to nobody and not installed for root" ;; esac
done
for command in cargo rustc rustfmt cargo-clippy docker dockerd gcc protoc iptables ip busybox; do
    in_it which "$command" >/dev/null || fail "$command is missing after it"
done
in_it docker version >/dev/null || fail "no daemon answers in there"

said=$(in_it bash /minik8s/scripts/setup.sh) || fail "the second time it failed: $said"
[ "$said" = "setup: everything is there" ] || fail "the second time it said: $said"
echo "fresh-debian: a second run changes nothing"
