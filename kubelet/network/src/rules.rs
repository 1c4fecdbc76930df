//! Which iptables rules a node needs, as text for `iptables-restore --noflush`. Pure.
//!
//! Chains of our own are written as a whole in one atomic step, so there is never a half. Into the built-in chains
//! goes one jump for each of ours, in front, for Docker's policy there is to drop what it does not know. The shape is
//! that of upstream's `portmap` plugin and kube-proxy, cut down to one node.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use crate::{Attachment, HostPort, NetworkConfig};

/// One jump from a built-in chain into a chain of ours.
struct Jump {
    table: &'static str,
    from: &'static str,
    matches: &'static str,
    to: &'static str,
}

const NAT: &str = "nat";
const FILTER: &str = "filter";
/// Port of the node → pod.
const PORTS: &str = "PORTS";
/// Virtual address → real one.
const REDIRECTS: &str = "REDIRECTS";
/// Whose source address is replaced.
const POSTROUTING: &str = "POSTROUTING";
/// What may pass through the node.
const FORWARD: &str = "FORWARD";
/// What may come to the node.
const INPUT: &str = "INPUT";

/// OUTPUT has the same as PREROUTING, for what the node itself sends.
const JUMPS: &[Jump] = &[
    Jump { table: NAT, from: "PREROUTING", matches: "-m addrtype --dst-type LOCAL ", to: PORTS },
    Jump { table: NAT, from: "OUTPUT", matches: "-m addrtype --dst-type LOCAL ", to: PORTS },
    Jump { table: NAT, from: "PREROUTING", matches: "", to: REDIRECTS },
    Jump { table: NAT, from: "OUTPUT", matches: "", to: REDIRECTS },
    Jump { table: NAT, from: "POSTROUTING", matches: "", to: POSTROUTING },
    Jump { table: FILTER, from: "FORWARD", matches: "", to: FORWARD },
    Jump { table: FILTER, from: "INPUT", matches: "", to: INPUT },
];

/// The whole of our rules, and those jumps that `saved` (what `iptables-save` tells) does not have yet.
pub(crate) fn render(
    config: &NetworkConfig,
    former: &BTreeSet<Ipv4Net>,
    attachments: &[&Attachment],
    saved: &str,
) -> String {
    let mut lines = Vec::new();
    for (table, chains, rules) in [
        (NAT, &[PORTS, REDIRECTS, POSTROUTING][..], nat(config, former, attachments)),
        (FILTER, &[FORWARD, INPUT][..], filter(config)),
    ] {
        lines.push(format!("*{table}"));
        lines.extend(chains.iter().map(|chain| format!(":{}-{chain} - [0:0]", config.chain_prefix)));
        lines.extend(missing_jumps(table, &config.chain_prefix, saved));
        lines.extend(rules);
        lines.push("COMMIT".to_owned());
    }
    lines.push(String::new());
    lines.join("\n")
}

fn missing_jumps(table: &str, prefix: &str, saved: &str) -> Vec<String> {
    let jumps = JUMPS.iter().filter(|jump| jump.table == table);
    jumps
        .filter_map(|Jump { from, matches, to, .. }| {
            let (begin, end) = (format!("-A {from} "), format!("-j {prefix}-{to}"));
            let stands = section(saved, table).any(|line| line.starts_with(&begin) && line.ends_with(&end));
            (!stands).then(|| format!("-I {from} 1 {matches}{end}"))
        })
        .collect()
}

