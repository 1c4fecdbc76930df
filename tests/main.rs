//! End to end: a whole cluster, real Docker, real clients; and the rules of the house.
//!
//! One binary, so that everything links once. Tests that need Docker or etcd start them or fail.

mod alone;
mod chaos;
mod client_go;
mod clients;
mod control_groups;
mod demos;
mod etcd;
mod fifty_pods;
mod figures;
mod harness;
mod kube_client;
mod legacy;
mod lifecycle;
mod nodes;
mod pod_ipc;
mod quickstart;
mod scarce;
mod simulated;
mod store;
mod streams;
mod survival;
mod tidy;
mod volume_kinds;
mod volumes;
