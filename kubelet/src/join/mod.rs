//! A machine becomes a node of a cluster elsewhere: with a bootstrap token it asks for a certificate of its own.
//!
//! As upstream's TLS bootstrapping
//! (<https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>) and kubeadm's discovery: the
//! cluster's authority is read from the server without trust and then trusted because its key is the one that was
//! given by its hash. The token is shown only to a server whose certificate that authority signed.
//!
//! What it gets stands in its directory (`kubeconfig`, `pki/ca.crt`, `pki/kubelet.pem`), so that the next start needs
//! no token; `rotation` renews it in place.
//!
//! What stands where: `discovery` (which authority) · `request` (a certificate by request) · `identity` (the files) ·
//! `rotation` (in time, in place).

mod discovery;
mod identity;
mod request;
mod rotation;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use api_objects::certificates::{KUBELET_CLIENT_SIGNER, NODE_USER_PREFIX};
use client::{Client, Error as ClientError, PatchType};
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::discovery::{ClusterInfo, key_hash};
use self::{discovery::Trust, identity::Files, request::Wanted};
use crate::{
    api,
    config::{Config, ServerTls},
    memory,
    node::outward_address,
};

/// Between attempts to reach a server that is not there yet.
const RETRY: Duration = Duration::from_secs(2);
/// How often a signature of the token is looked for.
const SIGNATURE_RETRIES: u32 = 30;

/// Why a machine could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// What was given makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The cluster's authority is not the one that was named.
    #[error("the server's certificate authority is not the one of --ca-cert-hash: its hash is {0}")]
    Authority(String),
    /// What the server says of itself is not signed with the token.
    #[error(
        "the server's cluster-info is not signed with the token {0}: it is unknown there, or may not sign"
    )]
    NotSigned(String),
    /// What the server says of itself is signed by somebody who does not know the token.
    #[error("the server's cluster-info has a wrong signature of the token {0}: this is another cluster")]
    Signature(String),
    /// What the server says of itself cannot be understood.
    #[error("the server's cluster-info is not usable: {0}")]
    ClusterInfo(String),
    /// A request was refused, or the server not reached.
    #[error("failed to {action}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The certificate was refused.
    #[error("the certificate request {name} was refused: {message}")]
    Refused {
        /// Its name.
        name: String,
        /// What its conditions say.
        message: String,
    },
    /// A key or request could not be made.
    #[error("failed to make a certificate request")]
    Key(#[source] rcgen::Error),
    /// A file could not be read or written.
    #[error("failed to access `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kubelet itself failed.
    #[error(transparent)]
    Kubelet(#[from] crate::Error),
}

/// How to join.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct JoinArgs {
    /// Join the cluster of this API server: host:port or URL
    #[arg(long, env = "MINIK8S_JOIN", value_name = "SERVER")]
    pub join: Option<String>,
    /// Bootstrap token, as `minik8s token create` prints it
    #[arg(long, env = "MINIK8S_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Hash of the key of the cluster's certificate authority, sha256:<hex>; without it, whoever knows the token is
    /// trusted to be the cluster
    #[arg(long, env = "MINIK8S_CA_CERT_HASH", value_name = "HASH", value_delimiter = ',')]
    pub ca_cert_hash: Vec<String>,
    /// Trust whatever certificate authority the server names, signed or not; whoever is in between sees the token
    #[arg(long, env = "MINIK8S_UNSAFE_SKIP_CA_VERIFICATION")]
    pub unsafe_skip_ca_verification: bool,
}

/// Runs a process that is a kubelet and nothing else, as it was started: it joins, has joined before, or has a
/// kubeconfig of its own.
///
/// # Errors
/// If it cannot join, the kubeconfig cannot be used, or the kubelet cannot start.
pub async fn serve(config: Config, join: JoinArgs, shutdown: CancellationToken) -> Result<(), JoinError> {
    memory::sparing(Box::pin(start(config, join, shutdown))).await
}

async fn start(mut config: Config, join: JoinArgs, shutdown: CancellationToken) -> Result<(), JoinError> {
    let has_joined = Files::of(&config.root_dir).kubeconfig.exists();
    if join.join.is_some() || (config.kubeconfig.is_none() && has_joined) {
        return Box::pin(run(config, join, shutdown)).await;
    }
    let (client, api_server) = crate::connect(config.kubeconfig.as_deref())
        .await
        .map_err(|source| JoinError::Api { action: "use the kubeconfig", source })?;
    config.api_server = config.api_server.or(api_server);
    Ok(Box::pin(crate::run(config, client, shutdown)).await?)
}

