//! From Docker's answers to views, and the memory that spares inspecting what cannot have changed.
//!
//! A list tells which containers there are and whether they run; exit codes, times and process ids need an
//! inspect call for each. An exited container never changes, and a running one is the same as long as its
//! process is: both are inspected once.

use std::{collections::HashMap, path::PathBuf};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::labels::{self, Identity};
use crate::{ContainerResources, ContainerState};

/// A list entry of ours.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Docker's id.
    pub(super) id: String,
    /// Id of the image that it was made from.
    pub(super) image_id: String,
    /// What the labels say.
    pub(super) identity: Identity,
    /// Creation, seconds since 1970.
    pub(super) created: i64,
    /// Whether it runs (paused counts).
    pub(super) running: bool,
    /// Whether its state is final.
    pub(super) ended: bool,
}

impl Listed {
    /// Reads a list entry; `None` if its labels are not ours.
    pub(super) fn read(summary: ContainerSummary) -> Option<Self> {
        use ContainerSummaryStateEnum as State;
        let state = summary.state.unwrap_or(State::EMPTY);
        Some(Self {
            id: summary.id?,
            image_id: summary.image_id.unwrap_or_default(),
            identity: labels::parse(&summary.labels.unwrap_or_default())?,
            created: summary.created.unwrap_or_default(),
            running: matches!(state, State::RUNNING | State::PAUSED | State::RESTARTING | State::STOPPING),
            ended: matches!(state, State::EXITED | State::DEAD),
        })
    }
}

/// What an inspect call tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspected {
    /// State.
    pub(super) state: ContainerState,
    /// Creation, RFC 3339.
    pub(super) created_at: String,
    /// Id of the image.
    pub(super) image_id: String,
    /// Reference of the image.
    pub(super) image: String,
    /// The directory of what the container has written (its storage driver's upper layer).
    pub(super) layer: Option<PathBuf>,
    /// Its log file.
    pub(super) log: Option<PathBuf>,
    /// The limits that hold.
    pub(super) resources: Option<ContainerResources>,
}

impl Inspected {
    /// Reads an inspect answer, and of the kernel what it leaves out.
    pub(super) fn read(response: ContainerInspectResponse) -> Self {
        let created_at = response.created.as_deref().map(seconds).unwrap_or_default();
        let state = response.state.unwrap_or_default();
        let started_at = state.started_at.as_deref().map(seconds).unwrap_or_default();
        let finished_at = state.finished_at.as_deref().map(seconds).unwrap_or_default();
        let exit_code = i32::try_from(state.exit_code.unwrap_or_default()).unwrap_or(-1);
        let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
        let view = if state.running == Some(true) {
            let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
            ContainerState::Running { started_at, pid }
        } else if status == ContainerStateStatusEnum::CREATED && exit_code == 0 {
            ContainerState::Created
        } else {
            ContainerState::Exited {
                // What could not be started ended when it was made: Docker leaves both times at zero.
                finished_at: if finished_at.is_empty() { created_at.clone() } else { finished_at },
                started_at,
                exit_code,
                oom_killed: state.oom_killed.unwrap_or_default(),
                error: state.error.unwrap_or_default(),
            }
        };
        // Docker's zero is what was never set.
        let set = |number: Option<i64>| number.filter(|number| *number != 0);
        let resources = response.host_config.map(|host| ContainerResources {
            cpu_shares: set(host.cpu_shares),
            cpu_quota: set(host.cpu_quota),
            cpu_period: set(host.cpu_period),
            memory_limit: set(host.memory),
            oom_score_adj: None,
        });
        let told = response.graph_driver.and_then(|mut driver| driver.data.remove("UpperDir"));
        // Where containerd keeps images for Docker (the default since 29), only the kernel tells.
        let layer = told.map(PathBuf::from).or_else(|| match view {
            ContainerState::Running { pid, .. } => {
                written_below(&std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?)
            }
            ContainerState::Created | ContainerState::Exited { .. } => None,
        });
        Self {
            state: view,
            created_at,
            image_id: response.image.unwrap_or_default(),
            image: response.config.and_then(|config| config.image).unwrap_or_default(),
            layer,
            resources,
            log: response.log_path.filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }

    /// The process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        match self.state {
            ContainerState::Running { pid, .. } => Some(pid),
            ContainerState::Created | ContainerState::Exited { .. } => None,
        }
    }
}

/// The upper directory of the overlay (`overlay` of the kernel's documentation) that a process has as its root, out of
/// its table of mounts (`proc_pid_mountinfo(5)`).
fn written_below(mountinfo: &str) -> Option<PathBuf> {
    let root = mountinfo.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
    let (_, file_system) = root.split_once(" - overlay ")?;
    let options = file_system.split(' ').nth(1)?;
    options.split(',').find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from)
}

/// Docker's times to whole seconds of RFC 3339; empty for its zero time (year 1).
pub(super) fn seconds(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) if time.as_second() > 0 => seconds_since_epoch(time.as_second()),
        _ => String::new(),
    }
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn seconds_since_epoch(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// What was inspected before, by container id.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Written by whoever inspects, swept by `list`.
    seen: Mutex<HashMap<String, Inspected>>,
}

