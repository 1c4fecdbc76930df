//! From specs to the bodies of Docker's create call. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig,
    Mount as DockerMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
};

use super::{
    index::Sandbox,
    labels::{self, PidNamespace},
};
use crate::{
    ContainerResources, ContainerSpec, Device, Mount, MountPropagation, NetworkMode, PodIdentity, SandboxSpec,
};

/// What the kernel should do with the pause program under memory pressure: nearly never kill it, for the pod
/// would lose its network (upstream: `qos.PodInfraOOMAdj`).
const SANDBOX_OOM_SCORE: i64 = -998;
/// Upstream's `containerLogMaxSize` and `containerLogMaxFiles`.
const LOG_SIZE: &str = "10m";
const LOG_FILES: &str = "5";

/// What all containers of a node have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// The lowest `oom_score_adj` that may be given (see [`lowest_oom_score`]).
    pub(super) lowest_oom_score: i64,
}

/// The lowest `oom_score_adj` that may be set from here. Lowering it needs `CAP_SYS_RESOURCE`, which a machine that
/// is itself a container often lacks; a container would not start then. containerd knows the same restriction as
/// `restrict_oom_score_adj`. `status` and `own_score` are `/proc/self/status` and `/proc/self/oom_score_adj`.
pub(super) fn lowest_oom_score(status: &str, own_score: &str) -> i64 {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    match effective {
        Some(mask) if mask & CAP_SYS_RESOURCE == 0 => own_score.trim().parse().unwrap_or_default(),
        _ => -1000,
    }
}

/// The pause container.
pub(super) fn sandbox(node: &Node, image: &str, spec: &SandboxSpec) -> ContainerCreateBody {
    let host_network = spec.network == NetworkMode::Host;
    let sysctls: HashMap<String, String> = spec.sysctls.clone().into_iter().collect();
    let mut security_options = vec!["no-new-privileges".to_owned()];
    security_options.extend_from_slice(&spec.security_options);
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: (!host_network && !spec.hostname.is_empty()).then(|| spec.hostname.clone()),
        // A namespace with nothing but its loopback, which we attach to the node's network. For the network `none`
        // Docker makes the same, by a hook that runs its own large program again inside (libnetwork's `setkey`): half
        // of a start.
        network_disabled: (!host_network).then_some(true),
        labels: Some(labels::of_sandbox(&node.name, spec)),
        host_config: Some(HostConfig {
            network_mode: Some(if host_network { "host" } else { "none" }.to_owned()),
            ipc_mode: Some(if spec.host_ipc { "host" } else { "shareable" }.to_owned()),
            cgroup_parent: spec.group.clone(),
            runtime: spec.handler.clone(),
            pid_mode: spec.host_pid.then(|| "host".to_owned()),
            shm_size: spec.shm_size.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            sysctls: (!sysctls.is_empty()).then_some(sysctls),
            init: Some(false),
            oom_score_adj: Some(SANDBOX_OOM_SCORE.max(node.lowest_oom_score)),
            readonly_rootfs: Some(true),
            security_opt: Some(security_options),
            // It writes nothing: no log file, no copying goroutine in the daemon.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// An application's container in its sandbox.
pub(super) fn container(
    node: &Node,
    pod: &PodIdentity,
    sandbox: &Sandbox,
    target_id: Option<&str>,
    spec: &ContainerSpec,
) -> ContainerCreateBody {
    let namespaces = sandbox.namespaces;
    let joined = format!("container:{}", sandbox.id);
    let security = &spec.security;
    let resources = &spec.resources;
    let mut security_options = security.options.clone();
    if security.no_new_privileges {
        security_options.push("no-new-privileges".to_owned());
    }
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: non_empty(&spec.command),
        cmd: non_empty(&spec.args),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: spec.working_dir.clone(),
        user: security.user.clone(),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        stop_signal: spec.stop_signal.clone(),
        // Probes are the kubelet's business: an image's own health check would only run beside them.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(labels::of_container(&node.name, pod, spec)),
        host_config: Some(HostConfig {
            network_mode: Some(joined.clone()),
            ipc_mode: Some(if namespaces.host_ipc { "host".to_owned() } else { joined.clone() }),
            // Where the pod shares one already, the target's processes are in it.
            pid_mode: match (namespaces.pid, target_id) {
                (PidNamespace::Own, None) => None,
                (PidNamespace::Own, Some(target)) => Some(format!("container:{target}")),
                (PidNamespace::Sandbox, _) => Some(joined),
                (PidNamespace::Host, _) => Some("host".to_owned()),
            },
            mounts: Some(spec.mounts.iter().map(mount).collect()),
            devices: (!spec.devices.is_empty()).then(|| spec.devices.iter().map(device).collect()),
            runtime: sandbox.handler.clone(),
            cgroup_parent: spec.group.clone(),
            cpu_shares: resources.cpu_shares,
            cpu_quota: resources.cpu_quota,
            cpu_period: resources.cpu_period,
            memory: resources.memory_limit,
            // Docker counts memory and swap together: the same number means no swap.
            memory_swap: resources.memory_limit,
            oom_score_adj: resources.oom_score_adj.map(|score| score.max(node.lowest_oom_score)),
            privileged: Some(security.privileged),
            readonly_rootfs: Some(security.read_only_root),
            cap_add: non_empty(&security.add_capabilities),
            cap_drop: non_empty(&security.drop_capabilities),
            group_add: non_empty(&security.groups),
            security_opt: non_empty(&security_options),
            init: Some(false),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), LOG_SIZE.to_owned()),
                    ("max-file".to_owned(), LOG_FILES.to_owned()),
                ])),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The change of a running container's limits.
pub(super) fn update(resources: &ContainerResources) -> ContainerUpdateBody {
    ContainerUpdateBody {
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        memory: resources.memory_limit,
        // As at creation: no swap on top.
        memory_swap: resources.memory_limit,
        ..ContainerUpdateBody::default()
    }
}

fn non_empty(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.source.to_string_lossy().into_owned()),
        path_in_container: Some(device.target.clone()),
        // As upstream: one that may be written may also be made anew (mknod).
        cgroup_permissions: Some(if device.read_only { "r" } else { "mrw" }.to_owned()),
    }
}

