//! `minik8s store` as a person uses it: the state of a cluster is checked, backed up, moved to etcd and back,
//! damaged, repaired and restored; its pods run on through all of it, and its revisions never go back.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Answer, Cluster, Etcd, IMAGE, Kubectl, run};

#[test]
fn a_cluster_outlives_its_store() {
    let mut cluster = Cluster::start(&["--store", "embedded"]);
    make_pod(&cluster, "kept");
    let containers = cluster.containers("label=io.kubernetes.pod.name=kept");
    create(&cluster, "first", "1");

    // Beside the running cluster.
    let verified = store(&cluster, &["verify"]).ok();
    assert!(verified.ends_with("\nsound\n"), "{verified}");
    let backup = cluster.home().join("backup");
    let backup = backup.to_str().expect("the path must be UTF-8");
    let said = store(&cluster, &["backup", backup]).ok();
    assert!(said.contains(" entries at revision "), "{said}");
    create(&cluster, "second", "1");
    make_pod(&cluster, "late");
    let late = cluster.containers("label=io.kubernetes.pod.name=late");
    let before = revision(&cluster);

    // To etcd: what the old store has is not changed.
    cluster.kill();
    let etcd = Etcd::start();
    let old = cluster.home().join("store");
    let old = old.to_str().expect("the path must be UTF-8");
    store(&cluster, &["migrate", "--from", old, "--to", etcd.url()]).ok();
    cluster.change_store(&etcd.flags());
    cluster.up();
    let on_etcd = goes_on(&cluster, before, &containers);
    assert_eq!(ours(&cluster), ["first", "second"]);
    create(&cluster, "third", "1");

    // And back: never into what holds something.
    cluster.kill();
    let refused = store(&cluster, &["migrate", "--from", etcd.url(), "--to", old]);
    assert!(refused.code == 1 && refused.stderr.contains("is not empty"), "{refused:?}");
    set_aside(&cluster, "store-before-etcd");
    store(&cluster, &["migrate", "--from", etcd.url(), "--to", old]).ok();
    cluster.change_store(&["--store".to_owned(), "embedded".to_owned()]);
    cluster.up();
    let back = goes_on(&cluster, on_etcd, &containers);
    assert_eq!(ours(&cluster), ["first", "second", "third"]);

    // Damage: refused with what to do, and mended but for what is broken.
    create(&cluster, "victim", "a value that is easy to find");
    create(&cluster, "fourth", "1");
    cluster.kill();
    damage(Path::new(old), b"a value that is easy to find");
    let refused = cluster.try_up();
    assert!(refused.code == 1 && refused.stderr.contains("the store is damaged"), "{refused:?}");
    assert!(refused.stderr.contains("minik8s store repair"), "{refused:?}");
    let report = store(&cluster, &["verify"]);
    assert!(report.code == 1 && report.stdout.contains("\nlost: revisions "), "{report:?}");
    let repaired = store(&cluster, &["repair"]).ok();
    assert!(repaired.contains("rebuilt; goes on at revision "), "{repaired}");
    cluster.up();
    let repaired = goes_on(&cluster, back, &containers);
    assert_eq!(ours(&cluster), ["first", "fourth", "second", "third"]);

    // Back to the backup: what came after it is gone, and so is what ran for it.
    cluster.kill();
    set_aside(&cluster, "store-repaired");
    // Further than repair has gone.
    store(&cluster, &["restore", "--bump-revision", "3000000000", backup]).ok();
    cluster.up();
    goes_on(&cluster, repaired, &containers);
    assert_eq!(ours(&cluster), ["first"]);
    // `docker wait` answers once it has ended, or knows nothing of it any more.
    run(Command::new("docker").arg("wait").args(&late));
    assert_eq!(cluster.containers("label=io.kubernetes.pod.name=late"), Vec::<String>::new());
    let verified = store(&cluster, &["verify"]).ok();
    assert!(verified.ends_with("\nsound\n"), "{verified}");
}

fn store(cluster: &Cluster, args: &[&str]) -> Answer {
    cluster.minik8s(&[&["store"], args].concat())
}

fn create(cluster: &Cluster, name: &str, value: &str) {
    cluster.kubectl(&["create", "configmap", name, &format!("--from-literal=value={value}")]).ok();
}

fn make_pod(cluster: &Cluster, name: &str) {
    cluster.apply(&format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}},
            "spec": {{"terminationGracePeriodSeconds": 0, "containers": [
                {{"name": "main", "image": "{IMAGE}", "imagePullPolicy": "Never", "command": ["sleep", "100000"]}}]}}}}"#
    ));
    cluster.wait(&format!("pod/{name}"), "condition=Ready");
}

