//! What is counted of volumes: which of them pods have, and how long it took to give them.
//!
//! Upstream's `pkg/kubelet/volumemanager/metrics` and `pkg/volume/util/metrics.go`.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    histogram::{Histogram, STORAGE},
    text::{Kind, Text},
};

/// A volume that a pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodVolume {
    /// Its name in the pod.
    pub name: String,
    /// What carries it: `kubernetes.io/empty-dir`.
    pub plugin: &'static str,
    /// The claim that it goes through, if it goes through one.
    pub claim: Option<String>,
    /// Where it stands on the node.
    pub path: PathBuf,
}

/// What a pod has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodVolumes {
    /// The pod's namespace, and its claims'.
    pub namespace: String,
    /// All of them.
    pub volumes: Vec<PodVolume>,
}

/// Plugin, operation and outcome, as upstream labels them.
type Operation = (&'static str, &'static str, &'static str);

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct VolumeMeasures {
    /// By pod uid. Goes with the pod's directory.
    mounted: Mutex<HashMap<String, PodVolumes>>,
    operations: Mutex<BTreeMap<Operation, Histogram>>,
}

impl VolumeMeasures {
    /// A pod has got these volumes.
    pub(crate) fn mounted(&self, uid: &str, volumes: PodVolumes) {
        self.mounted.lock().insert(uid.to_owned(), volumes);
    }

    /// A pod's volumes have been taken away, all together in that time.
    pub(crate) fn unmounted(&self, uid: &str, took: Duration) {
        let gone = self.mounted.lock().remove(uid);
        for volume in gone.iter().flat_map(|gone| &gone.volumes) {
            self.operation(volume.plugin, "volume_unmount", took, true);
        }
    }

    /// Something was done to a volume, or failed.
    pub(crate) fn operation(
        &self,
        plugin: &'static str,
        operation: &'static str,
        took: Duration,
        succeeded: bool,
    ) {
        let status = if succeeded { "success" } else { "fail-unknown" };
        let mut operations = self.operations.lock();
        operations
            .entry((plugin, operation, status))
            .or_insert_with(|| Histogram::new(&STORAGE))
            .observe(took);
    }

    /// What pods have, by uid.
    pub(crate) fn of_pods(&self) -> HashMap<String, PodVolumes> {
        self.mounted.lock().clone()
    }

    /// Writes the families. `desired` are the plugins of all volumes that pods of this node should have.
    pub(super) fn write(&self, text: &mut Text, desired: &[&'static str]) {
        {
            let mut family = text.family(
                "storage_operation_duration_seconds",
                Kind::Histogram,
                "[ALPHA] Storage operation duration",
            );
            for ((plugin, operation, status), durations) in self.operations.lock().iter() {
                let labels = [
                    ("migrated", "false"),
                    ("operation_name", operation),
                    ("status", status),
                    ("volume_plugin", plugin),
                ];
                durations.write(&mut family, &labels);
            }
        }
        let mounted = self.mounted.lock();
        let actual = mounted.values().flat_map(|pod| &pod.volumes).map(|volume| volume.plugin);
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for plugin in actual {
            *counts.entry((plugin, "actual_state_of_world")).or_default() += 1;
        }
        for plugin in desired {
            *counts.entry((plugin, "desired_state_of_world")).or_default() += 1;
        }
        let help = "[ALPHA] Number of volumes in Volume Manager";
        let mut family = text.family("volume_manager_total_volumes", Kind::Gauge, help);
        for ((plugin, state), count) in counts {
            family.sample(&[("plugin_name", plugin), ("state", state)], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_counted_as_long_as_their_pod_has_them() {
        let measures = VolumeMeasures::default();
        let volume = |name: &str, plugin| PodVolume {
            name: name.to_owned(),
            plugin,
            claim: None,
            path: PathBuf::from("/v"),
        };
        let volumes = vec![volume("a", "kubernetes.io/empty-dir"), volume("b", "kubernetes.io/empty-dir")];
        measures.operation("kubernetes.io/empty-dir", "volume_mount", Duration::from_millis(200), true);
        measures.operation("kubernetes.io/secret", "volume_mount", Duration::from_secs(1), false);
        measures.mounted("u", PodVolumes { namespace: "d".into(), volumes });
        let page = |desired: &[&'static str]| {
            let mut text = Text::default();
            measures.write(&mut text, desired);
            text.finish()
        };
        let before = page(&["kubernetes.io/empty-dir", "kubernetes.io/empty-dir", "kubernetes.io/secret"]);
        for line in [
            "storage_operation_duration_seconds_bucket{migrated=\"false\",operation_name=\"volume_mount\",status=\"success\",volume_plugin=\"kubernetes.io/empty-dir\",le=\"0.25\"} 1\n",
            "storage_operation_duration_seconds_count{migrated=\"false\",operation_name=\"volume_mount\",status=\"fail-unknown\",volume_plugin=\"kubernetes.io/secret\"} 1\n",
            "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"} 2\n",
            "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"desired_state_of_world\"} 2\n",
            "volume_manager_total_volumes{plugin_name=\"kubernetes.io/secret\",state=\"desired_state_of_world\"} 1\n",
        ] {
            assert!(before.contains(line), "{line} is not in\n{before}");
        }
        measures.unmounted("u", Duration::from_millis(10));
        let after = page(&[]);
        assert!(!after.contains("volume_manager_total_volumes"), "{after}");
        assert!(after.contains("operation_name=\"volume_unmount\",status=\"success\",volume_plugin=\"kubernetes.io/empty-dir\"} 2\n"), "{after}");
    }
}
