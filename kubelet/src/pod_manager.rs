//! Brings the API's pods of this node, the runtime's pods and the workers together.
//!
//! One informer on this node's pods feeds one worker per uid; the runtime's hints wake them. Once the informer
//! knows all pods, what the runtime still has of others is removed: from then on every pod on the node has
//! exactly one owner. Static pods come from a folder instead and wait for no API server; what the API has of them
//! only mirrors them.

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
use tokio::sync::{Notify, watch};

use crate::{
    context::Context,
    pod::{self, status::Verdict},
    pod_worker::{self, Desired, Handle},
    static_pods::{folder::Found, mirror},
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
    /// Static pods by uid.
    statics: watch::Receiver<Found>,
    /// Tells that a worker has ended: a static pod may have waited for the one of its name before.
    ended: Arc<Notify>,
    /// Which uid a name stood for last, to tell that a pod was replaced by another of its name.
    names: HashMap<Key, String>,
}

impl PodManager {
    /// Over the informer on this node's pods.
    #[must_use]
    pub(crate) fn new(context: Arc<Context>, pods: Informer<Bytes>, statics: watch::Receiver<Found>) -> Self {
        let (workers, ended) = (Arc::default(), Arc::default());
        Self { context, pods, workers, statics, ended, names: HashMap::new() }
    }

    /// The workers, for who needs to reach them.
    #[must_use]
    pub(crate) fn workers(&self) -> Arc<Mutex<HashMap<String, Handle>>> {
        Arc::clone(&self.workers)
    }

