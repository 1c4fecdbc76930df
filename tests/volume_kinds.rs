//! Volumes beyond directories, from end to end: images, block devices, claims that grow, classes that say where, and
//! mounts that are read-only all the way down.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Cluster, IMAGE, Kubectl, holder, run};

#[test]
fn images_devices_and_claims_that_grow() {
    let cluster = Cluster::start(&[]);
    files_of_an_image(&cluster);
    a_block_device(&cluster);
    a_claim_grows(&cluster);
    a_class_says_where(&cluster);
    read_only_all_the_way_down(&cluster);
}

fn exec(cluster: &Cluster, pod: &str, script: &str) -> crate::harness::Answer {
    cluster.kubectl(&["exec", pod, "--", "sh", "-c", script])
}

/// An image of nothing but files; it has no command. Gone with the test.
struct FilesImage(String);

impl FilesImage {
    fn make(folder: &Path) -> Self {
        let name = format!("minik8s.test/files-{}:1", std::process::id());
        let script = format!("tar -C '{}' -cf - . | docker import - {name}", folder.display());
        run(Command::new("sh").args(["-c", &script])).ok();
        Self(name)
    }
}

impl Drop for FilesImage {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

fn files_of_an_image(cluster: &Cluster) {
    let folder = tempfile::tempdir().expect("a directory must be had");
    fs::create_dir(folder.path().join("weights")).expect("a directory must be made");
    fs::write(folder.path().join("weights/one"), "0.25").expect("a file must be written");
    fs::copy("/bin/busybox", folder.path().join("tool")).expect("busybox-static must be installed");
    let image = FilesImage::make(folder.path());
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: model}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: {IMAGE}
      command: [sleep, "100000"]
      volumeMounts:
        - {{name: model, mountPath: /model}}
        - {{name: model, mountPath: /weights, subPath: weights}}
  volumes: [{{name: model, image: {{reference: {name}, pullPolicy: IfNotPresent}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: incomplete}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {{name: main, image: "{IMAGE}", command: [sleep, "100000"], volumeMounts: [{{name: v, mountPath: /v}}]}}
    - {{name: other, image: "{IMAGE}", command: [sleep, "100000"]}}
  volumes: [{{name: v, image: {{reference: "minik8s.test/nobody-has-this:1", pullPolicy: Never}}}}]
"#,
        name = image.0
    ));
    cluster.wait("pod/model", "condition=Ready");
    let shown = exec(cluster, "model", "ls -A /model /model/weights; cat /weights/one").ok();
    assert_eq!(
        shown, "/model:\ntool\nweights\n\n/model/weights:\none\n0.25",
        "the image's files and no others"
    );
    for place in ["/model", "/weights"] {
        let refused = exec(cluster, "model", &format!("touch {place}/one"));
        assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    }
    let refused = exec(cluster, "model", "/model/tool true");
    assert!(refused.code == 126 && refused.stderr.contains("Permission denied"), "{refused:?}");
    cluster.wait_for_event("Pulled", &format!("Container image \"{}\" already present on machine", image.0));

    // One unpacked image, however often its pod is started; the container that unpacked it is gone.
    let unpacked = unpacked_images(cluster);
    assert_eq!(unpacked.len(), 1, "{unpacked:?}");
    assert_eq!(cluster.all_containers().len(), cluster.containers("status=running").len());

    // Only the container that wants the image waits.
    let waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull";
    cluster.wait("pod/incomplete", waiting);
    cluster.wait("pod/incomplete", "jsonpath={.status.containerStatuses[1].ready}=true");
    cluster.wait_for_event("ErrImageNeverPull", "is not present with pull policy of Never");

    cluster.kubectl(&["delete", "pod", "model", "incomplete"]).ok();
    assert_eq!(unpacked_images(cluster), Vec::<PathBuf>::new(), "what no pod uses is removed");
}

fn unpacked_images(cluster: &Cluster) -> Vec<PathBuf> {
    let listed = fs::read_dir(cluster.home().join("kubelet/image-volumes")).into_iter().flatten().flatten();
    listed.map(|entry| entry.path()).collect()
}

/// A loop device over a file. Taken away with the test.
struct LoopDevice(String);

impl LoopDevice {
    fn make(file: &Path) -> Self {
        fs::write(file, vec![0; 1 << 20]).expect("a file must be written");
        let path = file.to_str().expect("the path must be text");
        Self(run(Command::new("losetup").args(["-f", "--show", path])).ok().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).output();
    }
}

fn a_block_device(cluster: &Cluster) {
    let file = cluster.home().join("disk");
    let device = LoopDevice::make(&file);
    let node = cluster.field("nodes", "{.items[0].metadata.name}");
    let volume = |name: &str, path: &str| {
        format!(
            r#"
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  storageClassName: ""
  volumeMode: Block
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOnce]
  claimRef: {{namespace: default, name: {name}}}
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  storageClassName: ""
  volumeMode: Block
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Mi}}}}
"#
        )
    };
    let pod = |name: &str, claim: &str, used: &str| {
        format!(
            r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: main, image: "{IMAGE}", command: [sleep, "100000"], {used}}}
  volumes: [{{name: disk, persistentVolumeClaim: {{claimName: {claim}}}}}]
