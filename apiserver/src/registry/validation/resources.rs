//! Requests and limits: of a container, of a pod as a whole, and what a pod costs beside its containers.

use api_objects::{
    Value, names,
    pod_resources::{aggregate, is_extended, is_huge, is_pod_level},
    quantity::Quantity,
};

use super::findings::{Findings, Spot};
use super::{cluster, entries, given, items};

/// Whose requirements they are: that decides which resources may be named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Container,
    Pod,
}

/// The requirements of a container.
pub(super) fn container(requirements: &Value, at: &Spot<'_>, findings: &mut Findings) {
    check(requirements, Of::Container, at, findings);
}

/// The requirements of a pod as a whole (upstream's `validatePodResources`, KEP-2837), beside those of its containers.
pub(super) fn pod(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let requirements = &spec["resources"];
    if !given(requirements) {
        return;
    }
    if spec["os"]["name"] == "windows" {
        findings.forbidden(at, "may not be set for a windows pod");
        return;
    }
    if given(&requirements["claims"]) {
        findings.forbidden(&at.field("claims"), "claims may not be set for Resources at pod-level");
    }
    check(requirements, Of::Pod, at, findings);
    consistency(spec, at, findings);
}

/// What a pod costs beside its containers (upstream's `validateOverhead`).
pub(super) fn overhead(overhead: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let limits = serde_json::json!({ "limits": overhead });
    check(&limits, Of::Container, at, findings);
}

/// A pod has room for what its containers ask for together, and none may use more than all.
fn consistency(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let (requests_at, limits_at) = (at.field("requests"), at.field("limits"));
    let of_pod = |side: &str, name: &str| Quantity::from_value(&spec["resources"][side][name]).ok();
    for (name, sum) in aggregate(spec, "requests") {
        if let Some(own) = of_pod("requests", &name).filter(|own| sum > *own) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            findings.invalid(&requests_at.key(&name), own.to_string(), &detail);
        }
    }
    for (name, sum) in aggregate(spec, "limits").into_iter().filter(|(name, _)| is_huge(name)) {
        if let Some(own) = of_pod("limits", &name).filter(|own| sum > *own) {
            let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
            findings.invalid(&limits_at.key(&name), own.to_string(), &detail);
        }
    }
    // Upstream looks for them below the pod's own resources.
    let containers_at = at.field("containers");
    for (index, container) in items(&spec["containers"]).iter().enumerate() {
        let at = containers_at.index(index);
        for (name, limit) in entries(&container["resources"]["limits"]) {
            let Ok(limit) = Quantity::from_value(limit) else { continue };
            if let Some(own) = of_pod("limits", name).filter(|own| limit > *own) {
                let detail = format!("must be less than or equal to pod limits of {own}");
                findings.invalid(&at.key(name).field("limits"), limit.to_string(), &detail);
            }
        }
    }
}

/// Resources that Kubernetes itself knows, as containers may use them.
fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge(name)
}

fn check(requirements: &Value, of: Of, at: &Spot<'_>, findings: &mut Findings) {
    let (limits, requests) = (&requirements["limits"], &requirements["requests"]);
    let mut huge_pages = false;
    let mut basics = false;
    for (list, quantities) in [("limits", limits), ("requests", requests)] {
        let list_at = at.field(list);
        for (name, value) in entries(quantities) {
            let at = list_at.key(name);
            match of {
                Of::Container => name_in_container(name, &at, findings),
                Of::Pod => name_in_pod(name, &at, findings),
            }
            cluster::resource_quantity(name, value, &at, findings);
            huge_pages |= is_huge(name);
            basics |= matches!(name, "cpu" | "memory");
        }
    }
    let (limits_at, requests_at) = (at.field("limits"), at.field("requests"));
    for (name, value) in entries(requests) {
        let overcommit = !name.contains('/') && !is_huge(name);
        let limit = &limits[name];
        if !given(limit) {
            if !overcommit {
                findings.required(&limits_at, "Limit must be set for non overcommitable resources");
            }
            continue;
        }
        if let (Ok(request), Ok(limit)) = (Quantity::from_value(value), Quantity::from_value(limit)) {
            if request != limit && !overcommit {
                let detail = format!("must be equal to {name} limit of {limit}");
                findings.invalid(&requests_at, request.to_string(), &detail);
            } else if request > limit {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                findings.invalid(&requests_at, request.to_string(), &detail);
            }
        }
    }
    if huge_pages && !basics {
        findings.forbidden(at, "HugePages require cpu or memory");
    }
}

fn name_in_container(name: &str, at: &Spot<'_>, findings: &mut Findings) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        findings.invalid_each(at, name, problems);
    } else if !name.contains('/') {
        if !is_standard(name) {
            // Names that mean something elsewhere (quotas, nodes) get the second message alone.
            if !matches!(name, "pods" | "storage") {
                findings.invalid(at, name, "must be a standard resource type or fully qualified");
            }
            findings.invalid(at, name, "must be a standard resource for containers");
        }
    } else if !name.contains("kubernetes.io/") && !is_extended(name) {
        findings.invalid(at, name, "doesn't follow extended resource name standard");
    }
}

/// Resources that may be asked for a pod as a whole.
fn name_in_pod(name: &str, at: &Spot<'_>, findings: &mut Findings) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        findings.invalid_each(at, name, problems);
    } else if !is_pod_level(name) {
        let elsewhere = name.contains('/') || matches!(name, "ephemeral-storage" | "pods" | "storage");
        if elsewhere {
            findings.not_supported(at, name, &["cpu", "hugepages-", "memory"]);
        } else {
            findings.invalid(at, name, "must be a standard resource type or fully qualified");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_room_for_its_containers() {
        let wrong = |resources: Value| -> Vec<String> {
            let container =
                json!({"resources": {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "2"}}});
            let spec = json!({"containers": [container, container], "resources": resources});
            let mut findings = Findings::default();
            pod(&spec, &Spot::root("spec").field("resources"), &mut findings);
            findings.into_errors().iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            wrong(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2", "memory": "1Gi"}})),
            [""; 0]
        );
        assert_eq!(
            wrong(json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": "1500m"}})),
            [
                "spec.resources.requests[cpu]: Invalid value: \"1500m\": must be greater than or equal to aggregate container requests of 2",
                "spec.resources.containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1500m",
                "spec.resources.containers[1][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1500m",
            ]
        );
        assert_eq!(
            wrong(json!({"claims": [{"name": "c"}], "limits": {"ephemeral-storage": "1Gi", "foo": "1"}})),
            [
                "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
                "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
                "spec.resources.limits[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            ]
        );
        assert_eq!(
            wrong(json!({"requests": {"cpu": "3"}, "limits": {"cpu": "2"}})),
            ["spec.resources.requests: Invalid value: \"3\": must be less than or equal to cpu limit of 2"]
        );
    }
}
