//! Figures of the machine itself: processors, memory, its way to the network.

use std::collections::BTreeSet;

use kubelet_runtime::usage::interfaces::{self, Interface};

use crate::{
    machine::Machine,
    measures::text::{Kind, Text},
};

/// Interfaces of the node that belong to containers or lead nowhere. The first four are cAdvisor's
/// (`container/libcontainer`), the last is what this kubelet's own links are called.
const NOT_THE_NODES: [&str; 5] = ["lo", "veth", "docker", "nerdctl", "mkv"];

/// Processors as `/proc/cpuinfo` tells them; zeros where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Processors {
    /// Cores.
    pub cores: usize,
    /// Sockets.
    pub sockets: usize,
}

impl Processors {
    /// Of this machine.
    pub(super) fn read() -> Self {
        std::fs::read_to_string("/proc/cpuinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let (mut cores, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        for processor in text.split("\n\n") {
            let field = |name: &str| {
                processor.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    (key.trim() == name).then(|| value.trim().to_owned())
                })
            };
            if let (Some(socket), Some(core)) = (field("physical id"), field("core id")) {
                sockets.insert(socket.clone());
                cores.insert((socket, core));
            }
        }
        Self { cores: cores.len(), sockets: sockets.len() }
    }
}

/// The interfaces of the node that are its own.
pub(super) fn interfaces_of_node() -> Vec<Interface> {
    let mut found = interfaces::of_node();
    found.retain(|interface| !NOT_THE_NODES.iter().any(|prefix| interface.name.starts_with(prefix)));
    found
}

/// The interface of the default route; empty if there is none.
pub(super) fn default_interface() -> String {
    std::fs::read_to_string("/proc/net/route").ok().and_then(|text| route(&text)).unwrap_or_default()
}

/// Lines of interface, destination and more; destination 0 is the default.
fn route(text: &str) -> Option<String> {
    text.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let interface = words.next()?;
        (words.next()? == "00000000").then(|| interface.to_owned())
    })
}

/// Writes cAdvisor's `machine_` metrics (`metrics/prometheus_machine.go`).
pub(super) fn write(text: &mut Text, machine: &Machine, processors: &Processors) {
    let labels = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", &machine.machine_id),
        ("system_uuid", &machine.system_uuid),
    ];
    let mut gauge = |name: &str, help: &str, value: u64| {
        text.family(name, Kind::Gauge, help).sample(&labels, value);
    };
    gauge("machine_cpu_cores", "Number of logical CPU cores.", machine.cpus);
    gauge("machine_cpu_physical_cores", "Number of physical CPU cores.", processors.cores as u64);
    gauge("machine_cpu_sockets", "Number of CPU sockets.", processors.sockets as u64);
    gauge("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory);
    let swap = crate::machine::meminfo("SwapTotal").unwrap_or_default();
    gauge("machine_swap_bytes", "Amount of swap memory available on the machine.", swap);
    let help = "1 if there was an error while getting machine metrics, 0 otherwise.";
    text.single("machine_scrape_error", Kind::Gauge, help, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_sockets_are_counted_once() {
        let one = |processor: u32, socket: u32, core: u32| {
            format!("processor\t: {processor}\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n")
        };
        let text = [one(0, 0, 0), one(1, 0, 0), one(2, 0, 1), one(3, 1, 0)].concat();
        assert_eq!(Processors::parse(&text), Processors { cores: 3, sockets: 2 });
        assert_eq!(Processors::parse("processor : 0\nBogoMIPS : 50\n"), Processors::default());
    }

    #[test]
    fn the_default_route_names_its_interface() {
        let text = "Iface\tDestination\tGateway\ndocker0\t000011AC\t00000000\nens3\t00000000\t0102A8C0\n";
        assert_eq!(route(text).as_deref(), Some("ens3"));
        assert_eq!(route("Iface\tDestination\n"), None);
    }
}
