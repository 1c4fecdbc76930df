//! Names of kernel parameters, and whose they are (`k8s.io/component-helpers/node/util/sysctl`).

/// Which of a pod's namespaces a kernel parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Shared memory, messages and semaphores.
    Ipc,
    /// Network.
    Network,
}

/// A name with dots between its parts. Where the first separator is a slash, dots are part of a name (an interface's).
#[must_use]
pub fn normalized(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => {
            let swap = |character| match character {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

/// The namespace of a parameter, by its normalized name; `None` for what the kernel has once for all pods.
#[must_use]
pub fn namespace(name: &str) -> Option<Namespace> {
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start));
    if of_ipc || name == "kernel.sem" {
        Some(Namespace::Ipc)
    } else {
        name.starts_with("net.").then_some(Namespace::Network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_namespaces() {
        assert_eq!(normalized("net/ipv4/conf/eth0.100/forwarding"), "net.ipv4.conf.eth0/100.forwarding");
        assert_eq!(normalized("net.ipv4.conf.eth0/100.forwarding"), "net.ipv4.conf.eth0/100.forwarding");
        assert_eq!(namespace(&normalized("kernel/shmmax")), Some(Namespace::Ipc));
        assert_eq!((namespace("kernel.sem"), namespace("kernel.sem_x")), (Some(Namespace::Ipc), None));
        assert_eq!(
            (namespace("net.core.somaxconn"), namespace("vm.swappiness")),
            (Some(Namespace::Network), None)
        );
    }
}
