//! Starts one container: image, configuration, creation, hook.
//!
//! Each step that fails gives the reason that the container waits with, and the event that people see, as
//! upstream's `startContainer` does.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use client::EventType;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use kubelet_runtime::{
    ContainerSecurity, ContainerSpec, ContainerView, Device, ImageView, Mount, MountPropagation, PodView,
    RegistryAuth, RuntimeError,
};

use super::{
    actions::{Target, hook},
    files::PodFiles,
    image_volumes,
};
use crate::{
    context::Context,
    images::{Notice, credentials},
    pod::{
        HASH_ANNOTATION, SANDBOX_ANNOTATION,
        account::{self, Account, USER_ANNOTATION},
        downward::Surroundings,
        env_file::{self, EnvFiles},
        environment::{DataObjects, ServiceFacts, environment, expand, expand_all, references},
        identity, namespace,
        plan::{Start, container_hash},
        resize::MEMORY_REQUEST_ANNOTATION,
        resources::{cgroup, memory_request},
        security, spec,
        status::Waiting,
        uid, volume_mounts,
    },
    volumes,
};

/// What starting rests on besides the pod.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    /// Volumes, set up.
    pub(super) volumes: &'a BTreeMap<String, PathBuf>,
    /// The pod's own files.
    pub(super) files: &'a PodFiles,
    /// Addresses and the node's resources.
    pub(super) around: &'a Surroundings,
    /// Which attempt of the sandbox it runs in.
    pub(super) sandbox: u32,
    /// The pod's other containers.
    pub(super) view: Option<&'a PodView>,
    /// A field of the container that is not supported.
    pub(super) unsupported: Option<&'a str>,
}

/// Why a container did not start.
#[derive(Debug)]
pub(super) struct Failure {
    /// What it waits with.
    pub(super) waiting: Waiting,
    /// When to try again.
    pub(super) retry_in: Duration,
    /// Whether the runtime holds a dead container of this attempt now.
    pub(super) left_container: bool,
}

/// How long a start with a wrong configuration waits before it is tried again.
pub(super) const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// How long a container shows `ErrImagePull` before it shows `ImagePullBackOff`.
const SHOW_FAILURE: Duration = Duration::from_secs(3);

/// Starts a container of a pod.
pub(super) async fn start(
    context: &Arc<Context>,
    pod: &Pod,
    container: &Container,
    start: &Start,
    ground: &Ground<'_>,
) -> Result<ContainerView, Failure> {
    let name = container.name.as_str();
    let event = |kind: EventType, reason: &str, message: &str| {
        context.events.container(pod, name, kind, reason, message);
    };
    let fail = |reason: &str, message: String, retry_in: Duration, left_container: bool| {
        event(EventType::Warning, "Failed", &format!("Error: {message}"));
        Failure { waiting: Waiting { reason: reason.to_owned(), message }, retry_in, left_container }
    };
    if let Some(field) = ground.unsupported {
        let message = format!("field {field} is not supported by this node");
        return Err(fail("CreateContainerConfigError", message, CONFIG_RETRY, false));
    }
    let reference = container.image.as_deref().unwrap_or_default();
    let image = ensure_image(context, pod, reference, container.image_pull_policy.as_deref(), event).await?;
    let mut volumes = ground.volumes.clone();
    volumes.extend(image_volumes::mount(context, pod, container).await?);
    let ground = &Ground { volumes: &volumes, ..*ground };
    let spec = match container_spec(context, pod, container, start, ground, &image).await {
        Ok(spec) => spec,
        Err(message) => return Err(fail("CreateContainerConfigError", message, CONFIG_RETRY, false)),
    };
    if start.replace {
        let removed = context.runtime.remove_container(uid(pod), name, start.attempt).await;
        removed.map_err(|error| fail("CreateContainerError", error.to_string(), CONFIG_RETRY, false))?;
    }
    let view = match context.runtime.run_container(&crate::pod::identity(pod), &spec).await {
        Ok(view) => view,
        Err(RuntimeError::Start(message)) => {
            event(EventType::Normal, "Created", "Container created");
            return Err(fail("RunContainerError", message, Duration::ZERO, true));
        }
        Err(error) => return Err(fail("CreateContainerError", error.to_string(), CONFIG_RETRY, false)),
    };
    event(EventType::Normal, "Created", "Container created");
    event(EventType::Normal, "Started", "Container started");
    if let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) {
        let target =
            Target { uid: uid(pod), container: name, address: ground.around.pod_ips.first().copied() };
        // Upstream sets no limit to the hook; the pod's worker waits for it as it does there.
        if let Err(message) = hook(context, &target, container, handler, Duration::from_secs(24 * 3600)).await
        {
            event(EventType::Warning, "FailedPostStartHook", &format!("PostStartHook failed: {message}"));
            event(EventType::Normal, "Killing", "FailedPostStartHook");
            let grace =
                Duration::from_secs(u64::try_from(crate::pod::grace_seconds(pod)).unwrap_or_default());
            let _ = context.runtime.stop_container(uid(pod), name, start.attempt, grace).await;
            let waiting = Waiting { reason: "PostStartHookError".to_owned(), message: String::new() };
            return Err(Failure { waiting, retry_in: Duration::ZERO, left_container: true });
        }
    }
    Ok(view)
}

