//! Whether a node takes a pod: the last check, after the scheduler's, with upstream's reasons.
//!
//! A pod that is refused becomes `Failed` with the reason and is never tried again (`lifecycle` package of
//! upstream's kubelet). On top of upstream's reasons stands `UnsupportedField`, which names the field.

use std::collections::BTreeMap;

use api_objects::pod_resources::is_extended;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod};
use serde_json::Value;

use super::{
    all_containers,
    resources::{Demand, demand, qos_class, scarce},
    security::needs_app_armor,
    spec,
    supported::first_unsupported,
    sysctls,
};
use crate::pressure::{thresholds::Pressure, victims::is_critical};

/// Why a pod is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
}

impl Rejection {
    fn new(reason: &str, message: &str) -> Self {
        Self { reason: reason.to_owned(), message: format!("Pod was rejected: {message}") }
    }
}

/// A port of the node that is taken: protocol, address (empty or 0.0.0.0 for all), number.
pub type HostPortUse = (String, String, i32);

/// The node as admission sees it.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Allocatable CPU, memory and disk.
    pub allocatable: Demand,
    /// Huge pages in bytes, and the extended resources that somebody has told the node's object of.
    pub scarce: BTreeMap<String, i64>,
    /// Most pods.
    pub max_pods: usize,
    /// What it is short of.
    pub pressure: Pressure,
    /// Kernel parameters that pods may set besides those that harm nobody else.
    pub unsafe_sysctls: Vec<String>,
    /// Whether its kernel confines programs by profiles of AppArmor.
    pub has_app_armor: bool,
}

/// What the pods that were taken before use.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Sum of requests.
    pub demand: Demand,
    /// The same of huge pages and extended resources.
    pub scarce: BTreeMap<String, i64>,
    /// Number of pods.
    pub pods: usize,
    /// Host ports.
    pub host_ports: Vec<HostPortUse>,
}

impl Used {
    /// What one pod uses.
    #[must_use]
    pub fn by(pod: &Pod) -> Self {
        Self { demand: demand(pod), scarce: scarce(pod), pods: 1, host_ports: host_ports(pod) }
    }

    /// Adds what other pods use.
    pub fn add(&mut self, other: &Self) {
        self.demand.add(other.demand);
        for (name, amount) in &other.scarce {
            let sum = self.scarce.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        self.pods += other.pods;
        self.host_ports.extend_from_slice(&other.host_ports);
    }
}

/// The host ports that a pod takes; with the node's network those are all its ports.
#[must_use]
pub fn host_ports(pod: &Pod) -> Vec<HostPortUse> {
    let host_network = spec(pod).host_network == Some(true);
    all_containers(pod)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port
                .host_port
                .filter(|number| *number > 0)
                .or_else(|| host_network.then_some(port.container_port))?;
            Some((
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.host_ip.clone().unwrap_or_default(),
                number,
            ))
        })
        .collect()
}

