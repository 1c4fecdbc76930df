//! Ephemeral containers: added to a running pod to look into it, run once, never restarted (KEP-277).

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use kubelet_runtime::PodView;

use super::{container, latest_run, spec};

/// The ephemeral containers in the order in which they were added.
pub fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    spec(pod).ephemeral_containers.iter().flatten()
}

/// Whether that name is one of the ephemeral containers.
#[must_use]
pub fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    ephemeral_containers(pod).any(|container| container.name == name)
}

/// The container of that name, of any of the three lists.
#[must_use]
pub fn any_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let ephemeral = || ephemeral_containers(pod).find(|container| container.name == name);
    container(pod, name).map(Cow::Borrowed).or_else(|| ephemeral().map(|found| Cow::Owned(plain(found))))
}

/// As the container that it is. Ports, probes, hooks and resources are refused by the server.
#[must_use]
pub fn plain(container: &EphemeralContainer) -> Container {
    Container {
        name: container.name.clone(),
        image: container.image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        working_dir: container.working_dir.clone(),
        env: container.env.clone(),
        env_from: container.env_from.clone(),
        volume_mounts: container.volume_mounts.clone(),
        image_pull_policy: container.image_pull_policy.clone(),
        security_context: container.security_context.clone(),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        termination_message_path: container.termination_message_path.clone(),
        termination_message_policy: container.termination_message_policy.clone(),
        ..Container::default()
    }
}

/// The run (name and attempt) whose processes an ephemeral container sees; `None` if it names none.
///
/// # Errors
/// If the one that it names has never run (upstream's `getTargetID`).
pub fn target(pod: &Pod, name: &str, view: Option<&PodView>) -> Result<Option<(String, u32)>, String> {
    let wanted = ephemeral_containers(pod)
        .find(|container| container.name == name)
        .and_then(|container| container.target_container_name.as_deref())
        .filter(|target| !target.is_empty());
    let Some(wanted) = wanted else { return Ok(None) };
    match latest_run(view, wanted) {
        Some(run) => Ok(Some((run.name.clone(), run.attempt))),
        None => Err(format!("unable to find target container {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::{pod, running, view};

    #[test]
    fn targets() {
        let pod = pod(json!({"containers": [{"name": "a"}], "ephemeralContainers": [
            {"name": "d", "image": "i", "targetContainerName": "a", "tty": true}, {"name": "e", "image": "i"}]}));
        assert_eq!(target(&pod, "d", None), Err("unable to find target container a".to_owned()));
        let up = view(0, true, vec![running(&pod, "a", 2, 0)]);
        assert_eq!(target(&pod, "d", Some(&up)), Ok(Some(("a".to_owned(), 2))));
        assert_eq!(target(&pod, "e", Some(&up)), Ok(None));
        assert_eq!(any_container(&pod, "d").and_then(|found| found.tty), Some(true));
        assert!(any_container(&pod, "x").is_none() && is_ephemeral(&pod, "e") && !is_ephemeral(&pod, "a"));
    }
}
