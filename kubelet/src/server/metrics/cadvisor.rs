//! The page `/metrics/cadvisor`: names, labels and units of cAdvisor (`metrics/prometheus.go`), with the labels
//! that the kubelet puts on them (`pkg/kubelet/server/server.go`: `containerPrometheusLabelsFunc`).
//!
//! One row is a control group: the root (`id="/"`, all other labels empty), each container, each pod's sandbox with
//! `container="POD"`, which carries the pod's network, and each pod as a whole, with no container.

use jiff::Timestamp;
use kubelet_runtime::usage::{
    ContainerUsage, DeviceUsage, GroupUsage, PodGroupUsage, PodUsage,
    interfaces::{Interface, Traffic},
};

use super::{Figures, filesystems::Filesystem, process};
use crate::{
    machine::Machine,
    measures::text::{Kind, Nanos, Text, labels},
    node::VERSION,
};

/// A group with its labels.
struct Row<'a> {
    /// Its labels, written out.
    labels: String,
    usage: &'a GroupUsage,
    interfaces: &'a [Interface],
    /// Seconds since 1970.
    started: Option<i64>,
    /// Traffic with disks by their names.
    disks: Vec<(String, DeviceUsage)>,
    /// What is held on which file system: its name, its state, bytes.
    held: Vec<(String, Filesystem, u64)>,
    /// Whether it is the root.
    is_node: bool,
}

impl<'a> Row<'a> {
    fn node(figures: &'a Figures) -> Self {
        let devices = figures.disks.iter().filter(|disk| disk.reads + disk.writes > 0).map(|disk| {
            let traffic = DeviceUsage {
                device: disk.device,
                read_bytes: disk.read_bytes,
                written_bytes: disk.written_bytes,
                reads: disk.reads,
                writes: disk.writes,
            };
            (figures.device_name(disk.device), traffic)
        });
        let mut held: Vec<(String, Filesystem, u64)> = Vec::new();
        for filesystem in figures.root.iter().chain(&figures.storage) {
            let name = figures.device_name(filesystem.device);
            if held.iter().all(|(known, _, _)| *known != name) {
                held.push((name, *filesystem, filesystem.used));
            }
        }
        Self {
            labels: written("", "/", "", "", "", ""),
            usage: &figures.node,
            interfaces: &figures.interfaces,
            started: process::boot_time().and_then(|seconds| i64::try_from(seconds).ok()),
            disks: devices.collect(),
            held,
            is_node: true,
        }
    }

    /// A pod's own group. Its network is told with its sandbox.
    fn pod(figures: &Figures, pod: &'a PodUsage, group: &'a PodGroupUsage) -> Self {
        let started =
            pod.sandbox.iter().chain(&pod.containers).map(|one| one.started_at.parse::<Timestamp>());
        let named = |usage: &DeviceUsage| (figures.device_name(usage.device), *usage);
        Self {
            labels: written("", &group.group, "", "", &pod.pod.namespace, &pod.pod.name),
            usage: &group.usage,
            interfaces: &[],
            started: started.flatten().min().map(Timestamp::as_second),
            disks: group.usage.devices.iter().map(named).collect(),
            held: Vec::new(),
            is_node: false,
        }
    }

    fn container(
        figures: &Figures,
        pod: &'a PodUsage,
        container: &'a ContainerUsage,
        interfaces: &'a [Interface],
    ) -> Self {
        let named = |usage: &DeviceUsage| (figures.device_name(usage.device), *usage);
        let mut disks: Vec<(String, DeviceUsage)> = container.usage.devices.iter().map(named).collect();
        if disks.is_empty() {
            // It has neither read nor written so far, and says so of the disk that it would use.
            disks.extend(figures.storage.iter().map(|filesystem| {
                let none = DeviceUsage { device: filesystem.device, ..DeviceUsage::default() };
                (figures.device_name(filesystem.device), none)
            }));
        }
        let held = figures.storage.iter().zip(container.layer).map(|(filesystem, layer)| {
            (figures.device_name(filesystem.device), *filesystem, layer.bytes + container.log_bytes)
        });
        Self {
            labels: written(
                &container.name,
                &container.group,
                &container.image,
                &container.runtime_name,
                &pod.pod.namespace,
                &pod.pod.name,
            ),
            usage: &container.usage,
            interfaces,
            started: container.started_at.parse::<Timestamp>().ok().map(Timestamp::as_second),
            disks,
            held: held.collect(),
            is_node: false,
        }
    }
}

