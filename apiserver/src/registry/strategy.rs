//! What makes one kind differ from another: policy as a table, never plumbing.
//!
//! The pipeline in [`super::write`] is the same for every kind. A row here says which of its switches a kind
//! sets, and which function prepares its objects (upstream: `pkg/registry/*/*/strategy.go`).

use api_objects::{Resource, Value};
use jiff::Timestamp;

use super::kinds::{certificate_request, job, namespace, persistent_volume, pod, secret, service};

/// The policy of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Strategy {
    /// Whether `metadata.generation` counts changes of the desired state.
    pub counts_generation: bool,
    /// Whether a status given on create is kept (upstream's `PrepareForCreate` does not reset it).
    pub keeps_status_on_create: bool,
    /// Whether an update may come without a resource version.
    pub unconditional_update: bool,
    /// Whether a PUT of an absent object creates it.
    pub create_on_update: bool,
    /// Whether a deletion answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Whether dependents are orphaned when a deletion does not say.
    pub orphans_by_default: bool,
    /// Brings what a client wrote into the form that is stored, before defaults; the client owns the outcome.
    pub normalize: fn(&mut Value),
    /// Adds what the server says of a new object, after defaults; no client owns it.
    pub prepare_for_create: fn(&mut Value),
    /// Puts back what an update cannot change; takes the new and the old object.
    pub prepare_for_update: fn(&mut Value, &Value),
    /// The same for a write through a subresource that shows the object itself; takes the subresource, the new
    /// and the old object, and the time.
    pub prepare_for_subresource: fn(&str, &mut Value, &Value, Timestamp),
}

const fn nothing(_: &mut Value) {}
const fn nothing_on_update(_: &mut Value, _: &Value) {}
const fn nothing_on_subresource(_: &str, _: &mut Value, _: &Value, _: Timestamp) {}

const PLAIN: Strategy = Strategy {
    counts_generation: false,
    keeps_status_on_create: false,
    unconditional_update: true,
    create_on_update: false,
    returns_deleted: false,
    orphans_by_default: false,
    normalize: nothing,
    prepare_for_create: nothing,
    prepare_for_update: nothing_on_update,
    prepare_for_subresource: nothing_on_subresource,
};

const COUNTED: Strategy = Strategy { counts_generation: true, ..PLAIN };
const RETURNED: Strategy = Strategy { returns_deleted: true, ..PLAIN };
const CONDITIONAL: Strategy = Strategy { unconditional_update: false, ..PLAIN };
const COUNTED_CONDITIONAL: Strategy = Strategy { counts_generation: true, ..CONDITIONAL };