/// Decides; `raw` is the pod's spec as it came, with fields that the typed view does not know.
pub fn admit(pod: &Pod, raw_spec: &Value, node: &NodeFacts, used: &Used) -> Result<(), Rejection> {
    // First: what is meant for another system has fields that mean nothing here.
    if spec(pod).os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(Rejection::new(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ));
    }
    if let Some(field) = first_unsupported(raw_spec) {
        return Err(Rejection::new(
            "UnsupportedField",
            &format!("field {field} is not supported by this node"),
        ));
    }
    if let Some(message) = sysctls::forbidden(pod, &node.unsafe_sysctls) {
        return Err(Rejection::new("SysctlForbidden", &message));
    }
    if needs_app_armor(pod) && !node.has_app_armor {
        return Err(Rejection::new(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ));
    }
    if !bears(pod, node.pressure) {
        let message = format!("The node had condition: [{}]. ", node.pressure.names().join(" "));
        return Err(Rejection::new("Evicted", &message));
    }
    if !matches_node(pod, node) {
        return Err(Rejection::new(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
    }
    let ports = host_ports(pod);
    if ports.iter().any(|port| used.host_ports.iter().any(|taken| conflict(port, taken))) {
        return Err(Rejection::new(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
    }
    let insufficient = |resource: &str, requested: i64, used: i64, capacity: i64| {
        Rejection::new(
            &format!("OutOf{resource}"),
            &format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )
    };
    if used.pods + 1 > node.max_pods {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        return Err(insufficient("pods", 1, count(used.pods), count(node.max_pods)));
    }
    let asked = demand(pod);
    if asked.cpu > 0 && used.demand.cpu.saturating_add(asked.cpu) > node.allocatable.cpu {
        return Err(insufficient("cpu", asked.cpu, used.demand.cpu, node.allocatable.cpu));
    }
    if asked.memory > 0 && used.demand.memory.saturating_add(asked.memory) > node.allocatable.memory {
        return Err(insufficient("memory", asked.memory, used.demand.memory, node.allocatable.memory));
    }
    if asked.storage > 0 && used.demand.storage.saturating_add(asked.storage) > node.allocatable.storage {
        let (used, capacity) = (used.demand.storage, node.allocatable.storage);
        return Err(insufficient("ephemeral-storage", asked.storage, used, capacity));
    }
    for (name, asked) in scarce(pod) {
        // What is not of nodes but of the cluster only its scheduler counts (`removeMissingExtendedResources`).
        let has = match node.scarce.get(&name) {
            Some(has) => *has,
            None if is_extended(&name) => continue,
            None => 0,
        };
        let taken = used.scarce.get(&name).copied().unwrap_or_default();
        if taken.saturating_add(asked) > has {
            return Err(insufficient(&name, asked, taken, has));
        }
    }
    Ok(())
}

/// Whether a pod fits with the resources that it asks for now (upstream's `canResizePod`). What shrinks always fits.
pub fn resize(
    wanted: &Pod,
    before: &Pod,
    node: &NodeFacts,
    used: &Used,
) -> Result<(), (&'static str, String)> {
    let (asked, had) = (demand(wanted), demand(before));
    let resources = [
        ("cpu", asked.cpu, had.cpu, used.demand.cpu, node.allocatable.cpu),
        ("memory", asked.memory, had.memory, used.demand.memory, node.allocatable.memory),
    ];
    for (name, asked, _, _, capacity) in resources {
        if asked > capacity {
            return Err((
                "Infeasible",
                format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"),
            ));
        }
    }
    for (name, asked, had, used, capacity) in resources {
        if asked > had && used.saturating_add(asked) > capacity {
            return Err((
                "Deferred",
                format!(
                    "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a node under pressure takes the pod (the eviction manager's `Admit` of upstream): critical ones always;
/// short of memory only, those that ask for some and those that tolerate it.
fn bears(pod: &Pod, pressure: Pressure) -> bool {
    if pressure == Pressure::default() || is_critical(pod) {
        return true;
    }
    if pressure.disk || pressure.pid {
        return false;
    }
    let tolerates = spec(pod).tolerations.iter().flatten().any(|toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let key = toleration.key.as_deref().unwrap_or_default();
        (key == "node.kubernetes.io/memory-pressure" || (key.is_empty() && exists))
            && (exists || toleration.value.as_deref().unwrap_or_default().is_empty())
            && matches!(toleration.effect.as_deref(), None | Some("" | "NoSchedule"))
    });
    qos_class(pod) != "BestEffort" || tolerates
}

fn conflict(one: &HostPortUse, other: &HostPortUse) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
    one.0 == other.0 && one.2 == other.2 && (any(&one.1) || any(&other.1) || one.1 == other.1)
}

fn matches_node(pod: &Pod, node: &NodeFacts) -> bool {
    let spec = spec(pod);
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required
            .is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

/// A term matches if all of its requirements do; an empty term matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    if expressions.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    let holds = |value: Option<&str>, operator: &str, values: &[String]| match operator {
        "In" => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
        "NotIn" => value.is_none_or(|value| values.iter().all(|wanted| wanted != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let number = |text: &str| text.parse::<i64>().ok();
            match (value.and_then(number), values.first().and_then(|text| number(text))) {
                (Some(value), Some(bound)) => {
                    (operator == "Gt" && value > bound) || (operator == "Lt" && value < bound)
                }
                _ => false,
            }
        }
        _ => false,
    };
    expressions.clone().all(|requirement| {
        let value = node.labels.get(&requirement.key).map(String::as_str);
        holds(value, &requirement.operator, requirement.values.as_deref().unwrap_or_default())
    }) && fields.clone().all(|requirement| {
        let value = (requirement.key == "metadata.name").then_some(node.name.as_str());
        holds(value, &requirement.operator, requirement.values.as_deref().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    fn node() -> NodeFacts {
        NodeFacts {
            name: "node".into(),
            labels: [("disk".to_owned(), "ssd".to_owned())].into(),
            allocatable: Demand { cpu: 2000, memory: 1 << 30, storage: 10 << 30 },
            scarce: [("hugepages-2Mi".to_owned(), 8 << 20), ("example.com/dongle".to_owned(), 2)].into(),
            max_pods: 2,
            pressure: Pressure::default(),
            unsafe_sysctls: Vec::new(),
            has_app_armor: false,
        }
    }

    fn decide(spec: &Value, used: &Used) -> Result<(), String> {
        admit(&pod(spec.clone()), spec, &node(), used).map_err(|rejection| rejection.reason)
    }

    #[test]
    fn reasons() {
        let full = Used { pods: 2, ..Used::default() };
        let busy = Used {
            demand: Demand { cpu: 1500, ..Demand::default() },
            scarce: [("hugepages-2Mi".to_owned(), 4 << 20), ("example.com/dongle".to_owned(), 1)].into(),
            pods: 1,
            host_ports: vec![("TCP".into(), String::new(), 80)],
        };
        let container = |extra: Value| {
            let mut container = json!({"name": "a", "image": "i"});
            for (key, value) in extra.as_object().unwrap() {
                container[key] = value.clone();
            }
            json!({"containers": [container]})
        };
        let plain = container(json!({}));
        assert_eq!(decide(&plain, &busy), Ok(()));
        assert_eq!(decide(&plain, &full), Err("OutOfpods".into()));
        assert_eq!(
            decide(&container(json!({"resources": {"requests": {"cpu": "501m"}}})), &busy),
            Err("OutOfcpu".into())
        );
        assert_eq!(decide(&container(json!({"resources": {"requests": {"cpu": "500m"}}})), &busy), Ok(()));
        assert_eq!(
            decide(&container(json!({"resources": {"requests": {"memory": "2Gi"}}})), &busy),
            Err("OutOfmemory".into())
        );
        assert_eq!(
            decide(&container(json!({"resources": {"requests": {"ephemeral-storage": "11Gi"}}})), &busy),
            Err("OutOfephemeral-storage".into())
        );
        for (name, fits, is_too_much) in [("hugepages-2Mi", "4Mi", "6Mi"), ("example.com/dongle", "1", "2")] {
            let asking = |amount: &str| {
                container(json!({"resources": {"requests": {name: amount}, "limits": {name: amount}}}))
            };
            assert_eq!(decide(&asking(fits), &busy), Ok(()));
            assert_eq!(decide(&asking(is_too_much), &busy), Err(format!("OutOf{name}")));
        }
        let unknown = |name: &str| container(json!({"resources": {"requests": {name: "1Gi"}}}));
        assert_eq!(decide(&unknown("example.com/of-the-cluster"), &busy), Ok(()));
        assert_eq!(decide(&unknown("hugepages-1Gi"), &busy), Err("OutOfhugepages-1Gi".into()));
        assert_eq!(
            decide(&container(json!({"ports": [{"containerPort": 8080, "hostPort": 80}]})), &busy),
            Err("NodePorts".into())
        );
        assert_eq!(decide(&container(json!({"ports": [{"containerPort": 80}]})), &busy), Ok(()));
        assert_eq!(
            decide(&json!({"containers": [], "nodeSelector": {"disk": "hdd"}}), &busy),
            Err("NodeAffinity".into())
        );
        assert_eq!(
            decide(&json!({"containers": [], "os": {"name": "windows"}}), &busy),
            Err("PodOSNotSupported".into())
        );
        let sysctl = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
        assert_eq!(
            decide(&json!({"containers": [], "securityContext": sysctl}), &busy),
            Err("SysctlForbidden".into())
        );
        assert_eq!(
            decide(&json!({"containers": [], "hostUsers": false}), &busy),
            Err("UnsupportedField".into())
        );
        let confined = |kind: &str| json!({"containers": [{"name": "a", "securityContext": {"appArmorProfile": {"type": kind}}}]});
        assert_eq!(decide(&confined("RuntimeDefault"), &busy), Err("AppArmor".into()));
        assert_eq!(decide(&confined("Unconfined"), &busy), Ok(()));
        let affinity = |operator: &str| {
            json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": operator, "values": ["ssd"]}]}]}}}})
        };
        assert_eq!(decide(&affinity("In"), &busy), Ok(()));
        assert_eq!(decide(&affinity("NotIn"), &busy), Err("NodeAffinity".into()));
    }

    #[test]
    fn a_resize_fits_is_deferred_or_cannot_be() {
        let asking =
            |cpu: &str| pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}));
        let used = Used { demand: Demand { cpu: 1000, ..Demand::default() }, pods: 1, ..Used::default() };
        let judge =
            |cpu: &str| resize(&asking(cpu), &asking("500m"), &node(), &used).map_err(|(reason, _)| reason);
        assert_eq!(judge("1"), Ok(()));
        assert_eq!(judge("1500m"), Err("Deferred"));
        assert_eq!(judge("3"), Err("Infeasible"));
    }

    #[test]
    fn under_pressure() {
        let short = |memory, disk| NodeFacts { pressure: Pressure { memory, disk, pid: false }, ..node() };
        let asks = json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "1Mi"}}}]});
        let none = json!({"containers": [{"name": "a"}]});
        let mut tolerant = none.clone();
        tolerant["tolerations"] =
            json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]);
        let mut critical = none.clone();
        critical["priority"] = json!(2_000_000_000);
        for (spec, memory, disk, taken) in [
            (&asks, true, false, true),
            (&none, true, false, false),
            (&tolerant, true, false, true),
            (&tolerant, false, true, false),
            (&asks, true, true, false),
            (&critical, true, true, true),
        ] {
            let outcome = admit(&pod(spec.clone()), spec, &short(memory, disk), &Used::default());
            assert_eq!(outcome.is_ok(), taken, "{spec} {memory} {disk}");
        }
        let refused = admit(&pod(none.clone()), &none, &short(true, true), &Used::default()).unwrap_err();
        assert_eq!(
            refused.message,
            "Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. "
        );
    }

    #[test]
    fn messages_name_the_numbers_and_the_field() {
        let spec =
            json!({"containers": [{"name": "a", "image": "i", "resources": {"requests": {"cpu": "3"}}}]});
        let rejection = admit(&pod(spec.clone()), &spec, &node(), &Used::default()).unwrap_err();
        assert_eq!(
            rejection.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000"
        );
        let spec = json!({"containers": [], "hostUsers": false});
        let rejection = admit(&pod(spec.clone()), &spec, &node(), &Used::default()).unwrap_err();
        assert_eq!(rejection.message, "Pod was rejected: field spec.hostUsers is not supported by this node");
    }
}