impl Memory {
    /// What is known of a listed container and still true.
    pub(super) fn recall(&self, listed: &Listed) -> Option<Inspected> {
        let known = self.seen.lock().get(&listed.id).cloned()?;
        let holds = match &known.state {
            ContainerState::Created => false,
            ContainerState::Running { pid, .. } => listed.running && process_is_of(*pid, &listed.id),
            ContainerState::Exited { .. } => !listed.running,
        };
        holds.then_some(known)
    }

    /// What was seen of a container; whether it still runs is for the caller to find out.
    pub(super) fn last_seen(&self, id: &str) -> Option<Inspected> {
        self.seen.lock().get(id).cloned()
    }

    /// How many of those containers were seen as made and not started, and as ended.
    pub(super) fn count_idle<'a>(&self, ids: impl Iterator<Item = &'a String>) -> (usize, usize) {
        let seen = self.seen.lock();
        let mut counts = (0, 0);
        for inspected in ids.filter_map(|id| seen.get(id)) {
            match inspected.state {
                ContainerState::Created => counts.0 += 1,
                ContainerState::Exited { .. } => counts.1 += 1,
                ContainerState::Running { .. } => {}
            }
        }
        counts
    }

    /// Keeps what was inspected.
    pub(super) fn keep(&self, id: &str, inspected: &Inspected) {
        self.seen.lock().insert(id.to_owned(), inspected.clone());
    }

    /// Forgets containers that are not among `listed`, which is all there are.
    pub(super) fn sweep(&self, listed: &[Listed]) {
        let ids: std::collections::HashSet<&str> = listed.iter().map(|entry| entry.id.as_str()).collect();
        self.seen.lock().retain(|id, _| ids.contains(id.as_str()));
    }
}

/// Whether the process is still that container's: its control group names it. (A container that was restarted by
/// hand has another process, and process ids are used again.)
fn process_is_of(pid: u32, container_id: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container_id))
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerState as DockerState;

    use super::*;

    fn inspect(state: DockerState) -> ContainerState {
        let created = Some("2026-11-21T10:00:00.123456789Z".to_owned());
        let response = ContainerInspectResponse { created, state: Some(state), ..Default::default() };
        Inspected::read(response).state
    }

    #[test]
    fn what_could_not_be_started_has_ended_with_its_code() {
        let state = inspect(DockerState {
            status: Some(ContainerStateStatusEnum::CREATED),
            exit_code: Some(127),
            error: Some("no such file".into()),
            started_at: Some("0001-01-01T00:00:00Z".into()),
            finished_at: Some("0001-01-01T00:00:00Z".into()),
            ..Default::default()
        });
        let expected = ContainerState::Exited {
            started_at: String::new(),
            finished_at: "2026-11-21T10:00:00Z".into(),
            exit_code: 127,
            oom_killed: false,
            error: "no such file".into(),
        };
        assert_eq!(state, expected);
    }

    #[test]
    fn what_waits_for_its_start_is_created() {
        let status = Some(ContainerStateStatusEnum::CREATED);
        assert_eq!(inspect(DockerState { status, ..Default::default() }), ContainerState::Created);
    }

    #[test]
    fn what_a_container_writes_is_in_the_upper_directory_of_its_root() {
        let overlay = "139 108 0:43 / / rw,relatime - overlay overlay rw,lowerdir=/l/58/fs:/l/2/fs,upperdir=/l/59/fs,workdir=/l/59/work\n";
        let proc = "140 139 0:47 / /proc rw - proc proc rw,upperdir=/no\n";
        assert_eq!(written_below(&format!("{proc}{overlay}")), Some(PathBuf::from("/l/59/fs")));
        assert_eq!(written_below(&overlay.replace("- overlay", "- ext4")), None);
        assert_eq!(written_below(proc), None);
    }

    #[test]
    fn times_lose_their_fractions() {
        assert_eq!(seconds("2026-11-21T10:00:00.987654321Z"), "2026-11-21T10:00:00Z");
        assert_eq!(seconds("0001-01-01T00:00:00Z"), "");
    }

    #[test]
    fn an_exited_container_is_inspected_once_and_a_living_one_while_it_lives() {
        let memory = Memory::default();
        let labels = labels::of_container(
            "n",
            &crate::testing::pod_identity("web"),
            &crate::testing::container_spec("app", &["sh"]),
        );
        let listed = |running| Listed {
            id: "an-id-in-no-control-group".into(),
            image_id: String::new(),
            identity: labels::parse(&labels).expect("our own labels must be read back"),
            created: 0,
            running,
            ended: !running,
        };
        let keep = |state| {
            let inspected = Inspected {
                state,
                created_at: String::new(),
                image_id: String::new(),
                image: String::new(),
                layer: None,
                log: None,
                resources: None,
            };
            memory.keep("an-id-in-no-control-group", &inspected);
        };
        keep(ContainerState::Exited {
            started_at: String::new(),
            finished_at: String::new(),
            exit_code: 1,
            oom_killed: false,
            error: String::new(),
        });
        assert!(memory.recall(&listed(false)).is_some());
        assert!(memory.recall(&listed(true)).is_none(), "restarted by hand");
        keep(ContainerState::Running { started_at: String::new(), pid: std::process::id() });
        assert!(memory.recall(&listed(true)).is_none(), "the process is not that container's");
        memory.sweep(&[]);
        assert!(memory.seen.lock().is_empty());
    }
}