/// Makes sure that an image is there which a container is made of or mounts; `say` records what happened.
pub(super) async fn ensure_image(
    context: &Arc<Context>,
    pod: &Pod,
    image: &str,
    policy: Option<&str>,
    say: impl Fn(EventType, &str, &str),
) -> Result<ImageView, Failure> {
    let mut auths: Vec<RegistryAuth> = Vec::new();
    for secret in spec(pod).image_pull_secrets.iter().flatten() {
        if let Some(config) = context.objects.docker_config(namespace(pod), &secret.name).await {
            auths.extend(credentials(image, &config));
        }
    }
    let notify = |notice: Notice| {
        let (kind, reason, message) = match notice {
            Notice::Pulling(message) => (EventType::Normal, "Pulling", message),
            Notice::Pulled(message) => (EventType::Normal, "Pulled", message),
            Notice::Failed(message) => (EventType::Warning, "Failed", message),
            Notice::BackOff(message) => (EventType::Normal, "BackOff", message),
            Notice::Never(message) => (EventType::Warning, "ErrImageNeverPull", message),
        };
        say(kind, reason, &message);
    };
    let ensured = context.images.ensure(uid(pod), image, policy, &auths, notify).await;
    ensured.map_err(|waiting| {
        let message = format!("Error: {}", waiting.reason);
        say(EventType::Warning, "Failed", &message);
        let due = context.images.due_in(uid(pod), image).unwrap_or(CONFIG_RETRY);
        // A failed pull is looked at again soon, so that the container shows that it backs off.
        let retry_in = if waiting.reason == "ErrImagePull" { due.min(SHOW_FAILURE) } else { due };
        Failure { waiting, retry_in, left_container: false }
    })
}

/// Resolves everything that a container needs; the error is what is missing.
async fn container_spec(
    context: &Arc<Context>,
    pod: &Pod,
    container: &Container,
    start: &Start,
    ground: &Ground<'_>,
    image: &ImageView,
) -> Result<ContainerSpec, String> {
    security::verify_non_root(pod, container, &image.user)?;
    let joins = crate::pod::target(pod, &container.name, ground.view)?;
    let mut objects = DataObjects::default();
    for (kind, name) in references(container) {
        if let Some(data) = context.objects.fetch(kind, namespace(pod), &name, Duration::ZERO).await? {
            objects.0.insert((kind, name), data.as_ref().clone());
        }
    }
    let services: Vec<ServiceFacts> =
        context.services.list().into_iter().map(|(_, service)| service.as_ref().clone()).collect();
    let files = env_files(container, ground).await?;
    let variables = environment(pod, container, &services, &objects, &files, ground.around)?;
    let mounts = mounts(context, pod, container, start, ground, &variables).await?;
    let devices =
        if context.runtime.capabilities().volumes { devices(pod, container, ground)? } else { Vec::new() };
    let mut security = security::effective(pod, container, &image.user);
    if let Some(file) = security::localhost_seccomp(pod, container) {
        let profile = tokio::fs::read_to_string(context.seccomp_root.join(file)).await;
        let profile =
            profile.map_err(|error| format!("failed to load seccomp profile \"{file}\": {error}"))?;
        security.options.push(format!("seccomp={profile}"));
    }
    let account = account(context, pod, &mut security, image).await?;
    let host_network = spec(pod).host_network == Some(true);
    let mut env = variables.clone();
    if !variables.iter().any(|(name, _)| name == "HOSTNAME") && !host_network {
        env.push(("HOSTNAME".to_owned(), identity::hostname(pod, &context.names).0));
    }
    let mut annotations: BTreeMap<String, String> = [
        (HASH_ANNOTATION.to_owned(), container_hash(container)),
        (SANDBOX_ANNOTATION.to_owned(), ground.sandbox.to_string()),
        (MEMORY_REQUEST_ANNOTATION.to_owned(), memory_request(container).to_string()),
    ]
    .into();
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    annotations.insert("io.kubernetes.container.terminationMessagePath".to_owned(), message_path.to_owned());
    annotations.extend(account.map(|account| (USER_ANNOTATION.to_owned(), account.note())));
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt: start.attempt,
        image: container.image.clone().unwrap_or_default(),
        command: expand_all(container.command.as_ref(), &variables),
        args: expand_all(container.args.as_ref(), &variables),
        env,
        working_dir: container.working_dir.clone().filter(|path| !path.is_empty()),
        mounts,
        devices,
        joins,
        resources: cgroup(pod, container, i64::try_from(context.machine.memory).unwrap_or(i64::MAX)),
        security,
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        annotations,
        group: context.groups.parent(pod),
    })
}

