//! What is true: the API server.
//!
//! One request goes one way: `chain` (who is it, what does it want, may it) → `handlers` (one file per verb)
//! → `registry` (the kind's strategy) → the watch cache and the store. See `docs/architecture.md`.

pub mod admission;
mod allocators;
pub mod auth;
mod bootstrap;
mod chain;
pub mod config;
pub mod discovery;
pub mod handlers;
pub mod health;
mod local;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod pki;
pub mod projector;
pub mod protobuf;
pub mod proxy;
pub mod registry;
pub mod request_info;
mod run;
mod server;
mod sockets;
pub mod state;
pub mod status;
pub mod storage;
mod tls;

pub use local::{LocalService, local_service};
pub use run::{Running, StartError, run, start};
pub use state::{RequestContext, Server};
