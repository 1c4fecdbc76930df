//! `/containerLogs`: what a container wrote, of its current or its previous run.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kubelet_runtime::{ContainerState, LogOptions, RuntimeError};
use serde::Deserialize;

use super::{Failure, Shared, streaming};
use crate::pod;

/// The query, as the API server passes it on (`PodLogOptions`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<jiff::Timestamp>,
    limit_bytes: Option<usize>,
}

/// Go's `strconv.ParseBool` as far as anyone writes it.
pub(super) fn is_set(value: Option<&str>) -> bool {
    value.is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

pub(super) async fn container(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Failure> {
    let pod = shared.pod(&namespace, &name)?;
    let bad = |message: String| Failure::new(StatusCode::BAD_REQUEST, message);
    if pod::any_container(&pod, &container).is_none() {
        return Err(bad(format!("container {container} is not valid for pod {name}")));
    }
    let uid = pod::uid(&pod).to_owned();
    let view = shared.context.runtime.pod(&uid).await;
    let view = view.map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let newest = pod::latest_run(view.as_ref(), &container);
    let run = if is_set(query.previous.as_deref()) {
        let ended_newest = newest.filter(|run| {
            // While it waits to be restarted, the newest run is the previous one.
            matches!(run.state, ContainerState::Exited { .. }) && waits(&pod, &container)
        });
        let before = view
            .iter()
            .flat_map(|view| &view.containers)
            .filter(|run| run.name == container && newest.is_some_and(|newest| run.attempt < newest.attempt));
        ended_newest.or_else(|| before.max_by_key(|run| run.attempt)).ok_or_else(|| {
            bad(format!("previous terminated container \"{container}\" in pod \"{name}\" not found"))
        })?
    } else {
        newest.ok_or_else(|| bad(waiting_message(&pod, &container)))?
    };
    let since_time = query.since_time.map(jiff::Timestamp::as_second);
    let since =
        query.since_seconds.map(|seconds| jiff::Timestamp::now().as_second() - seconds).or(since_time);
    let options = LogOptions {
        follow: is_set(query.follow.as_deref()),
        tail: query.tail_lines,
        since,
        timestamps: is_set(query.timestamps.as_deref()),
    };
    let opened = shared.context.runtime.logs(&uid, &container, run.attempt, &options).await;
    let opened = opened.map_err(|error| match error {
        RuntimeError::NotFound(_) => bad(format!("unable to retrieve container logs for {container}")),
        other => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
    })?;
    let shutdown = shared.context.shutdown.clone().cancelled_owned();
    let log = opened.take_until(Box::pin(shutdown));
    Ok(match query.limit_bytes {
        None => streaming(log),
        Some(limit) => streaming(limited(log, limit)),
    })
}

/// At most so many bytes.
fn limited<S>(log: S, limit: usize) -> impl futures_util::Stream<Item = Result<Bytes, RuntimeError>> + Send
where
    S: futures_util::Stream<Item = Result<Bytes, RuntimeError>> + Send + Unpin,
{
    stream::unfold((log, limit), |(mut log, left)| async move {
        if left == 0 {
            return None;
        }
        let piece = match log.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error), (log, 0))),
        };
        let cut = piece.slice(..piece.len().min(left));
        let left = left - cut.len();
        Some((Ok(cut), (log, left)))
    })
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == container)
}

fn waits(pod: &Pod, container: &str) -> bool {
    status(pod, container)
        .is_some_and(|status| status.state.as_ref().is_some_and(|state| state.waiting.is_some()))
}

/// Why there is no log yet (upstream's `validateContainerLogStatus`).
fn waiting_message(pod: &Pod, container: &str) -> String {
    let waiting = status(pod, container).and_then(|status| status.state.as_ref()?.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("ContainerCreating");
    let image_trouble =
        matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName");
    let why = if image_trouble { "trying and failing to pull image" } else { reason };
    format!("container \"{container}\" in pod \"{}\" is waiting to start: {why}", pod::name(pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_log() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]},
            "status": {"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}))
        .unwrap();
        assert_eq!(
            waiting_message(&pod, "a"),
            "container \"a\" in pod \"web\" is waiting to start: trying and failing to pull image"
        );
    }

    #[tokio::test]
    async fn a_limit_cuts() {
        let pieces = stream::iter([Ok(Bytes::from("hello ")), Ok(Bytes::from("world"))]);
        let cut: Vec<_> = limited(pieces, 8).map(Result::unwrap).collect().await;
        assert_eq!(cut.concat(), b"hello wo");
    }
}
