#!/usr/bin/env bash
# Shared memory between the containers of a pod: System V, POSIX, the size of /dev/shm, and the node's own.
# The scenarios are those of the document that README.md names, in its order. Runs on the node itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh

segment=
node_file=
clean_up() {
    kubectl delete --ignore-not-found --grace-period=1 pod podsysvsendershmtest podposixshm shmtest \
        updateshm updateshm512 updateshmlimited hostipc >/dev/null
    [ -z "$segment" ] || ipcrm -m "$segment"
    [ -z "$node_file" ] || rm -f "$node_file"
}
trap clean_up EXIT

# Runs a kubectl command on a terminal: each line that it prints is shown, and where a line contains the word before
# the `=` of an argument, what stands behind it is typed. `$status` is what the command ended with.
on_terminal() {
    local command="$1" line answer typed=()
    shift
    printf '$ kubectl %s\n' "$command"
    coproc TERMINAL { exec script -qefc "${KUBECTL:-${CARGO_TARGET_DIR:-target}/debug/kubectl} $command" /dev/null; }
    local pid=$TERMINAL_PID out=${TERMINAL[0]} in=${TERMINAL[1]}
    while IFS= read -r line <&"$out"; do
        line="${line%$'\r'}"
        printf '%s\n' "$line"
        for answer in "$@"; do
            if [[ "$line" == *"${answer%%=*}"* && " ${typed[*]:-} " != *" ${answer%%=*} "* ]]; then
                typed+=("${answer%%=*}")
                printf '%b' "${answer#*=}" >&"$in"
            fi
        done
    done
    status=0
    wait "$pid" || status=$?
}

examples/pod-ipc/image.sh

say "System V: both containers name a file of a shared volume"
show kubectl create -f examples/pod-ipc/sysv-shared.yaml
show kubectl wait pods podsysvsendershmtest --for condition=Ready --timeout=90s
echo "**** Start sender ****"
show kubectl exec pod/podsysvsendershmtest -c sender -- /src/sysv/sender.sh
echo "**** Read on receiver ****"
show kubectl exec pod/podsysvsendershmtest -c receiver -- /src/sysv/receiver.sh
show kubectl delete pods podsysvsendershmtest

say "System V: each container names a file of its own"
show kubectl create -f examples/pod-ipc/sysv-unshared.yaml
show kubectl wait pods podsysvsendershmtest --for condition=Ready --timeout=90s
echo "**** Start sender ****"
show kubectl exec pod/podsysvsendershmtest -c sender -- /src/sysv/sender.sh
echo "**** Read on receiver, once ****"
status=0
show kubectl exec pod/podsysvsendershmtest -c receiver -- /src/sysv/receiver 2>&1 || status=$?
echo "exit code $status"
echo "**** Read on receiver, until ^C ****"
on_terminal "exec -it pod/podsysvsendershmtest -c receiver -- /src/sysv/receiver.sh" 'waiting 5s=\003'
echo "exit code $status"
show kubectl delete pods podsysvsendershmtest

say "POSIX: the containers share nothing but the pod"
show kubectl create -f examples/pod-ipc/posix.yaml
kubectl wait pods podposixshm --for jsonpath='{.status.phase}'=Succeeded --timeout=90s >/dev/null
show kubectl get pods podposixshm
show kubectl logs pod/podposixshm sender
show kubectl logs pod/podposixshm receiver
echo
show kubectl delete pods podposixshm

say "The size of /dev/shm, and what happens when it is full"
on_terminal "run -it --image minik8s/ipctest:1 shmtest -- sh" \
    'try pressing enter=df /dev/shm; dd if=/dev/zero of=/dev/shm/test; df /dev/shm; exit\n'
show kubectl delete pods shmtest --grace-period=1

say "Memory as a volume over /dev/shm: all that the node may give, or the pod's limit, or a size"
show kubectl apply -f examples/pod-ipc/updateshm.yaml -f examples/pod-ipc/updateshm-limited.yaml -f examples/pod-ipc/updateshm512.yaml
kubectl wait pods updateshm updateshmlimited updateshm512 --for condition=Ready --timeout=90s >/dev/null
node=$(kubectl get pod updateshm -o jsonpath='{.spec.nodeName}')
show kubectl get node "$node" -o jsonpath='{.status.allocatable.memory}{"\n"}'
show kubectl exec updateshm -- df /dev/shm
show kubectl exec updateshmlimited -- df /dev/shm
show kubectl exec updateshm512 -- df /dev/shm

say "hostIPC: what the node has made is there, in another pod it is not"
segment=$(ipcmk -M 4096 | awk '{ print $NF }')
node_file=$(mktemp /dev/shm/minik8s-demo.XXXXXX)
echo "the node's sentence" >"$node_file"
show kubectl apply -f examples/pod-ipc/host-ipc.yaml
kubectl wait pods hostipc --for condition=Ready --timeout=90s >/dev/null
has_segment='awk -v id="$0" "\$2 == id { found = 1 } END { print found ? \"the segment is there\" : \"no such segment\" }" /proc/sysvipc/shm'
kubectl exec hostipc -- sh -c "$has_segment" "$segment"
kubectl exec hostipc -- cat "$node_file"
kubectl exec updateshm -- sh -c "$has_segment" "$segment"
