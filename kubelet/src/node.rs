//! This node as an object: registered once, its status kept true.
//!
//! Building the object is pure; measuring and sending are apart. The status is sent every five minutes or
//! when something in it changes (upstream's `nodeStatusReportFrequency`); that the node lives is said by its
//! Lease, not here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use api_objects::{Value, object::ObjectMeta};
use client::{Client, Error, Informer, Key, PatchType};
use jiff::Timestamp;
use kubelet_runtime::{ImageView, PodRuntime};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    NodeView, RuntimeKind, api,
    config::{Config, Taint},
    machine::{Machine, extended},
    network::NetworkReceiver,
    pressure::thresholds::Pressure,
};

/// The version of Kubernetes that this kubelet speaks.
pub(crate) const VERSION: &str = "v1.36.0";
/// Wait before a node that cannot be registered tries again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the status is measured; it is only sent when it differs.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// How often the node's images are listed; the scheduler only prefers nodes by them.
const LIST_IMAGES_EVERY: Duration = Duration::from_secs(60);
/// How often the status is sent although nothing changed.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// The conditions that a kubelet reports.
pub(crate) const CONDITIONS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
/// Images listed in a status (upstream's `nodeStatusMaxImages`).
const MAX_IMAGES: usize = 50;

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    /// Free memory is short.
    pub memory_pressure: bool,
    /// Free disk is short.
    pub disk_pressure: bool,
    /// Process ids are short.
    pub pid_pressure: bool,
    /// Why the node is not ready; `None` if it is.
    pub not_ready: Option<String>,
    /// The runtime's version.
    pub runtime_version: String,
    /// Images on the node.
    pub images: Vec<(Vec<String>, u64)>,
    /// The runtime's handlers.
    pub handlers: Vec<String>,
    /// The capacity of extended resources, which is whoever's who told the node's object of them; `None` while that is not
    /// known.
    pub extended: Option<BTreeMap<String, String>>,
}

/// The first address by which others reach this machine: that of the route to the outside.
#[must_use]
pub(crate) fn outward_address() -> IpAddr {
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // Nothing is sent: connecting only chooses the route.
        socket.connect("203.0.113.1:9")?;
        socket.local_addr()
    });
    routed.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// The labels that the kubelet sets.
#[must_use]
pub(crate) fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let arch = architecture();
    let hostname = if config.node_name_given { &config.node_name } else { &machine.hostname };
    let own = [
        ("kubernetes.io/hostname", hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let mut labels: BTreeMap<String, String> =
        own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    labels.extend(config.node_labels.clone());
    labels
}

/// The architecture as Go and Kubernetes name it.
#[must_use]
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The object to register.
#[must_use]
pub(crate) fn object(config: &Config, machine: &Machine, status: &Value) -> Value {
    let taints: Vec<Value> = config.taints.iter().map(Taint::to_value).collect();
    let mut spec = json!({});
    if !taints.is_empty() {
        spec["taints"] = Value::Array(taints);
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": config.node_name,
            "labels": labels(config, machine),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": status,
    })
}

/// The status. `before` gives the times of the last transitions.
#[must_use]
pub(crate) fn status(
    config: &Config,
    machine: &Machine,
    addresses: &[IpAddr],
    found: &Condition,
    before: &Value,
    now: Timestamp,
) -> Value {
    let (resources, allocatable) = machine.resources(config.max_pods, found.extended.as_ref(), before);
    let mut listed: Vec<Value> =
        addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
    listed.push(json!({"type": "Hostname", "address": config.node_name}));
    // The usual one goes without a name. Docker has no user namespaces for single containers; mounts that are read-only
    // all the way down are the kubelet's own doing.
    let features = json!({"recursiveReadOnlyMounts": true, "userNamespaces": false});
    let handlers = std::iter::once("").chain(found.handlers.iter().map(String::as_str));
    let handlers = handlers.map(|name| json!({"name": name, "features": features}));
    let mut status = json!({
        "capacity": resources,
        "allocatable": allocatable,
        "conditions": conditions(found, before, now),
        "addresses": listed,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": found.runtime_version,
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
        "images": found.images.iter().map(|(names, size)| json!({"names": names, "sizeBytes": size})).collect::<Vec<_>>(),
    });
    if config.runtime == RuntimeKind::Docker {
        status["runtimeHandlers"] = handlers.collect();
        // The groups of a container are settled here, before Docker hears of them (`pod::account`).
        status["features"] = json!({"supplementalGroupsPolicy": true});
    }
    status
}