/// The ConfigMaps of this test.
fn ours(cluster: &Cluster) -> Vec<String> {
    let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    let names = names.lines().filter_map(|name| name.strip_prefix("configmap/"));
    names.filter(|name| *name != "kube-root-ca.crt").map(str::to_owned).collect()
}

fn raw(cluster: &Cluster, path: &str) -> Answer {
    cluster.with(&Kubectl::upstream(), &["get", "--raw", path])
}

fn revision(cluster: &Cluster) -> u64 {
    let list = raw(cluster, "/api/v1/namespaces/default/configmaps").ok();
    let list: serde_json::Value = serde_json::from_str(&list).expect("a list must be JSON");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a list must have a version");
    version.parse().expect("a version must be a number")
}

/// Checks that a cluster on another store goes on above what clients have seen, tells those who resume that the
/// past is gone, runs the same containers, and takes writes; answers its revision.
fn goes_on(cluster: &Cluster, before: u64, containers: &[String]) -> u64 {
    cluster.wait("pod/kept", "condition=Ready");
    assert_eq!(cluster.containers("label=io.kubernetes.pod.name=kept"), containers, "the same containers");
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={before}&timeoutSeconds=60"
    );
    let resumed = raw(cluster, &path);
    assert!(format!("{resumed:?}").contains("too old resource version"), "a gap would be a lie: {resumed:?}");
    cluster.kubectl(&["label", "configmap", "first", "seen=yes", "--overwrite"]).ok();
    cluster.kubectl(&["label", "configmap", "first", "seen-"]).ok();
    let now = revision(cluster);
    assert!(now > before, "from {before} to {now}");
    now
}

/// Puts the store's directory out of the way.
fn set_aside(cluster: &Cluster, name: &str) {
    fs::rename(cluster.home().join("store"), cluster.home().join(name)).expect("it must be renamed");
}

/// Changes one byte in the log where `text` stands.
fn damage(store: &Path, text: &[u8]) {
    let files = fs::read_dir(store).expect("the store must be readable");
    let segments: Vec<PathBuf> = files
        .map(|file| file.expect("the store must be readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    for segment in segments {
        let bytes = fs::read(&segment).expect("a segment must be readable");
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            let file = fs::OpenOptions::new().write(true).open(&segment).expect("it must be writable");
            file.write_all_at(b"#", at as u64).expect("it must be written");
            return;
        }
    }
    panic!("nothing in the log holds {}", String::from_utf8_lossy(text));
}

/// A file system of its own that is soon full.
struct SmallDisk<'a> {
    at: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        fs::create_dir_all(at).expect("a directory must be had");
        let options = format!("size={size},mode=700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "minik8s-test"]).arg(at)).ok();
        Self { at }
    }

    fn grow(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.at)).ok();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: a cluster may still be using it.
        run(Command::new("umount").arg("-l").arg(self.at));
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let cluster = Cluster::start(&["--store", "embedded"]);
    cluster.kill();
    set_aside(&cluster, "store-before");
    let store_dir = cluster.home().join("store");
    // Room for the log's first segment and one more.
    let disk = SmallDisk::mount(&store_dir, "24m");
    let copied =
        Command::new("cp").arg("-a").arg(cluster.home().join("store-before/.")).arg(&store_dir).output();
    assert!(copied.is_ok_and(|copied| copied.status.success()));
    cluster.up();

    let value = "x".repeat(900_000);
    let write = |number: usize| {
        let map = format!(
            r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "big-{number:03}"}}, "data": {{"value": "{value}"}}}}"#
        );
        cluster.with_input(&Kubectl::ours(), &["create", "-f", "-"], &map)
    };
    let mut written = 0;
    let refused = loop {
        let answer = write(written);
        if answer.code != 0 {
            break answer;
        }
        written += 1;
        assert!(written < 60, "a disk of 24 MiB holds it all");
    };
    assert!(refused.stderr.contains("the store has no space left; the write did not happen"), "{refused:?}");
    assert!(written >= 10, "the room that was there is used: {written} writes");
    let names: Vec<_> = (0..written).map(|number| format!("big-{number:03}")).collect();
    assert_eq!(ours(&cluster), names, "reads go on, and the refused write did not happen");
    let health = raw(&cluster, "/livez").ok();
    assert_eq!(health, "ok", "a full disk is no reason to die");

    disk.grow("96m");
    write(written).ok();
    let names: Vec<_> = (0..=written).map(|number| format!("big-{number:03}")).collect();
    assert_eq!(ours(&cluster), names);
    cluster.kill();
    let verified = store(&cluster, &["verify"]).ok();
    assert!(verified.ends_with("\nsound\n"), "{verified}");
    cluster.up();
    assert_eq!(ours(&cluster), names);
}
