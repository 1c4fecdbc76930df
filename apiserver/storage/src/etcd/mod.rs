//! The store on a real etcd: the same keys and the same rules for several machines.
//!
//! A write is a transaction that compares the key's `mod_revision`, a list is a range pinned at one revision,
//! a watch is etcd's own (<https://etcd.io/docs/v3.5/learning/api/>). Several API servers on one etcd need
//! nothing else: etcd orders their writes, and each cache follows the same history.
//!
//! A revision is etcd's plus an offset that is stored beside the keys (0 unless a store was migrated here),
//! so that revisions do not go back when a cluster moves.

mod compaction;
mod error;
mod lease;
mod retry;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, GetResponse,
    Identity, KeyValue, KvClient, PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchClient,
};
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    lease::Leases,
    retry::{Repeat, send},
    watch::Watch,
};
use crate::{
    feed::feed,
    store::{
        At, Entry, FRESHNESS_WAIT, Got, ListOptions, Listing, MAX_VALUE_BYTES, Revision, Store, StoreError,
        WatchStream,
    },
};

/// How many entries one request asks for: a list of everything is read in pieces of this.
const PAGE: i64 = 2_000;
/// How many events a watcher may be behind.
const WATCHER_EVENTS: usize = 65_536;
/// How long a read that needs a later revision waits before it asks etcd again.
const RETRY: Duration = Duration::from_millis(100);
/// Where the offset of revisions is stored, under the prefix.
const OFFSET_KEY: &str = "/minik8s.io/revision-offset";
/// The first releases whose progress notifications are right (etcd issue 15220), by minor version of 3.
const TELLS_PROGRESS: [(u32, u32); 2] = [(4, 31), (5, 13)];

/// How to reach etcd.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// URLs; requests go to whichever can be reached.
    pub endpoints: Vec<String>,
    /// What all keys begin with, before `/registry/`.
    pub prefix: String,
    /// PEM of the authorities that etcd's certificate is checked against; `None`: the system's.
    pub ca: Option<Vec<u8>>,
    /// PEM of the client's certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How often history is compacted, once for all API servers together; `None`: somebody else does.
    pub compaction_interval: Option<Duration>,
}

impl EtcdOptions {
    /// The defaults for these endpoints: no prefix, no TLS options, no user, compaction as upstream.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: String::new(),
            ca: None,
            identity: None,
            user: None,
            request_timeout: Duration::from_secs(10),
            compaction_interval: Some(Duration::from_mins(5)),
        }
    }

    fn connect_options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
            .with_keep_alive_while_idle(true)
            // A member cut off from the others must not go on answering.
            .with_require_leader(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        let https = self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        if https || self.ca.is_some() || self.identity.is_some() {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &self.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &self.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        options
    }
}

