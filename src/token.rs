//! `minik8s token`: bootstrap tokens, with which other machines join.
//!
//! They are Secrets in `kube-system`, as kubeadm makes them, so that its tools and ours see the same.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use api_objects::{Resource, Value, resource};
use clap::{Args, Subcommand};
use client::{Client, ListQuery};
use kubelet::join::ClusterInfo;
use rand::Rng;
use serde_json::json;

use crate::home;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group that may join without a person's word (kubeadm's default).
const GROUPS: &str = "system:bootstrappers:kubeadm:default-node-token";
const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Which cluster, and what to do.
#[derive(Args)]
pub(crate) struct TokenOptions {
    #[command(subcommand)]
    command: Option<TokenCommand>,

    /// The cluster's directory, whose kubeconfig is used
    #[arg(long, env = "MINIK8S_HOME", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,

    /// Kubeconfig of an administrator, if not the one of the cluster's directory
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token and print the command with which a machine joins (the default)
    Create {
        /// Seconds until the token expires; 0 for never
        #[arg(long, value_name = "SECONDS", default_value_t = 24 * 3600)]
        ttl: u64,
        /// What the token is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Show the tokens
    List,
    /// Delete a token: its id, or the whole of it
    Delete {
        /// Which
        token: String,
    },
}

fn secrets() -> &'static Resource {
    resource::find("", "v1", "secrets").expect("secrets must be in the table")
}

/// Does it.
pub(crate) async fn run(options: TokenOptions) -> anyhow::Result<()> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = match options.kubeconfig {
        Some(file) => file,
        None => home::resolve(options.data_dir.as_ref())?.join("kubeconfig"),
    };
    let client = Client::from_kubeconfig(Some(&kubeconfig), None).await?;
    let default = TokenCommand::Create { ttl: 24 * 3600, description: String::new() };
    match options.command.unwrap_or(default) {
        TokenCommand::Create { ttl, description } => create(&client, ttl, &description).await,
        TokenCommand::List => list(&client).await,
        TokenCommand::Delete { token } => {
            let id = token.split('.').next().unwrap_or_default();
            client.delete(secrets(), NAMESPACE, &format!("bootstrap-token-{id}"), &Value::Null).await?;
            say(&format!("bootstrap token {id:?} deleted"));
            Ok(())
        }
    }
}

fn random(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

async fn create(client: &Client, ttl: u64, description: &str) -> anyhow::Result<()> {
    let maps = resource::find("", "v1", "configmaps").expect("configmaps must be in the table");
    let info = client.get(maps, "kube-public", "cluster-info").await?;
    let info = ClusterInfo::read(&info).map_err(anyhow::Error::msg).context("cluster-info is not usable")?;
    let hash = kubelet::join::key_hash(&info.authority).map_err(anyhow::Error::msg)?;
    let (id, secret) = (random(6), random(16));
    let mut data = json!({
        "token-id": id, "token-secret": secret, "auth-extra-groups": GROUPS,
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
    });
    if ttl > 0 {
        data["expiration"] =
            json!(api_objects::time::rfc3339(jiff::Timestamp::now() + Duration::from_secs(ttl)));
    }
    if !description.is_empty() {
        data["description"] = json!(description);
    }
    let object = json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE,
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": NAMESPACE}, "stringData": data});
    client.create(secrets(), NAMESPACE, &object).await?;
    let server = info.server.trim_start_matches("https://");
    say(&format!("minik8s kubelet --join {server} --token {id}.{secret} --ca-cert-hash {hash}"));
    Ok(())
}

async fn list(client: &Client) -> anyhow::Result<()> {
    let query = ListQuery { field_selector: format!("type={TYPE}"), ..ListQuery::default() };
    let found = client.list(secrets(), NAMESPACE, &query).await?;
    say(&format!("{:<10} {:<22} {:<52} DESCRIPTION", "ID", "EXPIRES", "GROUPS"));
    for secret in found["items"].as_array().into_iter().flatten() {
        let text = |key: &str| kubelet::join::secret_text(secret, key);
        let expires = Some(text("expiration")).filter(|text| !text.is_empty());
        say(&format!(
            "{:<10} {:<22} {:<52} {}",
            text("token-id"),
            expires.unwrap_or_else(|| "<never>".to_owned()),
            text("auth-extra-groups"),
            text("description")
        ));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the command has to say")]
fn say(text: &str) {
    println!("{text}");
}
