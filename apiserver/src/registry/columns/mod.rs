//! The columns that a server-side Table shows for each kind, and the cells of one object.
//!
//! Names, order, types and cell texts are those that kubectl's users know (upstream's
//! `k8s.io/kubernetes/pkg/printers/internalversion`). Kinds without a printer show their name and the time of
//! their creation. Cells are always made for the wide output: the client hides columns of greater priority.

mod access;
mod cluster;
mod extensions;
mod networking;
mod pods;
mod storage;
mod workloads;

use std::collections::BTreeMap;

use api_objects::Resource;
use api_objects::selector::LabelSelector;
use api_objects::table::ColumnDefinition;
use api_objects::time;
use jiff::Timestamp;
use serde_json::Value;

/// A column's name and nature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The heading: `Nominated Node`.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the column that identifies the row; else empty.
    pub format: &'static str,
    /// For people.
    pub description: &'static str,
    /// 0 is always shown, 1 only in wide output.
    pub priority: i32,
}

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", description, priority: 0 }
    }

    const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "integer", format: "", description, priority: 0 }
    }

    const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "boolean", format: "", description, priority: 0 }
    }

    /// Shown only in wide output.
    const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    /// The column's definition on the wire.
    #[must_use]
    pub fn definition(&self) -> ColumnDefinition {
        ColumnDefinition {
            name: self.name.to_owned(),
            kind: self.kind.to_owned(),
            format: self.format.to_owned(),
            description: self.description.to_owned(),
            priority: self.priority,
        }
    }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "The object's name, unique among its kind in its namespace.",
    priority: 0,
};
const AGE: Column = Column::text("Age", "How long ago the object was created.");
const CONTAINERS: Column = Column::text("Containers", "The names of the template's containers.").wide();
const IMAGES: Column = Column::text("Images", "The images of the template's containers.").wide();
const SELECTOR: Column = Column::text("Selector", "Which pods the object is about.").wide();

/// How a kind is shown: its columns, and one function that fills them.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Row<'_>) -> Vec<Value>,
}

/// The object that a row shows, and the time that ages refer to.
struct Row<'a> {
    object: &'a Value,
    now: Timestamp,
}

const NAME_AND_AGE: Printer = Printer { columns: &[NAME, AGE], cells: |row| vec![row.name(), row.age()] };

/// What is shown of a kind that nobody described: upstream's default table.
const DEFAULT: Printer = Printer {
    columns: &[
        NAME,
        Column {
            name: "Created At",
            kind: "date",
            format: "",
            description: "When the object was created.",
            priority: 0,
        },
    ],
    cells: |row| vec![row.name(), row.object["metadata"]["creationTimestamp"].clone()],
};

fn printer(resource: &Resource) -> Printer {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => pods::POD,
        ("", "PodTemplate") => pods::POD_TEMPLATE,
        ("", "ReplicationController") => workloads::REPLICATION_CONTROLLER,
        ("apps", "ReplicaSet") => workloads::REPLICA_SET,
        ("apps", "Deployment") => workloads::DEPLOYMENT,
        ("apps", "StatefulSet") => workloads::STATEFUL_SET,
        ("apps", "DaemonSet") => workloads::DAEMON_SET,
        ("apps", "ControllerRevision") => workloads::CONTROLLER_REVISION,
        ("batch", "Job") => workloads::JOB,
        ("batch", "CronJob") => workloads::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => workloads::HORIZONTAL_POD_AUTOSCALER,
        ("policy", "PodDisruptionBudget") => workloads::POD_DISRUPTION_BUDGET,
        ("", "Node") => cluster::NODE,
        ("", "Namespace") => cluster::NAMESPACE,
        ("", "ConfigMap") => cluster::CONFIG_MAP,
        ("", "Secret") => cluster::SECRET,
        ("", "Event") => cluster::CORE_EVENT,
        ("events.k8s.io", "Event") => cluster::EVENT,
        ("", "ResourceQuota") => cluster::RESOURCE_QUOTA,
        ("", "ComponentStatus") => cluster::COMPONENT_STATUS,
        ("coordination.k8s.io", "Lease") => cluster::LEASE,
        ("scheduling.k8s.io", "PriorityClass") => cluster::PRIORITY_CLASS,
        ("node.k8s.io", "RuntimeClass") => cluster::RUNTIME_CLASS,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => cluster::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => cluster::PRIORITY_LEVEL,
        ("resource.k8s.io", "ResourceClaim") => cluster::RESOURCE_CLAIM,
        ("resource.k8s.io", "ResourceSlice") => cluster::RESOURCE_SLICE,
        ("", "ServiceAccount") | ("resource.k8s.io", "DeviceClass" | "ResourceClaimTemplate") => NAME_AND_AGE,
        ("", "Service") => networking::SERVICE,
        ("", "Endpoints") => networking::ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => networking::ENDPOINT_SLICE,
        ("networking.k8s.io", "Ingress") => networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => networking::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => networking::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => networking::SERVICE_CIDR,
        ("networking.k8s.io", "IPAddress") => networking::IP_ADDRESS,
        ("", "PersistentVolume") => storage::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => storage::PERSISTENT_VOLUME_CLAIM,
        ("storage.k8s.io", "StorageClass") => storage::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttributesClass") => storage::VOLUME_ATTRIBUTES_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "CSINode") => storage::CSI_NODE,
        ("storage.k8s.io", "CSIDriver") => storage::CSI_DRIVER,
        ("storage.k8s.io", "CSIStorageCapacity") => storage::CSI_STORAGE_CAPACITY,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => access::BINDING,
        ("certificates.k8s.io", "CertificateSigningRequest") => access::SIGNING_REQUEST,
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => extensions::WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => extensions::VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => extensions::MUTATING_POLICY,
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => extensions::POLICY_BINDING,
        ("apiregistration.k8s.io", "APIService") => extensions::API_SERVICE,
        _ => DEFAULT,
    }
}

