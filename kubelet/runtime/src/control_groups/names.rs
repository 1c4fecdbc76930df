//! What a pod's control group is called: upstream's layout (`pkg/kubelet/cm/pod_container_manager_linux.go`) in the
//! words of both drivers (`cgroup_manager_linux.go`). Pure.
//!
//! A name is a list of words from the root on. As a directory they stand below one another; systemd's slices carry all
//! of them in each name (`a.slice/a-b.slice`), which is why a dash inside a word becomes an underscore there.

use std::path::PathBuf;

use super::{Driver, QosClass};

/// The group that holds all pods (upstream's `defaultNodeAllocatableCgroupName`).
const ALL_PODS: &str = "kubepods";
/// What a pod's own word begins with.
const POD_PREFIX: &str = "pod";
const SLICE_SUFFIX: &str = ".slice";

/// Which group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group<'a> {
    /// That of all pods.
    AllPods,
    /// That of all pods of a class; guaranteed ones stand in that of all pods.
    Class(QosClass),
    /// A pod's, by class and uid.
    Pod(QosClass, &'a str),
}

/// The words of a group's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(Vec<String>);

impl Name {
    /// A root as it is configured: words between slashes.
    pub(super) fn root(configured: &str) -> Self {
        Self(configured.split('/').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    /// A group below this root.
    pub(super) fn of(&self, group: &Group<'_>) -> Self {
        let mut words = self.0.clone();
        words.push(ALL_PODS.to_owned());
        let (class, uid) = match group {
            Group::AllPods => (QosClass::Guaranteed, None),
            Group::Class(class) => (*class, None),
            Group::Pod(class, uid) => (*class, Some(uid)),
        };
        match class {
            QosClass::Guaranteed => {}
            QosClass::Burstable => words.push("burstable".to_owned()),
            QosClass::BestEffort => words.push("besteffort".to_owned()),
        }
        words.extend(uid.map(|uid| format!("{POD_PREFIX}{uid}")));
        Self(words)
    }

    /// The group that this one is in.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        (!rest.is_empty()).then(|| Self(rest.to_vec()))
    }

    /// The directory below a hierarchy's mount point.
    pub(super) fn directory(&self, driver: Driver) -> PathBuf {
        match driver {
            Driver::Files => self.0.iter().collect(),
            Driver::Systemd => (1..=self.0.len()).map(|count| slice(&self.0[..count])).collect(),
        }
    }

    /// The name of the slice.
    pub(super) fn slice(&self) -> String {
        slice(&self.0)
    }

    /// What a runtime is told to put containers into.
    pub(super) fn for_runtime(&self, driver: Driver) -> String {
        match driver {
            Driver::Files => format!("/{}", self.0.join("/")),
            Driver::Systemd => self.slice(),
        }
    }
}

fn slice(words: &[String]) -> String {
    let escaped: Vec<String> = words.iter().map(|word| word.replace('-', "_")).collect();
    format!("{}{SLICE_SUFFIX}", escaped.join("-"))
}

/// The uid of the pod that a directory is of; `None` if it is no pod's.
pub(super) fn uid_of(directory: &str, driver: Driver) -> Option<String> {
    match driver {
        Driver::Files => directory.strip_prefix(POD_PREFIX).map(str::to_owned),
        Driver::Systemd => {
            let (_, word) = directory.strip_suffix(SLICE_SUFFIX)?.rsplit_once('-')?;
            Some(word.strip_prefix(POD_PREFIX)?.replace('_', "-"))
        }
    }
}

/// Whether a directory is that pod's, whichever driver made it.
pub(crate) fn is_of_pod(directory: &str, uid: &str) -> bool {
    [Driver::Files, Driver::Systemd]
        .into_iter()
        .any(|driver| uid_of(directory, driver).is_some_and(|found| found == uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_upstream_s_in_both_drivers() {
        let root = Name::root("/minik8s-n1");
        let pod = root.of(&Group::Pod(QosClass::Burstable, "a-1"));
        assert_eq!(pod.for_runtime(Driver::Files), "/minik8s-n1/kubepods/burstable/poda-1");
        assert_eq!(pod.directory(Driver::Files), PathBuf::from("minik8s-n1/kubepods/burstable/poda-1"));
        assert_eq!(pod.for_runtime(Driver::Systemd), "minik8s_n1-kubepods-burstable-poda_1.slice");
        assert_eq!(
            pod.directory(Driver::Systemd),
            PathBuf::from(
                "minik8s_n1.slice/minik8s_n1-kubepods.slice/minik8s_n1-kubepods-burstable.slice/\
                 minik8s_n1-kubepods-burstable-poda_1.slice"
            )
        );
        assert_eq!(
            pod.parent().map(|parent| parent.slice()).as_deref(),
            Some("minik8s_n1-kubepods-burstable.slice")
        );
        let bare = Name::root("/");
        let guaranteed = bare.of(&Group::Pod(QosClass::Guaranteed, "a-1"));
        assert_eq!(guaranteed.for_runtime(Driver::Files), "/kubepods/poda-1");
        assert_eq!(bare.of(&Group::Class(QosClass::BestEffort)).slice(), "kubepods-besteffort.slice");
        assert_eq!(bare.of(&Group::AllPods).parent(), None);
    }

    #[test]
    fn a_pod_is_known_by_its_directory() {
        assert_eq!(uid_of("poda-1", Driver::Files).as_deref(), Some("a-1"));
        assert_eq!(uid_of("burstable", Driver::Files), None);
        assert_eq!(uid_of("kubepods-burstable-poda_1.slice", Driver::Systemd).as_deref(), Some("a-1"));
        assert_eq!(uid_of("kubepods-burstable.slice", Driver::Systemd), None);
        assert!(is_of_pod("kubepods-poda_1.slice", "a-1") && is_of_pod("poda-1", "a-1"));
        assert!(!is_of_pod("docker", "a-1"));
    }
}