fn written(container: &str, id: &str, image: &str, name: &str, namespace: &str, pod: &str) -> String {
    labels(&[
        ("container", container),
        ("id", id),
        ("image", image),
        ("name", name),
        ("namespace", namespace),
        ("pod", pod),
    ])
}

impl Figures {
    /// `/dev/vda`, or the numbers of a device that is no disk.
    fn device_name(&self, device: (u32, u32)) -> String {
        let found = self.disks.iter().find(|disk| disk.device == device);
        found.map_or_else(|| format!("{}:{}", device.0, device.1), |disk| format!("/dev/{}", disk.name))
    }
}

/// Writes the page.
pub(super) fn write(text: &mut Text, figures: &Figures, machine: &Machine) {
    let mut rows = vec![Row::node(figures)];
    for pod in &figures.pods.pods {
        let sandbox = pod.sandbox.iter();
        rows.extend(sandbox.map(|sandbox| Row::container(figures, pod, sandbox, &pod.interfaces)));
        rows.extend(pod.containers.iter().map(|container| Row::container(figures, pod, container, &[])));
        rows.extend(pod.group.as_ref().map(|group| Row::pod(figures, pod, group)));
    }
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, \
                cadvisor version & cadvisor revision.";
    text.family("cadvisor_version_info", Kind::Gauge, help).sample(
        &[
            ("cadvisorRevision", ""),
            ("cadvisorVersion", VERSION),
            ("dockerVersion", ""),
            ("kernelVersion", &machine.kernel),
            ("osVersion", &machine.os_image),
        ],
        1,
    );
    let page = &mut Page { text, rows: &rows };
    page.cpu();
    page.disks();
    page.memory();
    page.network();
    page.limits();
    page.times(figures.now);
}

/// Writes whether the rest could be had.
pub(super) fn write_result(text: &mut Text, errors: u64) {
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    text.single("container_scrape_error", Kind::Gauge, help, errors);
}

struct Page<'a> {
    text: &'a mut Text,
    rows: &'a [Row<'a>],
}

