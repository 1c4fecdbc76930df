//! Informers: a collection kept in memory by list and watch, as bytes or small projections.
//!
//! # Contract
//!
//! 1. Eventually consistent, in order per object; intermediate states may be skipped.
//! 2. A subscriber is told of every key that changed since it last asked, once, with the state before and
//!    after: changes of a key are merged until they are read, so nothing is lost and nobody is waited for.
//! 3. After a lost watch the informer resumes where it was; if that history is gone it lists anew and tells
//!    the difference.
//! 4. An object that cannot be projected is left out with a warning; it stops nothing.

mod reflector;
mod store;

use std::{fmt, future::Future, sync::Arc};

use api_objects::{Resource, object::ObjectMeta};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use store::{Change, Subscription};

use crate::{Client, ListQuery};
use store::Store;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Which part of a collection an informer follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Empty for all namespaces.
    pub namespace: String,
    /// Empty for all.
    pub label_selector: String,
    /// Empty for all.
    pub field_selector: String,
}

impl Scope {
    fn query(&self) -> ListQuery {
        ListQuery {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListQuery::default()
        }
    }
}

/// Makes what is kept of an object out of its bytes; `None` if it cannot be read.
pub type Project<T> = fn(&[u8], &ObjectMeta) -> Option<T>;

/// Makes the index values of an object, for [`Informer::by_index`].
pub type Index<T> = fn(&Key, &T) -> Vec<String>;

/// Makes informers: one factory for each process.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Informers {
    /// Informers that use `client`, end with `shutdown`, and whose tasks `tasks` joins.
    #[must_use]
    pub fn new(client: Client, shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        Self { client, shutdown, tasks }
    }

    /// Follows a collection.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        resource: &Arc<Resource>,
        scope: &Scope,
        project: Project<T>,
    ) -> Informer<T> {
        self.watch_indexed(resource, scope, project, |_, _| Vec::new())
    }

    /// Follows a collection and keeps an index over it.
    pub fn watch_indexed<T: Send + Sync + 'static>(
        &self,
        resource: &Arc<Resource>,
        scope: &Scope,
        project: Project<T>,
        index: Index<T>,
    ) -> Informer<T> {
        let store = Arc::new(Store::new(index));
        let reflector = reflector::Reflector {
            client: self.client.clone(),
            resource: resource.clone(),
            namespace: scope.namespace.clone(),
            query: scope.query(),
            project,
            store: store.clone(),
        };
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            shutdown.run_until_cancelled(reflector.run()).await;
        });
        Informer { store }
    }
}

/// A reader of a followed collection; cheap to clone.
pub struct Informer<T> {
    store: Arc<Store<T>>,
}

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<T: Send + Sync + 'static> Informer<T> {
    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.store.get(key)
    }

    /// Everything, by key.
    #[must_use]
    pub fn list(&self) -> Vec<(Key, Arc<T>)> {
        self.store.list(None)
    }

    /// Everything in a namespace, by name.
    #[must_use]
    pub fn by_namespace(&self, namespace: &str) -> Vec<(Key, Arc<T>)> {
        self.store.list(Some(namespace))
    }

    /// Everything with an index value, by key.
    #[must_use]
    pub fn by_index(&self, value: &str) -> Vec<(Key, Arc<T>)> {
        self.store.by_index(value)
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the first list is in. Never returns if the server is never reached.
    pub fn synced(&self) -> impl Future<Output = ()> + Send + use<T> {
        let store = self.store.clone();
        async move { store.synced().await }
    }

    /// Whether the first list is in.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.store.has_synced()
    }

    /// Changes from now on; what is there already comes first, as additions.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<T> {
        self.store.subscribe()
    }
}
