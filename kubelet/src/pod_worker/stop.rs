//! Stops containers: hook, signal, grace, kill.
//!
//! The grace period counts from the moment that stopping is decided and includes the hook; at least two
//! seconds remain for the signal, as upstream gives. Sidecars stop after the others, in reverse order.

use std::{sync::Arc, time::Duration};

use client::EventType;
use futures_util::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ContainerState, ContainerView, PodView};
use tokio::time::{Instant, timeout};

use super::actions::{Target, hook};
use crate::{
    context::Context,
    pod::{container as find_container, init_containers, is_sidecar, uid},
};

/// Least time between the signal and the kill (upstream's `minimumGracePeriodInSeconds`).
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// Stops one running container.
pub(super) async fn stop_container(
    context: &Arc<Context>,
    pod: &Pod,
    run: &ContainerView,
    message: &str,
    grace: Duration,
) {
    let name = run.name.as_str();
    context.events.container(pod, name, EventType::Normal, "Killing", message);
    let began = Instant::now();
    let container = find_container(pod, name);
    let handler = container.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
    if let (Some(container), Some(handler)) = (container, handler)
        && !grace.is_zero()
    {
        let address = context.network.borrow().as_ref().and_then(|network| network.address(uid(pod)));
        let target = Target { uid: uid(pod), container: name, address };
        match timeout(grace, hook(context, &target, container, handler, grace)).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => {
                let text = format!("PreStopHook failed: {message}");
                context.events.container(pod, name, EventType::Warning, "FailedPreStopHook", &text);
            }
            Err(_) => tracing::debug!(pod = uid(pod), name, "the preStop hook used the whole grace period"),
        }
    }
    let left = grace.saturating_sub(began.elapsed());
    let left = if grace.is_zero() { Duration::ZERO } else { left.max(MINIMUM_GRACE) };
    if let Err(error) = context.runtime.stop_container(uid(pod), name, run.attempt, left).await {
        let text = format!("error killing container {name}: {error}");
        context.events.container(pod, name, EventType::Warning, "FailedKillPod", &text);
    }
}

/// Stops every running container of a pod: the main ones together, then the sidecars in reverse order.
pub(super) async fn stop_all(context: &Arc<Context>, pod: &Pod, view: &PodView, grace: Duration) {
    let began = Instant::now();
    let running: Vec<&ContainerView> =
        view.containers.iter().filter(|run| matches!(run.state, ContainerState::Running { .. })).collect();
    let sidecars: Vec<&str> = init_containers(pod)
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let main = running.iter().filter(|run| !sidecars.contains(&run.name.as_str()));
    let stops = main.map(|run| {
        let message = format!("Stopping container {}", run.name);
        async move { stop_container(context, pod, run, &message, grace).await }
    });
    join_all(stops).await;
    for name in sidecars.iter().rev() {
        for run in running.iter().filter(|run| run.name == *name) {
            let left = if grace.is_zero() {
                grace
            } else {
                grace.saturating_sub(began.elapsed()).max(MINIMUM_GRACE)
            };
            stop_container(context, pod, run, &format!("Stopping container {name}"), left).await;
        }
    }
}

/// Kills and removes every container of a pod, without hooks and without grace (KEP-5532). `last` goes last: as long
/// as it is there, it says that the others have to go.
pub(super) async fn clear(
    context: &Arc<Context>,
    pod: &Pod,
    view: &PodView,
    last: &str,
) -> Result<(), String> {
    let kill = view.containers.iter().map(async |run| {
        if matches!(run.state, ContainerState::Running { .. }) {
            let text = format!("Stopping container {}", run.name);
            context.events.container(pod, &run.name, EventType::Normal, "Killing", &text);
        }
        let stopped = context.runtime.stop_container(uid(pod), &run.name, run.attempt, Duration::ZERO).await;
        stopped.map_err(|error| format!("error killing container {}: {error}", run.name))
    });
    try_join_all(kill).await?;
    let (ending, others): (Vec<_>, Vec<_>) = view.containers.iter().partition(|run| run.name == last);
    for group in [others, ending] {
        let removals = group.into_iter().map(async |run| {
            let removed = context.runtime.remove_container(uid(pod), &run.name, run.attempt).await;
            removed.map_err(|error| format!("error removing container {}: {error}", run.name))
        });
        try_join_all(removals).await?;
    }
    Ok(())
}
