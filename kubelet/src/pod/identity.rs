//! The identity files of a pod: host name, `/etc/hosts`, `/etc/resolv.conf`.
//!
//! Texts and limits follow upstream (`pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/network/dns`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::{name, namespace, spec};

/// What the node knows about names.
#[derive(Debug, Clone, Default)]
pub struct NameService {
    /// The cluster's DNS servers; none before there is a cluster DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub node_resolv_conf: String,
    /// The node's host name.
    pub node_hostname: String,
}

/// Most search domains and characters of them that a resolv.conf may carry (upstream's limits).
const MAX_SEARCH_DOMAINS: usize = 32;
const MAX_NAMESERVERS: usize = 3;

/// A pod's host name (at most 63 bytes) and its domain, which is empty without a subdomain.
#[must_use]
pub fn hostname(pod: &Pod, names: &NameService) -> (String, String) {
    let spec = spec(pod);
    if spec.host_network == Some(true) {
        return (names.node_hostname.clone(), String::new());
    }
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let mut hostname =
        spec.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| name(pod).to_owned());
    hostname.truncate(63);
    while hostname.ends_with(['-', '.']) {
        hostname.pop();
    }
    let domain = match spec.subdomain.as_deref() {
        Some(subdomain) if !subdomain.is_empty() => {
            format!("{subdomain}.{}.svc.{}", namespace(pod), names.cluster_domain)
        }
        _ => String::new(),
    };
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        return (format!("{hostname}.{domain}"), domain);
    }
    (hostname, domain)
}

/// The hosts file of a pod with its own network.
#[must_use]
pub fn hosts(pod: &Pod, names: &NameService, ips: &[IpAddr]) -> String {
    let (hostname, domain) = hostname(pod, names);
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() || hostname.ends_with(&domain) {
            out.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    out + &aliases(pod)
}

/// The hosts file of a pod with the node's network: the node's, with the pod's aliases.
#[must_use]
pub fn node_hosts(pod: &Pod, node_file: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_file}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let mut out = String::new();
    for (index, alias) in spec(pod).host_aliases.iter().flatten().enumerate() {
        if index == 0 {
            out.push_str("\n# Entries added by HostAliases.\n");
        }
        out.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        ));
    }
    out
}

/// A pod's resolv.conf. `ClusterFirst` without a cluster DNS falls back to the node's, as documented; the
/// flag says that it did, for the event `MissingClusterDNS`.
#[must_use]
pub fn resolv_conf(pod: &Pod, names: &NameService) -> (String, bool) {
    let spec = spec(pod);
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if spec.host_network == Some(true) => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        other => other,
    };
    let missing = policy == "ClusterFirst" && names.cluster_dns.is_empty();
    let node = Resolver::parse(&names.node_resolv_conf);
    let mut resolver = match policy {
        "None" => Resolver::default(),
        "ClusterFirst" if !missing => {
            let domain = &names.cluster_domain;
            let mut search =
                vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
            search.extend(node.search);
            Resolver {
                nameservers: names.cluster_dns.iter().map(ToString::to_string).collect(),
                search,
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => node,
    };
    if let Some(config) = &spec.dns_config {
        resolver.nameservers.extend(config.nameservers.iter().flatten().cloned());
        resolver.search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let prefix = format!("{name}:");
            resolver.options.retain(|known| known != name && !known.starts_with(&prefix));
            match &option.value {
                Some(value) if !value.is_empty() => resolver.options.push(format!("{name}:{value}")),
                _ => resolver.options.push(name.clone()),
            }
        }
    }
    (resolver.print(), missing)
}

#[derive(Default)]
struct Resolver {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => {
                    found.search = words.map(|word| word.trim_end_matches('.').to_owned()).collect()
                }
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found.search.retain(|domain| !domain.is_empty());
        found
    }

    fn print(mut self) -> String {
        let mut seen = std::collections::BTreeSet::new();
        self.nameservers.retain(|server| seen.insert(server.clone()));
        self.nameservers.truncate(MAX_NAMESERVERS);
        seen.clear();
        self.search.retain(|domain| seen.insert(domain.clone()));
        self.search.truncate(MAX_SEARCH_DOMAINS);
        let mut out = String::new();
        if !self.search.is_empty() {
            out.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        for server in &self.nameservers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    fn names(dns: &[&str]) -> NameService {
        NameService {
            cluster_dns: dns.iter().map(|ip| ip.parse().unwrap()).collect(),
            cluster_domain: "cluster.local".into(),
            node_resolv_conf: "nameserver 192.168.1.1\nsearch lan.\noptions edns0\n".into(),
            node_hostname: "node".into(),
        }
    }

    #[test]
    fn cluster_first() {
        let pod = pod(json!({"containers": [], "dnsPolicy": "ClusterFirst"}));
        let (text, missing) = resolv_conf(&pod, &names(&["10.96.0.10"]));
        assert_eq!(
            text,
            "search default.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert!(!missing);
        let (text, missing) = resolv_conf(&pod, &names(&[]));
        assert_eq!(text, "search lan\nnameserver 192.168.1.1\noptions edns0\n");
        assert!(missing);
    }

    #[test]
    fn the_pods_own_configuration() {
        let pod = pod(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.2.3.4"], "searches": ["my.dns"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));
        assert_eq!(
            resolv_conf(&pod, &names(&["10.96.0.10"])).0,
            "search my.dns\nnameserver 1.2.3.4\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn host_names() {
        let named = pod(json!({"containers": [], "hostname": "h", "subdomain": "sub"}));
        assert_eq!(hostname(&named, &names(&[])), ("h".into(), "sub.default.svc.cluster.local".into()));
        let file = hosts(&named, &names(&[]), &["10.0.0.2".parse().unwrap()]);
        assert!(file.ends_with("10.0.0.2\th.sub.default.svc.cluster.local\th\n"), "{file}");
        let plain =
            pod(json!({"containers": [], "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["x", "y"]}]}));
        let file = hosts(&plain, &names(&[]), &["10.0.0.2".parse().unwrap()]);
        assert!(
            file.ends_with("10.0.0.2\tweb\n\n# Entries added by HostAliases.\n1.1.1.1\tx\ty\n"),
            "{file}"
        );
        let host = pod(json!({"containers": [], "hostNetwork": true}));
        assert_eq!(hostname(&host, &names(&[])).0, "node");
    }
}