impl Page<'_> {
    /// A family of one number for each row that has one.
    fn each(&mut self, name: &str, kind: Kind, help: &str, of: impl Fn(&Row<'_>) -> Option<u64>) {
        let mut family = self.text.family(name, kind, help);
        for row in self.rows {
            if let Some(value) = of(row) {
                family.sample_of(&row.labels, &[], value);
            }
        }
    }

    /// A counter of nanoseconds as seconds.
    fn seconds(
        &mut self,
        name: &str,
        help: &str,
        more: &[(&str, &str)],
        of: impl Fn(&Row<'_>) -> Option<u64>,
    ) {
        let mut family = self.text.family(name, Kind::Counter, help);
        for row in self.rows {
            if let Some(value) = of(row) {
                family.sample_of(&row.labels, more, Nanos(value));
            }
        }
    }

    fn cpu(&mut self) {
        // Only groups with a quota have periods.
        let throttled = |row: &Row<'_>| (row.usage.cpu.periods > 0).then_some(row.usage.cpu);
        self.each(
            "container_cpu_cfs_periods_total",
            Kind::Counter,
            "Number of elapsed enforcement period intervals.",
            |row| Some(throttled(row)?.periods),
        );
        self.each(
            "container_cpu_cfs_throttled_periods_total",
            Kind::Counter,
            "Number of throttled period intervals.",
            |row| Some(throttled(row)?.throttled_periods),
        );
        self.seconds(
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
            &[],
            |row| Some(throttled(row)?.throttled_nanos),
        );
        self.seconds(
            "container_cpu_system_seconds_total",
            "Cumulative system cpu time consumed in seconds.",
            &[],
            |row| Some(row.usage.cpu.system_nanos),
        );
        self.seconds(
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed in seconds.",
            &[("cpu", "total")],
            |row| Some(row.usage.cpu.total_nanos),
        );
        self.seconds(
            "container_cpu_user_seconds_total",
            "Cumulative user cpu time consumed in seconds.",
            &[],
            |row| Some(row.usage.cpu.user_nanos),
        );
    }

    fn held(&mut self, name: &str, help: &str, of: impl Fn(&Row<'_>, &Filesystem, u64) -> Option<u64>) {
        let mut family = self.text.family(name, Kind::Gauge, help);
        for row in self.rows {
            for (device, filesystem, bytes) in &row.held {
                if let Some(value) = of(row, filesystem, *bytes) {
                    family.sample_of(&row.labels, &[("device", device)], value);
                }
            }
        }
    }

    fn transferred(&mut self, name: &str, help: &str, of: impl Fn(&DeviceUsage) -> u64) {
        let mut family = self.text.family(name, Kind::Counter, help);
        for row in self.rows {
            for (device, usage) in &row.disks {
                family.sample_of(&row.labels, &[("device", device)], of(usage));
            }
        }
    }

    fn disks(&mut self) {
        let of_node = |row: &Row<'_>, value: u64| row.is_node.then_some(value);
        self.held("container_fs_inodes_free", "Number of available Inodes", |row, filesystem, _| {
            of_node(row, filesystem.inodes_free)
        });
        self.held("container_fs_inodes_total", "Number of Inodes", |row, filesystem, _| {
            of_node(row, filesystem.inodes)
        });
        self.held(
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            |_, filesystem, _| Some(filesystem.capacity),
        );
        self.transferred("container_fs_reads_bytes_total", "Cumulative count of bytes read", |usage| {
            usage.read_bytes
        });
        self.transferred("container_fs_reads_total", "Cumulative count of reads completed", |usage| {
            usage.reads
        });
        self.held(
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            |_, _, bytes| Some(bytes),
        );
        self.transferred("container_fs_writes_bytes_total", "Cumulative count of bytes written", |usage| {
            usage.written_bytes
        });
        self.transferred("container_fs_writes_total", "Cumulative count of writes completed", |usage| {
            usage.writes
        });
    }

    fn memory(&mut self) {
        let mut gauge = |name: &str, kind: Kind, help: &str, of: fn(&GroupUsage) -> u64| {
            self.each(name, kind, help, |row| Some(of(row.usage)));
        };
        gauge("container_memory_cache", Kind::Gauge, "Number of bytes of page cache memory.", |usage| {
            usage.memory.cache
        });
        gauge("container_memory_failcnt", Kind::Counter, "Number of memory usage hits limits", |usage| {
            usage.memory.failures
        });
        gauge(
            "container_memory_mapped_file",
            Kind::Gauge,
            "Size of memory mapped files in bytes.",
            |usage| usage.memory.mapped_file,
        );
        gauge(
            "container_memory_max_usage_bytes",
            Kind::Gauge,
            "Maximum memory usage recorded in bytes",
            |usage| usage.memory.max_usage,
        );
        gauge("container_memory_rss", Kind::Gauge, "Size of RSS in bytes.", |usage| usage.memory.rss);
        gauge("container_memory_swap", Kind::Gauge, "Container swap usage in bytes.", |usage| {
            usage.memory.swap
        });
        gauge(
            "container_memory_usage_bytes",
            Kind::Gauge,
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |usage| usage.memory.usage,
        );
        gauge("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes.", |usage| {
            usage.memory.working_set
        });
        let help = "Cumulative count of memory allocation failures.";
        let mut family = self.text.family("container_memory_failures_total", Kind::Counter, help);
        for row in self.rows {
            let memory = row.usage.memory;
            for (kind, count) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
                family.sample_of(&row.labels, &[("failure_type", kind), ("scope", "hierarchy")], count);
            }
        }
    }

    fn network(&mut self) {
        type Part = (&'static str, &'static str, fn(&Traffic) -> u64);
        const PARTS: [Part; 4] = [
            ("bytes_total", "bytes", |traffic| traffic.bytes),
            ("errors_total", "errors encountered while", |traffic| traffic.errors),
            ("packets_dropped_total", "packets dropped while", |traffic| traffic.dropped),
            ("packets_total", "packets", |traffic| traffic.packets),
        ];
        type Direction = (&'static str, [&'static str; 2], fn(&Interface) -> Traffic);
        const DIRECTIONS: [Direction; 2] = [
            ("receive", ["received", "receiving"], |interface| interface.received),
            ("transmit", ["transmitted", "transmitting"], |interface| interface.sent),
        ];
        for (direction, [done, doing], traffic) in DIRECTIONS {
            for (suffix, what, part) in PARTS {
                let verb = if what.ends_with("while") { doing } else { done };
                let (name, help) = (
                    format!("container_network_{direction}_{suffix}"),
                    format!("Cumulative count of {what} {verb}"),
                );
                let mut family = self.text.family(&name, Kind::Counter, &help);
                for row in self.rows {
                    for interface in row.interfaces {
                        let value = part(&traffic(interface));
                        family.sample_of(&row.labels, &[("interface", &interface.name)], value);
                    }
                }
            }
        }
    }

    fn limits(&mut self) {
        self.each("container_spec_cpu_period", Kind::Gauge, "CPU period of the container.", |row| {
            Some(row.usage.limits.cpu_period).filter(|period| *period > 0)
        });
        self.each("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container.", |row| {
            row.usage.limits.cpu_quota
        });
        self.each("container_spec_cpu_shares", Kind::Gauge, "CPU share of the container.", |row| {
            Some(row.usage.limits.cpu_shares).filter(|shares| *shares > 0)
        });
        self.each(
            "container_spec_memory_limit_bytes",
            Kind::Gauge,
            "Memory limit for the container.",
            |row| Some(row.usage.limits.memory),
        );
    }

    fn times(&mut self, now: Timestamp) {
        let now = u64::try_from(now.as_second()).unwrap_or_default();
        self.each(
            "container_last_seen",
            Kind::Gauge,
            "Last time this container was seen by the exporter",
            |_| Some(now),
        );
        self.each(
            "container_start_time_seconds",
            Kind::Gauge,
            "Start time of the container since unix epoch in seconds.",
            |row| u64::try_from(row.started?).ok(),
        );
        self.each(
            "container_threads",
            Kind::Gauge,
            "Number of threads running inside the container",
            |row| (!row.is_node).then_some(row.usage.tasks),
        );
        self.each(
            "container_threads_max",
            Kind::Gauge,
            "Maximum number of threads allowed inside the container, infinity if value is zero",
            |row| (!row.is_node).then_some(row.usage.limits.tasks),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let mut text = Text::default();
        let machine = Machine { kernel: "6.1".into(), os_image: "Debian".into(), ..Machine::default() };
        write(&mut text, &super::super::testing::figures(), &machine);
        text.finish()
    }

    const APP: &str = "container=\"app\",id=\"/docker/abc\",image=\"busybox:1\",name=\"k8s_app_web_shop_u-1_0\",namespace=\"shop\",pod=\"web\"";
    const POD: &str = "container=\"POD\",id=\"/docker/def\",image=\"pause:1\",name=\"k8s_POD_web_shop_u-1_0\",namespace=\"shop\",pod=\"web\"";
    const NODE: &str = "container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"";

    /// What the dashboards 893 and 11277 and those of kube-prometheus ask for.
    #[test]
    fn dashboards_find_what_they_ask_for() {
        let page = page();
        for line in [
            format!("container_cpu_usage_seconds_total{{{APP},cpu=\"total\"}} 3.000000000"),
            format!("container_cpu_usage_seconds_total{{{NODE},cpu=\"total\"}} 15.000000000"),
            format!("container_cpu_user_seconds_total{{{APP}}} 2.000000000"),
            format!("container_cpu_system_seconds_total{{{APP}}} 1.000000000"),
            format!("container_cpu_cfs_periods_total{{{APP}}} 10"),
            format!("container_memory_usage_bytes{{{APP}}} 2000"),
            format!("container_memory_working_set_bytes{{{APP}}} 1600"),
            format!("container_memory_rss{{{APP}}} 1000"),
            format!("container_memory_cache{{{APP}}} 600"),
            format!("container_memory_swap{{{NODE}}} 0"),
            format!(
                "container_memory_failures_total{{{APP},failure_type=\"pgfault\",scope=\"hierarchy\"}} 14"
            ),
            format!("container_spec_memory_limit_bytes{{{APP}}} 67108864"),
            format!("container_spec_memory_limit_bytes{{{POD}}} 0"),
            format!("container_spec_cpu_quota{{{APP}}} 50000"),
            format!("container_spec_cpu_period{{{APP}}} 100000"),
            format!("container_spec_cpu_shares{{{APP}}} 512"),
            format!("container_network_receive_bytes_total{{{POD},interface=\"eth0\"}} 1146"),
            format!("container_network_receive_bytes_total{{{NODE},interface=\"ens3\"}} 5000"),
            format!("container_network_transmit_packets_dropped_total{{{POD},interface=\"eth0\"}} 4"),
            format!("container_network_receive_errors_total{{{POD},interface=\"eth0\"}} 1"),
            format!("container_fs_usage_bytes{{{APP},device=\"/dev/vda\"}} 8292"),
            format!("container_fs_usage_bytes{{{NODE},device=\"/dev/vda\"}} 600000"),
            format!("container_fs_limit_bytes{{{APP},device=\"/dev/vda\"}} 1000000"),
            format!("container_fs_reads_bytes_total{{{APP},device=\"/dev/vda\"}} 8192"),
            format!("container_fs_reads_total{{{APP},device=\"/dev/vda\"}} 2"),
            format!("container_fs_writes_bytes_total{{{APP},device=\"/dev/vda\"}} 0"),
            format!("container_fs_reads_bytes_total{{{NODE},device=\"/dev/vda\"}} 2560"),
            format!("container_last_seen{{{APP}}} 1795600860"),
            format!("container_start_time_seconds{{{APP}}} 1795600800"),
            format!("container_threads{{{APP}}} 2"),
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn only_groups_with_a_quota_have_one_and_only_sandboxes_have_a_network() {
        let page = page();
        let samples = |name: &str| page.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!(samples("container_spec_cpu_quota"), 1);
        assert_eq!(samples("container_cpu_cfs_throttled_seconds_total"), 1);
        assert_eq!(samples("container_network_receive_bytes_total"), 2, "the pod's and the node's");
        assert_eq!(samples("container_memory_rss"), 3);
        assert!(!page.contains(&format!("container_threads{{{NODE}}}")));
    }

    #[test]
    fn a_pod_s_own_group_is_a_row_without_a_container() {
        let mut figures = super::super::testing::figures();
        let usage = figures.pods.pods[0].containers[0].usage.clone();
        figures.pods.pods[0].group = Some(PodGroupUsage { group: "/kubepods/podu-1".into(), usage });
        let mut text = Text::default();
        write(&mut text, &figures, &Machine::default());
        let row =
            "container=\"\",id=\"/kubepods/podu-1\",image=\"\",name=\"\",namespace=\"shop\",pod=\"web\"";
        let page = text.finish();
        assert!(page.contains(&format!("container_spec_memory_limit_bytes{{{row}}} 67108864\n")), "{page}");
        assert!(page.contains(&format!("container_start_time_seconds{{{row}}} 1795600800\n")), "{page}");
    }

    #[test]
    fn what_has_not_touched_a_disk_says_so() {
        let mut figures = super::super::testing::figures();
        figures.pods.pods[0].containers[0].usage.devices.clear();
        let mut text = Text::default();
        write(&mut text, &figures, &Machine::default());
        let page = text.finish();
        assert!(page.contains(&format!("container_fs_reads_bytes_total{{{APP},device=\"/dev/vda\"}} 0\n")));
    }
}
