//! What the kubelet counts of its own doing, under upstream's names (`pkg/kubelet/metrics/metrics.go`).
//!
//! Everything happens a few times a second at most, so plain locks do. Label values come from a closed set, or
//! from pods of this node and go with them.

pub(crate) mod containers;
pub(crate) mod histogram;
pub(crate) mod http;
pub(crate) mod runtime;
pub(crate) mod text;
pub(crate) mod volumes;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pod::{name, namespace, probes, uid};
use containers::ContainerMeasures;
use histogram::Histogram;
use http::HttpMeasures;
use text::{Kind, Text};
use volumes::VolumeMeasures;

/// What a worker's turn was about, as upstream's label `operation_type` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// The first one.
    Create,
    /// Any later one.
    Sync,
}

/// The kubelet's own figures.
pub(crate) struct Measures {
    /// Pods that are on their way to running, by uid, and since when they have been seen.
    starting: Mutex<HashMap<String, Instant>>,
    pod_start: Mutex<Histogram>,
    turns: Mutex<BTreeMap<Turn, Histogram>>,
    operations: Mutex<BTreeMap<&'static str, Operation>>,
    /// By pod uid: what its probes found. Goes with the pod.
    probes: Mutex<BTreeMap<String, PodProbes>>,
    /// By signal: how many pods were evicted.
    evictions: Mutex<BTreeMap<&'static str, u64>>,
    /// By signal: how old the figures were for which a pod was evicted.
    eviction_ages: Mutex<BTreeMap<&'static str, Histogram>>,
    /// Containers.
    pub(crate) containers: ContainerMeasures,
    /// Volumes.
    pub(crate) volumes: VolumeMeasures,
    /// The kubelet's server.
    http: HttpMeasures,
}

struct Operation {
    errors: u64,
    durations: Histogram,
}

struct PodProbes {
    namespace: String,
    name: String,
    /// By container and kind.
    probes: BTreeMap<(String, probes::Kind), ProbeResults>,
}

struct ProbeResults {
    successful: u64,
    failed: u64,
    durations: Histogram,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            starting: Mutex::default(),
            pod_start: Mutex::new(Histogram::new(&histogram::POD_START)),
            turns: Mutex::default(),
            operations: Mutex::default(),
            probes: Mutex::default(),
            evictions: Mutex::default(),
            eviction_ages: Mutex::default(),
            containers: ContainerMeasures::default(),
            volumes: VolumeMeasures::default(),
            http: HttpMeasures::default(),
        }
    }
}

impl Measures {
    /// A pod that nobody has started before was seen.
    pub(crate) fn pod_seen(&self, uid: &str) {
        self.starting.lock().insert(uid.to_owned(), Instant::now());
    }

    /// A pod's phase was reported: the first `Running` ends its start.
    pub(crate) fn pod_phase(&self, uid: &str, phase: Option<&str>) {
        if matches!(phase, None | Some("Pending")) {
            return;
        }
        if let Some(seen) = self.starting.lock().remove(uid)
            && phase == Some("Running")
        {
            self.pod_start.lock().observe(seen.elapsed());
        }
    }

    /// Nothing of a pod is left.
    pub(crate) fn pod_gone(&self, uid: &str) {
        self.starting.lock().remove(uid);
        self.probes.lock().remove(uid);
    }

    /// A pod's worker had its turn.
    pub(crate) fn turn(&self, turn: Turn, took: Duration) {
        let mut turns = self.turns.lock();
        turns.entry(turn).or_insert_with(|| Histogram::new(&histogram::DEFAULT)).observe(took);
    }

    /// The runtime was asked for something.
    pub(crate) fn operation(&self, name: &'static str, took: Duration, succeeded: bool) {
        let mut operations = self.operations.lock();
        let operation = operations
            .entry(name)
            .or_insert_with(|| Operation { errors: 0, durations: Histogram::new(&histogram::OPERATIONS) });
        operation.durations.observe(took);
        operation.errors += u64::from(!succeeded);
    }

    /// A pod was evicted.
    pub(crate) fn evicted(&self, signal: &'static str) {
        *self.evictions.lock().entry(signal).or_default() += 1;
    }

    /// A pod has to go for figures of that age.
    pub(crate) fn eviction_age(&self, signal: &'static str, age: Duration) {
        let mut ages = self.eviction_ages.lock();
        ages.entry(signal).or_insert_with(|| Histogram::new(&histogram::DEFAULT)).observe(age);
    }

