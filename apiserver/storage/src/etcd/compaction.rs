//! Compacts etcd's history from time to time, once for all API servers on it.
//!
//! Upstream's protocol (`storage/etcd3/compact.go`) and key, so that a kube-apiserver on the same etcd takes
//! part: whoever moves the key to its next version has the turn, and compacts what was current at the turn
//! before. History is thus kept for one to two intervals.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp, TxnOpResponse};

/// The key whose version counts the turns; its value is the revision at the last one.
const KEY: &str = "compact_rev_key";

/// Compacts once per interval, forever.
pub(super) async fn run(kv: KvClient, interval: Duration) {
    let mut turn = 0;
    let mut revision = 0;
    loop {
        tokio::time::sleep(interval).await;
        match take_turn(&kv, turn, revision).await {
            Ok(next) => (turn, revision) = next,
            Err(error) => tracing::debug!(%error, "etcd was not compacted"),
        }
    }
}

/// Tries to take the turn after `turn`, at which `revision` was current; answers the next pair.
async fn take_turn(kv: &KvClient, turn: i64, revision: i64) -> Result<(i64, i64), etcd_client::Error> {
    let mut kv = kv.clone();
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, turn)])
        .and_then([TxnOp::put(KEY, revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let response = kv.txn(txn).await?;
    let current = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    if !response.succeeded() {
        let there = match response.op_responses().into_iter().next() {
            Some(TxnOpResponse::Get(get)) => get.kvs().first().map_or(0, etcd_client::KeyValue::version),
            _ => 0,
        };
        return Ok((there, current));
    }
    if revision > 0 {
        kv.compact(revision, None).await?;
        tracing::debug!(revision, "compacted etcd");
    }
    Ok((turn + 1, current))
}
