//! Cluster IPs and node ports: what a Service asks for and nobody else may have.
//!
//! A claim is durable before the Service that holds it: an address is an `IPAddress` object of its own
//! (KEP-1880), a port a bit in a stored range that is compared and swapped. What a failed write had claimed is
//! given back at once; a claim whose Service does not exist (the process died in between) is taken over by
//! whoever asks for it next. Nothing is only in memory.

mod addresses;
mod node_ports;

use api_objects::{
    Status, Value,
    field::{FieldError, Path},
};
use serde_json::{Map, json};

use crate::registry::Call;

/// What one write has claimed, to be given back if it fails.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    addresses: Vec<String>,
    ports: Vec<u16>,
}

/// Whether the call writes Services themselves.
pub(crate) fn concerns(call: &Call<'_>) -> bool {
    call.resource.group.is_empty() && call.resource.plural == "services" && call.subresource.is_empty()
}

fn kind_of(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn address_of(service: &Value) -> &str {
    service["spec"]["clusterIP"].as_str().unwrap_or_default()
}

/// The address that a Service holds a claim to.
fn claimed_address(service: &Value) -> Option<&str> {
    Some(address_of(service))
        .filter(|address| !matches!(*address, "" | "None") && kind_of(service) != "ExternalName")
}

/// The node ports that a Service holds claims to.
fn claimed_ports(service: &Value) -> Vec<u16> {
    if !wants_node_ports(service) {
        return Vec::new();
    }
    let ports = service["spec"]["ports"].as_array();
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| port["nodePort"].as_u64()?.try_into().ok())
        .filter(|port| *port > 0)
        .collect()
}

fn wants_node_ports(service: &Value) -> bool {
    match kind_of(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

/// Fills in and claims what a new or changed Service needs. Anything but a Service passes untouched.
///
/// # Errors
/// 422 if what it asks for is taken or out of range, 500 if nothing is left.
pub(crate) async fn claim(
    call: &Call<'_>,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<Claims, Status> {
    let mut claims = Claims::default();
    if !concerns(call) || !service["spec"].is_object() {
        return Ok(claims);
    }
    keep_old(service, old);
    match claim_into(call, service, old, &mut claims).await {
        Ok(()) => Ok(claims),
        Err(status) => {
            give_back(call, &claims).await;
            Err(status)
        }
    }
}

async fn claim_into(
    call: &Call<'_>,
    service: &mut Value,
    old: Option<&Value>,
    claims: &mut Claims,
) -> Result<(), Status> {
    let held_address = old.and_then(claimed_address).map(str::to_owned);
    match (kind_of(service), address_of(service)) {
        ("ExternalName", _) => {
            if let Some(spec) = service["spec"].as_object_mut() {
                for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    spec.remove(field);
                }
            }
        }
        (_, "None") => set_addresses(service, "None"),
        (_, asked) if held_address.as_deref() == Some(asked) => {}
        (_, asked) => {
            let asked = asked.to_owned();
            let address = addresses::claim(call, &asked).await.map_err(|why| {
                let path = Path::new("spec").child("clusterIPs");
                invalid(call, FieldError::invalid(&path, json!([asked]), &why))
            })?;
            claims.addresses.push(address.clone());
            set_addresses(service, &address);
        }
    }
    let held_ports = old.map(claimed_ports).unwrap_or_default();
    let wants = wants_node_ports(service);
    let ports = service["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let asked = port["nodePort"].as_u64().and_then(|asked| u16::try_from(asked).ok()).unwrap_or(0);
        if !wants {
            // A Service that leaves the type gives its ports up.
            if !held_ports.is_empty()
                && let Some(port) = port.as_object_mut()
            {
                port.remove("nodePort");
            }
            continue;
        }
        // The same number may serve two protocols of one Service.
        if asked > 0 && (held_ports.contains(&asked) || claims.ports.contains(&asked)) {
            continue;
        }
        let given = node_ports::claim(call, asked).await.map_err(|why| {
            let path = Path::new("spec").child("ports").index(index).child("nodePort");
            invalid(call, FieldError::invalid(&path, asked, &why))
        })?;
        claims.ports.push(given);
        port["nodePort"] = json!(given);
    }
    Ok(())
}

fn invalid(call: &Call<'_>, error: FieldError) -> Status {
    Status::invalid("", "Service", call.name, &[error])
}

fn set_addresses(service: &mut Value, address: &str) {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let spec: &mut Map<String, Value> =
        service["spec"].as_object_mut().expect("a Service's spec must be an object");
    spec.insert("clusterIP".to_owned(), json!(address));
    spec.insert("clusterIPs".to_owned(), json!([address]));
    spec.entry("ipFamilies").or_insert_with(|| json!([family]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
}

/// What a client left out of an update stays as it was (`patchAllocatedValues` of `pkg/registry/core/service`).
fn keep_old(service: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    if kind_of(service) != "ExternalName" && kind_of(old) != "ExternalName" && address_of(service).is_empty()
    {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                service["spec"][field] = value.clone();
            }
        }
    }
    if !wants_node_ports(service) || !wants_node_ports(old) {
        return;
    }
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let ports = service["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter(|port| port["nodePort"].as_u64().unwrap_or(0) == 0) {
        let same = |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        if let Some(node_port) = old_ports.iter().find(same).and_then(|other| other.get("nodePort")).cloned()
        {
            port["nodePort"] = node_port;
        }
    }
}

/// Gives back what a write had claimed that did not happen.
pub(crate) async fn give_back(call: &Call<'_>, claims: &Claims) {
    if call.dry_run {
        return;
    }
    for address in &claims.addresses {
        addresses::release(call, address).await;
    }
    for port in &claims.ports {
        node_ports::release(call, *port).await;
    }
}

/// Gives back what a Service held and, after a change or a deletion (`new` is `None`), no longer does.
pub(crate) async fn release_unused(call: &Call<'_>, old: &Value, new: Option<&Value>) {
    if !concerns(call) || call.dry_run {
        return;
    }
    let kept_address = new.and_then(claimed_address);
    let kept_ports = new.map(claimed_ports).unwrap_or_default();
    let claims = Claims {
        addresses: claimed_address(old)
            .filter(|address| kept_address != Some(*address))
            .map(str::to_owned)
            .into_iter()
            .collect(),
        ports: claimed_ports(old).into_iter().filter(|port| !kept_ports.contains(port)).collect(),
    };
    give_back(call, &claims).await;
}

/// The Service that a call is about, as claims name it.
fn holder<'a>(call: &Call<'a>) -> (&'a str, &'a str) {
    (call.namespace, call.name)
}

/// A Service's name in the cache's terms, to see whether a claim's holder is still there.
fn service_key(namespace: &str, name: &str) -> String {
    let services = api_objects::resource::find("", "v1", "services").expect("services must be in the table");
    services.key(namespace, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_the_client_leaves_out() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        keep_old(&mut new, Some(&old));
        assert_eq!(new["spec"], old["spec"]);
        let mut external = json!({"spec": {"type": "ExternalName"}});
        keep_old(&mut external, Some(&old));
        assert_eq!(external["spec"], json!({"type": "ExternalName"}));
    }

    #[test]
    fn claims_are_read_from_services() {
        let service = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"nodePort": 30080}, {"port": 1}]}});
        assert_eq!((claimed_address(&service), claimed_ports(&service)), (Some("10.96.0.9"), vec![30080]));
        let headless = json!({"spec": {"clusterIP": "None", "ports": [{"nodePort": 30080}]}});
        assert_eq!((claimed_address(&headless), claimed_ports(&headless)), (None, Vec::new()));
    }
}
