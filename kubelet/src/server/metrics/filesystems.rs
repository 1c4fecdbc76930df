//! File systems, disks and the directories of volumes.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::Path,
};

use kubelet_runtime::usage::disk::DiskMeter;

use crate::{
    measures::{
        text::{Kind, Text},
        volumes::PodVolumes,
    },
    volumes::claims::LOCAL_VOLUME,
};

/// A sector of `/proc/diskstats`, whatever the disk's own are.
const SECTOR: u64 = 512;

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filesystem {
    /// Major and minor number of what it is on.
    pub device: (u32, u32),
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that are free for everybody.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

impl Filesystem {
    /// That which holds a path.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = nix::sys::statvfs::statvfs(path).ok()?;
        let block = found.fragment_size();
        Some(Self {
            device: device(path)?,
            capacity: found.blocks() * block,
            available: found.blocks_available() * block,
            used: found.blocks().saturating_sub(found.blocks_free()) * block,
            inodes: found.files(),
            inodes_free: found.files_free(),
        })
    }
}

fn device(path: &Path) -> Option<(u32, u32)> {
    let number = std::fs::metadata(path).ok()?.dev();
    let part = |part: u64| u32::try_from(part).ok();
    Some((part(nix::sys::stat::major(number))?, part(nix::sys::stat::minor(number))?))
}

/// What a disk or partition has done, cumulative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// Major and minor number.
    pub device: (u32, u32),
    /// Its name below `/dev`.
    pub name: String,
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Every disk and partition of the node.
pub(super) fn disks() -> Vec<Disk> {
    std::fs::read_to_string("/proc/diskstats").map(|text| parse(&text)).unwrap_or_default()
}

/// `Documentation/admin-guide/iostats.rst`
fn parse(text: &str) -> Vec<Disk> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let device = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let name = words.next()?.to_owned();
            let numbers: Vec<u64> = words.map(|word| word.parse().unwrap_or_default()).collect();
            let [reads, _, sectors_read, _, writes, _, sectors_written, ..] = numbers[..] else {
                return None;
            };
            Some(Disk {
                device,
                name,
                reads,
                read_bytes: sectors_read.saturating_mul(SECTOR),
                writes,
                written_bytes: sectors_written.saturating_mul(SECTOR),
            })
        })
        .collect()
}

/// A pod's volume on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// The directory of its kind: `kubernetes.io~empty-dir`.
    pub plugin: String,
    /// The claim that it goes through, with its namespace.
    pub claim: Option<(String, String)>,
    /// Bytes that it holds.
    pub used: u64,
    /// Files and directories that it holds.
    pub inodes_used: u64,
    /// What it is on.
    pub on: Filesystem,
}

/// The volumes below the directory of all pods, by pod uid. A volume that is a file system of its own is as
/// full as that is; another is walked (upstream: `MetricsStatFS` and `MetricsDu`).
pub(super) fn volumes(pods: &Path, disk: &DiskMeter) -> HashMap<String, Vec<Volume>> {
    let mut found = HashMap::new();
    for (uid, pod) in directories(pods) {
        let mut volumes = Vec::new();
        for (plugin, kind) in directories(&pod.join("volumes")) {
            for (name, path) in directories(&kind) {
                let Some(on) = Filesystem::of(&path) else { continue };
                let (used, inodes_used) = if device(&kind) == Some(on.device) {
                    let usage = disk.of(&path);
                    (usage.bytes, usage.inodes)
                } else {
                    (on.used, on.inodes.saturating_sub(on.inodes_free))
                };
                volumes.push(Volume { name, plugin: plugin.clone(), claim: None, used, inodes_used, on });
            }
        }
        volumes.sort_by(|one: &Volume, other| one.name.cmp(&other.name));
        found.insert(uid, volumes);
    }
    found
}

/// The volumes of claims, by pod uid. They stand outside of the pods' directories. Upstream knows how full the file system
/// of a local volume is, and nothing of a hostPath one; that is walked here, for our own provisioner makes such.
pub(super) fn claimed(pods: &HashMap<String, PodVolumes>, disk: &DiskMeter) -> HashMap<String, Vec<Volume>> {
    let mut found = HashMap::new();
    for (uid, pod) in pods {
        let of_claims = pod.volumes.iter().filter_map(|volume| {
            let claim = (pod.namespace.clone(), volume.claim.clone()?);
            let on = Filesystem::of(&volume.path)?;
            let (used, inodes_used) = if volume.plugin == LOCAL_VOLUME {
                (on.used, on.inodes.saturating_sub(on.inodes_free))
            } else {
                let usage = disk.of(&volume.path);
                (usage.bytes, usage.inodes)
            };
            let plugin = volume.plugin.replace('/', "~");
            Some(Volume { name: volume.name.clone(), plugin, claim: Some(claim), used, inodes_used, on })
        });
        let volumes: Vec<Volume> = of_claims.collect();
        if !volumes.is_empty() {
            found.insert(uid.clone(), volumes);
        }
    }
    found
}

