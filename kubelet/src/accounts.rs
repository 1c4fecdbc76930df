//! The accounts that images know, read once for each image.

use std::{collections::HashMap, sync::Arc};

use kubelet_runtime::{AccountFiles, PodRuntime, RuntimeError};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Images whose accounts are kept, a few kilobytes each; of more, some are read again.
const MOST: usize = 64;

/// By image id.
pub(crate) struct Accounts {
    runtime: Arc<dyn PodRuntime>,
    known: Mutex<HashMap<String, Arc<OnceCell<Arc<AccountFiles>>>>>,
}

impl Accounts {
    /// Over a runtime.
    pub(crate) fn new(runtime: Arc<dyn PodRuntime>) -> Self {
        Self { runtime, known: Mutex::default() }
    }

    /// The accounts of an image. Containers that start at once wait for one reading.
    ///
    /// # Errors
    /// What the runtime says; asked for again the next time.
    pub(crate) async fn of(&self, image: &str) -> Result<Arc<AccountFiles>, RuntimeError> {
        let cell = {
            let mut known = self.known.lock();
            if known.len() >= MOST && !known.contains_key(image) {
                known.clear();
            }
            Arc::clone(known.entry(image.to_owned()).or_default())
        };
        let read = || async { self.runtime.image_accounts(image).await.map(Arc::new) };
        cell.get_or_try_init(read).await.cloned()
    }
}