/// By `group/plural`; a kind that does not stand here is [`PLAIN`].
const STRATEGIES: &[(&str, &str, Strategy)] = &[
    (
        "",
        "pods",
        Strategy {
            counts_generation: true,
            returns_deleted: true,
            prepare_for_create: pod::prepare_for_create,
            prepare_for_subresource: pod::prepare_for_subresource,
            ..PLAIN
        },
    ),
    (
        "",
        "namespaces",
        Strategy {
            normalize: namespace::label_with_name,
            prepare_for_create: namespace::prepare_for_create,
            prepare_for_update: namespace::prepare_for_update,
            ..PLAIN
        },
    ),
    ("", "nodes", Strategy { keeps_status_on_create: true, ..PLAIN }),
    ("", "secrets", Strategy { normalize: secret::fold_string_data, ..PLAIN }),
    (
        "",
        "services",
        Strategy {
            returns_deleted: true,
            create_on_update: true,
            prepare_for_update: service::prepare_for_update,
            ..PLAIN
        },
    ),
    ("", "serviceaccounts", RETURNED),
    (
        "",
        "persistentvolumes",
        Strategy { prepare_for_create: persistent_volume::pending_on_create, ..RETURNED },
    ),
    (
        "",
        "persistentvolumeclaims",
        Strategy { prepare_for_create: persistent_volume::pending_on_create, ..RETURNED },
    ),
    ("", "podtemplates", Strategy { counts_generation: true, returns_deleted: true, ..PLAIN }),
    ("", "resourcequotas", RETURNED),
    ("", "replicationcontrollers", Strategy { counts_generation: true, orphans_by_default: true, ..PLAIN }),
    ("", "endpoints", Strategy { create_on_update: true, ..PLAIN }),
    ("", "limitranges", Strategy { create_on_update: true, ..PLAIN }),
    ("", "events", Strategy { create_on_update: true, ..PLAIN }),
    ("events.k8s.io", "events", Strategy { create_on_update: true, ..PLAIN }),
    ("apps", "deployments", COUNTED),
    ("apps", "replicasets", COUNTED),
    ("apps", "statefulsets", COUNTED),
    ("apps", "daemonsets", COUNTED),
    (
        "batch",
        "jobs",
        Strategy {
            counts_generation: true,
            orphans_by_default: true,
            prepare_for_create: job::prepare_for_create,
            ..PLAIN
        },
    ),
    ("batch", "cronjobs", COUNTED),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        Strategy {
            prepare_for_update: certificate_request::prepare_for_update,
            prepare_for_subresource: certificate_request::prepare_for_subresource,
            ..PLAIN
        },
    ),
    ("networking.k8s.io", "ingresses", COUNTED),
    ("networking.k8s.io", "ingressclasses", COUNTED),
    ("networking.k8s.io", "networkpolicies", COUNTED),
    ("discovery.k8s.io", "endpointslices", COUNTED),
    ("policy", "poddisruptionbudgets", COUNTED_CONDITIONAL),
    ("coordination.k8s.io", "leases", Strategy { create_on_update: true, ..CONDITIONAL }),
    ("scheduling.k8s.io", "priorityclasses", COUNTED),
    ("storage.k8s.io", "storageclasses", RETURNED),
    ("storage.k8s.io", "csidrivers", Strategy { counts_generation: true, returns_deleted: true, ..PLAIN }),
    ("storage.k8s.io", "volumeattachments", RETURNED),
    ("storage.k8s.io", "csinodes", RETURNED),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", COUNTED),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", COUNTED),
    ("rbac.authorization.k8s.io", "roles", Strategy { create_on_update: true, ..PLAIN }),
    ("rbac.authorization.k8s.io", "rolebindings", Strategy { create_on_update: true, ..PLAIN }),
    ("rbac.authorization.k8s.io", "clusterroles", Strategy { create_on_update: true, ..PLAIN }),
    ("rbac.authorization.k8s.io", "clusterrolebindings", Strategy { create_on_update: true, ..PLAIN }),
    ("apiextensions.k8s.io", "customresourcedefinitions", COUNTED_CONDITIONAL),
    ("apiregistration.k8s.io", "apiservices", CONDITIONAL),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", COUNTED_CONDITIONAL),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", COUNTED_CONDITIONAL),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", COUNTED_CONDITIONAL),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", COUNTED_CONDITIONAL),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", COUNTED_CONDITIONAL),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", COUNTED_CONDITIONAL),
];

/// The policy of a resource.
#[must_use]
pub fn of(resource: &Resource) -> &'static Strategy {
    STRATEGIES
        .iter()
        .find(|(group, plural, _)| *group == resource.group && *plural == resource.plural)
        .map_or(&PLAIN, |(_, _, strategy)| strategy)
}

/// Whether anything but metadata and status differs: what `metadata.generation` counts.
#[must_use]
pub fn desired_state_differs(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new != old };
    let counts = |key: &str| !matches!(key, "metadata" | "status" | "kind" | "apiVersion");
    new.iter().any(|(key, value)| counts(key) && old.get(key) != Some(value))
        || old.keys().any(|key| counts(key) && !new.contains_key(key))
}
