#!/usr/bin/env bash
# Runs end-to-end tests in a virtual machine with another Debian: another kernel, systemd, version of control groups and
# Docker than this machine's. No part of test.sh: without /dev/kvm a machine is emulated, which takes an hour for all of
# them, and tests whose probes give a command one second then fail for that alone.
#
#   scripts/other-debian.sh trixie                      all tests of pods on Docker
#   scripts/other-debian.sh forky quickstart streams    some, by parts of their names
#   scripts/other-debian.sh --containerd forky          containerd keeps Docker's images, as is the default since Docker 29
#
# As root; needs 10 GB of disk, 6 GiB of memory and a mirror ($MINIK8S_DEBIAN_MIRROR, default
# http://deb.debian.org/debian). The tests of the runtime run first, whatever is named. MINIK8S_EMULATE=1 leaves /dev/kvm
# alone, which may be there and not work.
set -euo pipefail
cd "$(dirname "$0")/.."
mirror="${MINIK8S_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
tools="${MINIK8S_TEST_TOOLS:-$HOME/.cache/minik8s-test-tools}"

images=docker
if [ "${1:-}" = --containerd ]; then
    images=containerd
    shift
fi
release="${1:?"usage: scripts/other-debian.sh [--containerd] RELEASE [TEST...]"}"
shift
[ $# -gt 0 ] || set -- alone control_groups figures lifecycle nodes pod_ipc quickstart scarce streams survival volume

step() { printf '\n== %s\n' "$*"; }

step "set-up"
scripts/setup.sh --test
scripts/setup.sh --other-debian

step "build"
cargo build --workspace --bins
target="$(realpath "${CARGO_TARGET_DIR:-target}")"
mapfile -t tests < <(cargo test --workspace --no-run --message-format=json 2>/dev/null |
    sed -En '/"test":true/s/.*"name":"(docker|main)".*"executable":"([^"]*\/(docker|main)-[0-9a-f]+)".*/\2/p' | sort -u)
[ "${#tests[@]}" -eq 2 ] || { echo "other-debian: two programs of tests are needed, not: ${tests[*]}" >&2; exit 1; }

step "a Debian of release $release"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/minik8s-$release-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root="$work/root"
# A release that this debootstrap does not know is made as the newest are.
recipe="/usr/share/debootstrap/scripts/$release"
[ -e "$recipe" ] || recipe=/usr/share/debootstrap/scripts/sid
packages=linux-image-amd64,systemd-sysv,dbus,docker.io,iptables,nftables,apparmor,iproute2,procps,kmod,util-linux
packages+=,busybox-static,bsdutils,gcc,libc6-dev,etcd-server,ca-certificates,curl
# Docker's client has a package of its own since trixie.
[ "$release" = bookworm ] || packages+=,docker-cli
debootstrap --include="$packages" "$release" "$root" "$mirror" "$recipe" >"$work/log" || { tail "$work/log" >&2; exit 1; }

# What is tested stands where it stands here: that is where the tests look for it.
mkdir -p "$root$PWD" "$root$target/debug/deps" "$root$tools"
git ls-files -z | rsync -a --from0 --files-from=- . "$root$PWD/"
find "$target/debug" -maxdepth 1 -type f -executable -exec cp -t "$root$target/debug" {} +
cp -t "$root$target/debug/deps" "${tests[@]}"
rsync -a --exclude 'e2e-*' "$tools/" "$root$tools/"
printf '[Match]\nName=!lo\nType=ether\nDriver=virtio_net\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-card.network"
if [ "$images" = containerd ]; then
    mkdir -p "$root/etc/docker"
    echo '{"features": {"containerd-snapshotter": true}}' >"$root/etc/docker/daemon.json"
fi
cat >"$root/usr/local/bin/minik8s-tests" <<END
#!/bin/bash
export HOME="$HOME" MINIK8S_TEST_TOOLS="$tools"
cd "$PWD"
uname -r
docker info 2>/dev/null | grep -E 'Server Version|Driver:|Cgroup|apparmor'
code=0
for program in ${tests[*]}; do
    case \$program in
        */main-*) "\$program" --color never --test-threads 1 $* ;;
        *) "\$program" --color never ;;
    esac || code=1
done
echo "other-debian: the tests ended with \$code"
systemctl poweroff --no-block
END
chmod 755 "$root/usr/local/bin/minik8s-tests"
cat >"$root/etc/systemd/system/minik8s-tests.service" <<END
[Unit]
After=docker.service network-online.target
Wants=docker.service network-online.target
[Service]
Type=exec
ExecStart=/usr/local/bin/minik8s-tests
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl --quiet enable systemd-networkd minik8s-tests
chroot "$root" systemctl --quiet disable etcd 2>/dev/null || true
chroot "$root" systemctl --quiet mask serial-getty@ttyS0
cp "$root"/boot/vmlinuz-* "$work/kernel"
cp "$root"/boot/initrd.img-* "$work/initrd"
mke2fs -q -t ext4 -d "$root" "$work/disk" 12G
rm -rf --one-file-system "$root"

step "its tests"
machine=(-accel tcg,thread=multi -cpu max)
[ ! -w /dev/kvm ] || [ "${MINIK8S_EMULATE:-}" ] || machine=(-accel kvm -cpu host)
qemu-system-x86_64 "${machine[@]}" -smp "$(nproc)" -m 6144 -display none -serial stdio -no-reboot \
    -kernel "$work/kernel" -initrd "$work/initrd" -append "root=/dev/vda rw console=ttyS0 quiet hugepages=8" \
    -drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" -nic user,model=virtio-net-pci </dev/null | tee "$work/said"
grep -q 'other-debian: the tests ended with 0' "$work/said"
