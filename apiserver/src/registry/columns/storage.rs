//! Volumes, claims, and what provides them.

use serde_json::Value;

use super::{AGE, Column, NAME, Printer, Row, items, joined, length, text, text_or};

/// Where the class of a volume or claim stood before it was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) const PERSISTENT_VOLUME: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Capacity", "How large the volume is."),
        Column::text("Access Modes", "How the volume can be mounted."),
        Column::text("Reclaim Policy", "What becomes of the volume when its claim is gone."),
        Column::text("Status", "Whether the volume is available, bound, released or failed."),
        Column::text("Claim", "The claim that the volume is bound to."),
        Column::text("StorageClass", "The volume's class."),
        Column::text("VolumeAttributesClass", "The class of the volume's attributes."),
        Column::text("Reason", "Why the volume is in that state."),
        AGE,
        Column::text("VolumeMode", "A file system or a block device.").wide(),
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let claim = &spec["claimRef"];
        let claim = if claim.is_object() {
            format!("{}/{}", text(&claim["namespace"]), text(&claim["name"]))
        } else {
            String::new()
        };
        vec![
            row.name(),
            text_or(&spec["capacity"]["storage"], "0").into(),
            access_modes(&spec["accessModes"]).into(),
            text(&spec["persistentVolumeReclaimPolicy"]).into(),
            phase(row).into(),
            claim.into(),
            class(row).into(),
            text_or(&spec["volumeAttributesClassName"], "<unset>").into(),
            text(&status["reason"]).into(),
            row.age(),
            text_or(&spec["volumeMode"], "<unset>").into(),
        ]
    },
};

pub(super) const PERSISTENT_VOLUME_CLAIM: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the claim is pending, bound or lost."),
        Column::text("Volume", "The volume that the claim is bound to."),
        Column::text("Capacity", "How large the volume is."),
        Column::text("Access Modes", "How the volume can be mounted."),
        Column::text("StorageClass", "The claim's class."),
        Column::text("VolumeAttributesClass", "The class of the volume's attributes."),
        AGE,
        Column::text("VolumeMode", "A file system or a block device.").wide(),
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let volume = text(&spec["volumeName"]);
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            (text_or(&status["capacity"]["storage"], "0").to_owned(), access_modes(&status["accessModes"]))
        };
        vec![
            row.name(),
            phase(row).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class(row).into(),
            text_or(&spec["volumeAttributesClassName"], "<unset>").into(),
            row.age(),
            text_or(&spec["volumeMode"], "<unset>").into(),
        ]
    },
};

fn phase(row: &Row<'_>) -> String {
    if row.deleted() { "Terminating".to_owned() } else { text(&row.object["status"]["phase"]).to_owned() }
}

fn class(row: &Row<'_>) -> String {
    let annotation = text(&row.object["metadata"]["annotations"][CLASS_ANNOTATION]);
    if annotation.is_empty() { text(&row.object["spec"]["storageClassName"]) } else { annotation }.to_owned()
}

/// Access modes in their short form and usual order, each once.
fn access_modes(modes: &Value) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = items(modes);
    joined(short.iter().filter(|(name, _)| given.iter().any(|mode| mode == name)).map(|(_, short)| *short))
}

pub(super) const STORAGE_CLASS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Provisioner", "What makes volumes of the class."),
        Column::text("ReclaimPolicy", "What becomes of a volume when its claim is gone."),
        Column::text("VolumeBindingMode", "Whether volumes are made at once or for the first pod."),
        Column::text("AllowVolumeExpansion", "Whether claims may grow."),
        AGE,
    ],
    cells: |row| {
        let class = row.object;
        let mut name = text(&class["metadata"]["name"]).to_owned();
        let annotations = &class["metadata"]["annotations"];
        let is_default = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .iter()
        .any(|annotation| annotations[*annotation] == "true");
        if is_default {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            text(&class["provisioner"]).into(),
            text_or(&class["reclaimPolicy"], "Delete").into(),
            text_or(&class["volumeBindingMode"], "Immediate").into(),
            (class["allowVolumeExpansion"] == true).into(),
            row.age(),
        ]
    },
};

pub(super) const VOLUME_ATTRIBUTES_CLASS: Printer = Printer {
    columns: &[NAME, Column::text("DriverName", "The driver that knows the attributes."), AGE],
    cells: |row| vec![row.name(), text(&row.object["driverName"]).into(), row.age()],
};

pub(super) const VOLUME_ATTACHMENT: Printer = Printer {
    columns: &[
        NAME,
        Column { format: "name", ..Column::text("Attacher", "The driver that attaches the volume.") },
        Column::text("PV", "The volume."),
        Column::text("Node", "The node that it is attached to."),
        Column::boolean("Attached", "Whether it is attached."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        vec![
            row.name(),
            text(&spec["attacher"]).into(),
            text(&spec["source"]["persistentVolumeName"]).into(),
            text(&spec["nodeName"]).into(),
            (row.object["status"]["attached"] == true).into(),
            row.age(),
        ]
    },
};

pub(super) const CSI_NODE: Printer = Printer {
    columns: &[NAME, Column::integer("Drivers", "How many drivers the node has."), AGE],
    cells: |row| vec![row.name(), length(&row.object["spec"]["drivers"]).into(), row.age()],
};

pub(super) const CSI_DRIVER: Printer = Printer {
    columns: &[
        NAME,
        Column::boolean("AttachRequired", "Whether volumes must be attached before they are mounted."),
        Column::boolean("PodInfoOnMount", "Whether the driver is told which pod a mount is for."),
        Column::boolean("StorageCapacity", "Whether the driver says how much room it has."),
        Column::text("TokenRequests", "For whom the driver wants tokens of service accounts."),
        Column::boolean("RequiresRepublish", "Whether the driver wants to be called again and again."),
        Column::text("Modes", "The life cycles that the driver's volumes may have."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let tokens = match &spec["tokenRequests"] {
            Value::Array(requests) => joined(requests.iter().map(|request| text(&request["audience"]))),
            _ => "<unset>".to_owned(),
        };
        let modes = joined(items(&spec["volumeLifecycleModes"]).iter().map(text));
        vec![
            row.name(),
            (spec["attachRequired"] != false).into(),
            (spec["podInfoOnMount"] == true).into(),
            (spec["storageCapacity"] == true).into(),
            tokens.into(),
            (spec["requiresRepublish"] == true).into(),
            if modes.is_empty() { "<none>".into() } else { modes.into() },
            row.age(),
        ]
    },
};

pub(super) const CSI_STORAGE_CAPACITY: Printer = Printer {
    columns: &[
        NAME,
        Column::text("StorageClassName", "The class that the capacity is about."),
        Column::text("Capacity", "How much room there is."),
    ],
    cells: |row| {
        let capacity = text_or(&row.object["capacity"], "<unset>");
        vec![row.name(), text(&row.object["storageClassName"]).into(), capacity.into()]
    },
};
