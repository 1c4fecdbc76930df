//! Brings the API's pods of this node, the runtime's pods and the workers together.
//!
//! One informer on this node's pods feeds one worker per uid; the runtime's hints wake them. At start, once
//! the informer knows all pods, what the runtime still has of others is removed: after that every pod on the
//! node has exactly one owner.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use api_objects::{Value, object::ObjectMeta};
use bytes::Bytes;
use client::{EventType, Informer, Key};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::PodView;
use parking_lot::Mutex;

use crate::{
    context::Context,
    pod::status::Verdict,
    pod_worker::{self, Desired, Handle},
};

/// Wait before the runtime is asked again for its pods or events.
const RETRY: Duration = Duration::from_secs(2);
/// Between two sweeps for what nobody owns.
const SWEEP_EVERY: Duration = Duration::from_secs(120);

/// The pods of this node.
pub(crate) struct PodManager {
    context: Arc<Context>,
    pods: Informer<Bytes>,
    workers: Arc<Mutex<HashMap<String, Handle>>>,
    /// Which uid a name stood for last, to tell that a pod was replaced by another of its name.
    names: HashMap<Key, String>,
}

impl PodManager {
    /// Over the informer on this node's pods.
    #[must_use]
    pub(crate) fn new(context: Arc<Context>, pods: Informer<Bytes>) -> Self {
        Self { context, pods, workers: Arc::default(), names: HashMap::new() }
    }

    /// Runs until shutdown.
    pub(crate) async fn run(mut self) {
        let shutdown = self.context.shutdown.clone();
        let mut changes = self.pods.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.pods.synced() => {}
        }
        let mut all: Vec<Key> = self.pods.list().into_iter().map(|(key, _)| key).collect();
        // Those that were taken before come first, whatever their names: they keep what they have.
        all.sort_by_key(|key| !self.pods.get(key).is_some_and(|bytes| was_taken(&bytes)));
        for key in all {
            self.follow(&key);
        }
        let context = Arc::clone(&self.context);
        let workers = Arc::clone(&self.workers);
        context.tasks.spawn(relay_events(Arc::clone(&context), Arc::clone(&workers)));
        context.tasks.spawn(sweep(Arc::clone(&context), self.pods.clone(), Arc::clone(&workers)));
        context.tasks.spawn(wake_on_network(Arc::clone(&context), workers));
        loop {
            let keys = tokio::select! {
                () = shutdown.cancelled() => return,
                keys = changes.recv() => keys,
            };
            for change in keys {
                self.follow(&change.key);
            }
        }
    }

    /// Brings one name up to date.
    fn follow(&mut self, key: &Key) {
        let object = self.pods.get(key);
        let meta = object.as_ref().map(|bytes| ObjectMeta::from_bytes(bytes));
        let uid = meta.map(|meta| meta.uid);
        let before = self.names.get(key).cloned();
        if let Some(before) = before
            && uid.as_ref() != Some(&before)
        {
            self.names.remove(key);
            if let Some(worker) = self.workers.lock().get(&before) {
                worker.desire(Desired::Gone);
            }
        }
        let (Some(bytes), Some(uid)) = (object, uid) else { return };
        self.names.insert(key.clone(), uid.clone());
        let known = self.workers.lock().get(&uid).cloned();
        match known {
            Some(worker) => worker.desire(Desired::Object(bytes.as_ref().clone())),
            None => self.begin(uid, bytes.as_ref().clone()),
        }
    }

    /// A pod that is new to this process.
    fn begin(&self, uid: String, bytes: Bytes) {
        let verdict = self.admit(&bytes);
        if !was_taken(&bytes) {
            self.context.measures.pod_seen(&uid);
        }
        let workers = Arc::clone(&self.workers);
        let (ended, measures) = (uid.clone(), Arc::clone(&self.context.measures));
        let handle = pod_worker::spawn(&self.context, bytes, verdict, move || {
            workers.lock().remove(&ended);
            measures.pod_gone(&ended);
        });
        self.workers.lock().insert(uid, handle);
    }

    fn admit(&self, bytes: &Bytes) -> Option<Verdict> {
        let pod: Pod = match serde_json::from_slice(bytes) {
            Ok(pod) => pod,
            Err(error) => {
                return Some(Verdict {
                    reason: "UnexpectedAdmissionError".to_owned(),
                    message: format!("Pod was rejected: it cannot be read: {error}"),
                    rejected: true,
                });
            }
        };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return None;
        }
        let mut admission = self.context.admission.lock();
        if was_taken(bytes) || pod.metadata.deletion_timestamp.is_some() {
            admission.adopt(&pod);
            return None;
        }
        let raw: Value = serde_json::from_slice(bytes).unwrap_or_default();
        match admission.admit(&pod, raw.get("spec").unwrap_or(&Value::Null)) {
            Ok(()) => None,
            Err(rejection) => {
                drop(admission);
                let text = rejection.message.trim_start_matches("Pod was rejected: ").to_owned();
                self.context.events.pod(&pod, EventType::Warning, &rejection.reason, &text);
                Some(Verdict { reason: rejection.reason, message: rejection.message, rejected: true })
            }
        }
    }
}