/// The columns of a resource's table.
#[must_use]
pub fn columns(resource: &Resource) -> &'static [Column] {
    printer(resource).columns
}

/// The columns as they stand in a Table.
#[must_use]
pub fn definitions(resource: &Resource) -> Vec<ColumnDefinition> {
    columns(resource).iter().map(Column::definition).collect()
}

/// One object's cells: as many as the resource has columns. Ages are seen from `now`.
#[must_use]
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    (printer(resource).cells)(&Row { object, now })
}

impl Row<'_> {
    fn name(&self) -> Value {
        self.object["metadata"]["name"].clone()
    }

    fn age(&self) -> Value {
        self.since(&self.object["metadata"]["creationTimestamp"])
    }

    /// How long ago that was; `<unknown>` for no time.
    fn since(&self, time: &Value) -> Value {
        time::age_of(Some(time), self.now).into()
    }

    fn deleted(&self) -> bool {
        !self.object["metadata"]["deletionTimestamp"].is_null()
    }
}

/// A text, or empty.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text, or `fallback` where there is none.
fn text_or<'a>(value: &'a Value, fallback: &'a str) -> &'a str {
    match text(value) {
        "" => fallback,
        found => found,
    }
}

/// A whole number, or 0.
fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// The elements of a list; none if it is none.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// How many entries a map has.
fn length(value: &Value) -> i64 {
    let length = match value {
        Value::Object(entries) => entries.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The texts of a list, joined by commas.
fn joined<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().collect::<Vec<_>>().join(",")
}

/// Labels as text, or `<none>`.
fn labels(value: &Value) -> String {
    let pairs: BTreeMap<&str, &str> =
        value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), text(value))).collect();
    if pairs.is_empty() {
        return "<none>".to_owned();
    }
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A label selector object as text: `<none>` if it selects by nothing, `<error>` if it cannot be read.
fn selector(value: &Value) -> String {
    match LabelSelector::from_object(Some(value).filter(|value| !value.is_null())) {
        Ok(selector) if selector.requirements().is_empty() => "<none>".to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// The cells for names and images of a pod template's containers.
fn containers(template: &Value) -> [Value; 2] {
    let containers = items(&template["spec"]["containers"]);
    ["name", "image"].map(|field| joined(containers.iter().map(|container| text(&container[field]))).into())
}

/// Whether a condition of that type is `True`.
fn condition_is_true(object: &Value, kind: &str) -> bool {
    items(&object["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// At most three of `texts`, and how many more there are.
fn at_most_three(texts: &[String]) -> String {
    let shown = texts.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(",");
    match texts.len() {
        0..=3 => shown,
        more => format!("{shown} + {} more...", more - 3),
    }
}

/// A number or a text as a cell's text (`IntOrString`).
fn int_or_string(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
