//! Opens the store that the configuration names.

use std::{path::Path, sync::Arc};

use apiserver_storage::{
    EtcdOptions, EtcdStore, StoreError,
    backend::Backend,
    embedded::{self, EmbeddedStore, OpenError, RealIo},
    memory::MemoryStore,
};

use crate::config::{Config, EtcdConfig, StoreKind};

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// The directory could not be opened or is damaged.
    #[error("failed to open the embedded store")]
    Embedded(#[from] OpenError),
    /// Etcd could not be reached.
    #[error("failed to connect to etcd")]
    Etcd(#[source] StoreError),
    /// A file that etcd's options name could not be read.
    #[error("failed to read `{path}`")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Opening was cut short.
    #[error("opening the store was cut short")]
    Interrupted,
}

/// Opens the store.
///
/// # Errors
///
/// If it is damaged, in use, or cannot be reached.
pub async fn open(config: &Config) -> Result<Backend, OpenStoreError> {
    match config.store {
        StoreKind::Memory => Ok(Backend::Memory(MemoryStore::default())),
        StoreKind::Embedded => {
            let directory = config.store_dir();
            // Recovery reads the whole log: not on a thread that serves requests.
            let open = move || {
                EmbeddedStore::open(&directory, &embedded::Options::default(), Arc::new(RealIo::default()))
            };
            let opened = tokio::task::spawn_blocking(open).await;
            Ok(Backend::Embedded(opened.map_err(|_| OpenStoreError::Interrupted)??))
        }
        StoreKind::Etcd => {
            let store =
                EtcdStore::connect(etcd_options(&config.etcd)?).await.map_err(OpenStoreError::Etcd)?;
            Ok(Backend::Etcd(Box::new(store)))
        }
    }
}

fn etcd_options(config: &EtcdConfig) -> Result<EtcdOptions, OpenStoreError> {
    let identity = match &config.client_files {
        Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
        None => None,
    };
    let user = match &config.user {
        Some((name, password)) => {
            let password =
                String::from_utf8_lossy(&read(password)?).trim_end_matches(['\r', '\n']).to_owned();
            Some((name.clone(), password))
        }
        None => None,
    };
    Ok(EtcdOptions {
        prefix: config.prefix.clone(),
        ca: config.ca_file.as_deref().map(read).transpose()?,
        identity,
        user,
        ..EtcdOptions::new(config.servers.clone())
    })
}

fn read(path: &Path) -> Result<Vec<u8>, OpenStoreError> {
    std::fs::read(path).map_err(|source| OpenStoreError::File { path: path.display().to_string(), source })
}