/// The four conditions, with upstream's reasons and messages.
fn conditions(found: &Condition, before: &Value, now: Timestamp) -> Vec<Value> {
    let pressure = |kind: &str, holds: bool, what: &str, had: &str, has: &str| {
        let (reason, message) = if holds {
            (format!("KubeletHas{what}"), format!("kubelet has {has}"))
        } else {
            (had.to_owned(), format!("kubelet has {}", words(had)))
        };
        (kind.to_owned(), holds, reason, message)
    };
    let ready = match &found.not_ready {
        None => (
            "Ready".to_owned(),
            true,
            "KubeletReady".to_owned(),
            "kubelet is posting ready status".to_owned(),
        ),
        Some(why) => ("Ready".to_owned(), false, "KubeletNotReady".to_owned(), why.clone()),
    };
    let all = [
        pressure(
            "MemoryPressure",
            found.memory_pressure,
            "InsufficientMemory",
            "KubeletHasSufficientMemory",
            "insufficient memory available",
        ),
        pressure(
            "DiskPressure",
            found.disk_pressure,
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "disk pressure",
        ),
        pressure(
            "PIDPressure",
            found.pid_pressure,
            "InsufficientPID",
            "KubeletHasSufficientPID",
            "insufficient PID available",
        ),
        ready,
    ];
    let now = crate::pod::whole_seconds(now).to_string();
    let old = before.get("conditions").and_then(Value::as_array);
    let render = |(kind, holds, reason, message): (String, bool, String, String)| {
        let status = if holds { "True" } else { "False" };
        let past = old.into_iter().flatten().find(|past| past["type"] == kind && past["status"] == status);
        let since = past.and_then(|past| past["lastTransitionTime"].as_str()).unwrap_or(&now);
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since})
    };
    all.into_iter().map(render).collect()
}

fn words(reason: &str) -> &'static str {
    match reason {
        "KubeletHasSufficientMemory" => "sufficient memory available",
        "KubeletHasNoDiskPressure" => "no disk pressure",
        _ => "sufficient PID available",
    }
}

/// The node's object as it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// Its uid.
    pub uid: String,
    /// Its labels: ours, and those that others have put there.
    pub labels: BTreeMap<String, String>,
    /// The capacity of its extended resources.
    pub extended: BTreeMap<String, String>,
}

/// The node's object, once it is registered.
pub(crate) type Registered = watch::Receiver<Option<Registration>>;

/// Keeps the node's object and status.
pub(crate) struct NodeKeeper {
    /// Configuration.
    pub config: Arc<Config>,
    /// This machine.
    pub machine: Machine,
    /// The API.
    pub client: Client,
    /// The containers.
    pub runtime: Arc<dyn PodRuntime>,
    /// The pod network, once it stands.
    pub network: NetworkReceiver,
    /// The runtime's handlers, as they were at the start.
    pub handlers: Vec<String>,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// The node as the API has it.
    pub nodes: Informer<NodeView>,
    /// Where the registration goes.
    pub registered: watch::Sender<Option<Registration>>,
    /// The node's images, and when they were listed.
    pub images: Option<(tokio::time::Instant, Images)>,
}

/// Names and sizes of images.
pub(crate) type Images = Vec<(Vec<String>, u64)>;

impl NodeKeeper {
    /// Registers the node, or takes up the one that is there: labels of ours are set, others stay.
    async fn register(&mut self) -> Result<Value, Error> {
        let found = self.condition().await;
        let status =
            status(&self.config, &self.machine, &self.addresses, &found, &Value::Null, Timestamp::now());
        let wanted = object(&self.config, &self.machine, &status);
        let name = &self.config.node_name;
        match self.client.create(api::nodes(), "", &wanted).await {
            Ok(node) => return Ok(node),
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        let node = self.client.get(api::nodes(), "", name).await?;
        let known = node.pointer("/metadata/labels").cloned().unwrap_or_default();
        let missing: serde_json::Map<String, Value> = labels(&self.config, &self.machine)
            .into_iter()
            .filter(|(key, value)| known.get(key).and_then(Value::as_str) != Some(value))
            .map(|(key, value)| (key, Value::String(value)))
            .collect();
        if missing.is_empty() {
            return Ok(node);
        }
        let patch = json!({"metadata": {"labels": missing}});
        self.client.patch(api::nodes(), "", name, None, PatchType::Merge, &patch).await
    }

    /// Registers the node and keeps its status true until shutdown. A node whose object is deleted meanwhile is
    /// registered again; upstream's kubelet would do that on its next start.
    pub(crate) async fn keep(mut self, shutdown: CancellationToken) {
        let mut changes = self.nodes.subscribe();
        let mut last: Option<(Condition, tokio::time::Instant)> = None;
        let mut known = Value::Null;
        loop {
            if self.registered.borrow().is_none() {
                match self.register().await {
                    Ok(node) => {
                        known = node.get("status").cloned().unwrap_or_default();
                        let ObjectMeta { uid, labels, .. } = ObjectMeta::from_value(&node);
                        let extended = extended(known.get("capacity"));
                        self.registered.send_replace(Some(Registration { uid, labels, extended }));
                    }
                    Err(error) => {
                        tracing::warn!("cannot register the node: {}", client::error::chain(&error));
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            () = tokio::time::sleep(RETRY) => continue,
                        }
                    }
                }
                last = None;
            }
            let found = self.condition().await;
            let due = last.as_ref().is_none_or(|(sent, at)| *sent != found || at.elapsed() >= REPORT_EVERY);
            if due {
                match self.report(&found, &known).await {
                    Ok(status) => {
                        known = status;
                        last = Some((found, tokio::time::Instant::now()));
                    }
                    Err(error) if error.is_not_found() => {
                        self.registered.send_replace(None);
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!("cannot write the node's status: {}", client::error::chain(&error))
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(MEASURE_EVERY) => {}
                changed = self.network.changed() => if changed.is_err() { return },
                changed = self.pressure.changed() => if changed.is_err() { return },
                changes = changes.recv() => {
                    for change in changes {
                        match change.after {
                            // Whoever was silent has been declared lost: that it is well must be said again.
                            Some(node) if !self.is_another(&node.uid) => {
                                if node.doubted {
                                    last = None;
                                }
                            }
                            // Gone, or somebody has put another one in its place.
                            _ => drop(self.registered.send_replace(None)),
                        }
                    }
                }
            }
        }
    }

    fn is_another(&self, uid: &str) -> bool {
        self.registered.borrow().as_ref().is_some_and(|known| known.uid != uid)
    }

    /// Sends the status; gives it as the API has it now.
    async fn report(&self, found: &Condition, known: &Value) -> Result<Value, Error> {
        let wanted = status(&self.config, &self.machine, &self.addresses, found, known, Timestamp::now());
        let patch = json!({"status": wanted});
        let name = &self.config.node_name;
        let answer =
            self.client.patch(api::nodes(), "", name, Some("status"), PatchType::Strategic, &patch).await?;
        Ok(answer.get("status").cloned().unwrap_or_default())
    }

    /// The largest images, listed once in a while.
    async fn images(&mut self) -> Images {
        if let Some((listed, images)) = &self.images
            && listed.elapsed() < LIST_IMAGES_EVERY
        {
            return images.clone();
        }
        let mut images = self.runtime.images().await.unwrap_or_default();
        images.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.id.cmp(&other.id)));
        images.truncate(MAX_IMAGES);
        let images: Images = images.into_iter().map(|ImageView { names, size, .. }| (names, size)).collect();
        self.images = Some((tokio::time::Instant::now(), images.clone()));
        images
    }