/// Who the container will be. Where the runtime cannot tell who its image knows, what the pod asks for is left to the
/// runtime; but for the policy `Strict`, which cannot be kept then.
async fn account(
    context: &Arc<Context>,
    pod: &Pod,
    security: &mut ContainerSecurity,
    image: &ImageView,
) -> Result<Option<Account>, String> {
    match context.accounts.of(&image.id).await {
        Ok(files) => match account::settle(pod, security, &image.user, &files) {
            None if account::is_strict(pod) => {
                let user = security.user.as_deref().unwrap_or(&image.user);
                Err(format!("supplementalGroupsPolicy Strict: the image does not know the user {user:?}"))
            }
            account => Ok(account),
        },
        Err(RuntimeError::Unsupported(_)) => Ok(None),
        Err(error) if account::is_strict(pod) => Err(format!("supplementalGroupsPolicy Strict: {error}")),
        Err(error) => {
            tracing::debug!(image = image.id, "cannot tell who an image knows: {error}");
            Ok(None)
        }
    }
}

/// The block volumes of a container. Upstream: `makeBlockVolumes`.
fn devices(pod: &Pod, container: &Container, ground: &Ground<'_>) -> Result<Vec<Device>, String> {
    let device = |device: &VolumeDevice| {
        let source = ground.volumes.get(&device.name).ok_or_else(|| {
            format!("cannot find volume \"{}\" to pass into container \"{}\"", device.name, container.name)
        })?;
        Ok(Device {
            source: source.clone(),
            target: device.device_path.clone(),
            read_only: is_read_only_kind(pod, &device.name),
        })
    };
    container.volume_devices.iter().flatten().map(device).collect()
}

/// Reads the files that the environment comes from, as they are now.
async fn env_files(container: &Container, ground: &Ground<'_>) -> Result<EnvFiles, String> {
    let mut files = EnvFiles::default();
    for (volume, path) in env_file::references(container) {
        let place = ground.volumes.get(&volume);
        let place =
            place.ok_or_else(|| format!("cannot find volume {volume:?} referenced by fileKeyRef"))?.clone();
        let relative = path.clone();
        let text = volumes::blocking(move || volumes::sub_path::read_text(&place, &relative)).await;
        let parsed = text.and_then(|text| text.map(|text| env_file::parse(&text)).transpose());
        files.0.insert((volume, path), parsed);
    }
    Ok(files)
}

/// The volume mounts, then the pod's own files, which give way to a mount at the same place.
async fn mounts(
    context: &Arc<Context>,
    pod: &Pod,
    container: &Container,
    start: &Start,
    ground: &Ground<'_>,
    variables: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    if !context.runtime.capabilities().volumes {
        return Ok(mounts);
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = ground.volumes.get(&mount.name).ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
        })?;
        let source = match sub_path(mount, variables) {
            None => volume.clone(),
            Some(path) => {
                let target = context
                    .volumes
                    .layout()
                    .pod(uid(pod))
                    .join("volume-subpaths")
                    .join(&mount.name)
                    .join(&container.name)
                    .join(index.to_string());
                let volume = volume.clone();
                let prepared =
                    volumes::blocking(move || volumes::sub_path::prepare(&volume, &path, &target)).await;
                prepared.map_err(|message| {
                    format!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {message}",
                        mount.name, container.name
                    )
                })?
            }
        };
        let target = if mount.mount_path.starts_with('/') {
            mount.mount_path.clone()
        } else {
            format!("/{}", mount.mount_path)
        };
        let (source, read_only) = if volume_mounts::is_recursive(mount, true)? {
            let place = context
                .volumes
                .layout()
                .pod(uid(pod))
                .join("read-only")
                .join(&container.name)
                .join(index.to_string());
            let bound = place.clone();
            volumes::blocking(move || volumes::mounts::bind_read_only(&source, &bound)).await?;
            // It is, with all below; Docker would only make its top so, and drop what else holds for that.
            (place, false)
        } else {
            (source, mount.read_only.unwrap_or_default() || is_read_only_kind(pod, &mount.name))
        };
        mounts.push(Mount {
            source,
            target,
            read_only,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
        });
    }
    for own in ground.files.mounts(pod, container, start.attempt).await? {
        if !mounts.iter().any(|mount| mount.target.trim_end_matches('/') == own.target) {
            mounts.push(own);
        }
    }
    Ok(mounts)
}

/// The sub-path of a mount, with variables replaced in `subPathExpr`.
fn sub_path(mount: &VolumeMount, variables: &[(String, String)]) -> Option<String> {
    let lookup =
        |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expression = mount.sub_path_expr.as_deref().filter(|path| !path.is_empty());
    expression
        .map(|path| expand(path, lookup))
        .or_else(|| mount.sub_path.clone())
        .filter(|path| !path.is_empty())
}

/// Volumes whose content is the API's are never written by containers, as upstream mounts them; nor are claims that the
/// pod asks to have read-only.
fn is_read_only_kind(pod: &Pod, volume: &str) -> bool {
    spec(pod).volumes.iter().flatten().any(|found| {
        found.name == volume
            && (found.config_map.is_some()
                || found.secret.is_some()
                || found.projected.is_some()
                || found.downward_api.is_some()
                || found.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
                || found.csi.as_ref().is_some_and(|source| source.read_only == Some(true)))
    })
}
