//! Claims and volumes from end to end: bound with the first pod, kept while in use, gone with their data afterwards.

use std::{fs, path::PathBuf};

use crate::harness::{Cluster, IMAGE, holder};

const FOLDER: &str = "examples/persistent-volumes";

#[test]
fn volumes_outlive_pods_and_end_with_their_claims() {
    let cluster = Cluster::start(&[]);
    a_claim_waits_for_its_pod(&cluster);
    let directory = data_outlives_the_pod(&cluster);
    protected_while_in_use(&cluster, &directory);
    a_reserved_local_volume(&cluster);
    what_nobody_binds(&cluster);
    one_pod_s_own(&cluster);
    inline_drivers(&cluster);
}

fn apply(cluster: &Cluster, file: &str) {
    cluster.kubectl(&["apply", "-f", &format!("{FOLDER}/{file}")]).ok();
}

fn a_claim_waits_for_its_pod(cluster: &Cluster) {
    apply(cluster, "claim.yaml");
    assert_eq!(cluster.field("pvc/data", "{.spec.storageClassName}"), "standard", "the default class");
    assert_eq!(cluster.field("pvc/data", "{.metadata.finalizers}"), "[\"kubernetes.io/pvc-protection\"]");
    cluster.wait_for_event("", "waiting for first consumer to be created before binding");
    assert_eq!(cluster.field("pvc/data", "{.status.phase}"), "Pending");
    assert_eq!(cluster.field("pv", "{.items}"), "[]");
}

/// Gives the directory of the volume.
fn data_outlives_the_pod(cluster: &Cluster) -> PathBuf {
    apply(cluster, "writer.yaml");
    cluster.wait("pod/writer", "condition=Ready");
    let volume = cluster.field("pvc/data", "{.spec.volumeName}");
    cluster.wait("pvc/data", "jsonpath={.status.phase}=Bound");
    cluster.wait(&format!("pv/{volume}"), "jsonpath={.status.phase}=Bound");
    assert_eq!(cluster.field("pvc/data", "{.status.capacity.storage}"), "64Mi");
    for annotation in ["bind-completed", "bound-by-controller"] {
        let path = format!("{{.metadata.annotations.pv\\.kubernetes\\.io/{annotation}}}");
        assert_eq!(cluster.field("pvc/data", &path), "yes");
    }
    cluster.kubectl(&["exec", "writer", "--", "sh", "-c", "echo kept >/data/note"]).ok();
    let directory = PathBuf::from(cluster.field(&format!("pv/{volume}"), "{.spec.hostPath.path}"));
    assert_eq!(fs::read_to_string(directory.join("note")).expect("the file is on the node"), "kept\n");

    cluster.kubectl(&["delete", "pod", "writer"]).ok();
    apply(cluster, "reader.yaml");
    cluster.wait("pod/reader", "condition=Ready");
    assert_eq!(cluster.kubectl(&["exec", "reader", "--", "cat", "/data/note"]).ok(), "kept\n");
    let refused = cluster.kubectl(&["exec", "reader", "--", "touch", "/data/note"]);
    assert!(refused.code == 1 && refused.stderr.contains("Read-only file system"), "{refused:?}");
    directory
}

fn protected_while_in_use(cluster: &Cluster, directory: &std::path::Path) {
    let volume = cluster.field("pvc/data", "{.spec.volumeName}");
    cluster.kubectl(&["delete", "pv", &volume, "--wait=false"]).ok();
    cluster.kubectl(&["delete", "pvc", "data", "--wait=false"]).ok();
    let listed = cluster.kubectl(&["get", "pvc", "data", "--no-headers"]).ok();
    assert!(listed.contains("Terminating"), "{listed}");
    // A pod that comes now does not get it.
    apply(cluster, "writer.yaml");
    cluster.wait_for_event("", "0/1 nodes are available: persistentvolumeclaim \"data\" is being deleted.");
    assert_eq!(cluster.kubectl(&["exec", "reader", "--", "cat", "/data/note"]).ok(), "kept\n");
    cluster.kubectl(&["delete", "pod", "reader", "writer"]).ok();
    cluster.wait("pvc/data", "delete");
    cluster.wait(&format!("pv/{volume}"), "delete");
    assert!(!directory.exists(), "the volume's data goes with it");
}

/// A local volume, reserved for a claim by a person, with a group that may write.
fn a_reserved_local_volume(cluster: &Cluster) {
    let directory = cluster.home().join("archive");
    fs::create_dir(&directory).expect("a directory must be made");
    let node = cluster.field("nodes", "{.items[0].metadata.name}");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: archive}}
spec:
  storageClassName: ""
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  claimRef: {{namespace: default, name: archive}}
  local: {{path: {directory}}}
  mountOptions: [noexec, nosuid]
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: archive}}
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 512Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: archivist}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsUser: 1000, fsGroup: 2000}}
  containers:
    - name: main
      image: {IMAGE}
      command: [sh, -c, "echo filed >/archive/note && sleep 100000"]
      volumeMounts: [{{name: archive, mountPath: /archive}}]
  volumes:
    - name: archive
      persistentVolumeClaim: {{claimName: archive}}
