//! Figures of this process, under the names that every client of Prometheus uses.
//!
//! In the all-in-one binary the process is the whole cluster's.

use crate::measures::text::{Kind, Text};

/// What `/proc/self/stat` tells (`proc(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Stat {
    /// Ticks in user mode and in the kernel.
    ticks: u64,
    /// Ticks between boot and start.
    started: u64,
    /// Bytes of address space.
    virtual_bytes: u64,
    /// Pages in memory.
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The command's name may hold spaces and brackets; fields are counted after its last bracket, from 3 on.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|value| value.parse::<u64>().ok());
        Some(Self {
            ticks: field(14)? + field(15)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Seconds since 1970 at which the machine was started.
pub(super) fn boot_time() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Writes the process's figures; what cannot be read is left out.
pub(super) fn write(text: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Stat::parse(&stat));
    let ticks = sysconf(nix::unistd::SysconfVar::CLK_TCK, 100) as f64;
    if let Some(stat) = stat {
        let help = "Total user and system CPU time spent in seconds.";
        text.single("process_cpu_seconds_total", Kind::Counter, help, stat.ticks as f64 / ticks);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = max_open_files(&limits) {
        let help = "Maximum number of open file descriptors.";
        text.single("process_max_fds", Kind::Gauge, help, limit);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        text.single("process_open_fds", Kind::Gauge, help, descriptors.count());
    }
    if let Some(stat) = stat {
        let page = sysconf(nix::unistd::SysconfVar::PAGE_SIZE, 4096);
        let help = "Resident memory size in bytes.";
        text.single("process_resident_memory_bytes", Kind::Gauge, help, stat.resident_pages * page);
        if let Some(booted) = boot_time() {
            let help = "Start time of the process since unix epoch in seconds.";
            let started = booted as f64 + stat.started as f64 / ticks;
            text.single("process_start_time_seconds", Kind::Gauge, help, started);
        }
        let help = "Virtual memory size in bytes.";
        text.single("process_virtual_memory_bytes", Kind::Gauge, help, stat.virtual_bytes);
    }
}

/// The soft limit.
fn max_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn sysconf(variable: nix::unistd::SysconfVar, default: u64) -> u64 {
    let found = nix::unistd::sysconf(variable).ok().flatten();
    found.and_then(|value| u64::try_from(value).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_moves_no_field() {
        let text = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 9 0 1234 5678 90 18446744073709551615 0";
        let expected = Stat { ticks: 100, started: 1234, virtual_bytes: 5678, resident_pages: 90 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (a) S 1"), None);
    }

    #[test]
    fn the_soft_limit_of_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(max_open_files(limits), Some(1024));
    }
}
