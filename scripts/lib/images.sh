# Makes small local images without a registry. To be sourced; needs docker and /bin/busybox (busybox-static).

# make_busybox_image NAME [DOCKERFILE-INSTRUCTION...]
#
# A busybox with all its applets under the given name, for instance
#   make_busybox_image shop.test/web:1 'CMD ["httpd", "-f", "-p", "80"]'
# An image of that name stays as it is. (Debian 12's static busybox crashes on `wget -T`: leave the option out.)
make_busybox_image() {
    local name="$1"
    shift
    make_image_with_files "$name" "" "$@"
}

# make_image_with_files NAME FOLDER [DOCKERFILE-INSTRUCTION...]
#
# The same with the files of a folder in it, at the places that they have there.
make_image_with_files() {
    local name="$1" files="$2"
    shift 2
    docker image inspect "$name" >/dev/null 2>&1 && return 0
    local busybox=/bin/busybox
    if [ ! -x "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; then
        echo "images: $busybox is not a static busybox; install the package busybox-static" >&2
        return 1
    fi
    local root
    root="$(mktemp -d)" || return 1
    mkdir -p "$root/bin" "$root/etc" "$root/root" "$root/tmp" "$root/var/www"
    chmod 1777 "$root/tmp"
    cp "$busybox" "$root/bin/busybox"
    local applet
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnobody:x:65534:\n' >"$root/etc/group"
    [ -z "$files" ] || cp -R "$files"/. "$root/" || return 1
    chmod 755 "$root"
    local changes=(--change 'ENV PATH=/bin' --change 'CMD ["sh"]') instruction
    for instruction in "$@"; do
        changes+=(--change "$instruction")
    done
    tar -C "$root" --owner=0 --group=0 -cf - . | docker import "${changes[@]}" - "$name" >/dev/null
    local made="${PIPESTATUS[1]}"
    rm -rf "$root"
    return "$made"
}