    /// Runs until shutdown.
    pub(crate) async fn run(mut self) {
        let shutdown = self.context.shutdown.clone();
        let mut changes = self.pods.subscribe();
        let (ended, mut statics) = (Arc::clone(&self.ended), self.statics.clone());
        let context = Arc::clone(&self.context);
        let workers = Arc::clone(&self.workers);
        context.tasks.spawn(relay_events(Arc::clone(&context), Arc::clone(&workers)));
        context.tasks.spawn(wake_on_changes(Arc::clone(&context), workers));
        let (pods, mut registered) = (self.pods.clone(), self.context.registered.clone());
        let synced = async move {
            pods.synced().await;
            // Whom a pod selects is told by the labels that others have put on the node.
            let _ = registered.wait_for(Option::is_some).await;
        };
        tokio::pin!(synced);
        let (mut is_synced, mut running) = (false, HashMap::new());
        loop {
            // They wait for nobody: there need not be an API server.
            self.follow_statics(&mut running);
            let keys = tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut synced, if !is_synced => {
                    is_synced = true;
                    self.take_up();
                    continue;
                }
                keys = changes.recv(), if is_synced => keys,
                Ok(()) = statics.changed() => continue,
                () = ended.notified() => continue,
            };
            for change in keys {
                self.follow(&change.key);
            }
        }
    }

    /// The API has answered: its pods are taken up, and what is nobody's goes from now on.
    fn take_up(&mut self) {
        if let Some(node) = self.context.registered.borrow().clone() {
            self.context.follow_node(node.labels, &node.extended);
        }
        let mut all: Vec<Key> = self.pods.list().into_iter().map(|(key, _)| key).collect();
        // Those that were taken before come first, whatever their names: they keep what they have.
        all.sort_by_key(|key| !self.pods.get(key).is_some_and(|bytes| self.was_taken(&bytes)));
        for key in all {
            self.follow(&key);
        }
        let context = Arc::clone(&self.context);
        let sweeping = sweep(Arc::clone(&context), self.pods.clone(), Arc::clone(&self.workers));
        context.tasks.spawn(sweeping);
    }

    /// Brings the static pods up to date; `running` are those that have workers, with their names.
    fn follow_statics(&self, running: &mut HashMap<String, Key>) {
        let wanted = self.statics.borrow().clone();
        running.retain(|uid, key| match (self.workers.lock().get(uid), wanted.contains_key(uid)) {
            (Some(_), true) => true,
            (Some(worker), false) => {
                worker.desire(Desired::Gone);
                true
            }
            // Its worker has ended: one of its name may begin.
            (None, _) => {
                tracing::debug!(uid, name = &*key.name, "a static pod has ended");
                false
            }
        });
        let labels_known = self.context.registered.borrow().is_some();
        for (uid, bytes) in wanted {
            if !labels_known && selects_nodes(&bytes) {
                continue;
            }
            let meta = ObjectMeta::from_bytes(&bytes);
            let key = Key::new(&meta.namespace, &meta.name);
            if running.contains_key(&uid) || running.values().any(|other| *other == key) {
                continue;
            }
            self.begin(uid.clone(), bytes);
            self.show_mirror(&key, &uid);
            running.insert(uid, key);
        }
    }

    /// Tells a static pod's worker what the API has of it.
    fn show_mirror(&self, key: &Key, uid: &str) {
        let mirror = self.pods.get(key).and_then(|bytes| mirror::read(&bytes));
        if let Some(worker) = self.workers.lock().get(uid) {
            worker.show_mirror(mirror);
        }
    }

    /// The static pod of that name, if there is one.
    fn static_pod(&self, key: &Key) -> Option<String> {
        let statics = self.statics.borrow();
        let of_name = |(uid, bytes): (&String, &Bytes)| {
            let meta = ObjectMeta::from_bytes(bytes);
            (*meta.name == *key.name && *meta.namespace == *key.namespace).then(|| uid.clone())
        };
        statics.iter().find_map(of_name)
    }

    /// A mirror pod, or what was one: the static pod's worker sees to it, and without one it goes.
    fn follow_mirror(&self, key: &Key) -> bool {
        let mirror = self.pods.get(key).and_then(|bytes| mirror::read(&bytes));
        match (self.static_pod(key), mirror) {
            (Some(uid), _) => {
                self.show_mirror(key, &uid);
                true
            }
            (None, Some(orphan)) => {
                let (context, key) = (Arc::clone(&self.context), key.clone());
                self.context.tasks.spawn(async move {
                    let removed =
                        mirror::remove(&context.client, &key.namespace, &key.name, &orphan.uid).await;
                    if let Err(error) = removed {
                        tracing::warn!(
                            pod = &*key.name,
                            "a mirror pod stays for now: {}",
                            client::error::chain(&error)
                        );
                    }
                });
                true
            }
            (None, None) => false,
        }
    }

    /// Brings one name up to date.
    fn follow(&mut self, key: &Key) {
        if self.follow_mirror(key) {
            return;
        }
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
        if !self.was_taken(&bytes) {
            self.context.measures.pod_seen(&uid);
        }
        let verdict = self.admit(&bytes);
        let workers = Arc::clone(&self.workers);
        let (gone, ended) = (uid.clone(), Arc::clone(&self.ended));
        let measures = Arc::clone(&self.context.measures);
        let handle = pod_worker::spawn(&self.context, bytes, verdict, move || {
            workers.lock().remove(&gone);
            measures.pod_gone(&gone);
            ended.notify_one();
        });
        self.workers.lock().insert(uid, handle);
    }

    /// Whether a kubelet of this node has accepted this pod before. One that was killed may not have told the API.
    fn was_taken(&self, bytes: &[u8]) -> bool {
        has_started(bytes) || self.context.admission.lock().was_taken(&ObjectMeta::from_bytes(bytes).uid)
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
        let was_taken = self.was_taken(bytes);
        let mut admission = self.context.admission.lock();
        if was_taken || pod.metadata.deletion_timestamp.is_some() {
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

/// Whether a pod wants a node with certain labels.
fn selects_nodes(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Pod>(bytes).is_ok_and(|pod| {
        let spec = pod::spec(&pod);
        let affinity = spec.affinity.as_ref().is_some_and(|affinity| affinity.node_affinity.is_some());
        affinity || spec.node_selector.as_ref().is_some_and(|selector| !selector.is_empty())
    })
}

/// Whether a kubelet has told of this pod that it accepted it: it then gave it a start time.
fn has_started(bytes: &[u8]) -> bool {
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

/// Wakes all workers whenever the network appears, or the node is registered: mirror pods wait for that.
async fn wake_on_changes(context: Arc<Context>, workers: Arc<Mutex<HashMap<String, Handle>>>) {
    let (mut network, mut registered) = (context.network.clone(), context.registered.clone());
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            changed = network.changed() => if changed.is_err() { return },
            changed = registered.changed() => if changed.is_err() { return },
        }
        let all: Vec<Handle> = workers.lock().values().cloned().collect();
        all.iter().for_each(Handle::wake);
    }
}

/// Removes what no pod of the API owns: containers, addresses, control groups, directories.
async fn sweep(context: Arc<Context>, pods: Informer<Bytes>, workers: Arc<Mutex<HashMap<String, Handle>>>) {
    loop {
        match context.runtime.list().await {
            Ok(views) => {
                let known: HashSet<String> =
                    pods.list().iter().map(|(_, bytes)| ObjectMeta::from_bytes(bytes).uid).collect();
                let owned = |uid: &str| {
                    known.contains(uid)
                        || workers.lock().contains_key(uid)
                        || context.admission.lock().holds(uid)
                };
                for view in views.iter().filter(|view| !owned(&view.pod.uid)) {
                    remove_orphan(&context, view).await;
                }
                let listed: HashSet<&str> = views.iter().map(|view| view.pod.uid.as_str()).collect();
                for uid in context.groups.pods().await {
                    if !owned(&uid) && !listed.contains(uid.as_str()) {
                        remove_group(&context, &uid).await;
                    }
                }
                for uid in context.volumes.pods_on_disk().await {
                    if !owned(&uid) && !listed.contains(uid.as_str()) {
                        tear_down(&context, &uid).await;
                    }
                }
                if let Err(error) = context.volumes.images().remove_unused().await {
                    tracing::warn!("an unpacked image stays for now: {error}");
                }
            }
            Err(error) => tracing::warn!("the runtime cannot be listed: {error}"),
        }
        context.groups.balance(|| context.admission.lock().burstable_cpu()).await;
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
        Ok(()) => {
            remove_group(context, uid).await;
            tear_down(context, uid).await;
        }
        Err(error) => tracing::warn!(uid, "an orphan stays for now: {error}"),
    }
}

async fn remove_group(context: &Context, uid: &str) {
    if let Err(error) = context.groups.remove(uid).await {
        tracing::warn!(uid, "an orphan's control group stays for now: {error}");
    }
}

async fn tear_down(context: &Context, uid: &str) {
    if let Err(error) = context.volumes.tear_down(uid).await {
        tracing::warn!(uid, "an orphan's directory stays for now: {error}");
    }
}
