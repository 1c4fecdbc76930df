//! What every request shares, and what one request carries.

use std::sync::Arc;

use apiserver_storage::cacher::Cacher;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{UserInfo, authn::Authenticator, authz::Authorizer, tokens::TokenIssuer},
    config::Config,
    health::Health,
    metrics::Metrics,
    pki::Pki,
    projector::ObjectProjector,
    request_info::RequestInfo,
};

/// The watch cache over the store, with what selectors read.
pub type Storage = Cacher<ObjectProjector>;

/// One request's identity and aim, put together by the chain.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// What it is about.
    pub info: RequestInfo,
    /// Who it is from. Shared by all requests of a connection.
    pub user: Arc<UserInfo>,
    /// The client's `User-Agent`, which names the field manager if no other is given.
    pub user_agent: String,
}

/// The API server's parts, shared by every request.
pub struct Server {
    /// The resolved configuration.
    pub config: Config,
    /// The port that the listener has.
    pub port: u16,
    /// What is true.
    pub storage: Arc<Storage>,
    /// Certificates and keys.
    pub pki: Arc<Pki>,
    /// Who a request is from.
    pub authenticator: Authenticator,
    /// Whether they may.
    pub authorizer: Authorizer,
    /// Signs and checks ServiceAccount tokens.
    pub tokens: TokenIssuer,
    /// What was done.
    pub metrics: Metrics,
    /// How far the start has come.
    pub health: Health,
    /// Cancelled when the server stops: watches and other long requests end on it.
    pub shutdown: CancellationToken,
    /// Every task that must be over before the process ends is spawned on this.
    pub tasks: TaskTracker,
}

/// A shared server.
pub type SharedServer = Arc<Server>;