    /// A probe was answered, or not.
    pub(crate) fn probe(&self, pod: &Pod, container: &str, kind: probes::Kind, took: Duration, passed: bool) {
        let mut pods = self.probes.lock();
        let of_pod = pods.entry(uid(pod).to_owned()).or_insert_with(|| PodProbes {
            namespace: namespace(pod).to_owned(),
            name: name(pod).to_owned(),
            probes: BTreeMap::new(),
        });
        let results = of_pod.probes.entry((container.to_owned(), kind)).or_insert_with(|| ProbeResults {
            successful: 0,
            failed: 0,
            durations: Histogram::new(&histogram::DEFAULT),
        });
        if passed {
            results.successful += 1;
        } else {
            results.failed += 1;
        }
        results.durations.observe(took);
    }

    /// Writes what `/metrics` says of the kubelet's work. `desired` are the plugins of the volumes that pods should have.
    pub(crate) fn write(&self, text: &mut Text, desired: &[&'static str]) {
        {
            let help = "[ALPHA] Time between when stats are collected, and when pod is evicted based on those stats by eviction signal";
            let mut family = text.family("kubelet_eviction_stats_age_seconds", Kind::Histogram, help);
            for (signal, ages) in self.eviction_ages.lock().iter() {
                ages.write(&mut family, &[("eviction_signal", signal)]);
            }
            let help = "[ALPHA] Cumulative number of pod evictions by eviction signal";
            let mut family = text.family("kubelet_evictions", Kind::Counter, help);
            for (signal, count) in self.evictions.lock().iter() {
                family.sample(&[("eviction_signal", signal)], count);
            }
        }
        self.http.write(text);
        self.volumes.write(text, desired);
        let pod_start = self.pod_start.lock().clone();
        pod_start.write(
            &mut text.family(
                "kubelet_pod_start_duration_seconds",
                Kind::Histogram,
                "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
            ),
            &[],
        );
        {
            let mut family = text.family(
                "kubelet_pod_worker_duration_seconds",
                Kind::Histogram,
                "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
            );
            for (turn, durations) in self.turns.lock().iter() {
                let operation = match turn {
                    Turn::Create => "create",
                    Turn::Sync => "sync",
                };
                durations.write(&mut family, &[("operation_type", operation)]);
            }
        }
        let operations = self.operations.lock();
        let mut family = text.family(
            "kubelet_runtime_operations_duration_seconds",
            Kind::Histogram,
            "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
        );
        for (name, operation) in operations.iter() {
            operation.durations.write(&mut family, &[("operation_type", name)]);
        }
        let mut family = text.family(
            "kubelet_runtime_operations_errors_total",
            Kind::Counter,
            "[ALPHA] Cumulative number of runtime operation errors by operation type.",
        );
        for (name, operation) in operations.iter().filter(|(_, operation)| operation.errors > 0) {
            family.sample(&[("operation_type", name)], operation.errors);
        }
        let mut family = text.family(
            "kubelet_runtime_operations_total",
            Kind::Counter,
            "[ALPHA] Cumulative number of runtime operations by operation type.",
        );
        for (name, operation) in operations.iter() {
            family.sample(&[("operation_type", name)], operation.durations.count());
        }
        let started = |name: &str| {
            let operation = operations.get(name);
            operation.map_or((0, 0), |operation| {
                (operation.durations.count() - operation.errors, operation.errors)
            })
        };
        let (pods, failed_pods) = started("run_podsandbox");
        let help = "[ALPHA] Cumulative number of pods started";
        text.single("kubelet_started_pods_total", Kind::Counter, help, pods);
        let help = "[ALPHA] Cumulative number of errors when starting pods";
        text.single("kubelet_started_pods_errors_total", Kind::Counter, help, failed_pods);
        self.containers.write(text);
    }

    /// Writes what `/metrics/probes` says (`pkg/kubelet/prober`).
    pub(crate) fn write_probes(&self, text: &mut Text) {
        let pods = self.probes.lock();
        let all = || {
            pods.iter()
                .flat_map(|(uid, pod)| pod.probes.iter().map(move |(key, results)| (uid, pod, key, results)))
        };
        let mut family = text.family(
            "prober_probe_duration_seconds",
            Kind::Histogram,
            "[ALPHA] Duration in seconds for a probe response.",
        );
        for (_, pod, (container, kind), results) in all() {
            let labels = [
                ("container", container.as_str()),
                ("namespace", &pod.namespace),
                ("pod", &pod.name),
                ("probe_type", kind.label()),
            ];
            results.durations.write(&mut family, &labels);
        }
        let mut family = text.family(
            "prober_probe_total",
            Kind::Counter,
            "[ALPHA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
        );
        for (uid, pod, (container, kind), results) in all() {
            for (result, count) in [("failed", results.failed), ("successful", results.successful)] {
                if count > 0 {
                    let labels = [
                        ("container", container.as_str()),
                        ("namespace", &pod.namespace),
                        ("pod", &pod.name),
                        ("pod_uid", uid),
                        ("probe_type", kind.label()),
                        ("result", result),
                    ];
                    family.sample(&labels, count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::pod;

    fn page(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        write(&mut text);
        text.finish()
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_lasts_from_first_sight_to_running() {
        let measures = Measures::default();
        measures.pod_seen("a");
        measures.pod_seen("never");
        tokio::time::advance(Duration::from_millis(1500)).await;
        measures.pod_phase("a", Some("Pending"));
        measures.pod_phase("a", Some("Running"));
        measures.pod_phase("a", Some("Running"));
        measures.pod_phase("never", Some("Failed"));
        measures.pod_phase("adopted", Some("Running"));
        let page = page(|text| measures.write(text, &[]));
        assert!(page.contains("kubelet_pod_start_duration_seconds_bucket{le=\"1\"} 0\n"), "{page}");
        assert!(page.contains("kubelet_pod_start_duration_seconds_bucket{le=\"2\"} 1\n"), "{page}");
        assert!(page.contains("kubelet_pod_start_duration_seconds_sum 1.5\n"), "{page}");
    }

    #[test]
    fn evictions_are_counted_by_signal() {
        let measures = Measures::default();
        measures.evicted("memory.available");
        measures.evicted("memory.available");
        measures.evicted("emptydirfs.limit");
        measures.eviction_age("memory.available", Duration::from_millis(20));
        let page = page(|text| measures.write(text, &[]));
        for line in [
            "kubelet_evictions{eviction_signal=\"memory.available\"} 2\n",
            "kubelet_evictions{eviction_signal=\"emptydirfs.limit\"} 1\n",
            "kubelet_eviction_stats_age_seconds_bucket{eviction_signal=\"memory.available\",le=\"0.025\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn operations_are_counted_with_their_errors() {
        let measures = Measures::default();
        measures.operation("run_podsandbox", Duration::from_millis(300), true);
        measures.operation("run_podsandbox", Duration::from_millis(10), false);
        measures.operation("version", Duration::from_millis(1), true);
        let page = page(|text| measures.write(text, &[]));
        for line in [
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 2\n",
            "kubelet_runtime_operations_total{operation_type=\"version\"} 1\n",
            "kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"} 1\n",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"run_podsandbox\",le=\"0.0125\"} 1\n",
            "kubelet_started_pods_total 1\n",
            "kubelet_started_pods_errors_total 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("errors_total{operation_type=\"version\"}"), "{page}");
    }

    #[test]
    fn probes_are_counted_by_result_and_go_with_their_pod() {
        let measures = Measures::default();
        let pod = pod(serde_json::json!({"containers": []}));
        measures.probe(&pod, "app", probes::Kind::Liveness, Duration::from_millis(3), true);
        measures.probe(&pod, "app", probes::Kind::Liveness, Duration::from_millis(3), false);
        let page_before = page(|text| measures.write_probes(text));
        for line in [
            "prober_probe_total{container=\"app\",namespace=\"default\",pod=\"web\",pod_uid=\"u1\",probe_type=\"Liveness\",result=\"failed\"} 1\n",
            "prober_probe_total{container=\"app\",namespace=\"default\",pod=\"web\",pod_uid=\"u1\",probe_type=\"Liveness\",result=\"successful\"} 1\n",
            "prober_probe_duration_seconds_count{container=\"app\",namespace=\"default\",pod=\"web\",probe_type=\"Liveness\"} 2\n",
        ] {
            assert!(page_before.contains(line), "{line} is not in\n{page_before}");
        }
        measures.pod_gone("u1");
        assert_eq!(page(|text| measures.write_probes(text)), "");
    }
}
