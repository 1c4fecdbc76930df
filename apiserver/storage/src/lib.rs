//! Bytes, keys and revisions: the store, its log and its watch cache.
//!
//! Knows no kinds and no HTTP. The contract is prose on [`store`]; `memory` is the naive model, `embedded`
//! the default, `etcd` the store of several machines, `cacher` the watch cache over either, and `testing`
//! the suite that each of them passes.

pub mod backend;
pub mod cacher;
pub mod embedded;
pub mod etcd;
mod feed;
pub mod memory;
pub mod migrate;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod tools;

pub use backend::Backend;
pub use embedded::EmbeddedStore;
pub use etcd::{EtcdOptions, EtcdStore};
pub use memory::MemoryStore;
pub use store::{
    At, Entry, Event, Got, ListOptions, Listing, Revision, Store, StoreError, WatchMessage, WatchStream,
};
