//! What a pod needs of a node (`PodRequests` of `k8s.io/component-helpers/resource`, with what statuses say).

use std::collections::BTreeMap;

use api_objects::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

/// Amounts by resource name; CPU in thousandths, everything else in units (bytes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    pub(super) fn read(quantities: Option<&BTreeMap<String, WireQuantity>>) -> Self {
        let amount = |(name, quantity): (&String, &WireQuantity)| {
            let quantity: Quantity = quantity.0.parse().ok()?;
            Some((name.clone(), if name == "cpu" { quantity.milli_value() } else { quantity.value() }))
        };
        Self(quantities.into_iter().flatten().filter_map(amount).collect())
    }

    /// The amount of one resource; zero if it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Every resource with its amount.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let rest = self.0.entry(name.clone()).or_insert(0);
            *rest = rest.saturating_sub(*amount);
        }
    }

    fn or_more(mut self, other: &Self) -> Self {
        self.raise_to(other);
        self
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_insert(0);
            *most = (*most).max(*amount);
        }
    }
}

/// The sum of a pod's containers and sidecars, or more if an init container needs more while it runs beside the sidecars
/// started before it. A pod whose size is being changed counts as the larger of what it asks for and what it has, until
/// its kubelet has told that it is smaller.
pub(super) fn requests(spec: &PodSpec, status: &PodStatus) -> Amounts {
    let infeasible = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    });
    let statuses = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let of = |container: &Container| {
        let asked = asked(container.resources.as_ref());
        match statuses().find(|status| status.name == container.name).and_then(held) {
            Some(held) if infeasible => held,
            Some(held) => asked.or_more(&held),
            None => asked,
        }
    };
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&of(container));
            starting.raise_to(&sidecars);
        } else {
            let mut at_once = sidecars.clone();
            at_once.add(&asked(container.resources.as_ref()));
            starting.raise_to(&at_once);
        }
    }
    running.add(&sidecars);
    running.raise_to(&starting);
    // Requests of the pod as a whole stand in place of the sums, resource by resource.
    let overhead = Amounts::read(spec.overhead.as_ref());
    let whole = asked(spec.resources.as_ref());
    let mut held =
        asked(status.resources.as_ref()).or_more(&Amounts::read(status.allocated_resources.as_ref()));
    // The kubelet tells them with the overhead, which is added below.
    held.subtract(&overhead);
    for (name, amount) in whole.iter() {
        let held = Some(held.get(name)).filter(|held| *held > 0);
        let amount = if infeasible { held.unwrap_or(amount) } else { amount.max(held.unwrap_or(0)) };
        running.0.insert(name.to_owned(), amount);
    }
    running.add(&overhead);
    running.0.insert("pods".into(), 1);
    running
}

fn asked(resources: Option<&ResourceRequirements>) -> Amounts {
    Amounts::read(resources.and_then(|resources| resources.requests.as_ref()))
}

/// What a container has by its status; `None` if that tells nothing.
fn held(status: &ContainerStatus) -> Option<Amounts> {
    if status.resources.is_none() && status.allocated_resources.is_none() {
        return None;
    }
    Some(asked(status.resources.as_ref()).or_more(&Amounts::read(status.allocated_resources.as_ref())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value, status: Value) -> Vec<(String, i64)> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let amounts = requests(&spec, &serde_json::from_value(status).unwrap());
        amounts
            .iter()
            .filter(|(name, _)| *name != "pods")
            .map(|(name, amount)| (name.to_owned(), amount))
            .collect()
    }

    /// The cases of upstream's `TestPodResourceRequests` about statuses.
    #[test]
    fn a_pod_that_is_resized_counts_as_the_larger() {
        let container = |cpu: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu}}});
        let status = |has: &str, given: &str, pending: &str| {
            json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "resources": {"requests": {"cpu": has}}, "allocatedResources": {"cpu": given}}],
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}]})
        };
        for (asks, has, given, pending, counts) in [
            ("1", "500m", "500m", "Deferred", 1000),
            ("500m", "1", "1", "", 1000),
            ("500m", "1", "500m", "", 1000),
            ("500m", "500m", "500m", "", 500),
            ("10", "1", "500m", "Infeasible", 1000),
        ] {
            let found = of(json!({"containers": [container(asks)]}), status(has, given, pending));
            assert_eq!(found, [("cpu".to_owned(), counts)], "{asks} {has} {given} {pending}");
        }
        assert_eq!(of(json!({"containers": [container("2")]}), json!({})), [("cpu".to_owned(), 2000)]);
    }

    #[test]
    fn a_pod_as_a_whole_does_too() {
        let spec = json!({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "1"}}, "overhead": {"cpu": "100m"}});
        let status =
            |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}, "allocatedResources": {"cpu": cpu}});
        assert_eq!(of(spec.clone(), status("1100m")), [("cpu".to_owned(), 1100)]);
        assert_eq!(of(spec.clone(), status("2100m")), [("cpu".to_owned(), 2100)]);
        assert_eq!(of(spec, json!({})), [("cpu".to_owned(), 1100)]);
    }
}
