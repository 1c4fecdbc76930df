//! Docker's ids by pod: a short cut that spares asking Docker by labels, never a truth of its own.

use std::collections::BTreeMap;

use super::{labels::Namespaces, view::Listed};
use crate::PodIdentity;

/// The Docker ids of one pod.
#[derive(Debug, Clone, Default)]
pub(super) struct PodIndex {
    /// Whose; known once something of it was listed or made.
    pub(super) pod: Option<PodIdentity>,
    /// By attempt.
    pub(super) sandboxes: BTreeMap<u32, Sandbox>,
    /// By name and attempt.
    pub(super) containers: BTreeMap<(String, u32), String>,
}

/// What starting a container needs to know of its sandbox.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    /// Docker's id.
    pub(super) id: String,
    /// What it offers.
    pub(super) namespaces: Namespaces,
    /// What carries it, if not Docker's usual runtime.
    pub(super) handler: Option<String>,
    /// Whether it ran when it was last seen.
    pub(super) running: bool,
}

impl PodIndex {
    /// Takes a list entry up.
    pub(super) fn add(&mut self, listed: &Listed) {
        let Listed { id, identity, running, .. } = listed;
        self.pod.get_or_insert_with(|| identity.pod.clone());
        match &identity.container {
            None => {
                let sandbox = Sandbox {
                    id: id.clone(),
                    namespaces: identity.namespaces,
                    handler: identity.handler.clone(),
                    running: *running,
                };
                self.sandboxes.insert(identity.attempt, sandbox);
            }
            Some(name) => {
                self.containers.insert((name.clone(), identity.attempt), id.clone());
            }
        }
    }

    /// The sandbox that containers start in.
    pub(super) fn newest_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.values().rev().find(|sandbox| sandbox.running)
    }

    /// The newest run of a container.
    pub(super) fn newest_container(&self, name: &str) -> Option<&String> {
        self.containers.iter().rev().find(|((of, _), _)| of == name).map(|(_, id)| id)
    }
}
