//! Services, their endpoints, and what leads to them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    AGE, Column, NAME, Printer, SELECTOR, at_most_three, integer, items, joined, labels, selector, text,
    text_or,
};

pub(super) const SERVICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "From where the service can be reached."),
        Column::text("Cluster-IP", "The service's address inside the cluster."),
        Column::text("External-IP", "The service's addresses outside the cluster."),
        Column::text("Port(s)", "The service's ports, with node ports."),
        AGE,
        SELECTOR,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let ports = items(&spec["ports"]).iter().map(|port| {
            let (number, protocol) = (integer(&port["port"]), text(&port["protocol"]));
            match integer(&port["nodePort"]) {
                1.. => format!("{number}:{}/{protocol}", integer(&port["nodePort"])),
                _ => format!("{number}/{protocol}"),
            }
        });
        let ports = ports.collect::<Vec<_>>().join(",");
        vec![
            row.name(),
            text(&spec["type"]).into(),
            text_or(&spec["clusterIPs"][0], "<none>").into(),
            external_addresses(row.object).into(),
            if ports.is_empty() { "<none>".into() } else { ports.into() },
            row.age(),
            labels(&spec["selector"]).into(),
        ]
    },
};

fn external_addresses(service: &Value) -> String {
    let spec = &service["spec"];
    let given = items(&spec["externalIPs"]).iter().map(text);
    let (found, none) = match text(&spec["type"]) {
        "ClusterIP" | "NodePort" => (joined(given), "<none>"),
        "LoadBalancer" => {
            (joined(balancer_addresses(&service["status"]).into_iter().chain(given)), "<pending>")
        }
        "ExternalName" => return text(&spec["externalName"]).to_owned(),
        _ => return "<unknown>".to_owned(),
    };
    if found.is_empty() { none.to_owned() } else { found }
}

/// The addresses or host names of a load balancer, each once, sorted.
fn balancer_addresses(status: &Value) -> BTreeSet<&str> {
    items(&status["loadBalancer"]["ingress"])
        .iter()
        .map(|ingress| text_or(&ingress["ip"], text(&ingress["hostname"])))
        .filter(|address| !address.is_empty())
        .collect()
}

pub(super) const ENDPOINTS: Printer = Printer {
    columns: &[NAME, Column::text("Endpoints", "Addresses and ports behind the service."), AGE],
    cells: |row| {
        let mut endpoints = Vec::new();
        for subset in items(&row.object["subsets"]) {
            let addresses = items(&subset["addresses"]).iter().map(|address| text(&address["ip"]));
            let ports = items(&subset["ports"]);
            if ports.is_empty() {
                endpoints.extend(addresses.map(str::to_owned));
                continue;
            }
            for port in ports {
                let port = integer(&port["port"]);
                endpoints.extend(addresses.clone().map(|address| {
                    if address.contains(':') {
                        format!("[{address}]:{port}")
                    } else {
                        format!("{address}:{port}")
                    }
                }));
            }
        }
        let endpoints = if endpoints.is_empty() && items(&row.object["subsets"]).is_empty() {
            "<none>".to_owned()
        } else {
            at_most_three(&endpoints)
        };
        vec![row.name(), endpoints.into(), row.age()]
    },
};

pub(super) const ENDPOINT_SLICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("AddressType", "IPv4, IPv6 or FQDN."),
        Column::text("Ports", "The ports of every endpoint."),
        Column::text("Endpoints", "The addresses of the endpoints."),
        AGE,
    ],
    cells: |row| {
        let ports: Vec<String> = items(&row.object["ports"])
            .iter()
            .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> = items(&row.object["endpoints"])
            .iter()
            .flat_map(|endpoint| items(&endpoint["addresses"]))
            .map(|address| text(address).to_owned())
            .collect();
        let list = |texts: &[String]| match at_most_three(texts) {
            list if list.is_empty() => "<unset>".to_owned(),
            list => list,
        };
        vec![
            row.name(),
            text(&row.object["addressType"]).into(),
            list(&ports).into(),
            list(&addresses).into(),
            row.age(),
        ]
    },
};

pub(super) const INGRESS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Class", "Which controller serves the ingress."),
        Column::text("Hosts", "The host names of its rules."),
        Column::text("Address", "Where requests come in."),
        Column::text("Ports", "The ports that are open."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        vec![
            row.name(),
            text_or(&spec["ingressClassName"], "<none>").into(),
            hosts(items(&spec["rules"])).into(),
            joined(balancer_addresses(&row.object["status"])).into(),
            if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" }.into(),
            row.age(),
        ]
    },
};

/// The first three host names; rules beyond those are counted whether they name a host or not.
fn hosts(rules: &[Value]) -> String {
    let hosts: Vec<&str> =
        rules.iter().map(|rule| text(&rule["host"])).filter(|host| !host.is_empty()).collect();
    match hosts.len() {
        0 => "*".to_owned(),
        1..=3 => hosts.join(","),
        _ => format!("{} + {} more...", hosts[..3].join(","), rules.len() - 3),
    }
}

pub(super) const INGRESS_CLASS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Controller", "What serves ingresses of the class."),
        Column::text("Parameters", "Where the class is configured further."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let mut name = text(&row.object["metadata"]["name"]).to_owned();
        if row.object["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] == "true" {
            name.push_str(" (default)");
        }
        let parameters = &spec["parameters"];
        let reference = if parameters.is_object() {
            let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
        } else {
            "<none>".to_owned()
        };
        vec![name.into(), text(&spec["controller"]).into(), reference.into(), row.age()]
    },
};

pub(super) const NETWORK_POLICY: Printer = Printer {
    columns: &[NAME, Column::text("Pod-Selector", "Which pods the policy is about."), AGE],
    cells: |row| vec![row.name(), selector(&row.object["spec"]["podSelector"]).into(), row.age()],
};

pub(super) const SERVICE_CIDR: Printer = Printer {
    columns: &[NAME, Column::text("CIDRs", "The ranges that services get addresses from."), AGE],
    cells: |row| {
        let ranges = joined(items(&row.object["spec"]["cidrs"]).iter().map(text));
        vec![row.name(), ranges.into(), row.age()]
    },
};

pub(super) const IP_ADDRESS: Printer = Printer {
    columns: &[NAME, Column::text("ParentRef", "What the address was given to.")],
    cells: |row| {
        let parent = &row.object["spec"]["parentRef"];
        if !parent.is_object() {
            return vec![row.name(), "<none>".into()];
        }
        let mut reference = text(&parent["resource"]).to_lowercase();
        for (separator, part) in
            [(".", &parent["group"]), ("/", &parent["namespace"]), ("/", &parent["name"])]
        {
            if !text(part).is_empty() {
                reference.push_str(separator);
                reference.push_str(text(part));
            }
        }
        vec![row.name(), reference.into()]
    },
};
