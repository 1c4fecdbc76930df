//! `projected` volumes: tokens, ConfigMaps, Secrets and fields in one directory.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource};

use super::{
    atomic_writer::{File, Payload},
    config_map::{self, mode},
    downward_api,
    tokens::Tokens,
};
use crate::pod::{
    downward::Surroundings,
    environment::{DataKind, DataObjects},
    spec,
};

/// The files of a `projected` volume, and when a token in it wants to be renewed. A later source wins over
/// an earlier one at the same path, as upstream's does.
pub(super) async fn payload(
    pod: &Pod,
    source: &ProjectedVolumeSource,
    around: &Surroundings,
    objects: &DataObjects,
    tokens: &Tokens,
) -> Result<(Payload, Option<Duration>), String> {
    let mut files = Payload::new();
    let mut stale_after: Option<Duration> = None;
    let default_mode = source.default_mode;
    for part in source.sources.iter().flatten() {
        if let Some(reference) = &part.config_map {
            let optional = reference.optional == Some(true);
            let items = reference.items.as_deref();
            files.extend(config_map::project(
                DataKind::ConfigMap,
                &reference.name,
                items,
                default_mode,
                optional,
                objects,
            )?);
        }
        if let Some(reference) = &part.secret {
            let optional = reference.optional == Some(true);
            let items = reference.items.as_deref();
            files.extend(config_map::project(
                DataKind::Secret,
                &reference.name,
                items,
                default_mode,
                optional,
                objects,
            )?);
        }
        if let Some(reference) = &part.downward_api {
            let items = reference.items.as_deref().unwrap_or_default();
            files.extend(downward_api::project(pod, items, default_mode, around)?);
        }
        if let Some(reference) = &part.service_account_token {
            let (token, renew_after) = tokens.token(pod, reference).await?;
            stale_after = Some(stale_after.map_or(renew_after, |before| before.min(renew_after)));
            // With an fsGroup the group reads the token and nobody else does.
            let has_group =
                spec(pod).security_context.as_ref().is_some_and(|context| context.fs_group.is_some());
            let mode = if has_group { 0o600 } else { mode(default_mode, 0o644) };
            files.insert(reference.path.clone(), File { data: token.into_bytes(), mode });
        }
    }
    Ok((files, stale_after))
}
