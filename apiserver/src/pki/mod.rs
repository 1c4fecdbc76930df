//! The cluster's certificates and keys, made on first start and renewed before they expire.
//!
//! The layout under `pki/` is kubeadm's (`ca.crt`, `apiserver.key`, `sa.pub` …), so that people and tools find
//! what they know. Every file is written whole, mode 0600. The certificate authority is made once and never
//! replaced; leaf certificates live a year and are made anew once a third of that is left, or when a name or
//! address is missing from them. A running server serves the new one from the next handshake on.
//!
//! See <https://kubernetes.io/docs/setup/best-practices/certificates/> for who uses which.

mod authority;
mod files;
mod kubeconfig;
mod serving;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;

pub(crate) use self::serving::certified_key;
pub use self::{
    authority::{Authority, Issued, Purpose},
    serving::ServingCertificate,
};
use crate::config::Config;

/// Why certificates or keys could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file could not be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is there but is not what it should be. It is never overwritten: it may be the only copy.
    #[error("`{path}` is not usable: {message}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A key could not be made or a certificate not signed.
    #[error("failed to make a certificate for `{subject}`")]
    Issue {
        /// Whom it was for.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The TLS library refused a certificate or key of ours.
    #[error("failed to prepare TLS")]
    Tls(#[source] rustls::Error),
}

/// What the certificates depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiConfig {
    /// Holds `kubeconfig`, `kubeconfigs/` and `pki/`.
    pub data_dir: PathBuf,
    /// Names and addresses of the serving certificate, beyond this machine's own.
    pub names: Vec<String>,
    /// This machine's node name: the subject of the kubelet's identity.
    pub node_name: String,
    /// The address that kubeconfigs name, `https://127.0.0.1:6443`.
    pub server_url: String,
}

impl PkiConfig {
    /// What a configuration asks for, once the port is known.
    #[must_use]
    pub fn new(config: &Config, port: u16) -> Self {
        let host = if config.listen.ip().is_unspecified() {
            IpAddr::from([127, 0, 0, 1])
        } else {
            config.listen.ip()
        };
        let mut names = vec![
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{}", config.cluster_domain),
            "localhost".to_owned(),
            config.kubernetes_service_ip().to_string(),
            config.advertise_address.to_string(),
            host.to_string(),
        ];
        names.extend(config.tls_sans.iter().cloned());
        Self {
            data_dir: config.data_dir.clone(),
            names,
            node_name: host_name(),
            server_url: format!("https://{}", std::net::SocketAddr::new(host, port)),
        }
    }
}

/// The components that get a kubeconfig of their own: file name, user, organizations.
const COMPONENTS: [(&str, &str, &[&str]); 2] = [
    ("kube-scheduler", "system:kube-scheduler", &[]),
    ("kube-controller-manager", "system:kube-controller-manager", &[]),
];

/// The cluster's certificates and keys.
pub struct Pki {
    config: PkiConfig,
    authority: Authority,
    serving: Arc<ServingCertificate>,
    kubelet_client: ArcSwap<Issued>,
    service_account_key: String,
}

impl Pki {
    /// Makes what is missing, renews what is about to expire, loads the rest.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written, or holds something unusable.
    pub fn ensure(config: PkiConfig) -> Result<Self, PkiError> {
        let pki_dir = config.data_dir.join("pki");
        files::create_private_dir(&config.data_dir)?;
        files::create_private_dir(&pki_dir)?;
        let authority = Authority::ensure(&pki_dir)?;
        let serving = ensure_serving(&config, &authority)?;
        let kubelet_client = ensure_kubelet_client(&config, &authority)?;
        let service_account_key = ensure_service_account_key(&pki_dir)?;
        let pki = Self {
            authority,
            serving: Arc::new(ServingCertificate::new(&serving)?),
            kubelet_client: ArcSwap::from_pointee(kubelet_client),
            service_account_key,
            config,
        };
        pki.ensure_client_files()?;
        Ok(pki)
    }

