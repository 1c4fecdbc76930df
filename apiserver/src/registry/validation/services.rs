//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api_objects::{Value, names};

use super::containers::{port_number, port_reference};
use super::findings::{Findings, Spot};
use super::{given, integer, items, metadata, text};

const SPEC: Spot<'static> = Spot::root("spec");
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];
/// A day: the longest that a client may stick to an endpoint.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) fn service(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let spec = &new["spec"];
    let kind = text(&spec["type"]);
    let headless = spec["clusterIPs"][0] == "None" || spec["clusterIP"] == "None";
    if let Some(old) = old {
        addresses_stay(spec, &old["spec"], findings);
    }
    if items(&spec["ports"]).is_empty() && !headless && kind != "ExternalName" {
        findings.required(&SPEC.field("ports"), "");
    }
    let addresses_at = SPEC.field("clusterIPs");
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            findings.invalid(&addresses_at.index(0), "None", &detail);
        }
        "ExternalName" => external_name(spec, findings),
        _ => {}
    }
    ports(spec, kind, findings);
    metadata::labels(&spec["selector"], &SPEC.field("selector"), findings);
    session_affinity(spec, findings);
    if kind != "ExternalName" {
        cluster_addresses(spec, headless, findings);
    }
    let external_at = SPEC.field("externalIPs");
    for (index, address) in items(&spec["externalIPs"]).iter().enumerate() {
        super::pods::check_address(text(address), &external_at.index(index), findings);
    }
    findings.one_of(&SPEC.field("type"), &spec["type"], &TYPES);
    load_balancer(spec, kind, findings);
    traffic_policies(spec, kind, findings);
}

fn external_name(spec: &Value, findings: &mut Findings) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if given(&spec[field]) {
            findings.forbidden(&SPEC.field(field), "may not be set for ExternalName services");
        }
    }
    let at = SPEC.field("externalName");
    match text(&spec["externalName"]).trim_end_matches('.') {
        "" => findings.required(&at, ""),
        name => findings.invalid_each(&at, name, names::dns1123_subdomain(name)),
    }
}

