//! What a running pod has left behind and nobody needs: dead runs but the last of each container, which
//! `logs --previous` reads, and dead sandboxes but the newest (upstream's `kuberuntime_gc.go`).

use kubelet_runtime::{ContainerState, ContainerView, PodView};

/// What is to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Containers, by name and attempt.
    pub containers: Vec<(String, u32)>,
    /// Sandboxes, by attempt.
    pub sandboxes: Vec<u32>,
}

impl Garbage {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.sandboxes.is_empty()
    }
}

/// Decides. Of each container the newest run stays and the dead one before it.
#[must_use]
pub fn garbage(view: &PodView) -> Garbage {
    let newer = |run: &ContainerView| {
        view.containers.iter().filter(|other| other.name == run.name && other.attempt > run.attempt).count()
    };
    let containers = view
        .containers
        .iter()
        .filter(|run| matches!(run.state, ContainerState::Exited { .. }) && newer(run) > 1)
        .map(|run| (run.name.clone(), run.attempt))
        .collect();
    let newest = view.sandboxes.iter().map(|sandbox| sandbox.attempt).max();
    let dead = view.sandboxes.iter().filter(|sandbox| !sandbox.ready && Some(sandbox.attempt) != newest);
    Garbage { containers, sandboxes: dead.map(|sandbox| sandbox.attempt).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::{exited, pod, running, view};

    #[test]
    fn the_last_dead_run_stays() {
        let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        let dead = |attempt| exited(&pod, "a", attempt, (0, 1), 1);
        let mut world = view(
            3,
            true,
            vec![running(&pod, "a", 3, 9), dead(2), dead(1), dead(0), running(&pod, "b", 0, 0)],
        );
        let mut old = view(1, false, vec![]).sandboxes;
        old.extend(view(2, false, vec![]).sandboxes);
        world.sandboxes.extend(old);
        let expected = Garbage { containers: vec![("a".into(), 1), ("a".into(), 0)], sandboxes: vec![1, 2] };
        assert_eq!(garbage(&world), expected);
        let backing_off = view(0, true, vec![dead(2), dead(1), dead(0)]);
        assert_eq!(garbage(&backing_off).containers, [("a".to_owned(), 0)]);
        assert!(garbage(&view(0, false, vec![dead(0)])).is_empty(), "the only sandbox stays, dead or not");
    }
}
