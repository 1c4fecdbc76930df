//! Images: pull policy, back-off, credentials.
//!
//! The decisions and texts follow upstream's image manager (`pkg/kubelet/images`). Pulls of one image by many
//! pods are one pull; pulls of different images go on side by side up to a bound. What was pulled is noted in a file:
//! Docker is shared with whoever else uses this machine, and only what this kubelet brought may it take away.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use api_objects::Value;
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use kubelet_runtime::{ImageView, PodRuntime, RegistryAuth, RuntimeError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::pod::{restart::BackOff, status::Waiting};

/// Pulls at once; more would only share the same network and disk.
const PARALLEL_PULLS: usize = 4;

/// What happened, for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// `Pulling`
    Pulling(String),
    /// `Pulled`
    Pulled(String),
    /// `Failed`
    Failed(String),
    /// `BackOff`
    BackOff(String),
    /// `ErrImageNeverPull`
    Never(String),
}

/// Ensures that images are on the node.
pub(crate) struct Images {
    runtime: Arc<dyn PodRuntime>,
    permits: Semaphore,
    state: Mutex<State>,
    /// Where the ids of pulled images are noted, a line each.
    notes: PathBuf,
}

#[derive(Default)]
struct State {
    backoff: BackOff,
    /// When and why the last pull of an image failed, by pod and image.
    failures: HashMap<String, (Timestamp, String)>,
    /// One lock per image being pulled, so that pods wait for one another's pull.
    pulling: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// The effective pull policy; the API server has filled it in, the rest is its rule for hand-made objects.
#[must_use]
pub(crate) fn policy<'a>(image: &str, given: Option<&'a str>) -> &'a str {
    match given {
        Some(policy) if !policy.is_empty() => policy,
        _ if image.contains('@') => "IfNotPresent",
        _ => {
            let tag = image
                .rsplit('/')
                .next()
                .and_then(|last| last.split_once(':'))
                .map_or("latest", |(_, tag)| tag);
            if tag == "latest" { "Always" } else { "IfNotPresent" }
        }
    }
}

impl Images {
    /// Over a runtime; `notes` is the file that remembers what was pulled.
    #[must_use]
    pub(crate) fn new(runtime: Arc<dyn PodRuntime>, notes: PathBuf) -> Self {
        Self { runtime, permits: Semaphore::new(PARALLEL_PULLS), state: Mutex::default(), notes }
    }

    /// The ids of the images that this kubelet pulled and that may be removed once nothing uses them.
    pub(crate) async fn pulled(&self) -> BTreeSet<String> {
        let noted = tokio::fs::read_to_string(&self.notes).await.unwrap_or_default();
        noted.lines().map(str::to_owned).collect()
    }

    /// Notes a pulled image. Without the note it only stays for longer.
    async fn note(&self, id: &str) {
        let mut known = self.pulled().await;
        if !known.insert(id.to_owned()) {
            return;
        }
        let lines = known.into_iter().map(|id| id + "\n").collect::<String>();
        if let Err(error) = tokio::fs::write(&self.notes, lines).await {
            tracing::warn!(path = %self.notes.display(), "a pulled image is not noted: {error}");
        }
    }

    /// Makes sure that the image is there; otherwise says why the container waits. `notify` gets what is
    /// worth an event, in order.
    pub(crate) async fn ensure(
        &self,
        pod_uid: &str,
        image: &str,
        given_policy: Option<&str>,
        auths: &[RegistryAuth],
        notify: impl Fn(Notice),
    ) -> Result<ImageView, Waiting> {
        let policy = policy(image, given_policy);
        let waiting = |reason: &str, message: String| Waiting { reason: reason.to_owned(), message };
        let before = self.runtime.image(image).await;
        // What is here and not of our pulling stays somebody else's, whatever is pulled over it.
        let foreign = match &before {
            Ok(Some(found)) => (!self.pulled().await.contains(&found.id)).then(|| found.id.clone()),
            _ => None,
        };
        if policy != "Always" {
            match before {
                Ok(Some(found)) => {
                    notify(Notice::Pulled(format!(
                        "Container image \"{image}\" already present on machine and can be accessed by the pod"
                    )));
                    return Ok(found);
                }
                Ok(None) if policy == "Never" => {
                    let message =
                        format!("Container image \"{image}\" is not present with pull policy of Never");
                    notify(Notice::Never(message.clone()));
                    return Err(waiting("ErrImageNeverPull", message));
                }
                Ok(None) => {}
                Err(error) => {
                    let message = format!("Failed to inspect image \"{image}\": {error}");
                    notify(Notice::Failed(message.clone()));
                    return Err(waiting("ImageInspectError", message));
                }
            }
        }
        let key = format!("{pod_uid}/{image}");
        if let Some(message) = self.backing_off(&key, image) {
            notify(Notice::BackOff(format!("Back-off pulling image \"{image}\"")));
            return Err(waiting("ImagePullBackOff", message));
        }
        let asked = tokio::time::Instant::now();
        let one_at_a_time = self.state.lock().pulling.entry(image.to_owned()).or_default().clone();
        let result = {
            let _turn = one_at_a_time.lock().await;
            let _permit = self.permits.acquire().await;
            notify(Notice::Pulling(format!("Pulling image \"{image}\"")));
            let began = tokio::time::Instant::now();
            let pulled = self.pull(image, auths).await.map(|view| (view, began.elapsed()));
            if let Ok((view, _)) = &pulled
                && foreign.as_ref() != Some(&view.id)
            {
                self.note(&view.id).await;
            }
            pulled
        };
        let mut state = self.state.lock();
        if Arc::strong_count(&one_at_a_time) <= 2 {
            state.pulling.remove(image);
        }
        let now = Timestamp::now();
        match result {
            Ok((view, took)) => {
                state.failures.remove(&key);
                state.backoff.forget(&key);
                notify(Notice::Pulled(format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(took),
                    go_duration(asked.elapsed()),
                    view.size
                )));
                Ok(view)
            }
            Err(error) => {
                state.backoff.advance(&key, now, now);
                let message = match &error {
                    RuntimeError::Pull { message, .. } => message.clone(),
                    other => other.to_string(),
                };
                state.failures.insert(key, (now, message.clone()));
                notify(Notice::Failed(format!("Failed to pull image \"{image}\": {message}")));
                Err(waiting("ErrImagePull", message))
            }
        }
    }

    /// Pulls with each credential in turn, without any at last.
    async fn pull(&self, image: &str, auths: &[RegistryAuth]) -> Result<ImageView, RuntimeError> {
        for auth in auths {
            match self.runtime.pull(image, Some(auth)).await {
                Ok(view) => return Ok(view),
                Err(error) => {
                    tracing::debug!(image, server = auth.server, "pull with credentials failed: {error}")
                }
            }
        }
        self.runtime.pull(image, None).await
    }

    fn backing_off(&self, key: &str, image: &str) -> Option<String> {
        let state = self.state.lock();
        let (failed_at, why) = state.failures.get(key)?;
        state.backoff.remaining(key, *failed_at, Timestamp::now())?;
        Some(format!("Back-off pulling image \"{image}\": ErrImagePull: {why}"))
    }

    /// When a pod's next pull of an image is due.
    #[must_use]
    pub(crate) fn due_in(&self, pod_uid: &str, image: &str) -> Option<Duration> {
        let state = self.state.lock();
        let key = format!("{pod_uid}/{image}");
        let (failed_at, _) = state.failures.get(&key)?;
        state.backoff.remaining(&key, *failed_at, Timestamp::now())
    }

    /// Forgets what a pod's pulls left behind.
    pub(crate) fn forget(&self, pod_uid: &str) {
        let mut state = self.state.lock();
        let prefix = format!("{pod_uid}/");
        let gone: Vec<String> =
            state.failures.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        for key in gone {
            state.failures.remove(&key);
            state.backoff.forget(&key);
        }
    }
}

