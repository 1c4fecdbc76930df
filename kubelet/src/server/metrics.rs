//! `/metrics`, `/metrics/resource` and `/stats/summary`: what the kubelet and its containers use.
//!
//! Names are upstream's; the summary holds what `kubectl top` and the like read of it.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use kubelet_runtime::ContainerState;
use serde_json::{Value, json};

use super::{Shared, identities};

const TEXT: [(header::HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

/// The kubelet's own metrics.
pub(super) async fn own(State(shared): State<Arc<Shared>>) -> Response {
    let views = shared.context.runtime.list().await.unwrap_or_default();
    let pods = views.iter().filter(|view| view.sandboxes.iter().any(|sandbox| sandbox.ready)).count();
    let containers = views.iter().flat_map(|view| &view.containers);
    let (mut running, mut exited, mut created) = (0, 0, 0);
    for container in containers {
        match container.state {
            ContainerState::Running { .. } => running += 1,
            ContainerState::Exited { .. } => exited += 1,
            ContainerState::Created => created += 1,
        }
    }
    let node = &shared.context.node;
    let text = format!(
        "# HELP kubelet_node_name The node's name. The count is always 1.\n# TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node=\"{node}\"}} 1\n\
         # HELP kubelet_running_pods Number of pods that have a running pod sandbox\n# TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {pods}\n\
         # HELP kubelet_running_containers Number of containers currently running\n# TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"created\"}} {created}\n\
         kubelet_running_containers{{container_state=\"exited\"}} {exited}\n\
         kubelet_running_containers{{container_state=\"running\"}} {running}\n"
    );
    (TEXT, text).into_response()
}

/// What containers use, as the metrics server reads it.
pub(super) async fn resource(State(shared): State<Arc<Shared>>) -> Response {
    let mut cpu = String::from(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds\n# TYPE container_cpu_usage_seconds_total counter\n",
    );
    let mut memory = String::from(
        "# HELP container_memory_working_set_bytes Current working set of the container in bytes\n# TYPE container_memory_working_set_bytes gauge\n",
    );
    for meta in identities(&shared) {
        for used in shared.context.runtime.stats(&meta.uid).await.unwrap_or_default() {
            let labels =
                format!("container=\"{}\",namespace=\"{}\",pod=\"{}\"", used.name, meta.namespace, meta.name);
            let (whole, part) = (used.cpu_nanos / 1_000_000_000, used.cpu_nanos % 1_000_000_000);
            let _ = writeln!(cpu, "container_cpu_usage_seconds_total{{{labels}}} {whole}.{part:09}");
            let _ = writeln!(
                memory,
                "container_memory_working_set_bytes{{{labels}}} {}",
                used.memory_working_set
            );
        }
    }
    (TEXT, cpu + &memory).into_response()
}

/// The summary API, as far as containers go.
pub(super) async fn summary(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let now = crate::pod::whole_seconds(jiff::Timestamp::now()).to_string();
    let mut pods = Vec::new();
    for meta in identities(&shared) {
        let used = shared.context.runtime.stats(&meta.uid).await.unwrap_or_default();
        let containers: Vec<Value> = used
            .iter()
            .map(|used| {
                json!({
                    "name": used.name,
                    "cpu": {"time": now, "usageCoreNanoSeconds": used.cpu_nanos},
                    "memory": {"time": now, "usageBytes": used.memory_usage, "workingSetBytes": used.memory_working_set},
                })
            })
            .collect();
        pods.push(json!({
            "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "containers": containers,
        }));
    }
    Json(json!({"node": {"nodeName": shared.context.node}, "pods": pods}))
}