/// Whether a kubelet has accepted this pod before: it then gave it a start time.
fn was_taken(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Status {
        start_time: Option<String>,
    }
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Object {
        status: Status,
    }
    serde_json::from_slice::<Object>(bytes).is_ok_and(|object| object.status.start_time.is_some())
}

/// Passes the runtime's hints on; when some may have been missed, everyone looks for himself.
async fn relay_events(context: Arc<Context>, workers: Arc<Mutex<HashMap<String, Handle>>>) {
    loop {
        let stream = tokio::select! {
            () = context.shutdown.cancelled() => return,
            stream = context.runtime.events() => stream,
        };
        match stream {
            Ok(mut stream) => {
                let all: Vec<Handle> = workers.lock().values().cloned().collect();
                all.iter().for_each(Handle::wake);
                loop {
                    let event = tokio::select! {
                        () = context.shutdown.cancelled() => return,
                        event = stream.next() => event,
                    };
                    let Some(event) = event else { break };
                    if let Some(worker) = workers.lock().get(&event.pod_uid) {
                        worker.wake();
                    }
                }
            }
            Err(error) => tracing::warn!("the runtime gives no events: {error}"),
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Wakes all workers whenever the network appears.
async fn wake_on_network(context: Arc<Context>, workers: Arc<Mutex<HashMap<String, Handle>>>) {
    let mut network = context.network.clone();
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            changed = network.changed() => if changed.is_err() { return },
        }
        let all: Vec<Handle> = workers.lock().values().cloned().collect();
        all.iter().for_each(Handle::wake);
    }
}

/// Removes what no pod of the API owns: containers, addresses, directories.
async fn sweep(context: Arc<Context>, pods: Informer<Bytes>, workers: Arc<Mutex<HashMap<String, Handle>>>) {
    loop {
        match context.runtime.list().await {
            Ok(views) => {
                let known: HashSet<String> =
                    pods.list().iter().map(|(_, bytes)| ObjectMeta::from_bytes(bytes).uid).collect();
                let owned = |uid: &str| known.contains(uid) || workers.lock().contains_key(uid);
                for view in views.iter().filter(|view| !owned(&view.pod.uid)) {
                    remove_orphan(&context, view).await;
                }
                let listed: HashSet<&str> = views.iter().map(|view| view.pod.uid.as_str()).collect();
                for uid in context.volumes.pods_on_disk().await {
                    if !owned(&uid) && !listed.contains(uid.as_str()) {
                        tear_down(&context, &uid).await;
                    }
                }
            }
            Err(error) => tracing::warn!("the runtime cannot be listed: {error}"),
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

async fn remove_orphan(context: &Context, view: &PodView) {
    let uid = view.pod.uid.as_str();
    tracing::info!(uid, name = view.pod.name, "removing a pod that the API does not know");
    let network = context.network.borrow().clone();
    if let Some(network) = network
        && let Err(error) = network.detach(uid).await
    {
        tracing::warn!(uid, "an orphan keeps its address for now: {error}");
    }
    match context.runtime.remove_pod(uid).await {
        Ok(()) => tear_down(context, uid).await,
        Err(error) => tracing::warn!(uid, "an orphan stays for now: {error}"),
    }
}

async fn tear_down(context: &Context, uid: &str) {
    if let Err(error) = context.volumes.tear_down(uid).await {
        tracing::warn!(uid, "an orphan's directory stays for now: {error}");
    }
}
