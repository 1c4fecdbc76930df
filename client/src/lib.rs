//! How anyone talks to the cluster: transport, informers, work queue, events, leader election.
//!
//! The same HTTP requests for everybody: over TLS from another process, or through the API server's own
//! service inside the all-in-one binary. Caches hold bytes or small projections, never typed objects.

pub mod bootstrap_token;
mod connect;
pub mod error;
pub mod events;
pub mod informer;
pub mod leader;
pub mod retry;
pub mod switch;
pub mod transport;
pub mod watch;
pub mod workqueue;

pub use error::Error;
pub use events::{EventType, ObjectRef, Recorder};
pub use informer::{Change, Informer, Informers, Key, Scope, Subscription};
pub use leader::{LeaderElector, LeaderOptions};
pub use retry::Backoff;
pub use switch::Switch;
pub use transport::{Client, ListQuery, PatchType, WebSocket};
pub use watch::{WatchEvent, WatchEventType};
pub use workqueue::WorkQueue;
