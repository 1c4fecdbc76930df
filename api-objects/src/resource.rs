//! The table of resources: the only list of kinds.
//!
//! Routing, discovery, OpenAPI, the mapping from kinds to paths and the names that `kubectl` accepts are all
//! derived from it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Text that is static for built-in kinds and owned for custom ones.
pub type Text = Cow<'static, str>;

/// One served resource in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Text,
    /// The version of this row.
    pub version: Text,
    /// `Pod`.
    pub kind: Text,
    /// `pods`: the segment in paths.
    pub plural: Text,
    /// `pod`.
    pub singular: Text,
    /// `po`.
    pub short_names: Vec<Text>,
    /// `all` and the like.
    pub categories: Vec<Text>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of the resource itself, as discovery lists them (sorted).
    pub verbs: Vec<Text>,
    /// What hangs below an object.
    pub subresources: Vec<Subresource>,
    /// The name of the schema definition: `io.k8s.api.core.v1.Pod`.
    pub definition: Text,
    /// The `group/resource` under which objects are stored: differs from the row's own where two groups
    /// share storage (core and events.k8s.io Events).
    pub storage: StorageLocation,
}

/// Where and in which version objects of a resource are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageLocation {
    /// Group segment of the key (`core` for the core group).
    pub group: Text,
    /// Resource segment of the key.
    pub plural: Text,
    /// The stored version; a row of another version converts.
    pub version: Text,
}

/// A subresource of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log` …
    pub name: Text,
    /// The kind that it speaks (`Scale`, `Binding`, `Eviction`); the parent's for `status`.
    pub kind: Text,
    /// Group of that kind.
    pub group: Text,
    /// Version of that kind.
    pub version: Text,
    /// Verbs (sorted).
    pub verbs: Vec<Text>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `/api/v1` or `/apis/apps/v1`.
    #[must_use]
    pub fn api_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection, in a namespace for namespaced kinds unless `namespace` is empty.
    #[must_use]
    pub fn collection_path(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/namespaces/{namespace}/{}", self.api_path(), self.plural)
        } else {
            format!("{}/{}", self.api_path(), self.plural)
        }
    }

    /// The path of one object.
    #[must_use]
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection_path(namespace))
    }

    /// The store's key prefix of the resource, or of one namespace of it; ends with a slash.
    #[must_use]
    pub fn key_prefix(&self, namespace: &str) -> String {
        let StorageLocation { group, plural, .. } = &self.storage;
        if self.namespaced && !namespace.is_empty() {
            format!("/registry/{group}/{plural}/{namespace}/")
        } else {
            format!("/registry/{group}/{plural}/")
        }
    }

    /// The store's key of one object.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.key_prefix(namespace))
    }

    /// The subresource of that name, if there is one.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

/// One line of the table of built-in resources.
///
/// What most rows share (all verbs, namespaced, stored under their own name) is left out; see [`row`].
#[derive(Debug, Clone, Copy)]
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    verbs: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [Sub],
    storage: (&'static str, &'static str),
}

/// One subresource: name, `group/version/Kind` (the parent's if empty), verbs.
type Sub = (&'static str, &'static str, &'static str);

const ALL_VERBS: &str = "create delete deletecollection get list patch update watch";
const STATUS: Sub = ("status", "", "get patch update");
const SCALE: Sub = ("scale", "autoscaling/v1/Scale", "get patch update");
const PROXY_VERBS: &str = "create delete get patch update";

const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        namespaced: true,
        verbs: ALL_VERBS,
        short_names: &[],
        categories: &[],
        subresources: &[],
        storage: (group, version),
    }
}

impl Row {
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn extension(mut self) -> Self {
        self.categories = &["api-extensions"];
        self
    }

    const fn verbs(mut self, verbs: &'static str) -> Self {
        self.verbs = verbs;
        self
    }

    const fn with(mut self, subresources: &'static [Sub]) -> Self {
        self.subresources = subresources;
        self
    }

    /// Objects are stored under another group or version than the row's own.
    const fn stored_as(mut self, group: &'static str, version: &'static str) -> Self {
        self.storage = (group, version);
        self
    }
}

