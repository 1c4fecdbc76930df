//! What the process uses, read from `/proc` when somebody asks.

use std::sync::atomic::AtomicU64;

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// Figures of the process itself, under the names that every Prometheus client uses.
pub(super) struct ProcessMetrics {
    cpu_seconds: Gauge<f64, AtomicU64>,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    start_time: Gauge<f64, AtomicU64>,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            cpu_seconds: Gauge::default(),
            resident_bytes: Gauge::default(),
            virtual_bytes: Gauge::default(),
            open_fds: Gauge::default(),
            start_time: Gauge::default(),
        };
        registry.register(
            "process_cpu_seconds_total",
            "User and system CPU time spent, in seconds",
            metrics.cpu_seconds.clone(),
        );
        registry.register(
            "process_resident_memory_bytes",
            "Resident memory, in bytes",
            metrics.resident_bytes.clone(),
        );
        registry.register(
            "process_virtual_memory_bytes",
            "Virtual memory, in bytes",
            metrics.virtual_bytes.clone(),
        );
        registry.register("process_open_fds", "Open file descriptors", metrics.open_fds.clone());
        registry.register(
            "process_start_time_seconds",
            "Start of the process since the Unix epoch, in seconds",
            metrics.start_time.clone(),
        );
        metrics
    }

    /// Reads `/proc/self` (proc(5)); what cannot be read keeps its last value.
    pub(super) fn update(&self) {
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(descriptors.count()).unwrap_or(i64::MAX));
        }
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
        // The command's name may hold spaces; fields are counted after its closing bracket, from 3 on.
        let Some((_, rest)) = stat.rsplit_once(')') else { return };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| -> f64 {
            fields.get(number - 3).and_then(|value| value.parse().ok()).unwrap_or_default()
        };
        let ticks = sysconf(nix::unistd::SysconfVar::CLK_TCK, 100);
        self.cpu_seconds.set((field(14) + field(15)) / ticks as f64);
        self.virtual_bytes.set(field(23) as i64);
        self.resident_bytes.set(field(24) as i64 * sysconf(nix::unistd::SysconfVar::PAGE_SIZE, 4096));
        let booted = std::fs::read_to_string("/proc/stat").ok().and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("btime "))
                .and_then(|time| time.trim().parse::<f64>().ok())
        });
        if let Some(booted) = booted {
            self.start_time.set(booted + field(22) / ticks as f64);
        }
    }
}

fn sysconf(variable: nix::unistd::SysconfVar, default: i64) -> i64 {
    nix::unistd::sysconf(variable).ok().flatten().unwrap_or(default)
}
