#!/usr/bin/env bash
# The life of a pod: an init container, a sidecar, probes and hooks, a restart, a container added to look into it.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/demo.sh
trap 'kubectl delete -f examples/pods --ignore-not-found >/dev/null' EXIT

show kubectl apply -f examples/pods/lifecycle.yaml
show kubectl wait --for=condition=Ready pod/lifecycle --timeout=120s

say "The init container wrote the page, the sidecar runs beside, the hook left its note"
show kubectl exec lifecycle -c web -- cat /site/index.html /site/hook
show kubectl logs lifecycle -c beat

say "One container failed and was restarted; what its first run said is kept"
show kubectl wait --for='jsonpath={.status.containerStatuses[1].restartCount}=1' pod/lifecycle --timeout=120s
show kubectl logs lifecycle -c flaky --previous
show kubectl logs lifecycle -c flaky

say "An ephemeral container sees the processes of the web server (kubectl debug sends the same patch)"
show kubectl patch pod lifecycle --subresource=ephemeralcontainers -p '{"spec":{"ephemeralContainers":[{"name":"look","image":"minik8s/busybox:quickstart","targetContainerName":"web","command":["sh","-c","ps | grep -v grep | grep httpd"]}]}}'
show kubectl wait --for='jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0' pod/lifecycle --timeout=120s
show kubectl logs lifecycle -c look

say "Exit codes decide whether one container, or all of them, run again"
show kubectl apply -f examples/pods/restart-rules.yaml
show kubectl wait --for='jsonpath={.status.phase}=Succeeded' pod/restart-rules pod/restart-all --timeout=120s
show kubectl get pod restart-all -o 'jsonpath={.status.initContainerStatuses[0].restartCount} restart of the init container{"\n"}'

say "Environment variables out of a file that an init container wrote"
show kubectl apply -f examples/pods/env-file.yaml
show kubectl wait --for='jsonpath={.status.phase}=Succeeded' pod/env-file --timeout=120s
show kubectl logs env-file

say "Two containers share the limits of their pod, which has a control group of its own"
show kubectl apply -f examples/pods/budget.yaml
show kubectl wait --for=condition=Ready pod/budget --timeout=120s
show kubectl get pod budget -o 'jsonpath={.status.qosClass} {.status.resources.limits}{"\n"}'
