//! Which requests are sent again, and for how long.
//!
//! Of several endpoints the client picks one without knowing whether it lives, so with a dead member every other
//! request would fail. What is safe is sent again, as etcd's own client does (`retry_interceptor.go`: reads
//! whenever no server answered, writes only if none can have seen them).

use std::{error::Error as _, future::Future, io, time::Duration};

use etcd_client::Error;
use tokio::time::{Instant, sleep, timeout};

use super::error::translate;
use crate::store::{Revision, StoreError};

/// For how long; then the caller learns that there is no etcd.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Attempts that follow one another at once: the next one goes elsewhere, likely.
const AT_ONCE: u32 = 3;
/// Between later ones.
const PAUSE: Duration = Duration::from_millis(25);

/// gRPC's number for it: the connection broke, or the server has no leader just now.
const UNAVAILABLE: i32 = 14;

/// How often a request may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Again makes no difference: it only reads, or it says where things should be.
    Harmless,
    /// Once: it is sent again only if it has reached nobody.
    Never,
}

/// An answer of etcd within its time, in the contract's terms. `asked` is the revision that it is about (0: about
/// none).
pub(super) async fn send<T, F>(
    limit: Duration,
    repeat: Repeat,
    asked: Revision,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, Error>>,
{
    let begun = Instant::now();
    let mut attempts = 0;
    let answered = async {
        loop {
            // Boxed: requests are large futures, and callers keep theirs small.
            let error = match Box::pin(attempt()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !may_repeat(&error, repeat) || begun.elapsed() >= PATIENCE {
                return Err(translate(&error, asked));
            }
            attempts += 1;
            if attempts > AT_ONCE {
                sleep(PAUSE).await;
            }
        }
    };
    timeout(limit, answered)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("etcd did not answer within {limit:?}"))))
}

fn may_repeat(error: &Error, repeat: Repeat) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    match repeat {
        // An answer of a server has no cause on this side.
        Repeat::Harmless => i32::from(status.code()) == UNAVAILABLE || status.source().is_some(),
        Repeat::Never => {
            let mut cause = status.source();
            while let Some(error) = cause {
                // Only connect(2) answers so: nothing was sent.
                let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                if error.downcast_ref().is_some_and(refused) {
                    return true;
                }
                cause = error.source();
            }
            false
        }
    }
}
