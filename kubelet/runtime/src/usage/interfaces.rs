//! Counters of network interfaces, from `/proc/<pid>/net/dev`: those of the namespace that the process is in.

/// What went through one interface, cumulative.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// The interfaces that a process sees, without loopback.
#[must_use]
pub fn of_process(pid: u32) -> Vec<Interface> {
    std::fs::read_to_string(format!("/proc/{pid}/net/dev")).map(|text| parse(&text)).unwrap_or_default()
}

/// The interfaces of this process's namespace, without loopback.
#[must_use]
pub fn of_node() -> Vec<Interface> {
    of_process(std::process::id())
}

/// Whether a process is in another network namespace than this one.
#[must_use]
pub fn has_own_network(pid: u32) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    match (namespace(&pid.to_string()), namespace("self")) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    }
}

/// Two lines of headings, then one for each interface: eight numbers in, eight out (`proc(5)`).
fn parse(text: &str) -> Vec<Interface> {
    let traffic = |numbers: &[u64]| Traffic {
        bytes: numbers[0],
        packets: numbers[1],
        errors: numbers[2],
        dropped: numbers[3],
    };
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, numbers) = line.rsplit_once(':')?;
            let numbers: Vec<u64> =
                numbers.split_whitespace().map(|number| number.parse().unwrap_or_default()).collect();
            let name = name.trim();
            (name != "lo" && numbers.len() >= 16).then(|| Interface {
                name: name.to_owned(),
                received: traffic(&numbers[..8]),
                sent: traffic(&numbers[8..16]),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_but_loopback_is_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
lo:      10       1    0    0    0     0          0         0       10       1    0    0    0     0       0          0\n  \
eth0: 1146     11    1    2    0     0          0         0      806      9    3    4    0     0       0          0\n";
        let expected = Interface {
            name: "eth0".into(),
            received: Traffic { bytes: 1146, packets: 11, errors: 1, dropped: 2 },
            sent: Traffic { bytes: 806, packets: 9, errors: 3, dropped: 4 },
        };
        assert_eq!(parse(text), [expected]);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn this_process_is_on_the_nodes_network() {
        assert!(!has_own_network(std::process::id()));
    }
}
