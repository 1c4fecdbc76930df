# What every examples/*/demo.sh needs: a kubectl, and a way to show what is done. To be sourced from the root.

# Our own kubectl, as built here; another one through $KUBECTL.
kubectl() {
    # shellcheck disable=SC2086  # "minik8s kubectl" is two words on purpose
    ${KUBECTL:-${CARGO_TARGET_DIR:-target}/debug/kubectl} "$@"
}

# The all-in-one binary, as built here; another one through $MINIK8S.
minik8s="${MINIK8S:-${CARGO_TARGET_DIR:-target}/debug/minik8s}"
minik8s() { "$minik8s" "$@"; }

# Says what comes next.
say() { printf '\n# %s\n' "$*"; }

# Shows a command and runs it.
show() {
    printf '$ %s\n' "$*"
    "$@"
}
