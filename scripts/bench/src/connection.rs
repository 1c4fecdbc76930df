//! One client connection: HTTP/1.1 over TLS, kept alive, nothing in between.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How to reach a server, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
}

impl Target {
    /// Reads the first cluster and the first user of a kubeconfig with embedded certificates.
    pub(crate) fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let config: Kubeconfig = serde_yaml::from_str(&text)?;
        let cluster = &config.clusters.first().context("the kubeconfig names no cluster")?.cluster;
        let user = config.users.into_iter().next().map(|named| named.user).unwrap_or_default();

        let address = cluster.server.strip_prefix("https://").context("the server's URL must be https")?;
        let (host, port) = address.trim_end_matches('/').rsplit_once(':').unwrap_or((address, "443"));
        let mut roots = RootCertStore::empty();
        let authority = cluster.certificate_authority_data.as_ref().context("the kubeconfig holds no CA")?;
        for certificate in CertificateDer::pem_slice_iter(&STANDARD.decode(authority)?) {
            roots.add(certificate?)?;
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut tls = match (&user.client_certificate_data, &user.client_key_data) {
            (Some(certificate), Some(key)) => {
                let chain =
                    CertificateDer::pem_slice_iter(&STANDARD.decode(certificate)?)
                        .collect::<Result<Vec<_>, _>>()?;
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&STANDARD.decode(key)?)?)?
            }
            _ => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            host: host.to_owned(),
            port: port.parse()?,
            tls: Arc::new(tls),
            authorization: user.token.map(|token| format!("Bearer {token}")),
        })
    }

    /// Opens a connection. Its driver ends with it.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(Connection {
            sender,
            host: format!("{}:{}", self.host, self.port),
            authorization: self.authorization.clone(),
        })
    }
}

/// A connection that is kept alive between requests.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    authorization: Option<String>,
}

impl Connection {
    /// Sends a request and answers its head.
    pub(crate) async fn send(&mut self, call: Call) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header("host", &self.host)
            .header("user-agent", "minik8s-bench")
            .header("accept", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(media_type) = call.media_type {
            request = request.header("content-type", media_type);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(call.body))?).await?)
    }

    /// Sends a request and reads the whole answer, which must be a success.
    pub(crate) async fn call(&mut self, call: Call) -> anyhow::Result<Bytes> {
        let what = format!("{} {}", call.method, call.path);
        let answer = self.send(call).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            bail!("{what}: {status} {text}");
        }
        Ok(body)
    }
}

/// One request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) media_type: Option<&'static str>,
    pub(crate) body: Bytes,
}

impl Call {
    /// A request without a body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), media_type: None, body: Bytes::new() }
    }

    /// The creation of an object.
    pub(crate) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (path, body) = (path.into(), body.into());
        Self { method: Method::POST, path, media_type: Some("application/json"), body }
    }

    /// A merge patch.
    pub(crate) fn merge_patch(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (path, body) = (path.into(), body.into());
        Self { method: Method::PATCH, path, media_type: Some("application/merge-patch+json"), body }
    }
}
