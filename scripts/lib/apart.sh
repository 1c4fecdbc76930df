# A cluster of three processes (API server, controllers, kubelet) in a directory of its own. To be sourced; as root.
#
# start_apart   starts it; sets $home, $node, $kubelet (a process id) and the command "${kubectl[@]}"
# stop_apart    stops it and removes all that was its own
#
# $minik8s is the all-in-one binary that plays all three; what the array under_<part> holds (apiserver,
# controller_manager, kubelet) is put before that part's command, for instance a program that watches it.

pids=()
under_apiserver=() under_controller_manager=() under_kubelet=()

start_apart() {
    home=$(mktemp -d "${MINIK8S_BENCH_DIR:-/var/tmp}/minik8s-apart-XXXXXX")
    node=minik8s-apart-$$
    export MINIK8S_HOME="$home"
    kubectl=("$minik8s" kubectl --kubeconfig "$home/kubeconfig")
    local port=$((20000 + RANDOM % 10000)) identities="$home/kubeconfigs" join
    "${under_apiserver[@]}" "$minik8s" apiserver --data-dir "$home" --secure-port $port \
        --service-cluster-ip-range 172.31.0.0/24 --log error >"$home/apiserver.log" 2>&1 &
    pids+=($!)
    until curl -sk "https://127.0.0.1:$port/readyz" | grep -qx ok; do
        kill -0 $! || { cat "$home/apiserver.log" >&2 && return 1; }
        sleep 0.1
    done
    "${under_controller_manager[@]}" "$minik8s" controller-manager \
        --kubeconfig "$identities/kube-controller-manager.kubeconfig" --cluster-cidr 10.248.0.0/16 \
        --scheduler-kubeconfig "$identities/kube-scheduler.kubeconfig" --root-ca-file "$home/pki/ca.crt" \
        --cluster-signing-cert-file "$home/pki/ca.crt" --cluster-signing-key-file "$home/pki/ca.key" \
        >"$home/controllers.log" 2>&1 &
    pids+=($!)
    # A node with a name of its own joins, so that no other cluster's kubelet takes its containers for orphans.
    read -ra join <<<"$("$minik8s" token create --ttl 600 | grep -- --join)"
    "${under_kubelet[@]}" "$minik8s" kubelet "${join[@]:2}" --node-name "$node" --root-dir "$home/kubelet" --bridge mkbench \
        --cluster-cidr 10.248.0.0/16 --port 0 --max-pods 250 --eviction-hard 'memory.available<50Mi' \
        --image-gc-high-threshold 100 >"$home/kubelet.log" 2>&1 &
    kubelet=$!
    pids+=("$kubelet")
    until "${kubectl[@]}" get node "$node" >/dev/null 2>&1; do
        kill -0 "$kubelet" || { cat "$home"/*.log >&2 && return 1; }
        sleep 0.2
    done
    "${kubectl[@]}" wait --for=condition=Ready "node/$node" --timeout=300s >/dev/null
}

stop_apart() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    "$minik8s" down --node-name "$node" --bridge mkbench --cluster-cidr 10.248.0.0/16 >/dev/null || true
    rm -rf "$home"
}
