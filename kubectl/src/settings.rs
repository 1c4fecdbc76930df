//! Which cluster, as whom, in which namespace: kubeconfig and flags.
//!
//! The places are those of upstream: `--kubeconfig`, then `$KUBECONFIG` (several files are merged), then
//! `~/.kube/config`. When none of them says anything, the local cluster's own kubeconfig is found under
//! `$MINIK8S_HOME` (default `~/.minik8s`); inside a pod, the ServiceAccount's token is.

use std::path::{Path, PathBuf};

use kube::config::{Config, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster};

use crate::cli::GlobalArgs;
use crate::error::Error;

/// Everything that connects to a cluster.
pub(crate) struct Settings {
    /// How to reach the server.
    pub(crate) config: Config,
    /// The namespace to work in.
    pub(crate) namespace: String,
    /// Whether the namespace was given on the command line.
    pub(crate) namespace_given: bool,
}

/// The directory of the local cluster's state.
pub(crate) fn minik8s_home() -> PathBuf {
    std::env::var_os("MINIK8S_HOME")
        .filter(|home| !home.is_empty())
        .map_or_else(|| home().join(".minik8s"), PathBuf::from)
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default()
}

/// The file that `kubectl config` writes to.
pub(crate) fn kubeconfig_path(args: &GlobalArgs) -> PathBuf {
    if let Some(path) = &args.kubeconfig {
        return path.clone();
    }
    if let Some(paths) = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        let mut paths = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
        let first = paths.next();
        return first
            .into_iter()
            .chain(paths)
            .find(|path| path.exists())
            .unwrap_or_else(|| home().join(".kube/config"));
    }
    let usual = home().join(".kube/config");
    let local = minik8s_home().join("kubeconfig");
    if !usual.exists() && local.exists() { local } else { usual }
}

fn read(path: &Path) -> Result<Kubeconfig, Error> {
    Kubeconfig::read_from(path).map_err(|error| Error::message(client::error::chain(&error)))
}

/// The merged kubeconfig of all places; nothing when there is none.
fn kubeconfig(args: &GlobalArgs) -> Result<Option<Kubeconfig>, Error> {
    if let Some(path) = &args.kubeconfig {
        if let Err(error) = std::fs::metadata(path) {
            let problem = crate::error::file_problem(&error);
            return Err(Error::message(format!("stat {}: {problem}", path.display())));
        }
        return read(path).map(Some);
    }
    if std::env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty()) {
        return Kubeconfig::from_env().map_err(|error| Error::message(client::error::chain(&error)));
    }
    let usual = home().join(".kube/config");
    if usual.exists() {
        let config = read(&usual)?;
        if config.current_context.as_ref().is_some_and(|context| !context.is_empty())
            || args.context.is_some()
        {
            return Ok(Some(config));
        }
    }
    let local = minik8s_home().join("kubeconfig");
    if local.exists() { read(&local).map(Some) } else { Ok(None) }
}

impl Settings {
    /// Reads the kubeconfig and lays the flags over it.
    ///
    /// # Errors
    /// When there is no configuration, or it cannot be used.
    pub(crate) async fn load(args: &GlobalArgs) -> Result<Self, Error> {
        let mut config = match kubeconfig(args)? {
            Some(mut kubeconfig) => {
                check_names(args, &kubeconfig)?;
                lay_over(args, &mut kubeconfig);
                let options = KubeConfigOptions {
                    context: args.context.clone(),
                    cluster: args.cluster.clone(),
                    user: args.user.last().cloned(),
                };
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| Error::message(client::error::chain(&error)))?
            }
            None => match (&args.server, Config::incluster()) {
                (None, Ok(config)) => config,
                (None, Err(_)) => {
                    return Err(Error::message(
                        "no cluster is configured: start one with 'minik8s up', or name a kubeconfig with --kubeconfig \
                         or $KUBECONFIG",
                    ));
                }
                (Some(_), _) => {
                    let mut kubeconfig = Kubeconfig::default();
                    lay_over(args, &mut kubeconfig);
                    let options =
                        KubeConfigOptions { context: Some("flags".into()), ..KubeConfigOptions::default() };
                    Config::from_custom_kubeconfig(kubeconfig, &options)
                        .await
                        .map_err(|error| Error::message(client::error::chain(&error)))?
                }
            },
        };
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { config, namespace, namespace_given: args.namespace.is_some() })
    }
}

/// Names on the command line must be in the kubeconfig (`k8s.io/client-go/tools/clientcmd`).
fn check_names(args: &GlobalArgs, kubeconfig: &Kubeconfig) -> Result<(), Error> {
    let missing = |what: &str, name: &str| Err(Error::message(format!("{what} {name:?} does not exist")));
    if let Some(name) = &args.context
        && !kubeconfig.contexts.iter().any(|context| context.name == *name)
    {
        return missing("context", name);
    }
    if let Some(name) = &args.cluster
        && !kubeconfig.clusters.iter().any(|cluster| cluster.name == *name)
    {
        return missing("cluster", name);
    }
    if let Some(name) = args.user.last()
        && !kubeconfig.auth_infos.iter().any(|user| user.name == *name)
    {
        return missing("auth info", name);
    }
    Ok(())
}

/// The first part is what the server takes for the field manager of writes that name none.
const USER_AGENT: &str = concat!("kubectl/minik8s-", env!("CARGO_PKG_VERSION"));

/// Lays flags over every cluster and user: only the chosen one counts.
fn lay_over(args: &GlobalArgs, kubeconfig: &mut Kubeconfig) {
    if kubeconfig.clusters.is_empty() && args.server.is_some() {
        *kubeconfig = Kubeconfig::from_yaml(
            "{clusters: [{name: flags, cluster: {}}], users: [{name: flags, user: {}}], \
             contexts: [{name: flags, context: {cluster: flags, user: flags}}], current-context: flags}",
        )
        .expect("the built-in kubeconfig must be readable");
    }
    let path = |path: &Path| path.to_string_lossy().into_owned();
    for NamedCluster { cluster, .. } in &mut kubeconfig.clusters {
        let Some(cluster) = cluster else { continue };
        if let Some(server) = &args.server {
            let scheme = if server.contains("://") { "" } else { "https://" };
            cluster.server = Some(format!("{scheme}{server}"));
        }
        if args.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if let Some(file) = &args.certificate_authority {
            cluster.certificate_authority = Some(path(file));
            cluster.certificate_authority_data = None;
        }
    }
    for NamedAuthInfo { auth_info, .. } in &mut kubeconfig.auth_infos {
        let Some(user) = auth_info else { continue };
        if let Some(token) = &args.token {
            user.token = Some(token.clone().into());
            user.token_file = None;
        }
        if let (Some(certificate), Some(key)) = (&args.client_certificate, &args.client_key) {
            user.client_certificate = Some(path(certificate));
            user.client_certificate_data = None;
            user.client_key = Some(path(key));
            user.client_key_data = None;
        }
        if let Some(name) = &args.impersonate {
            user.impersonate = Some(name.clone());
        }
        if !args.impersonate_group.is_empty() {
            user.impersonate_groups = Some(args.impersonate_group.clone());
        }
    }
}
