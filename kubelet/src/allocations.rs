//! What each pod was given of the node, kept over a restart of the kubelet.
//!
//! A pod's spec says what it asks for now, which a resize may have changed without the node having granted it; so a
//! kubelet that starts cannot read from it what it gave. Upstream keeps a checkpoint (`allocated_pods_state`); here it
//! is one small file in the directory of each pod, replaced as a whole and gone with the pod, so that a write costs the
//! same however many pods there are and nothing is left to clean up. It is not synced: a machine that lost power runs
//! none of these containers any more. A file that is missing or damaged stops nobody; what the API last heard of the
//! pod's containers counts then.

use std::{fs, io::ErrorKind, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::{
    files::replace,
    pod::{resize::with_resources, spec, uid},
    volumes::Layout,
};

/// In the directory of a pod.
const FILE: &str = "allocated.json";

/// The files of all pods.
#[derive(Debug, Clone)]
pub(crate) struct Allocations {
    layout: Layout,
}

impl Allocations {
    /// In the directories of the layout.
    #[must_use]
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.layout.pod(uid).join(FILE)
    }

    /// Whether this node has ever given a pod something.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.path(uid).exists()
    }

    /// Notes what a pod is given; `allocated` is all that counts of it.
    pub(crate) fn keep(&self, allocated: &Pod, uid: &str) -> std::io::Result<()> {
        let (path, content) = (self.path(uid), serde_json::to_vec(allocated)?);
        match replace(&path, &content) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(self.layout.pod(uid))?;
                replace(&path, &content)
            }
            other => other,
        }
    }

    /// What a pod was given, as noted.
    pub(crate) fn read(&self, uid: &str) -> Option<Pod> {
        let damaged = |why: &dyn std::fmt::Display| {
            tracing::warn!(uid, "what the pod was given cannot be read: {why}");
        };
        match fs::read(self.path(uid)) {
            Ok(bytes) => match serde_json::from_slice::<Pod>(&bytes) {
                Ok(allocated) if allocated.spec.is_some() => return Some(allocated),
                Ok(_) => damaged(&"there is no spec"),
                Err(error) => damaged(&error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => damaged(&error),
        }
        None
    }

    /// The pod with what it was given in place of what it asks for.
    pub(crate) fn recall(&self, pod: &Pod) -> Pod {
        let allocated = self.read(uid(pod)).unwrap_or_else(|| reported(pod));
        with_resources(pod, &allocated)
    }
}

/// What the API was told last of what the pod and its containers have.
fn reported(pod: &Pod) -> Pod {
    let status = pod.status.as_ref();
    let read = |list: Option<&Vec<k8s_openapi::api::core::v1::ContainerStatus>>| -> Vec<Container> {
        let told = list.into_iter().flatten().filter(|status| status.resources.is_some());
        told.map(|status| Container {
            name: status.name.clone(),
            resources: status.resources.clone(),
            ..Container::default()
        })
        .collect()
    };
    Pod {
        spec: Some(PodSpec {
            containers: read(status.and_then(|status| status.container_statuses.as_ref())),
            init_containers: Some(read(status.and_then(|status| status.init_container_statuses.as_ref()))),
            resources: status
                .and_then(|status| status.resources.clone())
                .or_else(|| spec(pod).resources.clone()),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::{resources::demand, testing::pod};

    fn asking(cpu: &str, told: Option<&str>) -> Pod {
        let mut pod = pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}));
        pod.metadata.uid = Some("u".to_owned());
        pod.status = told.map(|cpu| {
            serde_json::from_value(
                json!({"containerStatuses": [{"name": "a", "ready": true, "restartCount": 0,
                "image": "i", "imageID": "i", "resources": {"requests": {"cpu": cpu}}}]}),
            )
            .unwrap()
        });
        pod
    }

    #[test]
    fn what_was_given_outlasts_what_is_asked_for_and_a_damaged_file_stops_nobody() {
        let home = tempfile::tempdir().unwrap();
        let files = Allocations::new(Layout::new(home.path()));
        let recall = |told| demand(&files.recall(&asking("3", told))).cpu;
        assert_eq!((files.has("u"), recall(None), recall(Some("2"))), (false, 3000, 2000));
        for cpu in ["500m", "1"] {
            files.keep(&asking(cpu, None), "u").unwrap();
        }
        assert!(files.has("u"));
        let mut whole = asking("1", Some("1"));
        whole.metadata.uid = Some("w".to_owned());
        whole.spec.as_mut().unwrap().resources =
            serde_json::from_value(json!({"requests": {"cpu": "4"}})).unwrap();
        assert_eq!(demand(&files.recall(&whole)).cpu, 4000, "of the pod as a whole nothing was told yet");
        whole.status.as_mut().unwrap().resources =
            serde_json::from_value(json!({"requests": {"cpu": "3"}})).unwrap();
        assert_eq!(demand(&files.recall(&whole)).cpu, 3000);
        assert_eq!(recall(Some("2")), 1000, "the file is nearer to the truth than the last status");
        let whole = fs::read(files.path("u")).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"\0\0\0\0"] {
            fs::write(files.path("u"), damaged).unwrap();
            assert_eq!((recall(None), recall(Some("2"))), (3000, 2000), "{damaged:?}");
        }
    }

    #[test]
    fn a_write_that_is_cut_off_leaves_the_one_before() {
        let home = tempfile::tempdir().unwrap();
        let files = Allocations::new(Layout::new(home.path()));
        files.keep(&asking("1", None), "u").unwrap();
        // As a kubelet leaves it that is killed while it writes.
        fs::write(files.path("u").with_added_extension("new"), "{\"spec\":").unwrap();
        assert_eq!(demand(&files.recall(&asking("3", None))).cpu, 1000);
        files.keep(&asking("2", None), "u").unwrap();
        assert_eq!(demand(&files.recall(&asking("3", None))).cpu, 2000);
    }
}