/// Runs a kubelet that joins a cluster elsewhere, or has joined it before, until `shutdown`.
///
/// # Errors
/// If it cannot join, or the kubelet cannot start.
async fn run(mut config: Config, join: JoinArgs, shutdown: CancellationToken) -> Result<(), JoinError> {
    let files = Files::new(&config.root_dir)?;
    let joined = join_unless_done(&config, &join, &files);
    let Some(joined) = shutdown.run_until_cancelled(joined).await else { return Ok(()) };
    joined?;
    let (first, api_server) = crate::connect(Some(&files.kubeconfig))
        .await
        .map_err(|source| JoinError::Api { action: "use the node's kubeconfig", source })?;
    config.api_server = config.api_server.or(api_server);
    let (client, switch) = Client::switchable(&first);

    let names = Names { host: config.node_name.clone(), addresses: addresses(&config) };
    files.ensure_serving(&names)?;
    config.server_tls = Some(ServerTls {
        certificate: files.serving.clone(),
        key: files.serving.clone(),
        client_ca: files.authority.clone(),
    });
    let tasks = TaskTracker::new();
    let rotation = Arc::new(rotation::Rotation {
        client: client.clone(),
        switch,
        files,
        node: config.node_name.clone(),
        names,
        shutdown: shutdown.child_token(),
    });
    let stop = rotation.shutdown.clone();
    tasks.spawn(Arc::clone(&rotation).keep(rotation::Role::Client));
    tasks.spawn(rotation.keep(rotation::Role::Serving));
    let outcome = Box::pin(crate::run(config, client, shutdown)).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(outcome?)
}

/// What the node's serving certificate is good for: what its Node object says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    host: String,
    addresses: Vec<IpAddr>,
}

impl Names {
    fn all(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        std::iter::once(self.host.clone()).chain(addresses).collect()
    }
}

/// The node's addresses, as it registers them.
fn addresses(config: &Config) -> Vec<IpAddr> {
    vec![config.node_ip.unwrap_or_else(outward_address)]
}

/// Gets the node's identity, unless it has one that is good.
async fn join_unless_done(config: &Config, join: &JoinArgs, files: &Files) -> Result<(), JoinError> {
    if files.has_identity(&config.node_name) {
        tracing::info!("this machine has joined already: its identity is in {}", files.kubeconfig.display());
        return Ok(());
    }
    let invalid = |what: &str| JoinError::Invalid(what.to_owned());
    let server = join.join.as_deref().ok_or_else(|| {
        invalid("this machine has no identity in the cluster: give --join and --token (see `minik8s token`)")
    })?;
    let token = join.token.as_deref().ok_or_else(|| invalid("--join needs --token"))?;
    let trust = Trust::new(&join.ca_cert_hash, join.unsafe_skip_ca_verification, token)?;
    let mut unsigned = 0;
    let cluster = loop {
        match discovery::discover(server, &trust).await {
            Err(JoinError::Api { source: ClientError::Transport(why), .. }) => {
                tracing::warn!("the server is not reached yet: {why}");
                tokio::time::sleep(RETRY).await;
            }
            // A token that was just made has its signature in a moment.
            Err(JoinError::NotSigned(id)) if unsigned < SIGNATURE_RETRIES => {
                tracing::warn!("the server's cluster-info is not signed with the token {id} yet");
                unsigned += 1;
                tokio::time::sleep(RETRY).await;
            }
            other => break other?,
        }
    };
    let bootstrap = cluster.client_with_token(token)?;
    let wanted = Wanted {
        signer: KUBELET_CLIENT_SIGNER,
        usage: "client auth",
        user: format!("{NODE_USER_PREFIX}{}", config.node_name),
        names: Vec::new(),
    };
    tracing::info!(server = cluster.server, node = config.node_name, "asking for the node's certificate");
    let issued = request::certificate(&bootstrap, &wanted).await?;
    files.write_identity(&cluster, &wanted.user, &issued)
}

/// A text in a Secret's data; empty if there is none.
#[must_use]
pub fn secret_text(secret: &Value, key: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Takes the node out of its cluster: its Node object goes, if the server lets it.
///
/// # Errors
/// In words, what could not be done.
pub async fn leave(config: &Config) -> Result<(), String> {
    let chain = |error: &dyn std::error::Error| client::error::chain(error);
    let files = Files::new(&config.root_dir).map_err(|error| chain(&error))?;
    if !files.kubeconfig.exists() {
        return Ok(());
    }
    let outcome = async {
        let (client, _) = crate::connect(Some(&files.kubeconfig)).await?;
        // First nobody is sent here any more, then it goes.
        let cordon = serde_json::json!({"spec": {"unschedulable": true}});
        match client.patch(api::nodes(), "", &config.node_name, None, PatchType::Merge, &cordon).await {
            Err(error) if !error.is_not_found() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        match client.delete(api::nodes(), "", &config.node_name, &Value::Null).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    };
    outcome.await.map_err(|error| {
        format!(
            "the Node {} is still there ({}); remove it with kubectl delete node",
            config.node_name,
            chain(&error)
        )
    })?;
    files.remove().map_err(|error| chain(&error))
}
