//! What a stretch of time cost: the clock, the processors, the latencies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Processor time of a process, in seconds; 0 if it is gone.
fn processor_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th after it.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / ticks_per_second()
}

/// Processor time that the whole machine has spent on work.
fn machine_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or("").split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, irq, softirq and steal: all but idle and waiting for disks.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum::<f64>() / ticks_per_second()
}

fn ticks_per_second() -> f64 {
    // USER_HZ, which Linux fixes at 100 for what it shows under /proc.
    100.0
}

/// Resident memory of a process in MB (10^6 bytes).
pub(crate) fn resident_mb(pid: u32) -> f64 {
    memory_mb(pid, "VmRSS:")
}

/// The part of it that the process allocated: the rest are pages of its executable.
pub(crate) fn allocated_mb(pid: u32) -> f64 {
    memory_mb(pid, "RssAnon:")
}

fn memory_mb(pid: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e6
}

/// A stretch of time that has begun.
pub(crate) struct Stretch {
    begun: Instant,
    client: f64,
    server: f64,
    machine: f64,
    pid: Option<String>,
}

/// What a stretch of time cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds on the clock.
    pub(crate) wall: f64,
    /// Seconds of processor time of this program.
    pub(crate) client: f64,
    /// Seconds of processor time of the server.
    pub(crate) server: f64,
    /// Processors that neither of them used but others did, on average: above 0.15 the figures are disturbed.
    pub(crate) others: f64,
}

impl Stretch {
    /// Begins now. `pid` is the server.
    pub(crate) fn begin(pid: Option<u32>) -> Self {
        let pid = pid.map(|pid| pid.to_string());
        Self {
            client: processor_seconds("self"),
            server: pid.as_deref().map_or(0.0, processor_seconds),
            machine: machine_seconds(),
            begun: Instant::now(),
            pid,
        }
    }

    /// Ends now.
    pub(crate) fn end(&self) -> Cost {
        let wall = self.begun.elapsed().as_secs_f64();
        let client = processor_seconds("self") - self.client;
        let server = self.pid.as_deref().map_or(0.0, processor_seconds) - self.server;
        let others = ((machine_seconds() - self.machine - client - server) / wall).max(0.0);
        Cost { wall, client, server, others }
    }
}

/// Durations in milliseconds, sorted when they are asked about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(latency.as_secs_f64() * 1e3);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that this share of all stays below or at; 0 of nothing.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the list")]
        let at = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
        sorted.get(at).copied().unwrap_or(0.0)
    }
}

/// What many requests gave and took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    pub(crate) cost: Cost,
}

impl Outcome {
    /// Successful requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.cost.wall
    }

    /// Successful requests per second of the server's processor time.
    pub(crate) fn rate_per_processor(&self) -> f64 {
        self.latencies.len() as f64 / self.cost.server.max(0.01)
    }

    pub(crate) fn to_json(&self) -> Value {
        let round = |number: f64| (number * 1e4).round() / 1e4;
        json!({
            "requests": self.latencies.len(),
            "errors": self.errors,
            "firstError": self.first_error,
            "perSecond": round(self.rate()),
            "perServerProcessorSecond": round(self.rate_per_processor()),
            "p50Milliseconds": round(self.latencies.percentile(0.5)),
            "p99Milliseconds": round(self.latencies.percentile(0.99)),
            "serverProcessors": round(self.cost.server / self.cost.wall),
            "clientProcessors": round(self.cost.client / self.cost.wall),
            "otherProcessors": round(self.cost.others),
        })
    }
}
