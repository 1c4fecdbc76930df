//! The server from outside: over TLS, with certificates, tokens and nothing at all.

#![allow(clippy::unwrap_used)]

mod access;
mod harness;
mod health;
mod proxy;
mod shared;
mod tokens;