/// A store on etcd.
pub struct EtcdStore {
    kv: KvClient,
    watches: WatchClient,
    leases: Leases,
    keys: Arc<Keys>,
    request_timeout: Duration,
    tells_progress: bool,
    asked: tokio::sync::watch::Sender<u64>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EtcdStore").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects, and asks every endpoint for its version.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no endpoint answers or the options are wrong.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let connect = || Client::connect(&options.endpoints, Some(options.connect_options()));
        let client = send(options.request_timeout, Repeat::Harmless, 0, connect).await?;
        let kv =
            client.kv_client().max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
        let store = Self {
            watches: client.watch_client().max_decoding_message_size(usize::MAX),
            leases: Leases::new(client.lease_client()),
            keys: Arc::new(Keys { prefix: options.prefix.clone(), offset: AtomicU64::new(0) }),
            request_timeout: options.request_timeout,
            tells_progress: Box::pin(tells_progress(&options)).await,
            asked: tokio::sync::watch::Sender::new(0),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
            kv,
        };
        let stored = store.range(store.keys.full(OFFSET_KEY), GetOptions::new(), 0).await?;
        if let Some(stored) = stored.kvs().first() {
            let offset = stored.value_str().ok().and_then(|text| text.parse().ok());
            let offset =
                offset.ok_or_else(|| StoreError::Corrupt(format!("{OFFSET_KEY} is not a number")))?;
            store.keys.offset.store(offset, Ordering::Release);
        }
        if let Some(interval) = options.compaction_interval {
            let compaction = compaction::run(store.kv.clone(), interval);
            let closed = store.closed.clone();
            store.tasks.spawn(async move { closed.run_until_cancelled(compaction).await });
        }
        Ok(store)
    }

    /// Whether this etcd tells its watches how far they are, rightly and when asked.
    #[must_use]
    pub fn tells_progress(&self) -> bool {
        self.tells_progress
    }

    /// Asks etcd to tell the watches that want to know how far they are.
    pub fn request_progress(&self) {
        self.asked.send_modify(|count| *count += 1);
    }

    /// Makes sure that the next write gets a revision after `revision`, by storing a larger offset if need
    /// be. For moving a cluster here, before any API server runs on it.
    ///
    /// # Errors
    /// As any write.
    pub async fn raise_revision(&self, revision: Revision) -> Result<(), StoreError> {
        let current = self.current_revision().await?;
        if current >= revision {
            return Ok(());
        }
        let offset = self.keys.offset.load(Ordering::Acquire) + (revision - current);
        let key = self.keys.full(OFFSET_KEY);
        self.send(Repeat::Harmless, 0, || {
            let (mut kv, key) = (self.kv.clone(), key.clone());
            async move { kv.put(key, offset.to_string(), None).await }
        })
        .await?;
        self.keys.offset.store(offset, Ordering::Release);
        Ok(())
    }

    /// How long an entry still lives; `None` for one without a time to live.
    ///
    /// # Errors
    /// As any read.
    pub async fn ttl_left(&self, entry: &Entry) -> Result<Option<Duration>, StoreError> {
        let options = GetOptions::new().with_keys_only();
        let found = self.range(self.keys.full(&entry.key), options, 0).await?;
        match found.kvs().first().map(etcd_client::KeyValue::lease) {
            None | Some(0) => Ok(None),
            Some(lease) => {
                let left = self.send(Repeat::Harmless, 0, || self.leases.left(lease)).await?;
                // One that has just ended: as short as can be.
                Ok(Some(left.unwrap_or(Duration::from_secs(1))))
            }
        }
    }

    /// Ends all watches and joins their tasks.
    pub async fn close(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn range(
        &self,
        key: impl Into<Vec<u8>>,
        options: GetOptions,
        asked: Revision,
    ) -> Result<GetResponse, StoreError> {
        let key = key.into();
        self.send(Repeat::Harmless, asked, || {
            let (mut kv, key, options) = (self.kv.clone(), key.clone(), options.clone());
            async move { kv.get(key, Some(options)).await }
        })
        .await
    }

    async fn send<T, F>(
        &self,
        repeat: Repeat,
        asked: Revision,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        send(self.request_timeout, repeat, asked, attempt).await
    }

    fn revision_of(&self, response: &GetResponse) -> Revision {
        response.header().map_or(0, |header| self.keys.from_etcd(header.revision()))
    }

    /// A read as fresh as asked for: one at a revision that does not exist yet is tried again until it does
    /// or the wait is over.
    async fn read(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        at: At,
    ) -> Result<(GetResponse, Revision), StoreError> {
        let deadline = Instant::now() + FRESHNESS_WAIT;
        loop {
            let outcome = self.read_once(&key, options.clone(), at).await;
            let Err(StoreError::Future { .. }) = outcome else {
                return outcome;
            };
            if Instant::now() >= deadline {
                return outcome;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn read_once(
        &self,
        key: &[u8],
        options: GetOptions,
        at: At,
    ) -> Result<(GetResponse, Revision), StoreError> {
        match at {
            At::Latest | At::NotOlderThan(_) => {
                let response = self.range(key, options, 0).await?;
                let current = self.revision_of(&response);
                match at {
                    At::NotOlderThan(asked) if asked > current => Err(StoreError::Future { asked, current }),
                    _ => Ok((response, current)),
                }
            }
            At::Any => {
                let response = self.range(key, options.with_serializable(), 0).await?;
                let current = self.revision_of(&response);
                Ok((response, current))
            }
            At::Exact(asked) => {
                let revision = self.keys.to_etcd(asked);
                if revision < 1 {
                    // etcd takes 0 for "now"; what was before its own beginning is not to be had.
                    return Err(StoreError::Compacted { asked, oldest: self.keys.from_etcd(1) });
                }
                Ok((self.range(key, options.with_revision(revision), asked).await?, asked))
            }
        }
    }

    /// Writes if the key is at `expected` (0: absent); the error says what is there instead.
    async fn write(
        &self,
        key: &str,
        expected: Revision,
        operation: TxnOp,
    ) -> Result<Result<Revision, Option<Arc<Entry>>>, StoreError> {
        let full = self.keys.full(key);
        let expected = if expected == 0 { 0 } else { self.keys.to_etcd(expected) };
        let txn = Txn::new()
            .when([Compare::mod_revision(full.clone(), CompareOp::Equal, expected)])
            .and_then([operation])
            .or_else([TxnOp::get(full, None)]);
        let attempt = || {
            let (mut kv, txn) = (self.kv.clone(), txn.clone());
            async move { kv.txn(txn).await }
        };
        // A write that has happened would look like somebody else's the second time.
        let response = match self.send(Repeat::Never, 0, attempt).await {
            // etcd refuses the write that fills it up and yet carries it out (`quotaApplierV3`).
            Err(StoreError::NoSpace) if !self.is_at(key, expected).await? => {
                let why = "etcd has no space left; the write may have happened";
                return Err(StoreError::Unavailable(why.to_owned()));
            }
            response => response?,
        };
        if response.succeeded() {
            return Ok(Ok(response.header().map_or(0, |header| self.keys.from_etcd(header.revision()))));
        }
        let there = response.op_responses().into_iter().next().and_then(|response| match response {
            TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
            _ => None,
        });
        Ok(Err(there.and_then(|there| self.keys.entry(there))))
    }

    /// Whether a key is at one of etcd's revisions (0: absent).
    async fn is_at(&self, key: &str, revision: i64) -> Result<bool, StoreError> {
        let there = self.range(self.keys.full(key), GetOptions::new().with_keys_only(), 0).await?;
        Ok(there.kvs().first().map_or(0, KeyValue::mod_revision) == revision)
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<TxnOp, StoreError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(StoreError::TooLarge { size: value.len(), limit: MAX_VALUE_BYTES });
        }
        let options = match ttl {
            Some(ttl) => {
                let lease = self.send(Repeat::Harmless, 0, || self.leases.get(ttl)).await?;
                Some(PutOptions::new().with_lease(lease))
            }
            None => None,
        };
        Ok(TxnOp::put(self.keys.full(key), value, options))
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// Whether every endpoint runs a release whose progress notifications can be relied on. One that does not
/// answer counts as one that does not: requests may still reach it.
async fn tells_progress(options: &EtcdOptions) -> bool {
    for endpoint in &options.endpoints {
        let status = async {
            Client::connect([endpoint], Some(options.connect_options()))
                .await?
                .maintenance_client()
                .status()
                .await
        };
        match tokio::time::timeout(Duration::from_secs(3), status).await {
            Ok(Ok(status)) if version_tells_progress(status.version()) => {}
            Ok(Ok(status)) => {
                let version = status.version();
                tracing::info!(endpoint, version, "consistent reads go to etcd: it is too old for the cache");
                return false;
            }
            _ => return false,
        }
    }
    true
}

fn version_tells_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    let needed = TELLS_PROGRESS.iter().find(|(since, _)| *since == minor);
    let (oldest, newest) = (TELLS_PROGRESS[0].0, TELLS_PROGRESS[TELLS_PROGRESS.len() - 1].0);
    match major {
        3 => minor > newest || (minor >= oldest && needed.is_some_and(|(_, since)| patch >= *since)),
        _ => major > 3,
    }
}

/// How the contract's keys and revisions are etcd's.
#[derive(Debug)]
struct Keys {
    prefix: String,
    offset: AtomicU64,
}

impl Keys {
    fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The contract's key of one of etcd's; `None` if it is not ours.
    fn name<'a>(&self, full: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(full.strip_prefix(self.prefix.as_bytes())?).ok()
    }

    /// The first key under a prefix, and the first beyond it.
    fn range(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let start = self.full(prefix);
        if start.is_empty() {
            // etcd's way of spelling every key.
            return (vec![0], vec![0]);
        }
        let mut end = start.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return (start, end);
            }
        }
        (start, vec![0])
    }

    #[expect(clippy::wrong_self_convention, reason = "from etcd's terms, as to_etcd is into them")]
    fn from_etcd(&self, revision: i64) -> Revision {
        u64::try_from(revision).unwrap_or(0) + self.offset.load(Ordering::Acquire)
    }

    /// May be 0 or less: before etcd's own beginning.
    fn to_etcd(&self, revision: Revision) -> i64 {
        let offset = i64::try_from(self.offset.load(Ordering::Acquire)).unwrap_or(i64::MAX);
        i64::try_from(revision).unwrap_or(i64::MAX).saturating_sub(offset)
    }

    fn entry(&self, there: KeyValue) -> Option<Arc<Entry>> {
        let revision = self.from_etcd(there.mod_revision());
        let (key, value) = there.into_key_value();
        let key = self.name(&key)?.into();
        Some(Arc::new(Entry { key, value: value.into(), revision }))
    }
}