"#,
        directory = directory.display()
    ));
    cluster.wait("pod/archivist", "condition=Ready");
    cluster.wait("pvc/archive", "jsonpath={.status.phase}=Bound");
    assert_eq!(cluster.field("pvc/archive", "{.status.capacity.storage}"), "1Gi", "what the volume has");
    let group = cluster.kubectl(&["exec", "archivist", "--", "stat", "-c", "%g", "/archive/note"]).ok();
    assert_eq!(group, "2000\n");
    let script = "cp /bin/busybox /archive/tool && /archive/tool true";
    let refused = cluster.kubectl(&["exec", "archivist", "--", "sh", "-c", script]);
    assert!(refused.code == 126 && refused.stderr.contains("Permission denied"), "{refused:?}");
    cluster.kubectl(&["delete", "pod", "archivist"]).ok();
    cluster.kubectl(&["delete", "pvc", "archive"]).ok();
    cluster.wait("pv/archive", "jsonpath={.status.phase}=Released");
    assert_eq!(fs::read_to_string(directory.join("note")).expect("retained"), "filed\n");
    cluster.kubectl(&["delete", "pv", "archive"]).ok();
}

/// A claim of a class without provisioner keeps its pod waiting, and a volume made by hand ends that.
fn what_nobody_binds(cluster: &Cluster) {
    cluster.apply(&format!(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: by-hand}}
provisioner: kubernetes.io/no-provisioner
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: by-hand}}
spec:
  storageClassName: by-hand
  accessModes: [ReadWriteOncePod]
  resources: {{requests: {{storage: 1Mi}}}}
---
{holder}"#,
        holder = holder("patient", "persistentVolumeClaim: {claimName: by-hand}")
    ));
    cluster.wait_for_event("", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    let directory = cluster.home().join("by-hand");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: by-hand}}
spec:
  storageClassName: by-hand
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOncePod]
  persistentVolumeReclaimPolicy: Delete
  hostPath: {{path: {}, type: DirectoryOrCreate}}
"#,
        directory.display()
    ));
    cluster.wait("pod/patient", "condition=Ready");
    // The claim is for one pod alone.
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: rival}}
spec:
  containers: [{{name: main, image: "{IMAGE}"}}]
  volumes: [{{name: v, persistentVolumeClaim: {{claimName: by-hand}}}}]
"#
    ));
    cluster.wait_for_event(
        "",
        "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.",
    );
    cluster.kubectl(&["delete", "pod/rival"]).ok();
    cluster.kubectl(&["delete", "pod/patient", "pvc/by-hand"]).ok();
    // Nobody knows how to delete it, and it says so.
    cluster.wait("pv/by-hand", "jsonpath={.status.phase}=Failed");
    cluster.kubectl(&["delete", "pv/by-hand", "sc/by-hand"]).ok();
}

fn one_pod_s_own(cluster: &Cluster) {
    apply(cluster, "scratch.yaml");
    cluster.wait("pod/scratch", "condition=Ready");
    let pod = cluster.field("pod/scratch", "{.metadata.uid}");
    assert_eq!(cluster.field("pvc/scratch-data", "{.metadata.ownerReferences[0].uid}"), pod);
    let volume = cluster.field("pvc/scratch-data", "{.spec.volumeName}");
    cluster.kubectl(&["exec", "scratch", "--", "touch", "/data/here"]).ok();
    cluster.kubectl(&["delete", "pod", "scratch"]).ok();
    cluster.wait("pvc/scratch-data", "delete");
    cluster.wait(&format!("pv/{volume}"), "delete");
}

fn inline_drivers(cluster: &Cluster) {
    let pod = |name: &str, driver: &str| {
        let attributes = r#"{size: 8Mi, noexec: "true"}"#;
        holder(name, &format!("csi: {{driver: {driver}, volumeAttributes: {attributes}}}"))
    };
    cluster.apply(&pod("inline", "tmpfs.minik8s.io"));
    cluster.apply(&pod("unknown", "nobody.example.com"));
    cluster.wait("pod/inline", "condition=Ready");
    let script = "df /v | tail -1; cp /bin/busybox /v/echo && /v/echo run";
    let shown = cluster.kubectl(&["exec", "inline", "--", "sh", "-c", script]);
    assert!(shown.stdout.contains(" 8192 "), "{shown:?}");
    assert!(shown.code == 126 && shown.stderr.contains("Permission denied"), "{shown:?}");
    cluster
        .wait_for_event("", "driver name nobody.example.com not found in the list of registered CSI drivers");
    cluster.kubectl(&["delete", "pod", "inline", "unknown"]).ok();
}
