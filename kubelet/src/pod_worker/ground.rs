//! What containers stand on: the sandbox, its network, the volumes and the pod's own files.
//!
//! Made side by side as far as one does not need another, because the start of a pod waits for all of them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use client::{Backoff, EventType};
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ADDRESS_ANNOTATION, NetworkMode, PodView, SandboxSpec, SandboxView};
use tokio::time::Instant;

use super::{Worker, files::PodFiles};
use crate::{
    api,
    network::host_ports,
    pod::{self, described, downward::Surroundings, identity, plan::newest_sandbox, security, spec, uid},
    volumes::{Prepared, VolumeError},
};

impl Worker {
    pub(super) fn address_of(&self, pod: &Pod, sandbox: Option<&SandboxView>) -> Option<IpAddr> {
        if spec(pod).host_network == Some(true) {
            return None;
        }
        let noted = sandbox.and_then(|sandbox| sandbox.annotations.get(ADDRESS_ANNOTATION)?.parse().ok());
        noted.or_else(|| self.context.network.borrow().as_ref().and_then(|network| network.address(uid(pod))))
    }

    /// Brings volumes up to date when they may be stale; gives the time until then.
    pub(super) async fn refresh_volumes(&mut self, pod: &Pod) -> Option<Duration> {
        let now = Instant::now();
        let due = match &self.volumes {
            None => now,
            Some((_, due)) => (*due)?,
        };
        if due > now {
            return Some(due - now);
        }
        match self.prepare_volumes(pod, &self.around(pod), crate::volumes::REFRESH / 2).await {
            Ok(prepared) => {
                let next =
                    if self.volumes.is_none() { first_wait(&prepared) } else { prepared.refresh_after };
                self.volumes = Some((prepared.paths, next.map(|time| Instant::now() + time)));
                next
            }
            Err(error) => {
                tracing::warn!(pod = described(pod), "a volume cannot be refreshed: {error}");
                Some(Duration::from_secs(30))
            }
        }
    }

    /// Sets volumes up, unless the runtime has no use for them.
    async fn prepare_volumes(
        &self,
        pod: &Pod,
        around: &Surroundings,
        max_age: Duration,
    ) -> Result<Prepared, VolumeError> {
        if !self.context.runtime.capabilities().volumes {
            return Ok(Prepared::default());
        }
        self.context.volumes.prepare(pod, around, max_age).await
    }

    pub(super) fn around(&self, pod: &Pod) -> Surroundings {
        let pod_ips = if spec(pod).host_network == Some(true) {
            self.context.host_ips.clone()
        } else {
            self.address.into_iter().collect()
        };
        Surroundings {
            pod_ips,
            host_ips: self.context.host_ips.clone(),
            allocatable: self.context.allocatable,
        }
    }

    pub(super) fn files(&self, pod: &Pod) -> PodFiles {
        PodFiles::new(self.context.volumes.layout().pod(uid(pod)))
    }

    /// Sandbox, network, volumes and files, as far as possible side by side.
    pub(super) async fn make_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> Result<SandboxView, String> {
        let around = self.around(pod);
        let host_network = spec(pod).host_network == Some(true);
        let wants_address_in_volume = spec(pod)
            .volumes
            .iter()
            .flatten()
            .any(|volume| volume.downward_api.is_some() || volume.projected.is_some());
        let mut sandbox_spec = self.sandbox_spec(pod, attempt);
        let handler = self.handler(pod).await;
        sandbox_spec.handler = handler.map_err(|why| self.sandbox_failed(pod, &why))?;
        let sandbox = self.context.runtime.ensure_sandbox(&sandbox_spec);
        let volumes = self.prepare_volumes(pod, &around, Duration::ZERO);
        let (sandbox, volumes) = tokio::join!(sandbox, volumes);
        let sandbox = sandbox.map_err(|error| self.sandbox_failed(pod, &error))?;
        if !host_network {
            self.attach(pod, &sandbox).await?;
        }
        match volumes {
            Ok(prepared) => {
                let due = first_wait(&prepared).map(|time| Instant::now() + time);
                // A volume that may show the pod's address is written again at once, now that there is one.
                let due =
                    if wants_address_in_volume && shows_address(pod) { Some(Instant::now()) } else { due };
                self.volumes = Some((prepared.paths, due));
                if due.is_some_and(|due| due <= Instant::now()) {
                    self.refresh_volumes(pod).await;
                }
            }
            Err(error) => return Err(self.volume_failed(pod, &error)),
        }
        self.write_files(pod).await?;
        Ok(sandbox)
    }

    /// The handler of the pod's RuntimeClass, as the API has it now (upstream's `LookupRuntimeHandler`).
    async fn handler(&self, pod: &Pod) -> Result<Option<String>, String> {
        let Some(name) = spec(pod).runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let class = self.context.client.get(api::runtime_classes(), "", name).await;
        let class = class.map_err(|error| client::error::chain(&error))?;
        Ok(class["handler"].as_str().map(str::to_owned))
    }

