//! Which kernel parameters pods may set on this node.
//!
//! Those that cannot harm anybody else are always allowed, others only where the node's administrator says so
//! (`--allowed-unsafe-sysctls`). Upstream: `pkg/kubelet/sysctl`; what it makes depend on the kernel's version has been in
//! every kernel since 4.15.

use api_objects::sysctls::{namespace, normalized};
use k8s_openapi::api::core::v1::Pod;

use super::spec;

const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Checks a name or a pattern that ends in `*`, as an administrator gives it.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let name = normalized(pattern);
    let name = name.strip_suffix('*').unwrap_or(&name);
    let known = namespace(name).map(|_| ());
    known.ok_or_else(|| format!("the sysctls {name:?} are not known to be namespaced"))
}

/// What a pod sets that it may not set here, in upstream's words.
#[must_use]
pub fn forbidden(pod: &Pod, allowed: &[String]) -> Option<String> {
    let context = spec(pod).security_context.as_ref()?;
    let wanted = context.sysctls.iter().flatten().map(|sysctl| normalized(&sysctl.name));
    let may = |name: &str| {
        SAFE.contains(&name)
            || allowed.iter().any(|pattern| {
                let pattern = normalized(pattern);
                match pattern.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == pattern,
                }
            })
    };
    wanted
        .into_iter()
        .find(|name| !may(name))
        .map(|name| format!("forbidden sysctl: {name:?} not allowlisted"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn only_what_harms_nobody_and_what_is_allowed() {
        let setting = |names: &[&str]| {
            let list: Vec<_> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
            pod(json!({"containers": [], "securityContext": {"sysctls": list}}))
        };
        let check = |names: &[&str], allowed: &[&str]| {
            let allowed: Vec<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
            forbidden(&setting(names), &allowed)
        };
        assert_eq!(check(&["kernel/shm_rmid_forced", "net.ipv4.tcp_rmem"], &[]), None);
        let refused = Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted".to_owned());
        assert_eq!(check(&["net.ipv4.tcp_rmem", "kernel.msgmax"], &["kernel.shm*", "kernel.msgma"]), refused);
        assert_eq!(
            check(&["kernel.msgmax", "net/core/somaxconn"], &["kernel.msg*", "net.core.somaxconn"]),
            None
        );
        assert_eq!(forbidden(&pod(json!({"containers": []})), &[]), None);
    }

    #[test]
    fn an_administrator_allows_what_is_a_pods_own() {
        for pattern in ["kernel.msg*", "net/core/somaxconn", "net.*", "kernel.sem"] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
        for pattern in ["vm.swappiness", "*", "kernel.*"] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
    }
}