fn nat(config: &NetworkConfig, former: &BTreeSet<Ipv4Net>, attachments: &[&Attachment]) -> Vec<String> {
    let NetworkConfig { bridge, chain_prefix: prefix, pod_cidr, cluster_cidr, redirects, .. } = config;
    let mut rules = Vec::new();
    for attachment in attachments {
        for port in &attachment.host_ports {
            let HostPort { host_ip, host_port, container_port, protocol } = port;
            let to = if host_ip.is_unspecified() { String::new() } else { format!(" -d {host_ip}/32") };
            rules.push(format!(
                "-A {prefix}-{PORTS}{to} -p {protocol} -m {protocol} --dport {host_port} \
                 -m comment --comment \"pod {uid}\" -j DNAT --to-destination {address}:{container_port}",
                uid = attachment.pod_uid,
                address = attachment.address,
            ));
        }
    }
    for redirect in redirects {
        rules.push(format!(
            "-A {prefix}-{REDIRECTS} -d {}/32 -p tcp -m tcp --dport {} -j DNAT --to-destination {}:{}",
            redirect.address, redirect.port, redirect.to, redirect.to_port,
        ));
    }
    // A pod that reached a pod of the same bridge by way of the node must be answered by way of the node: the pod
    // would answer its neighbour (or itself) directly, from an address that was never asked.
    let ranges = || std::iter::once(pod_cidr).chain(former);
    for range in ranges() {
        rules.push(format!(
            "-A {prefix}-{POSTROUTING} -s {range} -d {range} -m conntrack --ctstate DNAT -j MASQUERADE"
        ));
    }
    // From 127.0.0.1 through a host port: no pod could answer that address.
    rules.push(format!("-A {prefix}-{POSTROUTING} -s 127.0.0.0/8 -o {bridge} -j MASQUERADE"));
    // The world does not know pods. The cluster does, and multicast is never answered.
    for range in ranges() {
        rules.push(format!("-A {prefix}-{POSTROUTING} -s {range} -d {cluster_cidr} -j RETURN"));
        rules.push(format!(
            "-A {prefix}-{POSTROUTING} -s {range} ! -d 224.0.0.0/4 ! -o {bridge} -j MASQUERADE"
        ));
    }
    rules
}