    fn sandbox_failed(&self, pod: &Pod, error: &dyn std::fmt::Display) -> String {
        let text = format!("Failed to create pod sandbox: {error}");
        self.context.events.pod(pod, EventType::Warning, "FailedCreatePodSandBox", &text);
        text
    }

    fn volume_failed(&self, pod: &Pod, error: &VolumeError) -> String {
        let text = error.to_string();
        self.context.events.pod(pod, EventType::Warning, error.reason(), &text);
        text
    }

    async fn attach(&mut self, pod: &Pod, sandbox: &SandboxView) -> Result<(), String> {
        self.address = self
            .address_of(pod, Some(sandbox))
            .filter(|_| sandbox.annotations.contains_key(ADDRESS_ANNOTATION));
        if self.address.is_some() {
            return Ok(());
        }
        let network = self.context.network.borrow().clone();
        let (Some(network), Some(pid)) = (network, sandbox.pid) else {
            return Err("the sandbox has no process whose network could be set up".to_owned());
        };
        let attached = network.attach(uid(pod), pid, host_ports(pod)).await;
        match attached {
            Ok(address) => {
                self.address = Some(address);
                Ok(())
            }
            Err(message) => {
                let text =
                    format!("Failed to create pod sandbox: failed to set up the pod's network: {message}");
                self.context.events.pod(pod, EventType::Warning, "FailedCreatePodSandBox", &text);
                Err(text)
            }
        }
    }

    /// What a start in an old sandbox needs: network, volumes and files, after a restart of the kubelet or an
    /// earlier failure.
    pub(super) async fn ensure_ground(
        &mut self,
        pod: &Arc<Pod>,
        view: Option<&PodView>,
    ) -> Result<(), String> {
        if spec(pod).host_network != Some(true)
            && self.address.is_none()
            && let Some(sandbox) = newest_sandbox(view).cloned()
        {
            self.attach(pod, &sandbox).await?;
        }
        if self.volumes.is_none() {
            let prepared = self.prepare_volumes(pod, &self.around(pod), Duration::ZERO).await;
            let prepared = prepared.map_err(|error| self.volume_failed(pod, &error))?;
            let due = first_wait(&prepared).map(|time| Instant::now() + time);
            self.volumes = Some((prepared.paths, due));
        }
        self.write_files(pod).await
    }

    async fn write_files(&mut self, pod: &Pod) -> Result<(), String> {
        if self.files_written || !self.context.runtime.capabilities().volumes {
            return Ok(());
        }
        let missing_dns = self.files(pod).write(pod, &self.context.names, &self.around(pod).pod_ips).await?;
        if missing_dns {
            tracing::debug!(
                pod = described(pod),
                "no cluster DNS is configured; the node's resolver is used"
            );
        }
        self.files_written = true;
        Ok(())
    }

    fn sandbox_spec(&self, pod: &Pod, attempt: u32) -> SandboxSpec {
        let spec = spec(pod);
        let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
        SandboxSpec {
            pod: pod::identity(pod),
            attempt,
            hostname: identity::hostname(pod, &self.context.names).0,
            network: if spec.host_network == Some(true) { NetworkMode::Host } else { NetworkMode::Pod },
            host_ipc: spec.host_ipc.unwrap_or_default(),
            host_pid: spec.host_pid.unwrap_or_default(),
            share_process_namespace: spec.share_process_namespace.unwrap_or_default(),
            sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
            shm_size: None,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            annotations: BTreeMap::new(),
            image: self.context.sandbox_image.clone(),
            security_options: security::of_sandbox(pod),
            group: self.context.groups.parent(pod),
            handler: None,
        }
    }
}

/// Until volumes that were set up just now are looked at again. Pods that came together part here: they would look together
/// for ever, and need the memory for it all at once (upstream's workers part too: `workerResyncIntervalJitterFactor`).
fn first_wait(prepared: &Prepared) -> Option<Duration> {
    prepared.refresh_after.map(|time| Backoff::new(time, time).next_delay())
}

/// Whether a pod shows its own address in a volume.
fn shows_address(pod: &Pod) -> bool {
    let shows = |path: Option<&str>| path.is_some_and(|path| path.starts_with("status."));
    spec(pod).volumes.iter().flatten().any(|volume| {
        let direct = volume.downward_api.iter().flat_map(|source| source.items.iter().flatten());
        let projected = volume
            .projected
            .iter()
            .flat_map(|source| source.sources.iter().flatten())
            .filter_map(|source| source.downward_api.as_ref())
            .flat_map(|source| source.items.iter().flatten());
        direct
            .chain(projected)
            .any(|item| shows(item.field_ref.as_ref().map(|reference| reference.field_path.as_str())))
    })
}