// === impl Store ===

impl Store for EtcdStore {
    async fn get(&self, key: &str, at: At) -> Result<Got, StoreError> {
        let (mut response, revision) = self.read(self.keys.full(key), GetOptions::new(), at).await?;
        let entry = response.take_kvs().pop().and_then(|there| self.keys.entry(there));
        Ok(Got { entry, revision })
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, StoreError> {
        let (mut key, end) = self.keys.range(prefix);
        if let Some(after) = &options.after_key {
            let after = [self.keys.full(after).as_slice(), &[0]].concat();
            key = key.max(after);
        }
        let mut wanted = options.limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let mut at = options.at;
        let mut entries = Vec::new();
        loop {
            let get = GetOptions::new().with_range(end.clone()).with_limit(wanted.min(PAGE));
            let (mut response, revision) = self.read(key, get, at).await?;
            let count = response.count();
            let read = response.take_kvs();
            let length = i64::try_from(read.len()).unwrap_or(i64::MAX);
            wanted -= length;
            let last = read.last().map(|there| there.key().to_vec());
            entries.extend(read.into_iter().filter_map(|there| self.keys.entry(there)));
            let remaining = usize::try_from(count - length).unwrap_or(0);
            match last {
                Some(last) if remaining > 0 && wanted > 0 => {
                    key = [last.as_slice(), &[0]].concat();
                    at = At::Exact(revision);
                }
                _ => return Ok(Listing { entries, revision, remaining }),
            }
        }
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        let put = self.put(key, value, ttl).await?;
        match self.write(key, 0, put).await? {
            Ok(revision) => Ok(revision),
            Err(Some(entry)) => Err(StoreError::AlreadyExists(entry)),
            Err(None) => {
                Err(StoreError::Unavailable("etcd answered without the entry in the way".to_owned()))
            }
        }
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        let put = self.put(key, value, ttl).await?;
        self.write_over(key, expected, put).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        let delete = TxnOp::delete(self.keys.full(key), None::<DeleteOptions>);
        self.write_over(key, expected, delete).await
    }

    async fn watch(&self, prefix: &str, after: Revision, progress: bool) -> Result<WatchStream, StoreError> {
        if self.closed.is_cancelled() {
            return Err(StoreError::Unavailable("the store is closed".to_owned()));
        }
        let (feed, tail) = feed(WATCHER_EVENTS);
        let watch = Watch {
            client: self.watches.clone(),
            keys: Arc::clone(&self.keys),
            prefix: prefix.to_owned(),
            after,
            progress,
            asked: self.asked.subscribe(),
            feed,
        };
        // The task ends with the store or with the reader, whichever is first.
        let token = self.closed.child_token();
        let ended = token.clone();
        self.tasks.spawn(async move { ended.run_until_cancelled(watch.run()).await });
        let guard = token.drop_guard();
        Ok(Box::pin(tail.map(move |message| {
            let _held = &guard;
            message
        })))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        // The smallest linearizable read: of a key that need not exist.
        let options = GetOptions::new().with_count_only();
        let response = self.range(self.keys.full(OFFSET_KEY), options, 0).await?;
        Ok(self.revision_of(&response))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let to = self.keys.to_etcd(revision);
        if to < 1 {
            return Ok(());
        }
        let attempt = || {
            let mut kv = self.kv.clone();
            async move { kv.compact(to, None).await }
        };
        match self.send(Repeat::Harmless, revision, attempt).await {
            Ok(_) | Err(StoreError::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl EtcdStore {
    /// Writes over an entry that must be at `expected`, which is not 0: that would mean absence to etcd.
    async fn write_over(
        &self,
        key: &str,
        expected: Revision,
        operation: TxnOp,
    ) -> Result<Revision, StoreError> {
        if self.keys.to_etcd(expected) < 1 {
            let current = self.get(key, At::Latest).await?.entry;
            return Err(StoreError::Conflict { key: key.into(), current });
        }
        let outcome = self.write(key, expected, operation).await?;
        outcome.map_err(|current| StoreError::Conflict { key: key.into(), current })
    }
}
