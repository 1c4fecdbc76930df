//! Descriptions of kinds and fields, for OpenAPI documents and `kubectl explain`.
//!
//! The facts hold no prose; k8s-openapi's types carry the published one. It is put together per group and
//! version when somebody asks, and not kept: the whole of it is several megabytes, and whoever serves it keeps
//! the finished (compressed) document.

use std::collections::BTreeMap;

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use schemars::SchemaGenerator;
use serde_json::Value;

/// The descriptions of the definitions that the kinds of some group refer to.
#[derive(Debug, Default)]
pub struct Descriptions(BTreeMap<String, Value>);

impl Descriptions {
    /// What a definition is.
    #[must_use]
    pub fn definition(&self, definition: &str) -> Option<&str> {
        self.0.get(definition)?["description"].as_str()
    }

    /// What a field of a definition is.
    #[must_use]
    pub fn field(&self, definition: &str, field: &str) -> Option<&str> {
        self.0.get(definition)?["properties"][field]["description"].as_str()
    }
}

macro_rules! register {
    ($generator:ident: $($($package:ident)::+ { $($kind:ident)* })*) => {{
        $({ use $($package)::+ as package; $(let _ = $generator.subschema_for::<package::$kind>();)* })*
    }};
}

/// The descriptions of everything that a built-in group version serves; empty for any other.
#[must_use]
pub fn descriptions(group: &str, version: &str) -> Descriptions {
    let mut generator = SchemaGenerator::default();
    add(&mut generator, group, version);
    collect(&mut generator)
}

/// The descriptions of everything that is built in: some milliseconds of work and megabytes of text.
#[must_use]
pub fn all_descriptions() -> Descriptions {
    let mut generator = SchemaGenerator::default();
    for (group, versions) in crate::resource::groups() {
        for version in versions {
            add(&mut generator, group, version);
        }
    }
    collect(&mut generator)
}

fn collect(generator: &mut SchemaGenerator) -> Descriptions {
    Descriptions(generator.take_definitions(false).into_iter().collect())
}

#[rustfmt::skip]
fn add(generator: &mut SchemaGenerator, group: &str, version: &str) {
    register!(generator: meta::v1 { DeleteOptions Status ListMeta APIResourceList });
    match (group, version) {
        ("", "v1") => register!(generator: api::core::v1 {
            Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        } api::autoscaling::v1 { Scale } api::policy::v1 { Eviction } api::authentication::v1 { TokenRequest }),
        ("apps", "v1") => register!(generator: api::apps::v1 {
            ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
        } api::autoscaling::v1 { Scale }),
        ("batch", "v1") => register!(generator: api::batch::v1 { CronJob Job }),
        ("autoscaling", "v1") => register!(generator: api::autoscaling::v1 { HorizontalPodAutoscaler Scale }),
        ("autoscaling", "v2") => register!(generator: api::autoscaling::v2 { HorizontalPodAutoscaler }),
        ("events.k8s.io", "v1") => register!(generator: api::events::v1 { Event }),
        ("authentication.k8s.io", "v1") => register!(generator: api::authentication::v1 {
            SelfSubjectReview TokenReview TokenRequest
        }),
        ("authorization.k8s.io", "v1") => register!(generator: api::authorization::v1 {
            LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
        }),
        ("certificates.k8s.io", "v1") => register!(generator: api::certificates::v1 { CertificateSigningRequest }),
        ("networking.k8s.io", "v1") => register!(generator: api::networking::v1 {
            Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR
        }),
        ("policy", "v1") => register!(generator: api::policy::v1 { Eviction PodDisruptionBudget }),
        ("rbac.authorization.k8s.io", "v1") => register!(generator: api::rbac::v1 {
            ClusterRole ClusterRoleBinding Role RoleBinding
        }),
        ("storage.k8s.io", "v1") => register!(generator: api::storage::v1 {
            CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
        }),
        ("admissionregistration.k8s.io", "v1") => register!(generator: api::admissionregistration::v1 {
            MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
        }),
        ("apiextensions.k8s.io", "v1") => register!(generator: apiextensions::v1 { CustomResourceDefinition }),
        ("apiregistration.k8s.io", "v1") => register!(generator: apiregistration::v1 { APIService }),
        ("scheduling.k8s.io", "v1") => register!(generator: api::scheduling::v1 { PriorityClass }),
        ("coordination.k8s.io", "v1") => register!(generator: api::coordination::v1 { Lease }),
        ("node.k8s.io", "v1") => register!(generator: api::node::v1 { RuntimeClass }),
        ("discovery.k8s.io", "v1") => register!(generator: api::discovery::v1 { EndpointSlice }),
        ("flowcontrol.apiserver.k8s.io", "v1") => register!(generator: api::flowcontrol::v1 {
            FlowSchema PriorityLevelConfiguration
        }),
        ("resource.k8s.io", "v1") => register!(generator: api::resource::v1 {
            DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described() {
        let core = descriptions("", "v1");
        let containers = core.field("io.k8s.api.core.v1.PodSpec", "containers").unwrap();
        assert!(containers.contains("containers"), "{containers}");
        assert!(core.definition("io.k8s.api.core.v1.Pod").is_some());
        assert!(core.definition("io.k8s.api.apps.v1.Deployment").is_none());

        let all = all_descriptions();
        for row in crate::resource::builtin() {
            assert!(all.definition(&row.definition).is_some(), "{}", row.definition);
            for field in crate::schema::for_resource(row).fields() {
                // Upstream left some metadata without a word.
                let known = &*field.name == "metadata" || all.field(&row.definition, &field.name).is_some();
                assert!(known, "{}.{}", row.definition, field.name);
            }
        }
    }
}
