//! The page `/metrics`: what the kubelet does (`pkg/kubelet/metrics/metrics.go`).

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::usage::RuntimeUsage;

use super::{Figures, filesystems, process};
use crate::{
    context::Context,
    measures::text::{Kind, Text},
    node::VERSION,
    pod::{has_ended, spec, uid},
    volumes::plugin,
};

/// Writes the page. `desired` are the plugins of the volumes that pods should have.
pub(super) fn write(text: &mut Text, context: &Context, figures: &Figures, desired: &[&'static str]) {
    context.measures.write(text, desired);
    write_counts(text, &context.node, &figures.pods);
    filesystems::write_claims(text, &figures.volumes);
    process::write(text);
}

/// The plugins of the volumes of all pods that have not ended. Of one that goes through a claim, the plugin is known once
/// the pod has it.
pub(super) fn desired_volumes(context: &Context, pods: &[Arc<Bytes>]) -> Vec<&'static str> {
    let mounted = context.measures.volumes.of_pods();
    let mut desired = Vec::new();
    let typed = pods.iter().filter_map(|bytes| serde_json::from_slice::<Pod>(bytes).ok());
    for pod in typed.filter(|pod| !has_ended(pod)) {
        desired.extend(spec(&pod).volumes.iter().flatten().filter_map(plugin));
        let of_claims = mounted.get(uid(&pod)).into_iter().flat_map(|found| &found.volumes);
        desired.extend(of_claims.filter(|volume| volume.claim.is_some()).map(|volume| volume.plugin));
    }
    desired
}

fn write_counts(text: &mut Text, node: &str, pods: &RuntimeUsage) {
    let mut family =
        text.family("kubelet_node_name", Kind::Gauge, "[ALPHA] The node's name. The count is always 1.");
    family.sample(&[("node", node)], 1);
    let running: usize = pods.pods.iter().map(|pod| pod.containers.len()).sum();
    let mut family = text.family(
        "kubelet_running_containers",
        Kind::Gauge,
        "[ALPHA] Number of containers currently running",
    );
    for (state, count) in [("created", pods.created), ("exited", pods.exited), ("running", running)] {
        family.sample(&[("container_state", state)], count);
    }
    let with_sandbox = pods.pods.iter().filter(|pod| pod.sandbox.is_some()).count();
    let help = "[ALPHA] Number of pods that have a running pod sandbox";
    text.single("kubelet_running_pods", Kind::Gauge, help, with_sandbox);
    let mut family = text.family(
        "kubernetes_build_info",
        Kind::Gauge,
        "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree \
         state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is \
         running.",
    );
    let mut parts = VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    family.sample(&[("git_version", VERSION), ("major", major), ("minor", minor)], 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_pods_and_containers_are_counted() {
        let mut text = Text::default();
        write_counts(&mut text, "n1", &super::super::testing::figures().pods);
        let page = text.finish();
        for line in [
            "# TYPE kubelet_running_pods gauge\nkubelet_running_pods 1\n",
            "kubelet_node_name{node=\"n1\"} 1\n",
            "kubelet_running_containers{container_state=\"created\"} 1\n",
            "kubelet_running_containers{container_state=\"exited\"} 2\n",
            "kubelet_running_containers{container_state=\"running\"} 1\n",
            "kubernetes_build_info{git_version=\"v1.36.0\",major=\"1\",minor=\"36\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
