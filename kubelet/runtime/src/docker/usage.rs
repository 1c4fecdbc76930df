//! What this node's containers use, without a call to Docker: its containers' processes are known from the last
//! list, `/proc` tells whether they still are theirs, and the kernel's files hold the rest.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{DockerRuntime, labels, view::Inspected};
use crate::{
    ContainerState, PodIdentity, RuntimeError,
    usage::{
        ContainerUsage, PodGroupUsage, PodUsage, RuntimeUsage,
        disk::DiskMeter,
        groups::Groups,
        interfaces::{has_own_network, of_process},
    },
};

/// The name that Docker's integration with Kubernetes has always given to sandboxes.
const SANDBOX_NAME: &str = "POD";

/// What is known of a pod before anything is read.
struct Known {
    pod: PodIdentity,
    sandbox: Option<Candidate>,
    containers: Vec<Candidate>,
}

/// A container that ran when it was last seen.
struct Candidate {
    id: String,
    name: Option<String>,
    attempt: u32,
    seen: Inspected,
}

impl DockerRuntime {
    /// Reads what all pods use.
    pub(super) async fn measure(&self) -> Result<RuntimeUsage, RuntimeError> {
        let (pods, created, exited) = self.known();
        let storage = self.storage().await;
        let disk = Arc::clone(&self.disk);
        let read = move || {
            let layers: HashSet<&Path> = pods.iter().flat_map(Known::layers).collect();
            disk.keep_only(&layers);
            pods.iter().filter_map(|known| known.read(&disk)).collect()
        };
        // Some hundred small files: one blocking task for all costs a fraction of one for each.
        let pods = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| RuntimeError::Unavailable(format!("failed to read usage: {error}")))?;
        Ok(RuntimeUsage { pods, created, exited, storage })
    }

    /// What the index and the memory of inspected containers say, sorted by uid.
    fn known(&self) -> (Vec<Known>, usize, usize) {
        let mut index: Vec<_> =
            self.index.lock().iter().map(|(uid, pod)| (uid.clone(), pod.clone())).collect();
        index.sort_by(|(one, _), (other, _)| one.cmp(other));
        let ids = index.iter().flat_map(|(_, pod)| pod.containers.values());
        let (created, exited) = self.memory.count_idle(ids);
        let candidate = |id: &String, name: Option<&String>, attempt: u32| {
            let seen = self.memory.last_seen(id)?;
            seen.pid().map(|_| Candidate { id: id.clone(), name: name.cloned(), attempt, seen })
        };
        let pods = index.iter().filter_map(|(_, pod)| {
            let mut sandboxes = pod.sandboxes.iter().rev();
            Some(Known {
                pod: pod.pod.clone()?,
                sandbox: sandboxes.find_map(|(attempt, sandbox)| candidate(&sandbox.id, None, *attempt)),
                containers: pod
                    .containers
                    .iter()
                    .filter_map(|((name, attempt), id)| candidate(id, Some(name), *attempt))
                    .collect(),
            })
        });
        (pods.collect(), created, exited)
    }

    /// Docker's directory; asked for once.
    pub(super) async fn storage(&self) -> Option<PathBuf> {
        let ask = async || self.docker.info().await?.docker_root_dir.map(PathBuf::from).ok_or(NoDirectory);
        self.storage.get_or_try_init(ask).await.ok().cloned()
    }
}

/// Docker does not say where it keeps its things, now or ever.
struct NoDirectory;

impl From<bollard::errors::Error> for NoDirectory {
    fn from(_: bollard::errors::Error) -> Self {
        Self
    }
}

impl Known {
    fn layers(&self) -> impl Iterator<Item = &Path> {
        self.containers.iter().filter_map(|container| container.seen.layer.as_deref())
    }

    /// `None` if nothing of it runs any more.
    fn read(&self, disk: &DiskMeter) -> Option<PodUsage> {
        let sandbox = self.sandbox.as_ref().and_then(|sandbox| sandbox.read(&self.pod, None));
        let containers: Vec<ContainerUsage> =
            self.containers.iter().filter_map(|container| container.read(&self.pod, Some(disk))).collect();
        if sandbox.is_none() && containers.is_empty() {
            return None;
        }
        let process = self.sandbox.as_ref().filter(|_| sandbox.is_some()).and_then(|found| found.seen.pid());
        let interfaces = match process {
            Some(pid) if has_own_network(pid) => of_process(pid),
            _ => Vec::new(),
        };
        let group = sandbox.as_ref().and(self.sandbox.as_ref()).and_then(|found| found.pod_group(&self.pod));
        Some(PodUsage { pod: self.pod.clone(), group, sandbox, containers, interfaces })
    }
}

impl Candidate {
    /// The group that its own is in, if that is the pod's.
    fn pod_group(&self, pod: &PodIdentity) -> Option<PodGroupUsage> {
        let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", self.seen.pid()?)).ok()?;
        let groups = Groups::parse(&membership)?.of_pod(&pod.uid)?;
        Some(PodGroupUsage { group: groups.path().to_owned(), usage: groups.usage() })
    }

    /// `None` if it has ended meanwhile: its process is gone, or is somebody else's by now.
    fn read(&self, pod: &PodIdentity, disk: Option<&DiskMeter>) -> Option<ContainerUsage> {
        let ContainerState::Running { started_at, pid } = &self.seen.state else { return None };
        let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        if !membership.contains(&self.id) {
            return None;
        }
        let groups = Groups::parse(&membership)?;
        Some(ContainerUsage {
            name: self.name.clone().unwrap_or_else(|| SANDBOX_NAME.to_owned()),
            runtime_name: labels::container_name(pod, self.name.as_deref(), self.attempt),
            image: self.seen.image.clone(),
            started_at: started_at.clone(),
            group: groups.path().to_owned(),
            usage: groups.usage(),
            layer: disk.and_then(|disk| Some(disk.of(self.seen.layer.as_deref()?))),
            log_bytes: self.seen.log.as_deref().map(log_bytes).unwrap_or_default(),
        })
    }
}

/// The log and the older parts that Docker keeps beside it (`x.log`, `x.log.1`, …).
fn log_bytes(log: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
    let older = (1..).map_while(|number| size(Path::new(&format!("{}.{number}", log.display()))));
    size(log).unwrap_or_default() + older.sum::<u64>()
}