const POD_SUBRESOURCES: &[Sub] = &[
    ("attach", "/v1/PodAttachOptions", "create get"),
    ("binding", "/v1/Binding", "create"),
    ("ephemeralcontainers", "", "get patch update"),
    ("eviction", "policy/v1/Eviction", "create"),
    ("exec", "/v1/PodExecOptions", "create get"),
    ("log", "", "get"),
    ("portforward", "/v1/PodPortForwardOptions", "create get"),
    ("proxy", "/v1/PodProxyOptions", PROXY_VERBS),
    ("resize", "", "get patch update"),
    STATUS,
];

/// Every built-in resource, in the order of discovery: groups by upstream's priority
/// (`k8s.io/kubernetes/pkg/controlplane/apiserver`), newest version first, resources by name.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("", "v1", "Binding", "bindings").verbs("create"),
    row("", "v1", "ComponentStatus", "componentstatuses").cluster().short(&["cs"]).verbs("get list"),
    row("", "v1", "ConfigMap", "configmaps").short(&["cm"]),
    row("", "v1", "Endpoints", "endpoints").short(&["ep"]),
    row("", "v1", "Event", "events").short(&["ev"]),
    row("", "v1", "LimitRange", "limitranges").short(&["limits"]),
    row("", "v1", "Namespace", "namespaces").cluster().short(&["ns"])
        .verbs("create delete get list patch update watch").with(&[("finalize", "", "update"), STATUS]),
    row("", "v1", "Node", "nodes").cluster().short(&["no"])
        .with(&[("proxy", "/v1/NodeProxyOptions", PROXY_VERBS), STATUS]),
    row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims").short(&["pvc"]).with(&[STATUS]),
    row("", "v1", "PersistentVolume", "persistentvolumes").cluster().short(&["pv"]).with(&[STATUS]),
    row("", "v1", "Pod", "pods").short(&["po"]).all().with(POD_SUBRESOURCES),
    row("", "v1", "PodTemplate", "podtemplates"),
    row("", "v1", "ReplicationController", "replicationcontrollers").short(&["rc"]).all().with(&[SCALE, STATUS]),
    row("", "v1", "ResourceQuota", "resourcequotas").short(&["quota"]).with(&[STATUS]),
    row("", "v1", "Secret", "secrets"),
    row("", "v1", "ServiceAccount", "serviceaccounts").short(&["sa"])
        .with(&[("token", "authentication.k8s.io/v1/TokenRequest", "create")]),
    row("", "v1", "Service", "services").short(&["svc"]).all()
        .with(&[("proxy", "/v1/ServiceProxyOptions", PROXY_VERBS), STATUS]),

    row("apiregistration.k8s.io", "v1", "APIService", "apiservices").cluster().extension().with(&[STATUS]),

    row("apps", "v1", "ControllerRevision", "controllerrevisions"),
    row("apps", "v1", "DaemonSet", "daemonsets").short(&["ds"]).all().with(&[STATUS]),
    row("apps", "v1", "Deployment", "deployments").short(&["deploy"]).all().with(&[SCALE, STATUS]),
    row("apps", "v1", "ReplicaSet", "replicasets").short(&["rs"]).all().with(&[SCALE, STATUS]),
    row("apps", "v1", "StatefulSet", "statefulsets").short(&["sts"]).all().with(&[SCALE, STATUS]),

    row("events.k8s.io", "v1", "Event", "events").short(&["ev"]).stored_as("", "v1"),

    row("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews").cluster().verbs("create"),
    row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews").cluster().verbs("create"),

    row("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews").verbs("create"),
    row("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster().verbs("create"),
    row("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster().verbs("create"),
    row("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews").cluster().verbs("create"),

    row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers").short(&["hpa"]).all().with(&[STATUS]),
    row("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers").short(&["hpa"]).all().with(&[STATUS])
        .stored_as("autoscaling", "v2"),

    row("batch", "v1", "CronJob", "cronjobs").short(&["cj"]).all().with(&[STATUS]),
    row("batch", "v1", "Job", "jobs").all().with(&[STATUS]),

    row("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests").cluster().short(&["csr"])
        .with(&[("approval", "", "get patch update"), STATUS]),

    row("networking.k8s.io", "v1", "IngressClass", "ingressclasses").cluster(),
    row("networking.k8s.io", "v1", "Ingress", "ingresses").short(&["ing"]).with(&[STATUS]),
    row("networking.k8s.io", "v1", "IPAddress", "ipaddresses").cluster().short(&["ip"]),
    row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies").short(&["netpol"]),
    row("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs").cluster().with(&[STATUS]),

    row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets").short(&["pdb"]).with(&[STATUS]),

    row("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings").cluster(),
    row("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles").cluster(),
    row("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    row("rbac.authorization.k8s.io", "v1", "Role", "roles"),

    row("storage.k8s.io", "v1", "CSIDriver", "csidrivers").cluster(),
    row("storage.k8s.io", "v1", "CSINode", "csinodes").cluster(),
    row("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities"),
    row("storage.k8s.io", "v1", "StorageClass", "storageclasses").cluster().short(&["sc"]),
    row("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments").cluster().with(&[STATUS]),
    row("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses").cluster().short(&["vac"]),

    row("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies").cluster().extension(),
    row("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
        .cluster().extension(),
    row("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
        .cluster().extension(),
    row("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
        .cluster().extension().with(&[STATUS]),
    row("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
        .cluster().extension(),
    row("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
        .cluster().extension(),

    row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions").cluster()
        .short(&["crd", "crds"]).extension().with(&[STATUS]),

    row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses").cluster().short(&["pc"]),

    row("coordination.k8s.io", "v1", "Lease", "leases"),

    row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses").cluster(),

    row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),

    row("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas").cluster().with(&[STATUS]),
    row("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations").cluster()
        .with(&[STATUS]),

    row("resource.k8s.io", "v1", "DeviceClass", "deviceclasses").cluster(),
    row("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims").with(&[STATUS]),
    row("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
    row("resource.k8s.io", "v1", "ResourceSlice", "resourceslices").cluster(),
];

fn texts(words: &[&'static str]) -> Vec<Text> {
    words.iter().map(|word| Text::Borrowed(*word)).collect()
}

fn split(words: &'static str) -> Vec<Text> {
    words.split(' ').map(Text::Borrowed).collect()
}

impl Row {
    fn resource(&self) -> Resource {
        let singular = match self.kind {
            "Endpoints" => Text::Borrowed("endpoints"),
            kind => Text::Owned(kind.to_lowercase()),
        };
        let (storage_group, storage_version) = self.storage;
        Resource {
            group: self.group.into(),
            version: self.version.into(),
            kind: self.kind.into(),
            plural: self.plural.into(),
            singular,
            short_names: texts(self.short_names),
            categories: texts(self.categories),
            namespaced: self.namespaced,
            verbs: split(self.verbs),
            subresources: self.subresources.iter().map(|subresource| self.subresource(subresource)).collect(),
            definition: format!("{}.{}.{}", package(self.group), self.version, self.kind).into(),
            storage: StorageLocation {
                group: if storage_group.is_empty() { "core".into() } else { storage_group.into() },
                plural: self.plural.into(),
                version: storage_version.into(),
            },
        }
    }

    fn subresource(&self, (name, kind, verbs): &Sub) -> Subresource {
        let mut parts = kind.split('/');
        let (group, version, kind) = match (parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(version), Some(kind)) => (group, version, kind),
            _ => (self.group, self.version, self.kind),
        };
        Subresource {
            name: Text::Borrowed(*name),
            kind: kind.into(),
            group: group.into(),
            version: version.into(),
            verbs: split(verbs),
        }
    }
}

/// The package that holds a built-in group's definitions: `io.k8s.api.rbac` for `rbac.authorization.k8s.io`.
fn package(group: &str) -> String {
    match group {
        "" => "io.k8s.api.core".to_owned(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_owned(),
        _ => format!("io.k8s.api.{}", group.split('.').next().unwrap_or_default()),
    }
}

static BUILTIN: LazyLock<Vec<Arc<Resource>>> =
    LazyLock::new(|| ROWS.iter().map(|row| Arc::new(row.resource())).collect());

static BY_PATH: LazyLock<HashMap<(&'static str, &'static str, &'static str), usize>> = LazyLock::new(|| {
    ROWS.iter().enumerate().map(|(at, row)| ((row.group, row.version, row.plural), at)).collect()
});

/// Every built-in resource, one row per served version, in the order of discovery.
#[must_use]
pub fn builtin() -> &'static [Arc<Resource>] {
    &BUILTIN
}

/// The built-in resource under a path's group, version and plural.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    BY_PATH.get(&(group, version, plural)).map(|at| &BUILTIN[*at])
}

/// The built-in resource whose objects carry this group, version and kind.
#[must_use]
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    let at = ROWS.iter().position(|row| row.kind == kind && row.group == group && row.version == version)?;
    BUILTIN.get(at)
}

/// The built-in resource that a person means: plural, singular, short name or kind, in any case, alone
/// (`po`) or with its group (`deployments.apps`) or version and group (`deployments.v1.apps`).
///
/// Of several the first in discovery order is meant, as upstream's priority mapper chooses: core Events
/// before those of events.k8s.io, autoscaling v2 before v1.
#[must_use]
pub fn find_by_any_name(name: &str) -> Option<&'static Arc<Resource>> {
    let name = name.to_lowercase();
    let (word, rest) = name.split_once('.').unwrap_or((&name, ""));
    let named = |row: &Resource| {
        row.plural == word || row.singular == word || row.short_names.iter().any(|short| short == word)
    };
    builtin().iter().find(|row| {
        let qualified = rest.is_empty()
            || row.group == rest
            || rest.strip_prefix(row.version.as_ref()).is_some_and(|rest| {
                rest.strip_prefix('.').is_some_and(|group| row.group == group)
                    || (rest.is_empty() && row.group.is_empty())
            });
        qualified && named(row)
    })
}

/// The built-in groups in discovery order, each with its versions, the preferred one first.
#[must_use]
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for row in ROWS {
        match groups.iter_mut().find(|(group, _)| *group == row.group) {
            None => groups.push((row.group, vec![row.version])),
            Some((_, versions)) if !versions.contains(&row.version) => versions.push(row.version),
            Some(_) => {}
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(name: &str) -> Option<String> {
        find_by_any_name(name).map(|row| format!("{}/{}", row.api_version(), row.plural))
    }

    #[test]
    fn people_may_use_any_name() {
        for name in ["po", "pod", "pods", "Pod", "pods.v1"] {
            assert_eq!(meant(name).as_deref(), Some("v1/pods"), "{name}");
        }
        for name in ["deploy", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(meant(name).as_deref(), Some("apps/v1/deployments"), "{name}");
        }
        assert_eq!(meant("ev").as_deref(), Some("v1/events"));
        assert_eq!(meant("events.events.k8s.io").as_deref(), Some("events.k8s.io/v1/events"));
        assert_eq!(meant("hpa").as_deref(), Some("autoscaling/v2/horizontalpodautoscalers"));
        assert_eq!(meant("pods.apps"), None);
        assert_eq!(meant("functions"), None);
    }

    #[test]
    fn rows_are_unique_sorted_and_have_a_schema() {
        for (at, row) in builtin().iter().enumerate() {
            assert_eq!(find(&row.group, &row.version, &row.plural), Some(row));
            assert_eq!(find_kind(&row.group, &row.version, &row.kind), Some(row));
            assert!(row.verbs.is_sorted(), "{}", row.plural);
            assert!(row.subresources.is_sorted_by(|a, b| a.name < b.name), "{}", row.plural);
            assert!(crate::schema::definition(&row.definition).is_some(), "{} has no schema", row.definition);
            if let Some(next) = builtin().get(at + 1)
                && next.api_version() == row.api_version()
            {
                assert!(row.plural < next.plural, "{}", row.plural);
            }
        }
    }

    #[test]
    fn shared_storage_is_named_by_its_owner() {
        let events = find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(events.key("ns", "a"), "/registry/core/events/ns/a");
        let autoscalers = find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        assert_eq!(autoscalers.storage.version, "v2");
    }

    #[test]
    fn groups_come_by_priority() {
        let groups = groups();
        assert_eq!(groups[0], ("", vec!["v1"]));
        let autoscaling = groups.iter().find(|(group, _)| *group == "autoscaling").unwrap();
        assert_eq!(autoscaling.1, ["v2", "v1"]);
    }
}