/// A duration as Go prints it, to the millisecond: `1.5s`, `20ms`, `2m3.5s`.
#[must_use]
pub(crate) fn go_duration(time: Duration) -> String {
    let millis = time.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    while seconds.ends_with('0') {
        seconds.pop();
    }
    let seconds = seconds.trim_end_matches('.');
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// The credentials for an image's registry out of a Docker configuration's `auths`.
#[must_use]
pub(crate) fn credentials(image: &str, auths: &Value) -> Option<RegistryAuth> {
    let wanted = registry(image);
    let (server, entry) = auths.as_object()?.iter().find(|(server, _)| {
        let host = server.trim_start_matches("https://").trim_start_matches("http://");
        host.split('/').next() == Some(wanted)
            || (wanted == "docker.io" && host.starts_with("index.docker.io"))
    })?;
    let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
    let (username, password) = match (text("username"), text("password")) {
        (Some(username), Some(password)) => (username, password),
        _ => {
            let decoded = BASE64_STANDARD.decode(text("auth")?).ok()?;
            let (username, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
    };
    Some(RegistryAuth { username, password, server: server.clone() })
}

/// The registry's host of an image reference.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies() {
        assert_eq!(policy("busybox", None), "Always");
        assert_eq!(policy("host:5000/busybox", None), "Always");
        assert_eq!(policy("busybox:latest", None), "Always");
        assert_eq!(policy("busybox:1.36", None), "IfNotPresent");
        assert_eq!(policy("busybox@sha256:00", None), "IfNotPresent");
        assert_eq!(policy("busybox", Some("Never")), "Never");
    }

    #[tokio::test]
    async fn only_what_was_pulled_is_noted() {
        let home = tempfile::tempdir().unwrap();
        let options = kubelet_runtime::simulated::SimulatedOptions::default();
        let runtime = Arc::new(kubelet_runtime::simulated::SimulatedRuntime::new(options));
        let images = Images::new(runtime, home.path().join("pulled-images"));
        // The simulation has every image already: they are not ours, even when they are pulled again.
        for policy in ["IfNotPresent", "Always"] {
            images.ensure("u", "busybox:1", Some(policy), &[], |_| {}).await.unwrap();
            assert!(images.pulled().await.is_empty(), "{policy}");
        }
        images.note("sha256:1").await;
        images.note("sha256:1").await;
        images.note("sha256:0").await;
        assert_eq!(images.pulled().await.into_iter().collect::<Vec<_>>(), ["sha256:0", "sha256:1"]);
    }

    #[test]
    fn finds_credentials() {
        let auths = json!({"registry.example:5000": {"auth": "dTpw"}, "https://index.docker.io/v1/": {"username": "a", "password": "b"}});
        assert_eq!(credentials("registry.example:5000/x/y:1", &auths).unwrap().password, "p");
        assert_eq!(credentials("busybox", &auths).unwrap().username, "a");
        assert!(credentials("other.example/x", &auths).is_none());
    }

    #[test]
    fn durations_as_go_prints_them() {
        assert_eq!(go_duration(Duration::from_millis(20)), "20ms");
        assert_eq!(go_duration(Duration::from_millis(1500)), "1.5s");
        assert_eq!(go_duration(Duration::from_millis(123_500)), "2m3.5s");
        assert_eq!(go_duration(Duration::from_secs(2)), "2s");
    }
}