fn mount(mount: &Mount) -> DockerMount {
    let propagation = match mount.propagation {
        // Docker's own choice is private too, but for what holds its own directory (`/`): that it must let go of.
        MountPropagation::Private => None,
        MountPropagation::HostToContainer => Some(MountBindOptionsPropagationEnum::RSLAVE),
        MountPropagation::Bidirectional => Some(MountBindOptionsPropagationEnum::RSHARED),
    };
    DockerMount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation,
            // Since API 1.44 Docker would cover what is mounted below as well. Kubernetes does that where it is asked to
            // (`recursiveReadOnly`), and the kubelet has then done it by itself. Older daemons take no notice.
            read_only_non_recursive: mount.read_only.then_some(true),
            ..MountBindOptions::default()
        }),
        ..DockerMount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::labels::Namespaces, *};
    use crate::testing;

    fn in_sandbox(pid: PidNamespace, host_ipc: bool) -> Sandbox {
        let namespaces = Namespaces { pid, host_ipc };
        Sandbox { id: "abc".to_owned(), namespaces, handler: None, running: true }
    }

    fn own() -> Sandbox {
        in_sandbox(PidNamespace::Own, false)
    }

    fn node() -> Node {
        Node { name: "n".to_owned(), lowest_oom_score: -1000 }
    }

    fn host_config(body: ContainerCreateBody) -> HostConfig {
        body.host_config.expect("a body must carry its host config")
    }

    #[test]
    fn the_sandbox_waits_for_our_network() {
        let spec = testing::sandbox_spec("web");
        let body = sandbox(&node(), "pause", &spec);
        assert_eq!((body.hostname.as_deref(), body.network_disabled), (Some("web"), Some(true)));
        let host = host_config(body);
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.ipc_mode.as_deref(), Some("shareable"));
        assert_eq!((host.pid_mode, host.oom_score_adj, host.init), (None, Some(-998), Some(false)));
        assert_eq!(host.cgroup_parent, None, "without a group it is Docker's own");
        assert_eq!(host.restart_policy, None, "the kubelet restarts, never Docker");
    }

    #[test]
    fn the_host_s_namespaces_are_taken_as_they_are() {
        let mut spec = testing::sandbox_spec("web");
        (spec.network, spec.host_ipc, spec.host_pid) = (NetworkMode::Host, true, true);
        let body = sandbox(&node(), "pause", &spec);
        assert_eq!(body.hostname, None, "Docker takes the node's name with the node's network");
        assert_eq!(body.network_disabled, None);
        let host = host_config(body);
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert_eq!(host.ipc_mode.as_deref(), Some("host"));
        assert_eq!(host.pid_mode.as_deref(), Some("host"));
    }

    #[test]
    fn a_container_joins_its_sandbox() {
        let pod = testing::pod_identity("web");
        let mut spec = testing::container_spec("app", &["sleep", "1"]);
        spec.group = Some("/kubepods/podu".to_owned());
        let host = host_config(container(&node(), &pod, &own(), None, &spec));
        assert_eq!(host.cgroup_parent.as_deref(), Some("/kubepods/podu"));
        assert_eq!(host.network_mode.as_deref(), Some("container:abc"));
        assert_eq!(host.ipc_mode.as_deref(), Some("container:abc"));
        assert_eq!(host.pid_mode, None, "PID namespaces are shared only when asked for");
        let host = host_config(container(&node(), &pod, &own(), Some("def"), &spec));
        assert_eq!(host.pid_mode.as_deref(), Some("container:def"));
        let mut shared = in_sandbox(PidNamespace::Sandbox, true);
        shared.handler = Some("second".to_owned());
        let host = host_config(container(&node(), &pod, &shared, Some("def"), &spec));
        assert_eq!(host.pid_mode.as_deref(), Some("container:abc"));
        assert_eq!(host.ipc_mode.as_deref(), Some("host"));
        assert_eq!(host.runtime.as_deref(), Some("second"), "a pod has one runtime");
    }

    #[test]
    fn command_and_arguments_replace_the_image_s_only_where_given() {
        let pod = testing::pod_identity("web");
        let mut spec = testing::container_spec("app", &[]);
        let body = container(&node(), &pod, &own(), None, &spec);
        assert_eq!((body.entrypoint, body.cmd), (None, None));
        spec.args = vec!["-v".into()];
        let body = container(&node(), &pod, &own(), None, &spec);
        assert_eq!((body.entrypoint, body.cmd), (None, Some(vec!["-v".to_owned()])));
    }

    #[test]
    fn memory_is_limited_without_swap() {
        let pod = testing::pod_identity("web");
        let mut spec = testing::container_spec("app", &["sh"]);
        spec.resources.memory_limit = Some(64 << 20);
        let host = host_config(container(&node(), &pod, &own(), None, &spec));
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    }

    #[test]
    fn scores_are_not_lowered_where_that_is_forbidden() {
        assert_eq!(lowest_oom_score("Name:\tx\nCapEff:\t000001ffffffffff\n", "0\n"), -1000);
        let lowest_oom_score = lowest_oom_score("Name:\tx\nCapEff:\t000001fffeffffff\n", "-5\n");
        assert_eq!(lowest_oom_score, -5);
        let node = Node { lowest_oom_score, ..node() };
        assert_eq!(
            host_config(sandbox(&node, "pause", &testing::sandbox_spec("web"))).oom_score_adj,
            Some(-5)
        );
        let mut spec = testing::container_spec("app", &["sh"]);
        spec.resources.oom_score_adj = Some(1000);
        let body = container(&node, &testing::pod_identity("web"), &own(), None, &spec);
        assert_eq!(host_config(body).oom_score_adj, Some(1000));
    }
}
