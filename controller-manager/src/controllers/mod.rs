//! The controllers, one file each, and the loop that drives them all.
//!
//! A controller takes a key, reads caches, decides (a pure function) and acts through the client. It never
//! learns what changed, and controllers never import one another: they meet through objects.

pub mod bootstrap_signer;
pub mod certificates;
pub mod ephemeral_volume;
pub mod garbage_collector;
pub mod hostpath_provisioner;
pub mod namespace;
pub mod node_addresses;
pub mod node_lifecycle;
pub mod persistent_volume;
pub mod pod_garbage;
pub mod replica_set;
pub mod root_ca;
pub mod service_account;
pub mod taint_eviction;
pub mod token_cleaner;
pub mod volume_expansion;
pub mod volume_protection;

use std::{fmt, future::Future, hash::Hash, sync::Arc, time::Duration};

use api_objects::Resource;
use client::{Client, Error, Informers, Recorder, WorkQueue};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span, warn};

/// What every controller is given.
#[derive(Clone)]
pub struct Context {
    /// The API server, under this controller's identity.
    pub client: Client,
    /// The process's informers.
    pub informers: Informers,
    /// Ends the controller.
    pub shutdown: CancellationToken,
    /// Joins its tasks.
    pub tasks: TaskTracker,
}

impl Context {
    /// A recorder of events under a component's name.
    #[must_use]
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.client.clone(), component, "", self.shutdown.clone(), &self.tasks)
    }
}

/// What a reconciliation asks for after it succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    AwaitChange,
    /// Another look after this time.
    RequeueAfter(Duration),
}

/// A level-triggered controller.
pub trait Reconciler: Send + Sync + 'static {
    /// What names a piece of work: mostly an object's key.
    type Key: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static;

    /// The controller's name in logs.
    const NAME: &'static str;

    /// Brings one object closer to what it should be. Idempotent; takes no hint.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// Runs `workers` workers over a queue until the shutdown; failures come back with growing delays.
pub(crate) fn spawn_workers<R: Reconciler>(
    context: &Context,
    reconciler: &Arc<R>,
    queue: &Arc<WorkQueue<R::Key>>,
    workers: usize,
) {
    for _ in 0..workers {
        let (reconciler, queue) = (reconciler.clone(), queue.clone());
        context.tasks.spawn(async move {
            while let Some(key) = queue.get().await {
                let span = debug_span!("reconcile", controller = R::NAME, %key);
                match reconciler.reconcile(&key).instrument(span).await {
                    Ok(Action::AwaitChange) => queue.forget(&key),
                    Ok(Action::RequeueAfter(delay)) => {
                        queue.forget(&key);
                        queue.add_after(key.clone(), delay);
                    }
                    Err(error) => {
                        if error.is_conflict() || error.is_not_found() {
                            debug!(controller = R::NAME, %key, error = %error, "behind; trying again");
                        } else {
                            warn!(controller = R::NAME, %key, error = %error, "failed to reconcile");
                        }
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    let (queue, shutdown) = (queue.clone(), context.shutdown.clone());
    context.tasks.spawn(async move {
        shutdown.cancelled().await;
        queue.shut_down();
    });
}

/// Feeds a queue from an informer: `keys` says which keys a change touches.
pub(crate) fn feed<T, K, F>(
    context: &Context,
    informer: &client::Informer<T>,
    queue: &Arc<WorkQueue<K>>,
    keys: F,
) where
    T: Send + Sync + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    F: Fn(&client::Change<T>) -> Vec<K> + Send + Sync + 'static,
{
    let (mut changes, queue, shutdown) = (informer.subscribe(), queue.clone(), context.shutdown.clone());
    context.tasks.spawn(async move {
        let forward = async {
            loop {
                for change in changes.recv().await {
                    for key in keys(&change) {
                        queue.add(key);
                    }
                }
            }
        };
        shutdown.run_until_cancelled(forward).await;
    });
}

/// A built-in resource that must be in the table.
pub(crate) fn resource(group: &str, version: &str, plural: &str) -> Arc<Resource> {
    api_objects::resource::find(group, version, plural)
        .expect("a built-in resource must be in the table")
        .clone()
}

/// Deserialises a typed view of an object: made for one projection or decision, never kept.
pub(crate) fn typed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