"#
        )
    };
    let as_device = "volumeDevices: [{name: disk, devicePath: /dev/disk}]";
    let missing = cluster.home().join("no-disk");
    cluster.apply(
        &[
            volume("disk", &device.0),
            volume("no-disk", &missing.display().to_string()),
            pod("raw", "disk", as_device),
            pod("mounts", "disk", "volumeMounts: [{name: disk, mountPath: /disk}]"),
            pod("lost", "no-disk", as_device),
        ]
        .concat(),
    );
    cluster.wait("pod/raw", "condition=Ready");
    let script =
        "printf written | dd of=/dev/disk bs=512 seek=1 conv=notrunc,fsync 2>/dev/null; stat -c %F /dev/disk";
    assert_eq!(exec(cluster, "raw", script).ok(), "block special file\n");
    let on_disk = fs::read(&file).expect("the file is there");
    assert_eq!(&on_disk[512..519], b"written");
    cluster
        .wait_for_event("FailedMount", "volume disk has volumeMode Block, but is specified in volumeMounts");
    cluster.wait_for_event("FailedMapVolume", "MapVolume.SetUpDevice failed for volume \"disk\" : path");
    let refused = cluster.with_input(
        &Kubectl::ours(),
        &["apply", "-f", "-"],
        &pod("both", "disk", &format!("{as_device}, volumeMounts: [{{name: disk, mountPath: /disk}}]")),
    );
    assert!(refused.stderr.contains("must not already exist in volumeMounts"), "{refused:?}");
    cluster.kubectl(&["delete", "pod/raw", "pod/mounts", "pod/lost", "pvc/disk", "pvc/no-disk"]).ok();
    cluster.kubectl(&["delete", "pv/disk", "pv/no-disk"]).ok();
}

fn a_claim_grows(cluster: &Cluster) {
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: growing}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 64Mi}}}}
---
{holder}"#,
        holder = holder("grower", "persistentVolumeClaim: {claimName: growing}")
    ));
    cluster.wait("pod/grower", "condition=Ready");
    let ask = |size: &str| {
        let patch = format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
        cluster.kubectl(&["patch", "pvc", "growing", "-p", &patch])
    };
    ask("128Mi").ok();
    cluster.wait("pvc/growing", "jsonpath={.status.capacity.storage}=128Mi");
    let volume = cluster.field("pvc/growing", "{.spec.volumeName}");
    assert_eq!(cluster.field(&format!("pv/{volume}"), "{.spec.capacity.storage}"), "128Mi");
    let status =
        "{.status.conditions}|{.status.allocatedResources.storage}|{.status.allocatedResourceStatuses}";
    assert_eq!(cluster.field("pvc/growing", status).replace("[]", ""), "|128Mi|");
    cluster.wait_for_event("ExternalExpanding", "waiting for an external controller to expand this PVC");
    cluster.wait_for_event("Resizing", &format!("External resizer is resizing volume {volume}"));
    cluster.wait_for_event("VolumeResizeSuccessful", "Resize volume succeeded");
    let refused = ask("64Mi");
    assert!(refused.stderr.contains("field can not be less than status.capacity"), "{refused:?}");
    // The pod did not notice.
    assert_eq!(cluster.field("pod/grower", "{.status.containerStatuses[0].restartCount}"), "0");
    cluster.kubectl(&["delete", "pod/grower", "pvc/growing"]).ok();
    cluster.wait(&format!("pv/{volume}"), "delete");
}