fn ports(spec: &Value, kind: &str, findings: &mut Findings) {
    let list = items(&spec["ports"]);
    let list_at = SPEC.field("ports");
    let mut taken = BTreeSet::new();
    for (index, port) in list.iter().enumerate() {
        let at = list_at.index(index);
        let name = text(&port["name"]);
        if name.is_empty() {
            if list.len() > 1 {
                findings.required(&at.field("name"), "");
            }
        } else {
            findings.invalid_each(&at.field("name"), name, names::dns1123_label(name));
            if !taken.insert(name) {
                findings.duplicate(&at.field("name"), name);
            }
        }
        port_number(integer(&port["port"]), &at.field("port"), findings);
        findings.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
        port_reference(&port["targetPort"], &at.field("targetPort"), findings);
        if let Some(protocol) = port["appProtocol"].as_str() {
            findings.invalid_each(&at.field("appProtocol"), protocol, names::qualified_name(protocol));
        }
        let node_port = integer(&port["nodePort"]);
        if kind == "ClusterIP" && node_port != 0 {
            findings.forbidden(&at.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let earlier = || list[..index].iter().filter(|other| other["protocol"] == port["protocol"]);
        if node_port != 0 && earlier().any(|other| other["nodePort"] == port["nodePort"]) {
            findings.duplicate(&at.field("nodePort"), node_port);
        }
        if earlier().any(|other| other["port"] == port["port"]) {
            let pair = serde_json::json!({"port": port["port"], "protocol": port["protocol"]});
            findings.duplicate(&at, pair);
        }
    }
}

fn session_affinity(spec: &Value, findings: &mut Findings) {
    findings.one_of(&SPEC.field("sessionAffinity"), &spec["sessionAffinity"], &["ClientIP", "None"]);
    let config = &spec["sessionAffinityConfig"];
    let at = SPEC.field("sessionAffinityConfig");
    match text(&spec["sessionAffinity"]) {
        "None" if given(config) => {
            findings.forbidden(&at, "must not be set when session affinity is None");
        }
        "ClientIP" => {
            let seconds = integer(&config["clientIP"]["timeoutSeconds"]);
            if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
                let at = at.field("clientIP");
                let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                findings.invalid(&at.field("timeoutSeconds"), seconds, &detail);
            }
        }
        _ => {}
    }
}

fn cluster_addresses(spec: &Value, headless: bool, findings: &mut Findings) {
    let at = SPEC.field("clusterIPs");
    let addresses = items(&spec["clusterIPs"]);
    let first = text(&spec["clusterIP"]);
    if first.is_empty() {
        if !addresses.is_empty() {
            let detail = "must be empty when `clusterIP` is not specified";
            findings.invalid(&at, spec["clusterIPs"].clone(), detail);
        }
    } else if addresses.is_empty() {
        findings.required(&at, "");
    } else if addresses[0] != first {
        findings.invalid(&at, spec["clusterIPs"].clone(), "first value must match `clusterIP`");
    }
    let families_at = SPEC.field("ipFamilies");
    let families = items(&spec["ipFamilies"]);
    for (index, family) in families.iter().enumerate() {
        if !matches!(text(family), "IPv4" | "IPv6") {
            findings.not_supported(&families_at.index(index), text(family), &["IPv4", "IPv6"]);
        }
        if families[..index].contains(family) {
            findings.duplicate(&families_at.index(index), family.clone());
        }
    }
    if let Some(policy) = spec["ipFamilyPolicy"].as_str()
        && !matches!(policy, "PreferDualStack" | "RequireDualStack" | "SingleStack")
    {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        findings.not_supported(&SPEC.field("ipFamilyPolicy"), policy, &known);
    }
    if headless {
        if addresses.len() > 1 {
            findings.invalid(&at, spec["clusterIPs"].clone(), "'None' must be the first and only value");
        }
        return;
    }
    let before = findings.count();
    for (index, address) in addresses.iter().enumerate() {
        super::pods::check_address(text(address), &at.index(index), findings);
    }
    if addresses.len() > 2 {
        findings.invalid(&at, spec["clusterIPs"].clone(), "may only hold up to 2 values");
    }
    if findings.count() > before {
        return;
    }
    let is_v6 = |address: &Value| text(address).parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    if addresses.len() == 2 && is_v6(&addresses[0]) == is_v6(&addresses[1]) {
        let detail = "may specify no more than one IP for each IP family";
        findings.invalid(&at, spec["clusterIPs"].clone(), detail);
    }
    for (index, (address, family)) in addresses.iter().zip(families).enumerate() {
        if is_v6(address) != (family == "IPv6") {
            let family = text(family);
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            findings.invalid(&at.index(index), address.clone(), &detail);
        }
    }
}

/// A Service keeps the addresses that it was given, unless it becomes or stops being a mere name.
fn addresses_stay(new: &Value, old: &Value, findings: &mut Findings) {
    if new["type"] == "ExternalName" || old["type"] == "ExternalName" {
        return;
    }
    let (now, before) = (items(&new["clusterIPs"]), items(&old["clusterIPs"]));
    let at = SPEC.field("clusterIPs");
    if let (Some(first), false) = (before.first(), now.is_empty())
        && now[0] != *first
    {
        findings.invalid(&at.index(0), now[0].clone(), "may not change once set");
    }
    if let (Some(second), Some(then)) = (now.get(1), before.get(1))
        && second != then
    {
        findings.invalid(&at.index(1), second.clone(), "may not change once set");
    }
    let families_at = SPEC.field("ipFamilies");
    if let (Some(now), Some(before)) = (new["ipFamilies"].get(0), old["ipFamilies"].get(0))
        && now != before
    {
        findings.invalid(&families_at.index(0), now.clone(), "may not change once set");
    }
}

fn load_balancer(spec: &Value, kind: &str, findings: &mut Findings) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = kind == "LoadBalancer";
    // Upstream writes this field with a capital letter in its errors.
    let at = SPEC.field("LoadBalancerSourceRanges");
    let ranges = items(&spec["loadBalancerSourceRanges"]);
    if !ranges.is_empty() && !balanced {
        findings.forbidden(&at, ONLY);
    }
    for (index, range) in ranges.iter().enumerate() {
        if text(range).trim().parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            findings.invalid(&at.index(index), range.clone(), detail);
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if given(&spec[field]) && !balanced {
            findings.forbidden(&SPEC.field(field), ONLY);
        }
    }
}

fn traffic_policies(spec: &Value, kind: &str, findings: &mut Findings) {
    let at = SPEC.field("externalTrafficPolicy");
    let policy = text(&spec["externalTrafficPolicy"]);
    let reachable_from_outside = matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !items(&spec["externalIPs"]).is_empty());
    if reachable_from_outside {
        findings.one_of(&at, &spec["externalTrafficPolicy"], &TRAFFIC_POLICIES);
    } else if !policy.is_empty() {
        findings.invalid(&at, policy, "may only be set for externally-accessible services");
    }
    if integer(&spec["healthCheckNodePort"]) != 0 && !(kind == "LoadBalancer" && policy == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        findings.invalid(&SPEC.field("healthCheckNodePort"), spec["healthCheckNodePort"].clone(), detail);
    }
    let internal = &spec["internalTrafficPolicy"];
    if given(internal) && !TRAFFIC_POLICIES.contains(&text(internal)) {
        findings.not_supported(&SPEC.field("internalTrafficPolicy"), text(internal), &TRAFFIC_POLICIES);
    }
}