fn filter(config: &NetworkConfig) -> Vec<String> {
    let NetworkConfig { bridge, chain_prefix: prefix, .. } = config;
    vec![
        format!("-A {prefix}-{FORWARD} -i {bridge} -j ACCEPT"),
        format!("-A {prefix}-{FORWARD} -o {bridge} -j ACCEPT"),
        // Loopback addresses may be routed to and from the bridge, for host ports of 127.0.0.1. A pod that asks for
        // one by itself is stopped here (CVE-2020-8558; kube-proxy's KUBE-FIREWALL has the same rule).
        format!(
            "-A {prefix}-{INPUT} ! -s 127.0.0.0/8 -d 127.0.0.0/8 -i {bridge} \
             -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        ),
    ]
}

/// Removes our jumps and chains, as far as `saved` has them; empty if there is nothing to remove.
pub(crate) fn removal(prefix: &str, saved: &str) -> String {
    let own = format!("{prefix}-");
    let mut lines = Vec::new();
    for table in [NAT, FILTER] {
        let chains: Vec<&str> = section(saved, table)
            .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
            .filter(|chain| chain.starts_with(&own))
            .collect();
        if chains.is_empty() {
            continue;
        }
        lines.push(format!("*{table}"));
        // Declaring a chain empties it, and only an empty one can go.
        lines.extend(chains.iter().map(|chain| format!(":{chain} - [0:0]")));
        let jumps = section(saved, table).filter(|line| {
            let into_ours = line.rsplit_once("-j ").is_some_and(|(_, target)| target.starts_with(&own));
            into_ours && !line.starts_with(&format!("-A {own}"))
        });
        lines.extend(jumps.map(|line| line.replacen("-A ", "-D ", 1)));
        lines.extend(chains.iter().map(|chain| format!("-X {chain}")));
        lines.push("COMMIT".to_owned());
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.join("\n")
}

/// The lines of one table in the output of `iptables-save`.
fn section<'a>(saved: &'a str, table: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!("*{table}");
    saved
        .lines()
        .map(str::trim_end)
        .skip_while(move |line| *line != begin)
        .skip(1)
        .take_while(|line| *line != "COMMIT")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{Protocol, Redirect};

    fn config() -> NetworkConfig {
        NetworkConfig {
            bridge: "mk8s0".into(),
            chain_prefix: "MINIK8S".into(),
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            node_address: Ipv4Addr::new(192, 0, 2, 2),
            redirects: vec![Redirect {
                address: Ipv4Addr::new(10, 96, 0, 1),
                port: 443,
                to: Ipv4Addr::new(192, 0, 2, 2),
                to_port: 6443,
            }],
        }
    }

    fn attachment() -> Attachment {
        let port =
            |host_ip, host_port, protocol| HostPort { host_ip, host_port, container_port: 80, protocol };
        Attachment {
            pod_uid: "uid-1".into(),
            address: Ipv4Addr::new(10, 244, 1, 5),
            host_ports: vec![
                port(Ipv4Addr::UNSPECIFIED, 8080, Protocol::Tcp),
                port(Ipv4Addr::LOCALHOST, 53, Protocol::Udp),
            ],
        }
    }

    #[test]
    fn the_rules_of_a_node() {
        let expected = "\
*nat
:MINIK8S-PORTS - [0:0]
:MINIK8S-REDIRECTS - [0:0]
:MINIK8S-POSTROUTING - [0:0]
-I PREROUTING 1 -m addrtype --dst-type LOCAL -j MINIK8S-PORTS
-I OUTPUT 1 -m addrtype --dst-type LOCAL -j MINIK8S-PORTS
-I PREROUTING 1 -j MINIK8S-REDIRECTS
-I OUTPUT 1 -j MINIK8S-REDIRECTS
-I POSTROUTING 1 -j MINIK8S-POSTROUTING
-A MINIK8S-PORTS -p tcp -m tcp --dport 8080 -m comment --comment \"pod uid-1\" -j DNAT --to-destination 10.244.1.5:80
-A MINIK8S-PORTS -d 127.0.0.1/32 -p udp -m udp --dport 53 -m comment --comment \"pod uid-1\" -j DNAT --to-destination 10.244.1.5:80
-A MINIK8S-REDIRECTS -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.0.2.2:6443
-A MINIK8S-POSTROUTING -s 10.244.1.0/24 -d 10.244.1.0/24 -m conntrack --ctstate DNAT -j MASQUERADE
-A MINIK8S-POSTROUTING -s 127.0.0.0/8 -o mk8s0 -j MASQUERADE
-A MINIK8S-POSTROUTING -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN
-A MINIK8S-POSTROUTING -s 10.244.1.0/24 ! -d 224.0.0.0/4 ! -o mk8s0 -j MASQUERADE
COMMIT
*filter
:MINIK8S-FORWARD - [0:0]
:MINIK8S-INPUT - [0:0]
-I FORWARD 1 -j MINIK8S-FORWARD
-I INPUT 1 -j MINIK8S-INPUT
-A MINIK8S-FORWARD -i mk8s0 -j ACCEPT
-A MINIK8S-FORWARD -o mk8s0 -j ACCEPT
-A MINIK8S-INPUT ! -s 127.0.0.0/8 -d 127.0.0.0/8 -i mk8s0 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
";
        assert_eq!(render(&config(), &BTreeSet::new(), &[&attachment()], ""), expected);
    }

    const SAVED: &str = "\
# Generated by iptables-save
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:MINIK8S-FORWARD - [0:0]
:MINIK8S2-FORWARD - [0:0]
-A FORWARD -j MINIK8S-FORWARD
-A FORWARD -j MINIK8S2-FORWARD
-A FORWARD -j DOCKER-USER
-A MINIK8S-FORWARD -i mk8s0 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:MINIK8S-PORTS - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j MINIK8S-PORTS
COMMIT
";

    #[test]
    fn jumps_that_stand_are_not_made_twice() {
        let text = render(&config(), &BTreeSet::new(), &[], SAVED);
        let inserted: Vec<&str> = text.lines().filter(|line| line.starts_with("-I")).collect();
        let expected = [
            "-I OUTPUT 1 -m addrtype --dst-type LOCAL -j MINIK8S-PORTS",
            "-I PREROUTING 1 -j MINIK8S-REDIRECTS",
            "-I OUTPUT 1 -j MINIK8S-REDIRECTS",
            "-I POSTROUTING 1 -j MINIK8S-POSTROUTING",
            "-I INPUT 1 -j MINIK8S-INPUT",
        ];
        assert_eq!(inserted, expected);
    }

    #[test]
    fn removal_takes_ours_and_leaves_the_rest() {
        let expected = "\
*nat
:MINIK8S-PORTS - [0:0]
-D PREROUTING -m addrtype --dst-type LOCAL -j MINIK8S-PORTS
-X MINIK8S-PORTS
COMMIT
*filter
:MINIK8S-FORWARD - [0:0]
-D FORWARD -j MINIK8S-FORWARD
-X MINIK8S-FORWARD
COMMIT
";
        assert_eq!(removal("MINIK8S", SAVED), expected);
        assert_eq!(removal("OTHER", SAVED), "");
    }
}