/// Writes what `/metrics` says of claims (`pkg/kubelet/metrics/collectors/volume_stats.go`), each once, however many
/// pods have it.
pub(super) fn write_claims(text: &mut Text, volumes: &HashMap<String, Vec<Volume>>) {
    let claims: BTreeMap<&(String, String), &Volume> = volumes
        .values()
        .flatten()
        .filter_map(|volume| volume.claim.as_ref().map(|claim| (claim, volume)))
        .collect();
    type Figure = fn(&Volume) -> u64;
    let families: [(&str, &str, Figure); 6] = [
        ("available_bytes", "Number of available bytes in the volume", |volume| volume.on.available),
        ("capacity_bytes", "Capacity in bytes of the volume", |volume| volume.on.capacity),
        ("inodes", "Maximum number of inodes in the volume", |volume| volume.on.inodes),
        ("inodes_free", "Number of free inodes in the volume", |volume| volume.on.inodes_free),
        ("inodes_used", "Number of used inodes in the volume", |volume| volume.inodes_used),
        ("used_bytes", "Number of used bytes in the volume", |volume| volume.used),
    ];
    for (name, help, figure) in families {
        let (name, help) = (format!("kubelet_volume_stats_{name}"), format!("[ALPHA] {help}"));
        let mut family = text.family(&name, Kind::Gauge, &help);
        for ((namespace, claim), volume) in &claims {
            let labels = [("namespace", namespace.as_str()), ("persistentvolumeclaim", claim)];
            family.sample(&labels, figure(volume));
        }
    }
}

fn directories(path: &Path) -> impl Iterator<Item = (String, std::path::PathBuf)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::volumes::PodVolume;

    #[test]
    fn disks_are_read() {
        let text = " 254       0 vda 5 1 5120 90 6 2 6144 80 0 60 170 0 0 0 0 3 10\n 7 0 loop0 0 0\n";
        let expected = Disk {
            device: (254, 0),
            name: "vda".into(),
            reads: 5,
            read_bytes: 5120 * 512,
            writes: 6,
            written_bytes: 6144 * 512,
        };
        assert_eq!(parse(text), [expected]);
    }

    #[test]
    fn volumes_are_found_by_their_directories() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("u-1/volumes/kubernetes.io~empty-dir/scratch");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(volume.join("data"), vec![1; 10_000]).unwrap();
        let found = volumes(root.path(), &DiskMeter::default());
        let [volume] = &found["u-1"][..] else { panic!("one volume: {found:?}") };
        assert_eq!((volume.name.as_str(), volume.plugin.as_str()), ("scratch", "kubernetes.io~empty-dir"));
        assert!((10_000..50_000).contains(&volume.used) && volume.inodes_used == 2, "{volume:?}");
        assert!(volume.on.capacity > volume.on.available, "{volume:?}");
    }

    #[test]
    fn claims_are_told_once_with_their_namespaces() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("data"), vec![1; 10_000]).unwrap();
        let volume = |name: &str, plugin, claim: Option<&str>| PodVolume {
            name: name.to_owned(),
            plugin,
            claim: claim.map(str::to_owned),
            path: root.path().to_owned(),
        };
        let data = volume("data", "kubernetes.io/host-path", Some("pgdata"));
        let disk = volume("disk", LOCAL_VOLUME, Some("disk"));
        let pod = |volumes| PodVolumes { namespace: "shop".into(), volumes };
        let plain = volume("plain", "kubernetes.io/empty-dir", None);
        let pods =
            [("u-1".to_owned(), pod(vec![data.clone(), disk, plain])), ("u-2".to_owned(), pod(vec![data]))];
        let found = claimed(&pods.into(), &DiskMeter::default());
        assert_eq!((found["u-1"].len(), found["u-2"].len()), (2, 1));
        let [data, disk] = &found["u-1"][..] else { panic!("two volumes: {found:?}") };
        assert!((10_000..50_000).contains(&data.used) && data.inodes_used == 2, "{data:?}");
        assert_eq!(disk.used, disk.on.used, "a local volume is as full as its file system");
        let mut text = Text::default();
        write_claims(&mut text, &found);
        let page = text.finish();
        let line = format!(
            "kubelet_volume_stats_used_bytes{{namespace=\"shop\",persistentvolumeclaim=\"pgdata\"}} {}\n",
            data.used
        );
        assert_eq!(page.matches(&line).count(), 1, "{page}");
        assert_eq!(page.matches("persistentvolumeclaim=\"disk\"").count(), 6, "{page}");
    }
}