    /// Renews leaf certificates that are about to expire, on disk and in the running server. Quick and
    /// without effect when nothing is due; called from a timer.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    pub fn renew(&self) -> Result<(), PkiError> {
        self.serving.replace(&ensure_serving(&self.config, &self.authority)?)?;
        self.kubelet_client.store(Arc::new(ensure_kubelet_client(&self.config, &self.authority)?));
        self.ensure_client_files()
    }

    fn ensure_client_files(&self) -> Result<(), PkiError> {
        let config = &self.config;
        self.ensure_kubeconfig(&config.data_dir.join("kubeconfig"), "kubernetes-admin", &["system:masters"])?;
        let directory = config.data_dir.join("kubeconfigs");
        files::create_private_dir(&directory)?;
        for (file, user, organizations) in COMPONENTS {
            self.ensure_kubeconfig(&directory.join(format!("{file}.kubeconfig")), user, organizations)?;
        }
        self.ensure_node(&config.node_name, &[])?;
        Ok(())
    }

    /// Makes sure that a node has its identity: `kubeconfigs/kubelet-<node>.kubeconfig` (`system:node:<node>` of
    /// `system:nodes`), and `pki/kubelet-<node>.crt` and `.key` to serve HTTPS with, good for the node's name,
    /// this machine's addresses and `names`. Answers the paths of the three.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    pub fn ensure_node(&self, node: &str, names: &[String]) -> Result<NodeFiles, PkiError> {
        let directory = self.config.data_dir.join("kubeconfigs");
        files::create_private_dir(&directory)?;
        let kubeconfig = directory.join(format!("kubelet-{node}.kubeconfig"));
        let user = format!("system:node:{node}");
        self.ensure_kubeconfig(&kubeconfig, &user, &["system:nodes"])?;
        let stem = self.config.data_dir.join("pki").join(format!("kubelet-{node}"));
        let mut all_names = vec![node.to_owned(), "localhost".to_owned()];
        all_names.extend(names.iter().cloned());
        all_names.extend(host_addresses().iter().map(ToString::to_string));
        let purpose = Purpose::Server { names: dedup(all_names) };
        self.authority.ensure_leaf(&stem, &user, &["system:nodes"], &purpose)?;
        Ok(NodeFiles {
            kubeconfig,
            certificate: stem.with_added_extension("crt"),
            key: stem.with_added_extension("key"),
        })
    }

    fn ensure_kubeconfig(&self, path: &Path, user: &str, organizations: &[&str]) -> Result<(), PkiError> {
        if kubeconfig::is_current(path, &self.config.server_url, &self.authority, user) {
            return Ok(());
        }
        let issued = self.issue_client(user, organizations)?;
        self.write_kubeconfig(path, user, &issued)
    }

    /// Issues a client certificate: `user` is the common name, `organizations` the groups (at most two).
    ///
    /// # Errors
    ///
    /// If the subject cannot stand in a certificate.
    pub fn issue_client(&self, user: &str, organizations: &[&str]) -> Result<Issued, PkiError> {
        self.authority.issue(user, organizations, &Purpose::Client)
    }

    /// Writes a kubeconfig, mode 0600, for an issued client certificate.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, user: &str, issued: &Issued) -> Result<(), PkiError> {
        let text =
            kubeconfig::render(&self.config.server_url, self.authority.certificate_pem(), user, issued);
        files::write_private(path, text.as_bytes())
    }

    /// The authority that signs everything here.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authority's certificate in PEM: what pods and kubeconfigs trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        self.authority.certificate_der()
    }

    /// What the TLS listener presents; follows renewals.
    #[must_use]
    pub fn serving(&self) -> Arc<ServingCertificate> {
        Arc::clone(&self.serving)
    }

    /// The client certificate that this server shows to kubelets.
    #[must_use]
    pub fn kubelet_client(&self) -> Arc<Issued> {
        self.kubelet_client.load_full()
    }

    /// The key that signs ServiceAccount tokens, PKCS#8 PEM, ECDSA P-256.
    #[must_use]
    pub fn service_account_key(&self) -> &str {
        &self.service_account_key
    }
}

/// A node's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFiles {
    /// How the kubelet reaches the API server.
    pub kubeconfig: PathBuf,
    /// What the kubelet serves HTTPS with.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

fn ensure_serving(config: &PkiConfig, authority: &Authority) -> Result<Issued, PkiError> {
    let mut names = config.names.clone();
    names.push(config.node_name.clone());
    names.extend(host_addresses().iter().map(ToString::to_string));
    let purpose = Purpose::Server { names: dedup(names) };
    authority.ensure_leaf(&config.data_dir.join("pki/apiserver"), "kube-apiserver", &[], &purpose)
}

fn ensure_kubelet_client(config: &PkiConfig, authority: &Authority) -> Result<Issued, PkiError> {
    let stem = config.data_dir.join("pki/apiserver-kubelet-client");
    authority.ensure_leaf(&stem, KUBELET_CLIENT, &[], &Purpose::Client)
}

/// The common name under which the API server calls kubelets. It carries no group, and its role is to call kubelets,
/// which ask the API server whether it may.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

fn ensure_service_account_key(pki_dir: &Path) -> Result<String, PkiError> {
    let path = pki_dir.join("sa.key");
    if let Some(pem) = files::read_optional(&path)? {
        return Ok(pem);
    }
    let key = rcgen::KeyPair::generate()
        .map_err(|source| PkiError::Issue { subject: "service account tokens".to_owned(), source })?;
    files::write_private(&pki_dir.join("sa.pub"), key.public_key_pem().as_bytes())?;
    // Last: a key without its public half would be made good, the other way round it would not.
    let pem = key.serialize_pem();
    files::write_private(&path, pem.as_bytes())?;
    Ok(pem)
}

/// This machine's name as Kubernetes' nodes use it: lower case.
#[must_use]
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
        .to_lowercase()
}

/// The addresses of this machine's interfaces, without IPv6 link-local ones (they need a scope).
fn host_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return vec![IpAddr::from([127, 0, 0, 1])];
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = address
                .as_sockaddr_in6()
                .map(|address| std::net::SocketAddrV6::from(*address))
                .filter(|address| !address.ip().is_unicast_link_local())
                .map(|address| IpAddr::V6(*address.ip()));
            v4.or(v6)
        })
        .collect()
}

fn dedup(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
