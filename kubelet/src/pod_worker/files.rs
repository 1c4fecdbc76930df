//! The pod's own files: hosts, host name, resolver, termination messages.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet_runtime::{Mount, MountPropagation};
use tokio::io::AsyncReadExt;

use crate::{
    pod::{
        identity::{self, NameService},
        spec,
    },
    volumes::blocking,
};

/// Most of a termination message that a status carries (upstream's `MaxContainerTerminationMessageLength`).
const MESSAGE_LIMIT: u64 = 4096;

/// The files in a pod's directory.
#[derive(Debug, Clone)]
pub(super) struct PodFiles {
    directory: PathBuf,
}

impl PodFiles {
    /// In that directory.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes hosts, hostname and resolv.conf; says whether a cluster DNS was asked for and is missing.
    pub(super) async fn write(&self, pod: &Pod, names: &NameService, ips: &[IpAddr]) -> Result<bool, String> {
        let host_network = spec(pod).host_network == Some(true);
        let hosts = if host_network {
            let node = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
            identity::node_hosts(pod, &node)
        } else {
            identity::hosts(pod, names, ips)
        };
        let (resolver, missing) = identity::resolv_conf(pod, names);
        let hostname = format!("{}\n", identity::hostname(pod, names).0);
        let directory = self.directory.clone();
        blocking(move || {
            make(&directory)?;
            for (name, content) in [("etc-hosts", hosts), ("resolv.conf", resolver), ("hostname", hostname)] {
                let path = directory.join(name);
                // Written in place: containers hold the file itself, not its name.
                if fs::read_to_string(&path).ok().as_deref() != Some(content.as_str()) {
                    fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
                }
            }
            Ok(missing)
        })
        .await
    }

    /// The mounts of these files into a container, with a fresh file for its termination message.
    pub(super) async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
    ) -> Result<Vec<Mount>, String> {
        let read_only_root = container
            .security_context
            .as_ref()
            .and_then(|context| context.read_only_root_filesystem)
            .unwrap_or_default();
        let mount = |file: &str, target: &str, read_only: bool| Mount {
            source: self.directory.join(file),
            target: target.to_owned(),
            read_only,
            propagation: MountPropagation::Private,
        };
        let mut mounts = vec![
            mount("etc-hosts", "/etc/hosts", read_only_root),
            mount("resolv.conf", "/etc/resolv.conf", read_only_root),
        ];
        if spec(pod).host_network != Some(true) {
            mounts.push(mount("hostname", "/etc/hostname", read_only_root));
        }
        let message = self.message_path(&container.name, attempt);
        let path = message.clone();
        blocking(move || {
            make(path.parent().unwrap_or(&path))?;
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            fs::write(&path, "").map_err(failed)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(failed)
        })
        .await?;
        let target = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        mounts.push(Mount {
            source: message,
            target: target.unwrap_or("/dev/termination-log").to_owned(),
            read_only: false,
            propagation: MountPropagation::Private,
        });
        Ok(mounts)
    }

    fn message_path(&self, container: &str, attempt: u32) -> PathBuf {
        self.directory.join("containers").join(container).join(attempt.to_string())
    }

    /// What a run left as its termination message.
    pub(super) async fn message(&self, container: &str, attempt: u32) -> String {
        let Ok(file) = tokio::fs::File::open(self.message_path(container, attempt)).await else {
            return String::new();
        };
        let mut content = Vec::new();
        let _ = file.take(MESSAGE_LIMIT).read_to_end(&mut content).await;
        String::from_utf8_lossy(&content).into_owned()
    }

    /// Removes the file of an old run.
    pub(super) async fn forget_message(&self, container: &str, attempt: u32) {
        let _ = tokio::fs::remove_file(self.message_path(container, attempt)).await;
    }
}

fn make(directory: &Path) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))
}
