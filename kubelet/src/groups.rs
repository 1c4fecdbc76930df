//! The control groups of this node's pods: made before their sandboxes, kept as the pods change, gone with them.
//!
//! What they are set to is decided in `pod::group`, how that is written is `kubelet_runtime::control_groups`. Where
//! control groups cannot be written, pods go without: containers keep their own limits, and the log says so once.

use std::{collections::BTreeSet, io, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{
    PodRuntime, RuntimeFacts,
    control_groups::{Group, GroupSettings, Mode, PodGroups, QosClass},
};
use tokio::sync::Mutex;

use crate::{
    config::{Config, RuntimeKind},
    pod::{
        group::{class, group, settings},
        resources::{Demand, shares},
        uid,
    },
    volumes,
};

/// The groups, if there can be any.
#[derive(Debug)]
pub(crate) struct Groups {
    inner: Option<Arc<PodGroups>>,
    pids_limit: Option<i64>,
    /// Bytes of the pages that this machine has.
    huge_page_sizes: Vec<u64>,
    /// The shares that burstable pods have together, as written last. Held while they are written.
    burstable: Mutex<Option<i64>>,
}

impl Groups {
    /// Makes those that hold all pods and their classes.
    pub(crate) async fn open(
        config: &Config,
        facts: Result<RuntimeFacts, String>,
        allocatable: Demand,
        huge_page_sizes: Vec<u64>,
    ) -> Self {
        let inner = match facts {
            Ok(facts) => match facts.control_groups {
                Some((driver, version)) => {
                    let root = config.cgroup_root.clone();
                    blocking(move || {
                        let groups = PodGroups::open(driver, version, &root)?;
                        make_classes(&groups, allocatable)?;
                        Ok(groups)
                    })
                    .await
                }
                None => Err("the container runtime has none".to_owned()),
            },
            Err(error) => Err(error),
        };
        let inner = match inner {
            Ok(groups) => Some(Arc::new(groups)),
            Err(why) => {
                if config.runtime == RuntimeKind::Docker {
                    tracing::warn!(
                        "pods go without control groups of their own, only containers are limited: {why}"
                    );
                }
                None
            }
        };
        Self { inner, pids_limit: config.pod_pids_limit, huge_page_sizes, burstable: Mutex::default() }
    }

    /// What a pod's group is to be set to.
    pub(crate) fn settings(&self, pod: &Pod) -> Option<GroupSettings> {
        self.inner.as_ref().map(|_| settings(pod, self.pids_limit, &self.huge_page_sizes))
    }

    /// What the runtime is told to put the pod's containers into.
    pub(crate) fn parent(&self, pod: &Pod) -> Option<String> {
        self.inner.as_ref().map(|groups| groups.parent(&group(pod)))
    }

    /// Makes a pod's group, or sets the one that is there.
    pub(crate) async fn ensure(&self, pod: &Pod, settings: GroupSettings, mode: Mode) -> Result<(), String> {
        let Some(groups) = self.inner.clone() else { return Ok(()) };
        let (class, uid) = (class(pod), uid(pod).to_owned());
        blocking(move || groups.ensure(&Group::Pod(class, &uid), &settings, mode)).await
    }

    /// Removes a pod's group.
    pub(crate) async fn remove(&self, uid: &str) -> Result<(), String> {
        let Some(groups) = self.inner.clone() else { return Ok(()) };
        let uid = uid.to_owned();
        blocking(move || groups.remove(&uid)).await
    }

    /// The uids of the pods that have one.
    pub(crate) async fn pods(&self) -> BTreeSet<String> {
        let Some(groups) = self.inner.clone() else { return BTreeSet::new() };
        blocking(move || Ok(groups.pods())).await.unwrap_or_default()
    }

    /// Gives burstable pods together the weight of what they request (upstream's `setCPUCgroupConfig`).
    pub(crate) async fn balance(&self, burstable_milli: impl FnOnce() -> i64) {
        let Some(groups) = self.inner.clone() else { return };
        let mut written = self.burstable.lock().await;
        // Counted only now: whoever waited here must not write what was true before.
        let wanted = shares(burstable_milli());
        if *written == Some(wanted) {
            return;
        }
        let settings = GroupSettings { cpu_shares: Some(wanted), ..GroupSettings::default() };
        let set = move || groups.ensure(&Group::Class(QosClass::Burstable), &settings, Mode::Exact);
        match blocking(set).await {
            Ok(()) => *written = Some(wanted),
            Err(error) => tracing::warn!("burstable pods keep their weight for now: {error}"),
        }
    }
}

/// All pods together may use what the node has to give; best-effort ones have the least weight, and what burstable
/// ones have follows from the pods.
fn make_classes(groups: &PodGroups, allocatable: Demand) -> io::Result<()> {
    let all = GroupSettings {
        cpu_shares: Some(shares(allocatable.cpu)),
        memory_limit: Some(allocatable.memory),
        ..GroupSettings::default()
    };
    groups.ensure(&Group::AllPods, &all, Mode::Exact)?;
    groups.ensure(&Group::Class(QosClass::Burstable), &GroupSettings::default(), Mode::Exact)?;
    let least = GroupSettings { cpu_shares: Some(shares(0)), ..GroupSettings::default() };
    groups.ensure(&Group::Class(QosClass::BestEffort), &least, Mode::Exact)
}

/// Off the tasks' threads: some small files, or systemd.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    volumes::blocking(move || work().map_err(|error| error.to_string())).await
}

/// Removes every group below a kubelet's root.
pub(crate) async fn remove_everything(config: &Config, runtime: &dyn PodRuntime) -> Result<(), String> {
    let facts = runtime.facts().await.map_err(|error| error.to_string())?;
    let Some((driver, version)) = facts.control_groups else { return Ok(()) };
    let root = config.cgroup_root.clone();
    blocking(move || match PodGroups::open(driver, version, &root) {
        Ok(groups) => groups.remove_everything(),
        // Where none are mounted there are none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
    .await
}
