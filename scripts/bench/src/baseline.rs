//! A bare server: hyper and rustls, fixed bytes, nothing else. What is left between it and a real server is
//! the real server's own work.

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Serves until the process is ended. `GET /bytes/<count>` answers so many bytes, whatever the method.
pub(crate) async fn serve(listen: SocketAddr, kubeconfig: &Path) -> anyhow::Result<()> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let authority = STANDARD.encode(certified.cert.pem());
    let text = format!(
        "clusters:\n- name: baseline\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {authority}\nusers:\n- name: nobody\n  user: {{}}\n"
    );
    std::fs::write(kubeconfig, text).with_context(|| format!("writing {}", kubeconfig.display()))?;

    // The largest body that is asked for, cut to size without copying.
    let bytes = Bytes::from(vec![b'x'; 64 << 20]);
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, bytes) = (acceptor.clone(), bytes.clone());
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let answer = service_fn(move |request| answer(request, bytes.clone()));
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, bytes: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let wanted = request.uri().path().rsplit('/').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    // A body is read to its end, as a real server must.
    let _read = request.into_body().collect().await;
    let mut response = Response::new(Full::new(bytes.slice(..bytes.len().min(wanted))));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
