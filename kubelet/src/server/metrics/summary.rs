//! The summary of a node and its pods as JSON (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`: `Summary`).

use jiff::Timestamp;
use kubelet_runtime::usage::{ContainerUsage, CpuUsage, MemoryUsage, PodUsage, interfaces::Interface};
use serde_json::{Value, json};

use super::{
    Figures,
    filesystems::{Filesystem, Volume},
    process,
    resource::total,
};
use crate::{machine::Machine, pod::whole_seconds};

/// The summary. `started` tells when a pod was accepted.
pub(super) fn summary(
    figures: &Figures,
    node: &str,
    machine: &Machine,
    started: impl Fn(&str) -> Option<String>,
) -> Value {
    let page = Page { figures, time: whole_seconds(figures.now).to_string() };
    let pods = figures.pods.pods.iter();
    json!({
        "node": page.node(node, machine),
        "pods": pods.map(|pod| page.pod(pod, started(&pod.pod.uid))).collect::<Vec<_>>(),
    })
}

/// Keeps what upstream answers to `only_cpu_and_memory=true`.
pub(super) fn only_cpu_and_memory(mut summary: Value) -> Value {
    let keep = |object: &mut Value, fields: &[&str]| {
        if let Some(object) = object.as_object_mut() {
            object.retain(|field, _| fields.contains(&field.as_str()));
        }
    };
    keep(&mut summary["node"], &["nodeName", "startTime", "cpu", "memory", "swap"]);
    for pod in summary["pods"].as_array_mut().into_iter().flatten() {
        keep(pod, &["podRef", "startTime", "containers", "cpu", "memory", "swap"]);
        for container in pod["containers"].as_array_mut().into_iter().flatten() {
            keep(container, &["name", "startTime", "cpu", "memory", "swap"]);
        }
    }
    summary
}

/// `status.startTime` of a pod.
pub(super) fn start_time(pod: &[u8]) -> Option<String> {
    let pod: Value = serde_json::from_slice(pod).ok()?;
    pod.pointer("/status/startTime")?.as_str().map(str::to_owned)
}

struct Page<'a> {
    figures: &'a Figures,
    time: String,
}

