//! Sends pod statuses: the newest wins, none is lost, and a pod that has ended is deleted after its last one.
//!
//! Workers hand over what a pod's status should be and go on; writes are retried with back-off until the API
//! has them or the pod is gone. Nothing needs to survive a restart: the status is computed again from the
//! runtime and compared with what the API has (upstream's `pkg/kubelet/status` manager).

use std::{collections::HashMap, sync::Arc};

use api_objects::Value;
use client::{Client, Error, PatchType, WorkQueue};
use k8s_openapi::api::core::v1::PodStatus;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    pod::{self, status::patch},
};

/// Writes at once: enough to hide one another's latency when fifty pods start together.
const WRITERS: usize = 4;

/// Takes statuses and sends them.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    queue: WorkQueue<String>,
    pods: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone)]
struct Entry {
    namespace: String,
    name: String,
    /// What the API is known to have, as JSON text; taken from the last answer.
    base: Box<str>,
    /// What it should have.
    wanted: Box<str>,
    delete: bool,
}

impl StatusWriter {
    /// Starts the writers; they end with `shutdown`.
    #[must_use]
    pub(crate) fn start(client: Client, tasks: &TaskTracker, shutdown: &CancellationToken) -> Self {
        let shared = Arc::new(Shared { client, queue: WorkQueue::new(), pods: Mutex::default() });
        for _ in 0..WRITERS {
            let shared = Arc::clone(&shared);
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                loop {
                    let next = tokio::select! {
                        () = shutdown.cancelled() => return,
                        next = shared.queue.get() => next,
                    };
                    let Some(uid) = next else { return };
                    if shared.write(&uid).await {
                        shared.queue.forget(&uid);
                    } else {
                        shared.queue.add_rate_limited(uid.clone());
                    }
                    shared.queue.done(&uid);
                }
            });
        }
        Self { shared }
    }

    /// Hands over a pod's newest status. `pod` is the object as the API has it, and `known` reads its status for a pod that
    /// is new here; `delete` asks for the final deletion once the status is written.
    pub(crate) fn set(
        &self,
        pod: &pod::status::Object<'_>,
        known: impl FnOnce() -> Box<str>,
        status: &PodStatus,
        delete: bool,
    ) {
        let wanted = serde_json::to_string(status).expect("a status must be plain JSON").into_boxed_str();
        {
            let mut pods = self.shared.pods.lock();
            let entry = pods.entry(pod.uid.to_owned()).or_insert_with(|| Entry {
                namespace: pod.namespace.to_owned(),
                name: pod.name.to_owned(),
                base: known(),
                wanted: Box::default(),
                delete: false,
            });
            if entry.wanted == wanted && entry.delete == delete {
                return;
            }
            entry.wanted = wanted;
            entry.delete |= delete;
        }
        self.shared.queue.add(pod.uid.to_owned());
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.shared.pods.lock().remove(uid);
    }
}

impl Shared {
    /// Writes one pod's status; `false` to try again.
    async fn write(&self, uid: &str) -> bool {
        let Some(entry) = self.pods.lock().get(uid).cloned() else { return true };
        let [base, wanted] = [&entry.base, &entry.wanted].map(|text| read(text));
        if let Some(patch) = patch(uid, &base, &wanted) {
            let sent = self
                .client
                .patch(
                    api::pods(),
                    &entry.namespace,
                    &entry.name,
                    Some("status"),
                    PatchType::Strategic,
                    &patch,
                )
                .await;
            match sent {
                Ok(answer) => {
                    if let Some(known) = self.pods.lock().get_mut(uid) {
                        known.base = answer["status"].to_string().into();
                    }
                }
                Err(error) if is_gone(&error) => {
                    self.pods.lock().remove(uid);
                    return true;
                }
                Err(error) => {
                    tracing::warn!(
                        pod = entry.name,
                        "cannot write a pod's status: {}",
                        client::error::chain(&error)
                    );
                    return false;
                }
            }
        }
        if !entry.delete {
            return true;
        }
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "preconditions": {"uid": uid}});
        match self.client.delete(api::pods(), &entry.namespace, &entry.name, &options).await {
            Ok(_) => true,
            Err(error) if is_gone(&error) => true,
            Err(error) => {
                tracing::warn!(
                    pod = entry.name,
                    "cannot delete an ended pod: {}",
                    client::error::chain(&error)
                );
                false
            }
        }
    }
}

/// A status that was written here, or came as part of an object.
fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Whether the pod is not there any more: no such name, or the name is another pod's by now.
fn is_gone(error: &Error) -> bool {
    error.is_not_found() || error.is_conflict()
}