    async fn condition(&mut self) -> Condition {
        let version = self.runtime.version().await;
        let not_ready = match &version {
            Err(error) => Some(format!("container runtime is down: {error}")),
            Ok(_) if self.network.borrow().is_none() => Some(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:the node has no podCIDR yet"
                    .to_owned(),
            ),
            Ok(_) => None,
        };
        let images = self.images().await;
        let pressure = *self.pressure.borrow_and_update();
        Condition {
            memory_pressure: pressure.memory,
            disk_pressure: pressure.disk,
            pid_pressure: pressure.pid,
            not_ready,
            runtime_version: version
                .map_or_else(|_| String::new(), |version| format!("{}://{version}", self.runtime.name())),
            images,
            handlers: self.handlers.clone(),
            extended: self.extended(),
        }
    }

    /// The extended resources of the node's object, as the API has it now.
    fn extended(&self) -> Option<BTreeMap<String, String>> {
        Some(self.nodes.get(&Key::new("", &self.config.node_name))?.extended.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { cpus: 2, memory: 4 << 30, disk: 100 << 30, hostname: "box".into(), ..Machine::default() }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn documented_shape() {
        let mut config = Config::for_tests("n1");
        config.runtime = RuntimeKind::Docker;
        let handlers = vec!["runc".to_owned()];
        let ready = Condition { runtime_version: "docker://20.10".into(), handlers, ..Condition::default() };
        let address = [IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1))];
        let status = status(&config, &machine(), &address, &ready, &Value::Null, now());
        let names: Vec<&Value> =
            status["runtimeHandlers"].as_array().unwrap().iter().map(|handler| &handler["name"]).collect();
        assert_eq!(names, ["", "runc"]);
        assert_eq!(status["capacity"]["cpu"], "2");
        assert_eq!(status["capacity"]["memory"], "4194304Ki");
        assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
        assert_eq!(status["nodeInfo"]["kubeletVersion"], "v1.36.0");
        let conditions = status["conditions"].as_array().unwrap();
        let texts: Vec<(&str, &str, &str)> = conditions
            .iter()
            .map(|condition| {
                let text = |field: &str| condition[field].as_str().unwrap();
                (text("type"), text("status"), text("reason"))
            })
            .collect();
        assert_eq!(
            texts,
            [
                ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID"),
                ("Ready", "True", "KubeletReady"),
            ]
        );
        let object = object(&config, &machine(), &status);
        assert_eq!(object["metadata"]["labels"]["kubernetes.io/os"], "linux");
    }

    #[test]
    fn transitions_keep_their_time() {
        let config = Config::for_tests("n1");
        let first = status(&config, &machine(), &[], &Condition::default(), &Value::Null, now());
        let later = Timestamp::from_second(1_800_000_100).unwrap();
        let down = Condition { not_ready: Some("x".into()), ..Condition::default() };
        let second = status(&config, &machine(), &[], &down, &first, later);
        let at = |status: &Value, index: usize| status["conditions"][index]["lastTransitionTime"].clone();
        assert_eq!(at(&first, 0), at(&second, 0));
        assert_ne!(at(&first, 3), at(&second, 3));
    }
}
