//! Kubeconfigs: how clients find the server and show who they are.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{Authority, Issued, Purpose};

/// The name of cluster and context in the kubeconfigs that we write.
const CLUSTER: &str = "minik8s";

/// The part of a kubeconfig that we write and check.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    clusters: Vec<Named<ClusterHolder>>,
    users: Vec<Named<UserHolder>>,
    contexts: Vec<Named<ContextHolder>>,
    current_context: String,
}

#[derive(Serialize, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(flatten)]
    value: T,
}

#[derive(Serialize, Deserialize)]
struct ClusterHolder {
    cluster: Cluster,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority_data: String,
}

#[derive(Serialize, Deserialize)]
struct UserHolder {
    user: User,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    client_certificate_data: String,
    #[serde(default)]
    client_key_data: String,
}

#[derive(Serialize, Deserialize)]
struct ContextHolder {
    context: Context,
}

#[derive(Serialize, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

/// A kubeconfig with one cluster, one user and one context.
pub(super) fn render(server: &str, ca_pem: &str, user: &str, issued: &Issued) -> String {
    let config = Kubeconfig {
        api_version: "v1".to_owned(),
        kind: "Config".to_owned(),
        clusters: vec![Named {
            name: CLUSTER.to_owned(),
            value: ClusterHolder {
                cluster: Cluster {
                    server: server.to_owned(),
                    certificate_authority_data: STANDARD.encode(ca_pem),
                },
            },
        }],
        users: vec![Named {
            name: user.to_owned(),
            value: UserHolder {
                user: User {
                    client_certificate_data: STANDARD.encode(&issued.certificate),
                    client_key_data: STANDARD.encode(&issued.key),
                },
            },
        }],
        contexts: vec![Named {
            name: CLUSTER.to_owned(),
            value: ContextHolder { context: Context { cluster: CLUSTER.to_owned(), user: user.to_owned() } },
        }],
        current_context: CLUSTER.to_owned(),
    };
    serde_yaml::to_string(&config).expect("a kubeconfig must serialise")
}

/// Whether the file at `path` still leads `user` to this server with a certificate that is good for a while.
/// Such a file is left alone: a person may have added contexts or a default namespace to it.
pub(super) fn is_current(path: &Path, server: &str, authority: &Authority, user: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let Ok(config) = serde_yaml::from_str::<Kubeconfig>(&text) else { return false };
    let decode = |data: &str| STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let cluster_current = config.clusters.iter().any(|entry| {
        let Cluster { server: address, certificate_authority_data } = &entry.value.cluster;
        entry.name == CLUSTER
            && address == server
            && decode(certificate_authority_data).as_deref() == Some(authority.certificate_pem())
    });
    let user_current = config.users.iter().any(|entry| {
        entry.name == user
            && decode(&entry.value.user.client_certificate_data)
                .is_some_and(|certificate| authority.is_current(&certificate, user, &Purpose::Client))
    });
    cluster_current && user_current
}
