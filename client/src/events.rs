//! Events: what people read in `kubectl describe`. Aggregated, bounded, never waited for.
//!
//! The same thing happening again raises the count of the event that is there, as client-go's event
//! correlator does; a full queue drops the newest and counts it, because an event is a courtesy.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use api_objects::Value;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{Client, Error, PatchType};

/// Enough for a burst of a few events for each of some hundred pods; more says nothing new.
const QUEUE: usize = 1024;
/// How many distinct events are remembered for counting (client-go's correlator cache holds 4096).
const REMEMBERED: usize = 4096;

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// `spec.containers{app}` or empty.
    pub field_path: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Occurrence {
    about: ObjectRef,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events of one component; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Occurrence, Timestamp)>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder for `component` on `host` (empty for components that belong to no node). Its task ends
    /// with `shutdown`, after what is queued has been tried once.
    #[must_use]
    pub fn new(
        client: Client,
        component: &str,
        host: &str,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let writer =
            Writer { client, component: component.to_owned(), host: host.to_owned(), known: HashMap::new() };
        tasks.spawn(writer.run(receiver, shutdown));
        Self { queue, dropped: Arc::new(AtomicU64::new(0)) }
    }

    /// Records an event. Never blocks.
    pub fn event(&self, about: &ObjectRef, kind: EventType, reason: &str, message: impl Into<String>) {
        let occurrence =
            Occurrence { about: about.clone(), kind, reason: reason.to_owned(), message: message.into() };
        if self.queue.try_send((occurrence, Timestamp::now())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Written {
    name: String,
    namespace: String,
    count: u64,
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    known: HashMap<Occurrence, Written>,
}

impl Writer {
    async fn run(
        mut self,
        mut receiver: mpsc::Receiver<(Occurrence, Timestamp)>,
        shutdown: CancellationToken,
    ) {
        loop {
            let next = tokio::select! {
                next = receiver.recv() => next,
                () = shutdown.cancelled() => return,
            };
            let Some((occurrence, at)) = next else { return };
            if let Err(error) = self.write(occurrence, at).await {
                debug!(error = %error, "failed to record an event");
            }
        }
    }

    async fn write(&mut self, occurrence: Occurrence, at: Timestamp) -> Result<(), Error> {
        let events = api_objects::resource::find("", "v1", "events")
            .ok_or_else(|| Error::Config("events are not in the table of resources".into()))?;
        if let Some(written) = self.known.get_mut(&occurrence) {
            let count = written.count + 1;
            let patch = json!({ "count": count, "lastTimestamp": seconds(at) });
            let patched = self
                .client
                .patch(events, &written.namespace, &written.name, None, PatchType::Merge, &patch)
                .await;
            match patched {
                Ok(_) => {
                    written.count = count;
                    return Ok(());
                }
                // The event has outlived its time: write a new one.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let object = self.object(&occurrence, at);
        let namespace = namespace_of(&occurrence.about);
        let created = self.client.create(events, namespace, &object).await?;
        let name = created["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let written = Written { name, namespace: namespace.to_owned(), count: 1 };
        self.known.insert(occurrence, written);
        Ok(())
    }

    fn object(&self, occurrence: &Occurrence, at: Timestamp) -> Value {
        let Occurrence { about, kind, reason, message } = occurrence;
        let mut involved = json!({
            "kind": about.kind,
            "apiVersion": about.api_version,
            "name": about.name,
            "uid": about.uid,
        });
        for (field, value) in [("namespace", &about.namespace), ("fieldPath", &about.field_path)] {
            if !value.is_empty() {
                involved[field] = json!(value);
            }
        }
        let mut source = json!({ "component": self.component });
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        // Named as upstream names them: the object and the time in hexadecimal nanoseconds.
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": format!("{}.{:x}", about.name, at.as_nanosecond()),
                "namespace": namespace_of(about),
            },
            "involvedObject": involved,
            "reason": reason,
            "message": truncate(message),
            "type": kind.as_str(),
            "count": 1,
            "firstTimestamp": seconds(at),
            "lastTimestamp": seconds(at),
            "source": source,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        })
    }
}

/// Events about cluster-scoped objects live in `default`, as upstream's do.
fn namespace_of(about: &ObjectRef) -> &str {
    if about.namespace.is_empty() { "default" } else { &about.namespace }
}

/// Upstream's limit for an event's message is 1024 bytes.
fn truncate(message: &str) -> &str {
    let mut end = message.len().min(1024);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn seconds(at: Timestamp) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(0)).timestamp_to_string(&at)
}
