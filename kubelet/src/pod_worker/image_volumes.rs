//! The image volumes of a container: pulled like its own image, and mounted before it starts.
//!
//! As upstream's `getImageVolumes`, this belongs to the start of the container that mounts them, not to the volumes of
//! the pod: an image that cannot be pulled keeps that container waiting with the reasons of its own image.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use client::EventType;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::start::{CONFIG_RETRY, Failure, ensure_image};
use crate::{
    context::Context,
    pod::{spec, status::Waiting, uid},
};

/// Mounts what the container wants of the pod's image volumes; by volume, where each is.
pub(super) async fn mount(
    context: &Arc<Context>,
    pod: &Pod,
    container: &Container,
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut mounted = BTreeMap::new();
    if !context.runtime.capabilities().volumes {
        return Ok(mounted);
    }
    for volume in spec(pod).volumes.iter().flatten() {
        let Some(source) = &volume.image else { continue };
        if !container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name) {
            continue;
        }
        let reference = source.reference.as_deref().unwrap_or_default();
        let say =
            |kind: EventType, reason: &str, message: &str| context.events.pod(pod, kind, reason, message);
        let image = ensure_image(context, pod, reference, source.pull_policy.as_deref(), say).await?;
        let path = context.volumes.images().mount(uid(pod), &volume.name, &image.id).await;
        let path = path.map_err(|message| {
            let message = format!("failed to mount image volume \"{}\": {message}", volume.name);
            let text = format!("Error: {message}");
            context.events.container(pod, &container.name, EventType::Warning, "Failed", &text);
            let waiting = Waiting { reason: "CreateContainerError".to_owned(), message };
            Failure { waiting, retry_in: CONFIG_RETRY, left_container: false }
        })?;
        mounted.insert(volume.name.clone(), path);
    }
    Ok(mounted)
}
