//! A server on a port of its own, and a client that says who it is.

use std::{sync::Arc, time::Duration};

use api_objects::Value;
use apiserver::{Running, config::Config, pki::Issued};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Front {
    pub(crate) running: Running,
    pub(crate) shutdown: CancellationToken,
    pub(crate) directory: tempfile::TempDir,
}

/// Who a client says it is.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    pub(crate) certificate: Option<Issued>,
    pub(crate) token: Option<String>,
}

impl Identity {
    pub(crate) fn token(token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::default() }
    }
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The message of a Status with this code.
    #[track_caller]
    pub(crate) fn refused(&self, code: u16) -> String {
        assert_eq!(self.code, code, "{}", self.text());
        self.json()["message"].as_str().unwrap().to_owned()
    }

    /// The object that came with this code.
    #[track_caller]
    pub(crate) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text());
        self.json()
    }
}

impl Front {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::for_directory(directory.path());
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = apiserver::start(config, shutdown.clone()).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("the bootstrap must end");
        Self { running, shutdown, directory }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running.wait()).await.expect("the server must end");
    }

    /// A certificate of the cluster's authority.
    pub(crate) fn certificate(&self, user: &str, groups: &[&str]) -> Identity {
        let issued = self.running.server.pki.issue_client(user, groups).unwrap();
        Identity { certificate: Some(issued), token: None }
    }

    pub(crate) fn admin(&self) -> Identity {
        self.certificate("kubernetes-admin", &["system:masters"])
    }

    /// A connection whose handshake is done.
    pub(crate) async fn connect(&self, identity: &Identity, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.running.server.pki.ca_der().clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match &identity.certificate {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.running.address).await.unwrap();
        let name = ServerName::try_from("kubernetes.default.svc").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    /// A request over HTTP/1.1, answered but not read.
    pub(crate) async fn open(
        &self,
        identity: &Identity,
        request: Request<Full<Bytes>>,
    ) -> http::Response<Incoming> {
        let stream = self.connect(identity, b"http/1.1").await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request);
        tokio::time::timeout(PATIENCE, answer).await.expect("the server must answer").unwrap()
    }

    pub(crate) fn build(
        identity: &Identity,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "kubernetes");
        if let Some(token) = &identity.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::from(body.map(ToString::to_string).unwrap_or_default())).unwrap()
    }

    pub(crate) async fn request(
        &self,
        identity: &Identity,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let answer = self.open(identity, Self::build(identity, method, path, body)).await;
        let (parts, body) = answer.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body must end").unwrap();
        Answer { code: parts.status, headers: parts.headers, body: body.to_bytes() }
    }

    pub(crate) async fn get(&self, identity: &Identity, path: &str) -> Answer {
        self.request(identity, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, identity: &Identity, path: &str, object: &Value) -> Answer {
        self.request(identity, Method::POST, path, Some(object)).await
    }

    /// The same as [`Self::get`] over HTTP/2.
    pub(crate) async fn get_http2(&self, identity: &Identity, path: &str) -> Answer {
        let stream = self.connect(identity, b"h2").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::get(format!("https://kubernetes{path}")).body(Full::<Bytes>::default()).unwrap();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status, headers: parts.headers, body }
    }

    /// Asks until the answer has this code: what was granted a moment ago takes a moment to count.
    pub(crate) async fn get_until(&self, identity: &Identity, path: &str, code: u16) -> Answer {
        let asking = async {
            loop {
                let answer = self.get(identity, path).await;
                if answer.code == code {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} must answer {code}"))
    }
}
