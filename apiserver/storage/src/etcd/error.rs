//! What etcd's errors mean in terms of the contract.
//!
//! The messages are those of `etcd/api/v3rpc/rpctypes/error.go`; they are stable over 3.4 to 3.6, and gRPC
//! codes alone do not tell them apart.

use etcd_client::Error;

use crate::store::{MAX_VALUE_BYTES, Revision, StoreError};

/// Translates an error of a call that was about a revision (0: about none).
pub(super) fn translate(error: &Error, asked: Revision) -> StoreError {
    let Error::GRpcStatus(status) = error else {
        return StoreError::Unavailable(error.to_string());
    };
    let message = status.message();
    if message.contains("required revision has been compacted") {
        // etcd does not say here what the oldest revision is; the one after the asked-for is the least.
        StoreError::Compacted { asked, oldest: asked + 1 }
    } else if message.contains("required revision is a future revision") {
        StoreError::Future { asked, current: asked.saturating_sub(1) }
    } else if message.contains("database space exceeded") {
        StoreError::NoSpace
    } else if message.contains("request is too large") {
        StoreError::TooLarge { size: MAX_VALUE_BYTES + 1, limit: MAX_VALUE_BYTES }
    } else {
        StoreError::Unavailable(format!("{}: {message}", status.code()))
    }
}
