//! Follows a folder of manifests: the kernel tells when something in it changes (inotify).

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::read;

/// Static pods by uid.
pub(crate) type Found = BTreeMap<String, Bytes>;

/// A folder of manifests.
pub(crate) struct Folder {
    path: PathBuf,
    node: String,
    /// What each file held when it could last be read: a half-written file does not end its pod.
    good: BTreeMap<PathBuf, (String, Bytes)>,
}

impl Folder {
    /// At that path, for that node.
    pub(crate) fn new(path: PathBuf, node: String) -> Self {
        Self { path, node, good: BTreeMap::new() }
    }

    /// Follows the folder until shutdown; a missing one is made, for there would be nothing to follow.
    pub(crate) async fn follow(mut self, found: watch::Sender<Found>, shutdown: CancellationToken) {
        let ready = match self.watch() {
            Ok(ready) => ready,
            Err(message) => {
                tracing::error!(path = %self.path.display(), "static pods cannot be followed: {message}");
                return;
            }
        };
        let mut events = [0u8; 4096];
        loop {
            // Events that came since are in the queue: nothing is missed between reading and waiting.
            let next = self.scan();
            found.send_if_modified(|known| {
                let changed = *known != next;
                *known = next;
                changed
            });
            let mut guard = tokio::select! {
                () = shutdown.cancelled() => return,
                guard = ready.readable() => match guard { Ok(guard) => guard, Err(_) => return },
            };
            // What happened does not matter: the whole folder is read again.
            while nix::unistd::read(ready.get_ref(), &mut events).is_ok_and(|read| read > 0) {}
            guard.clear_ready();
        }
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe code; an owned descriptor cannot be closed under it"
    )]
    fn watch(&self) -> Result<AsyncFd<OwnedFd>, String> {
        std::fs::create_dir_all(&self.path).map_err(|error| error.to_string())?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|error| error.to_string())?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(self.path.as_path(), flags).map_err(|error| error.to_string())?;
        AsyncFd::with_interest(OwnedFd::from(inotify), Interest::READABLE).map_err(|error| error.to_string())
    }

    /// Reads every file but hidden ones, in the order of their names.
    pub(crate) fn scan(&mut self) -> Found {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_file() && !is_hidden(path))
            .collect();
        files.sort();
        self.good.retain(|path, _| files.contains(path));
        for file in files {
            match self.read(&file) {
                Ok(pod) => {
                    self.good.insert(file, pod);
                }
                Err(message) => {
                    tracing::warn!(file = %file.display(), "a manifest of a static pod cannot be used: {message}");
                }
            }
        }
        self.good.values().cloned().collect()
    }

    fn read(&self, file: &Path) -> Result<(String, Bytes), String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let pod = read(&text, &file.to_string_lossy(), &self.node)?;
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Ok((uid, Bytes::from(pod.to_string())))
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: 'i:1'}}]}}}}"
        )
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("manifests");
        let (sender, mut receiver) = watch::channel(Found::new());
        let shutdown = CancellationToken::new();
        let folder = Folder::new(path.clone(), "n".to_owned());
        let task = tokio::spawn(folder.follow(sender, shutdown.clone()));
        let mut next = async |count: usize| {
            let wanted = receiver.wait_for(|found| found.len() == count);
            let found =
                tokio::time::timeout(Duration::from_secs(30), wanted).await.expect("in time").unwrap();
            found.keys().cloned().collect::<Vec<_>>()
        };
        next(0).await;
        // The folder is there once it is followed; until then the first scan finds the file.
        while !path.is_dir() {
            tokio::task::yield_now().await;
        }
        std::fs::write(path.join("a.yaml"), manifest("a")).unwrap();
        let first = next(1).await;
        std::fs::write(path.join(".hidden"), manifest("h")).unwrap();
        std::fs::write(path.join("broken.yaml"), "kind: [").unwrap();
        std::fs::write(path.join("b.json"), manifest("b")).unwrap();
        let both = next(2).await;
        assert!(both.contains(&first[0]));
        std::fs::write(path.join("a.yaml"), "kind: [").unwrap();
        std::fs::remove_file(path.join("b.json")).unwrap();
        assert_eq!(next(1).await, first, "a broken file keeps its pod");
        shutdown.cancel();
        task.await.unwrap();
    }
}
