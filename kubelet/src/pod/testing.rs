//! Pods and views for the tests of the decisions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ContainerState, ContainerView, PodIdentity, PodView, SandboxView};
use serde_json::{Value, json};

/// A pod with that spec; containers get an image if they name none.
pub(crate) fn pod(mut spec: Value) -> Pod {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if container.get("image").is_none() {
                container["image"] = json!("busybox:1");
            }
        }
    }
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

/// A point in time, in seconds after an arbitrary start.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A view with one sandbox of that attempt.
pub(crate) fn view(attempt: u32, ready: bool, containers: Vec<ContainerView>) -> PodView {
    PodView {
        pod: PodIdentity { uid: "u1".into(), namespace: "default".into(), name: "web".into() },
        sandboxes: vec![SandboxView {
            id: format!("sandbox{attempt}"),
            attempt,
            ready,
            pid: ready.then_some(1),
            created_at: at(0).to_string(),
            annotations: Default::default(),
        }],
        containers,
    }
}

fn run(pod: &Pod, name: &str, attempt: u32, state: ContainerState) -> ContainerView {
    let spec = super::any_container(pod, name).expect("the container must be in the pod");
    ContainerView {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        attempt,
        image: spec.image.clone().unwrap_or_default(),
        image_id: "sha256:1".into(),
        state,
        resources: None,
        annotations: [
            (super::HASH_ANNOTATION.to_owned(), super::plan::container_hash(&spec)),
            (super::SANDBOX_ANNOTATION.to_owned(), "0".to_owned()),
        ]
        .into(),
    }
}

/// A running container since `second`.
pub(crate) fn running(pod: &Pod, name: &str, attempt: u32, second: i64) -> ContainerView {
    run(pod, name, attempt, ContainerState::Running { started_at: at(second).to_string(), pid: 2 })
}

/// A container that ran from `from` to `to`.
pub(crate) fn exited(
    pod: &Pod,
    name: &str,
    attempt: u32,
    (from, to): (i64, i64),
    code: i32,
) -> ContainerView {
    run(
        pod,
        name,
        attempt,
        ContainerState::Exited {
            started_at: at(from).to_string(),
            finished_at: at(to).to_string(),
            exit_code: code,
            oom_killed: false,
            error: String::new(),
        },
    )
}
