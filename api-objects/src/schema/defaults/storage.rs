//! Defaults of storage.k8s.io and of the volume sources that have some.

use serde_json::json;

use super::{Fields, absent, ensure, inside, is_empty, text};

pub(super) fn storage_class(object: &mut Fields) {
    absent(object, "reclaimPolicy", "Delete");
    absent(object, "volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        absent(spec, "attachRequired", true);
        absent(spec, "podInfoOnMount", false);
        absent(spec, "storageCapacity", false);
        absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if is_empty(spec, "volumeLifecycleModes") {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
        absent(spec, "requiresRepublish", false);
        absent(spec, "seLinuxMount", false);
    });
}

/// The volume may stand in the attachment itself.
pub(super) fn volume_attachment(object: &mut Fields) {
    inside(object, "spec", |spec| {
        inside(spec, "source", |source| inside(source, "inlineVolumeSpec", volume_source));
    });
}

/// The sources that a Pod's volume and a PersistentVolume share.
pub(super) fn volume_source(source: &mut Fields) {
    inside(source, "hostPath", |path| absent(path, "type", ""));
    inside(source, "iscsi", |iscsi| text(iscsi, "iscsiInterface", "default"));
    inside(source, "rbd", |rbd| {
        text(rbd, "pool", "rbd");
        text(rbd, "user", "admin");
        text(rbd, "keyring", "/etc/ceph/keyring");
    });
    inside(source, "azureDisk", |disk| {
        absent(disk, "cachingMode", "ReadWrite");
        absent(disk, "fsType", "ext4");
        absent(disk, "readOnly", false);
        absent(disk, "kind", "Shared");
    });
    inside(source, "scaleIO", |volume| {
        text(volume, "storageMode", "ThinProvisioned");
        text(volume, "fsType", "xfs");
    });
}
