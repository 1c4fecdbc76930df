//! What controllers and the scheduler keep of claims, volumes and storage classes, and how the two find each other.
//!
//! Projections only, and pure functions over them: binding is decided here for the persistent volume controller, which
//! does not know where a pod will run, and for the scheduler, which does.

pub mod matching;

use std::collections::BTreeMap;

use api_objects::{
    Value,
    object::{ObjectMeta, OwnerReference},
    quantity::Quantity,
    selector::LabelSelector,
};
use client::{Key, ObjectRef};
use k8s_openapi::api::core::v1::NodeSelector;

use crate::controllers::typed;

/// On a claim: its binding has been completed once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: the reference to the other was set by the controller, not by a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: which provisioner made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: which provisioner should act, under today's and the older name.
pub const STORAGE_PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// On a claim: where the scheduler wants its volume.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a storage class: claims without a class get this one.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The class of a claim or volume before `storageClassName` was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The provisioner of this house: directories of a node.
pub const HOSTPATH_PROVISIONER: &str = "minik8s.io/hostpath";
/// On its volumes: until the node has taken the directory away.
pub const HOSTPATH_FINALIZER: &str = "minik8s.io/hostpath";
/// On its volumes: the node that has the directory.
pub const NODE_LABEL: &str = "minik8s.io/node";

/// What is kept of a PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimView {
    /// Uid.
    pub uid: String,
    /// Resource version, for writes.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Owners.
    pub owners: Vec<OwnerReference>,
    /// Class; `None` if none is named, empty for "no class".
    pub class: Option<String>,
    /// Access modes asked for.
    pub access_modes: Vec<String>,
    /// Bytes asked for.
    pub request: i64,
    /// The same as it was written.
    pub request_text: Value,
    /// The volume it is bound to, or asks for.
    pub volume: String,
    /// Labels that a volume must have.
    pub selector: LabelSelector,
    /// Whether a selector is given at all.
    pub has_selector: bool,
    /// `Filesystem` or `Block`.
    pub mode: String,
    /// Whether it wants the content of something else.
    pub has_source: bool,
    /// Phase.
    pub phase: String,
    /// `status.capacity`.
    pub capacity: Value,
    /// `status.accessModes`.
    pub status_modes: Value,
}

impl ClaimView {
    /// Reads a claim.
    #[must_use]
    pub fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let claim: Value = typed(bytes)?;
        let spec = &claim["spec"];
        let class = meta.annotations.get(CLASS_ANNOTATION).cloned();
        let request_text = spec["resources"]["requests"]["storage"].clone();
        let selector = spec.get("selector").filter(|selector| !selector.is_null());
        Some(Self {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            deleting: meta.deletion_timestamp.is_some(),
            annotations: meta.annotations.clone(),
            finalizers: meta.finalizers.clone(),
            owners: meta.owner_references.clone(),
            class: class.or_else(|| spec["storageClassName"].as_str().map(str::to_owned)),
            access_modes: texts(&spec["accessModes"]),
            request: Quantity::from_value(&request_text).map_or(0, |quantity| quantity.value()),
            request_text,
            volume: text(&spec["volumeName"]),
            has_selector: selector.is_some(),
            selector: match selector {
                None => LabelSelector::everything(),
                Some(selector) => {
                    LabelSelector::from_object(Some(selector)).unwrap_or(LabelSelector::Nothing)
                }
            },
            mode: volume_mode(spec),
            has_source: !spec["dataSource"].is_null() || !spec["dataSourceRef"].is_null(),
            phase: text(&claim["status"]["phase"]),
            capacity: claim["status"]["capacity"].clone(),
            status_modes: claim["status"]["accessModes"].clone(),
        })
    }

    /// Whether the claim has a volume, and both sides know it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.volume.is_empty() && self.annotations.contains_key(BIND_COMPLETED)
    }

    /// The class's name; empty for none.
    #[must_use]
    pub fn class_name(&self) -> &str {
        self.class.as_deref().unwrap_or_default()
    }
}

/// Which claim a volume is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimReference {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Empty while the volume is only reserved.
    pub uid: String,
}

/// What is kept of a PersistentVolume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeView {
    /// Uid.
    pub uid: String,
    /// Resource version, for writes.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Class; empty for none.
    pub class: String,
    /// Access modes.
    pub access_modes: Vec<String>,
    /// Bytes.
    pub size: i64,
    /// `spec.capacity`.
    pub capacity: Value,
    /// The claim it is bound to or reserved for.
    pub claim: Option<ClaimReference>,
    /// `Filesystem` or `Block`.
    pub mode: String,
    /// The nodes that can reach it; `None` for all.
    pub affinity: Option<NodeSelector>,
    /// `Retain`, `Delete`, `Recycle`.
    pub reclaim: String,
    /// Phase.
    pub phase: String,
}

