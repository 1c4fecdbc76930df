#!/usr/bin/env bash
# Builds the test programs with the machine's own compiler into the local image minik8s/ipctest:1: a static busybox
# and, under /src, the programs at the places that the document names. Without a change of the sources nothing happens.
#
#   examples/pod-ipc/image.sh [NAME]    also under another name, for instance abcdesktopio/ipctest
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/images.sh

source=examples/pod-ipc/src
built="minik8s/ipctest:$(cat "$source"/* scripts/lib/images.sh | sha256sum | cut -c1-12)"
if ! docker image inspect "$built" >/dev/null 2>&1; then
    files=$(mktemp -d)
    trap 'rm -rf "$files"' EXIT
    mkdir -p "$files/src/sysv" "$files/src/posix/shmem"
    compile() { gcc -std=gnu11 -O1 -Wall -Wextra -Werror -static -o "$files/src/$2" "$source/$1.c"; }
    compile sysv_sender sysv/sender
    compile sysv_receiver sysv/receiver
    compile posix_writer posix/shmem/memwriter
    compile posix_reader posix/shmem/memreader
    install -m 755 "$source/sender.sh" "$source/receiver.sh" "$files/src/sysv"
    make_image_with_files "$built" "$files"
fi
for name in minik8s/ipctest:1 "$@"; do docker tag "$built" "$name"; done