/// Volumes of a class are made where it says, and pods that want them wait for a node there.
fn a_class_says_where(cluster: &Cluster) {
    cluster.apply(&format!(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: vault}}
provisioner: minik8s.io/hostpath
volumeBindingMode: WaitForFirstConsumer
allowedTopologies: [{{matchLabelExpressions: [{{key: example.com/room, values: [vault]}}]}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: vault}}
spec:
  storageClassName: vault
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Mi}}}}
---
{holder}"#,
        holder = holder("guard", "persistentVolumeClaim: {claimName: vault}")
    ));
    let waits = "node(s) didn't find available persistent volumes to bind";
    cluster.wait_for_event("FailedScheduling", waits);
    let node = cluster.field("nodes", "{.items[0].metadata.name}");
    cluster.kubectl(&["label", "node", &node, "example.com/room=vault"]).ok();
    cluster.wait("pod/guard", "condition=Ready");
    cluster.kubectl(&["delete", "pod/guard", "pvc/vault", "sc/vault"]).ok();
}

/// A tmpfs of the node below a directory that is mounted read-only.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).expect("a directory must be made");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "nodev", "tmpfs"]).arg(&at)).ok();
        Self(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn read_only_all_the_way_down(cluster: &Cluster) {
    let tree = cluster.home().join("tree");
    let below = Tmpfs::mount(tree.join("below"));
    let mount = |name: &str, mode: &str| {
        format!(r#"{{name: tree, mountPath: /{name}, readOnly: true, recursiveReadOnly: {mode}}}"#)
    };
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: {IMAGE}
      command: [sleep, "100000"]
      volumeMounts: [{}, {}, {}]
  volumes: [{{name: tree, hostPath: {{path: {}}}}}]
"#,
        mount("plain", "Disabled"),
        mount("all", "Enabled"),
        mount("possible", "IfPossible"),
        tree.display()
    ));
    cluster.wait("pod/reader", "condition=Ready");
    exec(cluster, "reader", "touch /plain/below/file").ok();
    assert!(below.0.join("file").exists(), "what is mounted below is not covered by readOnly alone");
    for place in ["/plain", "/all", "/all/below", "/possible", "/possible/below"] {
        let refused = exec(cluster, "reader", &format!("touch {place}/file"));
        assert!(refused.stderr.contains("Read-only file system"), "{place}: {refused:?}");
    }
    let options = exec(cluster, "reader", "grep ' /all/below ' /proc/mounts").ok();
    assert!(options.contains("ro,") && options.contains("nodev"), "{options}");
    let modes = "{.status.containerStatuses[0].volumeMounts[*].recursiveReadOnly}";
    assert_eq!(cluster.field("pod/reader", modes), "Disabled Enabled Enabled Disabled");
    let features = "{.items[0].status.runtimeHandlers[0].features.recursiveReadOnlyMounts}";
    assert_eq!(cluster.field("nodes", features), "true");
    cluster.kubectl(&["delete", "pod", "reader"]).ok();
    // Nothing of the node's own was touched on the way out.
    assert!(below.0.join("file").exists());
}