impl VolumeView {
    /// Reads a volume.
    #[must_use]
    pub fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let volume: Value = typed(bytes)?;
        let spec = &volume["spec"];
        let reference = &spec["claimRef"];
        let class = meta.annotations.get(CLASS_ANNOTATION).cloned();
        Some(Self {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            deleting: meta.deletion_timestamp.is_some(),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            finalizers: meta.finalizers.clone(),
            class: class.unwrap_or_else(|| text(&spec["storageClassName"])),
            access_modes: texts(&spec["accessModes"]),
            size: Quantity::from_value(&spec["capacity"]["storage"]).map_or(0, |quantity| quantity.value()),
            capacity: spec["capacity"].clone(),
            claim: reference.is_object().then(|| ClaimReference {
                namespace: text(&reference["namespace"]),
                name: text(&reference["name"]),
                uid: text(&reference["uid"]),
            }),
            mode: volume_mode(spec),
            affinity: serde_json::from_value(spec["nodeAffinity"]["required"].clone()).ok(),
            reclaim: text(&spec["persistentVolumeReclaimPolicy"]),
            phase: text(&volume["status"]["phase"]),
        })
    }
}

/// What is kept of a StorageClass.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassView {
    /// Who makes volumes of it.
    pub provisioner: String,
    /// Whether a claim is bound only when a pod uses it.
    pub waits_for_consumer: bool,
    /// `Delete` or `Retain`.
    pub reclaim: String,
    /// Options of its volumes.
    pub mount_options: Value,
    /// Whether claims without a class get it.
    pub is_default: bool,
    /// When it was made.
    pub created: String,
    /// Where volumes of it may be: terms of which one must hold, each of labels and the values that they may have.
    pub topologies: Vec<Vec<(String, Vec<String>)>>,
}

impl ClassView {
    /// Reads a class.
    #[must_use]
    pub fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let class: Value = typed(bytes)?;
        Some(Self {
            provisioner: text(&class["provisioner"]),
            waits_for_consumer: class["volumeBindingMode"] == "WaitForFirstConsumer",
            reclaim: text(&class["reclaimPolicy"]),
            mount_options: class["mountOptions"].clone(),
            is_default: meta.annotations.get(DEFAULT_CLASS).is_some_and(|value| value == "true"),
            created: meta.creation_timestamp.clone().unwrap_or_default(),
            topologies: topologies(&class["allowedTopologies"]),
        })
    }

    /// Whether a volume of it may be on a node with such labels. A term without expressions selects nothing (upstream's
    /// `MatchTopologySelectorTerms`).
    #[must_use]
    pub fn allows(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |(key, values): &(String, Vec<String>)| {
            labels.get(key).is_some_and(|value| values.contains(value))
        };
        self.topologies.is_empty()
            || self.topologies.iter().any(|term| !term.is_empty() && term.iter().all(holds))
    }
}

fn topologies(terms: &Value) -> Vec<Vec<(String, Vec<String>)>> {
    let expressions = |term: &Value| {
        let listed = term["matchLabelExpressions"].as_array().into_iter().flatten();
        listed.map(|expression| (text(&expression["key"]), texts(&expression["values"]))).collect()
    };
    terms.as_array().into_iter().flatten().map(expressions).collect()
}

/// A claim, as events name it.
#[must_use]
pub fn claim_reference(key: &Key, uid: &str) -> ObjectRef {
    ObjectRef {
        api_version: "v1".into(),
        kind: "PersistentVolumeClaim".into(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        uid: uid.to_owned(),
        field_path: String::new(),
    }
}

/// Whether volumes of a class are made at all: one provisioner's name stands for "made by hand".
#[must_use]
pub fn provisions(class: &ClassView) -> bool {
    class.provisioner != "kubernetes.io/no-provisioner"
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn volume_mode(spec: &Value) -> String {
    spec["volumeMode"].as_str().unwrap_or("Filesystem").to_owned()
}

/// Makes a claim, volume or class out of an object, for tests.
#[cfg(test)]
pub(crate) fn view<T>(object: &Value, project: fn(&[u8], &ObjectMeta) -> Option<T>) -> T {
    let bytes = object.to_string();
    project(bytes.as_bytes(), &ObjectMeta::from_bytes(bytes.as_bytes())).expect("the object must be readable")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_may_say_where() {
        let allows = |terms: Value, zone: &str| {
            let class = view(&json!({"provisioner": "p", "allowedTopologies": terms}), ClassView::project);
            class.allows(
                &[("zone".to_owned(), zone.to_owned()), ("disk".to_owned(), "fast".to_owned())].into(),
            )
        };
        let term =
            |key: &str, values: &[&str]| json!({"matchLabelExpressions": [{"key": key, "values": values}]});
        assert!(allows(Value::Null, "a"));
        assert!(allows(json!([term("zone", &["a", "b"])]), "b"));
        assert!(!allows(json!([term("zone", &["a", "b"])]), "c"));
        assert!(allows(json!([term("zone", &["a"]), term("disk", &["fast"])]), "c"), "one term is enough");
        assert!(!allows(json!([term("rack", &["a"])]), "a"), "the node has no such label");
        assert!(!allows(json!([{}]), "a"), "a term of nothing selects nothing");
    }
}