impl Page<'_> {
    fn node(&self, name: &str, machine: &Machine) -> Value {
        let figures = self.figures;
        let boot = process::boot_time()
            .and_then(|seconds| Timestamp::from_second(i64::try_from(seconds).ok()?).ok());
        let mut node = json!({
            "nodeName": name,
            "startTime": boot.map(|time| time.to_string()),
            "cpu": self.cpu(&figures.node.cpu, "/"),
            "memory": self.memory(&figures.node.memory, machine.memory),
            "swap": {"time": self.time, "swapUsageBytes": figures.node.memory.swap},
            "network": self.network(&figures.interfaces, &figures.default_interface),
        });
        if let Some(root) = &figures.root {
            node["fs"] = self.filesystem(root, root.used, root.inodes.saturating_sub(root.inodes_free));
        }
        if let Some(storage) = &figures.storage {
            let used = storage.inodes.saturating_sub(storage.inodes_free);
            let containers = figures.pods.pods.iter().flat_map(|pod| &pod.containers);
            let (bytes, inodes) = containers
                .filter_map(|container| container.layer)
                .fold((0, 0), |sum, layer| (sum.0 + layer.bytes, sum.1 + layer.inodes));
            node["runtime"] = json!({
                "imageFs": self.filesystem(storage, storage.used, used),
                "containerFs": self.filesystem(storage, bytes, inodes),
            });
        }
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        if let Some(most) = number("/proc/sys/kernel/pid_max") {
            // The fourth word of it is `running/all`.
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            let all = load.split_whitespace().nth(3).and_then(|tasks| tasks.split('/').nth(1));
            let all: u64 = all.and_then(|tasks| tasks.parse().ok()).unwrap_or_default();
            node["rlimit"] = json!({"time": self.time, "maxpid": most, "curproc": all});
        }
        node
    }

    fn pod(&self, pod: &PodUsage, started: Option<String>) -> Value {
        let none = Vec::new();
        let volumes = self.figures.volumes.get(&pod.pod.uid).unwrap_or(&none);
        let mut cpu = CpuUsage::default();
        cpu.total_nanos = total(pod, |usage| usage.cpu.total_nanos);
        let of = |of: fn(&MemoryUsage) -> u64| total(pod, |usage| of(&usage.memory));
        let memory = MemoryUsage {
            usage: of(|memory| memory.usage),
            working_set: of(|memory| memory.working_set),
            rss: of(|memory| memory.rss),
            page_faults: of(|memory| memory.page_faults),
            major_page_faults: of(|memory| memory.major_page_faults),
            ..MemoryUsage::default()
        };
        let mut cpu = self.cpu(&cpu, "");
        let parts = || pod.sandbox.iter().chain(&pod.containers).map(|one| &one.group).collect();
        let groups: Vec<&String> = pod.group.as_ref().map_or_else(parts, |own| vec![&own.group]);
        let rates = groups.into_iter().filter_map(|group| self.figures.nano_cores.get(group));
        if let Some(nano_cores) = rates.copied().reduce(|sum, rate| sum + rate) {
            cpu["usageNanoCores"] = json!(nano_cores);
        }
        let mut found = json!({
            "podRef": {"name": pod.pod.name, "namespace": pod.pod.namespace, "uid": pod.pod.uid},
            "containers": pod.containers.iter().map(|one| self.container(one)).collect::<Vec<_>>(),
            "cpu": cpu,
            "memory": self.memory(&memory, pod.group.as_ref().map_or(0, |own| own.usage.limits.memory)),
            "swap": {"time": self.time, "swapUsageBytes": of(|memory| memory.swap)},
            "process_stats": {"process_count": total(pod, |usage| usage.tasks)},
        });
        if let Some(started) = started {
            found["startTime"] = json!(started);
        }
        if !pod.interfaces.is_empty() {
            found["network"] = self.network(&pod.interfaces, "eth0");
        }
        if !volumes.is_empty() {
            found["volume"] = volumes.iter().map(|volume| self.volume(volume)).collect();
        }
        if let Some(root) = &self.figures.root {
            // Upstream: the layers and logs of containers, and volumes that live on the node's disk.
            let local = volumes.iter().filter(|volume| {
                volume.plugin == "kubernetes.io~empty-dir" && volume.on.device == root.device
            });
            let (bytes, inodes) =
                local.fold((0, 0), |sum, volume| (sum.0 + volume.used, sum.1 + volume.inodes_used));
            let layers = |of: fn(&ContainerUsage) -> u64| pod.containers.iter().map(of).sum::<u64>();
            let bytes = bytes + layers(|one| one.layer.map_or(0, |layer| layer.bytes) + one.log_bytes);
            let inodes = inodes + layers(|one| one.layer.map_or(0, |layer| layer.inodes));
            found["ephemeral-storage"] = self.filesystem(root, bytes, inodes);
        }
        found
    }

    fn container(&self, container: &ContainerUsage) -> Value {
        let mut found = json!({
            "name": container.name,
            "startTime": container.started_at,
            "cpu": self.cpu(&container.usage.cpu, &container.group),
            "memory": self.memory(&container.usage.memory, container.usage.limits.memory),
            "swap": {"time": self.time, "swapUsageBytes": container.usage.memory.swap},
        });
        if let Some(storage) = &self.figures.storage {
            if let Some(layer) = container.layer {
                found["rootfs"] = self.filesystem(storage, layer.bytes, layer.inodes);
            }
            let mut logs = self.filesystem(storage, container.log_bytes, 0);
            // How many files there are is not counted.
            logs.as_object_mut().map(|logs| logs.remove("inodesUsed"));
            found["logs"] = logs;
        }
        found
    }

    fn cpu(&self, cpu: &CpuUsage, group: &str) -> Value {
        let mut found = json!({"time": self.time, "usageCoreNanoSeconds": cpu.total_nanos});
        if let Some(nano_cores) = self.figures.nano_cores.get(group) {
            found["usageNanoCores"] = json!(nano_cores);
        }
        found
    }

    /// `limit` 0 is none, and then nothing is said of what is available.
    fn memory(&self, memory: &MemoryUsage, limit: u64) -> Value {
        let mut found = json!({
            "time": self.time,
            "usageBytes": memory.usage,
            "workingSetBytes": memory.working_set,
            "rssBytes": memory.rss,
            "pageFaults": memory.page_faults,
            "majorPageFaults": memory.major_page_faults,
        });
        if limit > 0 {
            found["availableBytes"] = json!(limit.saturating_sub(memory.working_set));
        }
        found
    }

    fn network(&self, interfaces: &[Interface], default: &str) -> Value {
        let one = |interface: &Interface| {
            json!({
                "name": interface.name,
                "rxBytes": interface.received.bytes,
                "rxErrors": interface.received.errors,
                "txBytes": interface.sent.bytes,
                "txErrors": interface.sent.errors,
            })
        };
        let main = interfaces.iter().find(|interface| interface.name == default);
        let mut found = main.map_or_else(|| json!({"name": ""}), one);
        found["time"] = json!(self.time);
        found["interfaces"] = interfaces.iter().map(one).collect();
        found
    }

    fn volume(&self, volume: &Volume) -> Value {
        let mut found = self.filesystem(&volume.on, volume.used, volume.inodes_used);
        found["name"] = json!(volume.name);
        if let Some((namespace, name)) = &volume.claim {
            found["pvcRef"] = json!({"name": name, "namespace": namespace});
        }
        found
    }

    fn filesystem(&self, on: &Filesystem, used: u64, inodes_used: u64) -> Value {
        json!({
            "time": self.time,
            "availableBytes": on.available,
            "capacityBytes": on.capacity,
            "usedBytes": used,
            "inodesFree": on.inodes_free,
            "inodes": on.inodes,
            "inodesUsed": inodes_used,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Value {
        let machine = Machine { memory: 100_000, ..Machine::default() };
        summary(&super::super::testing::figures(), "n1", &machine, |uid| {
            (uid == "u-1").then(|| "2026-11-25T09:59:59Z".to_owned())
        })
    }

    #[test]
    fn the_node_is_told() {
        let node = &found()["node"];
        assert_eq!(node["nodeName"], "n1");
        let memory = json!({
            "time": "2026-11-25T10:01:00Z", "usageBytes": 10_000, "workingSetBytes": 8_000, "rssBytes": 5_000,
            "pageFaults": 70, "majorPageFaults": 0, "availableBytes": 92_000,
        });
        assert_eq!(node["memory"], memory);
        assert_eq!(node["cpu"]["usageCoreNanoSeconds"], json!(15_000_000_000_u64));
        assert_eq!((&node["network"]["name"], &node["network"]["rxBytes"]), (&json!("ens3"), &json!(5000)));
        assert_eq!(node["fs"]["usedBytes"], 600_000);
        assert_eq!(node["runtime"]["containerFs"]["usedBytes"], 8192);
        assert!(node["rlimit"]["maxpid"].as_u64() > Some(0) && node["startTime"].is_string(), "{node}");
    }

    #[test]
    fn a_pod_is_the_sum_of_its_parts() {
        let found = found();
        let pod = &found["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "web", "namespace": "shop", "uid": "u-1"}));
        assert_eq!(pod["startTime"], "2026-11-25T09:59:59Z");
        let cpu = json!({"time": "2026-11-25T10:01:00Z", "usageCoreNanoSeconds": 4_500_000_000_u64, "usageNanoCores": 250_000_000});
        assert_eq!(pod["cpu"], cpu);
        assert_eq!(pod["memory"]["workingSetBytes"], 2400);
        assert_eq!(pod["network"]["interfaces"].as_array().map(Vec::len), Some(1));
        assert_eq!((&pod["network"]["name"], &pod["network"]["txErrors"]), (&json!("eth0"), &json!(3)));
        assert_eq!(
            (&pod["volume"][0]["name"], &pod["volume"][0]["usedBytes"]),
            (&json!("scratch"), &json!(4096))
        );
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 8192 + 100 + 4096);
        assert_eq!(pod["process_stats"]["process_count"], 3);
        let container = &pod["containers"][0];
        assert_eq!(container["name"], "app");
        assert_eq!(container["memory"]["availableBytes"], (64 << 20) - 1600);
        assert_eq!(container["cpu"]["usageNanoCores"], 250_000_000);
        assert_eq!(
            (&container["rootfs"]["usedBytes"], &container["logs"]["usedBytes"]),
            (&json!(8192), &json!(100))
        );
    }

    #[test]
    fn only_cpu_and_memory_may_be_asked_for() {
        let brief = only_cpu_and_memory(found());
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&brief["node"]), ["cpu", "memory", "nodeName", "startTime", "swap"]);
        assert_eq!(
            fields(&brief["pods"][0]["containers"][0]),
            ["cpu", "memory", "name", "startTime", "swap"]
        );
    }
}
