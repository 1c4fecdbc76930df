//! Objects through the whole server: every verb, over the in-process door and a store in memory.
//!
//! Expectations come from Kubernetes' API documentation
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>), never from what the server happened to say.

#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)] // a test fails by panicking, and nobody uses it

mod admission;
mod certificates;
mod discovery;
mod golden;
mod harness;
mod lifecycle;
mod lists;
mod shapes;
mod subresources;
mod watches;
mod writes;
