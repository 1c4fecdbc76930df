//! Logs and streams through the server to a kubelet that shows what it was asked.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, handshake::derive_accept_key, protocol::Role},
};

use crate::harness::{Front, Identity, PATIENCE};

/// A kubelet that answers logs with the path it was asked, and echoes streams. Takes only connections that
/// show a certificate of the cluster's authority. Answers its port.
async fn kubelet(front: &Front) -> u16 {
    let files = front.running.server.pki.ensure_node("n1", &[]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(front.running.server.pki.ca_der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&files.certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().to_string();
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        if target.contains("previous=true") {
            let mut refusal = Response::new(Full::from("previous terminated container \"c\" not found"));
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(refusal);
        }
        return Ok(Response::new(Full::from(target)));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        socket.send(Message::text(target)).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io");
    Ok(response.body(Full::default()).unwrap())
}

/// A node with that kubelet, and a pod on it.
async fn pod_on_a_node(front: &Front) {
    let admin = front.admin();
    let port = kubelet(front).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let mut node = front.post(&admin, "/api/v1/nodes", &node).await.expect(201);
    node["status"] = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    front.request(&admin, Method::PUT, "/api/v1/nodes/n1/status", Some(&node)).await.expect(200);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    front.post(&admin, "/api/v1/namespaces/default/serviceaccounts", &account).await;
    for (name, node) in [("p", Some("n1")), ("unbound", None)] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        front.post(&admin, "/api/v1/namespaces/default/pods", &pod).await.expect(201);
    }
}

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_pods_node() {
    let front = Front::start().await;
    pod_on_a_node(&front).await;
    let admin = front.admin();
    let log = |pod: &str, query: &str| format!("/api/v1/namespaces/default/pods/{pod}/log{query}");
    let answer = front.get(&admin, &log("p", "?tailLines=3&timestamps=true")).await;
    assert_eq!(answer.headers["content-type"], "text/plain");
    assert_eq!(answer.text(), "/containerLogs/default/p/c?tailLines=3&timestamps=true");
    assert_eq!(
        front.get(&admin, &log("p", "?previous=true")).await.refused(400),
        r#"previous terminated container "c" not found"#
    );
    assert_eq!(
        front.get(&admin, &log("p", "?container=x")).await.refused(400),
        "container x is not valid for pod p"
    );
    let unbound = front.get(&admin, &log("unbound", "")).await;
    assert_eq!((unbound.code, unbound.text()), (StatusCode::OK, ""));
    assert_eq!(front.get(&admin, &log("gone", "")).await.refused(404), r#"pods "gone" not found"#);
    let node = front.get(&admin, "/api/v1/nodes/n1/proxy/stats/summary?x=1").await;
    assert_eq!(node.text(), "/stats/summary?x=1");
    front.stop().await;
}

/// The messages that a WebSocket at a path brings, up to its end or to so many.
async fn messages(front: &Front, path: &str, protocols: &str, most: usize) -> (String, Vec<Message>) {
    let stream = front.connect(&front.admin(), b"http/1.1").await;
    let mut request = format!("wss://kubernetes.default.svc{path}").into_client_request().unwrap();
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let chosen = response.headers()[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap().to_owned();
    let mut received = Vec::new();
    while received.len() < most
        && let Some(message) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap()
    {
        received.push(message.unwrap());
    }
    (chosen, received)
}

#[tokio::test]
async fn logs_and_watches_come_in_messages_too() {
    let front = Front::start().await;
    pod_on_a_node(&front).await;
    let log = "/api/v1/namespaces/default/pods/p/log?tailLines=3";
    let shown = "/containerLogs/default/p/c?tailLines=3";
    let (chosen, received) = messages(&front, log, "binary.k8s.io", 3).await;
    assert_eq!(chosen, "binary.k8s.io");
    assert_eq!(received[..2], [Message::binary(""), Message::binary(shown)]);
    assert!(received[2].is_close());
    let (chosen, received) = messages(&front, log, "x, base64.binary.k8s.io", 2).await;
    assert_eq!(chosen, "base64.binary.k8s.io");
    assert_eq!(received[1], Message::text("L2NvbnRhaW5lckxvZ3MvZGVmYXVsdC9wL2M/dGFpbExpbmVzPTM="));

    let watch = "/api/v1/namespaces/default/pods?watch=true";
    let with_token = "base64url.bearer.authorization.k8s.io.YWJj, base64.binary.k8s.io";
    let (chosen, received) = messages(&front, watch, with_token, 2).await;
    assert_eq!(chosen, "base64.binary.k8s.io");
    let names: Vec<String> = received
        .iter()
        .map(|message| {
            let event: serde_json::Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
            format!(
                "{} {}",
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(names, ["ADDED p", "ADDED unbound"]);
    front.stop().await;
}

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec?command=cat&stdin=true&stdout=true";

#[tokio::test]
async fn exec_is_a_websocket_all_the_way_to_the_kubelet() {
    let front = Front::start().await;
    pod_on_a_node(&front).await;
    let stream = front.connect(&front.admin(), b"http/1.1").await;
    let mut request = format!("wss://kubernetes.default.svc{EXEC}").into_client_request().unwrap();
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io".parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
    let first = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.to_text().unwrap(), "/exec/default/p/c?command=cat&input=1&output=1");
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    let echo = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&echo.into_data()[..], b"\0hello");
    front.stop().await;
}

async fn exec_refused(front: &Front, identity: &Identity, upgrade: Option<&str>, code: u16) -> String {
    let mut request = Front::build(identity, Method::GET, EXEC, None);
    if let Some(upgrade) = upgrade {
        request.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
        request.headers_mut().insert(header::UPGRADE, upgrade.parse().unwrap());
    }
    let answer = front.open(identity, request).await;
    assert_eq!(answer.status(), code);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    status["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn exec_is_refused_without_an_upgrade_and_without_the_right_to_create() {
    let front = Front::start().await;
    pod_on_a_node(&front).await;
    let admin = front.admin();
    assert_eq!(exec_refused(&front, &admin, None, 400).await, "Upgrade request required");
    assert_eq!(exec_refused(&front, &admin, Some("h2c"), 400).await, "Upgrade request required");

    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "getter"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/exec"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    front.post(&admin, &format!("{rbac}/clusterroles"), &role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "getter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "getter"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    front.post(&admin, &format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
    let ann = front.certificate("ann", &[]);
    // Getting is granted once the answer is no longer 403 …
    front.get_until(&ann, EXEC, 400).await;
    // … and a WebSocket is still more than getting.
    assert_eq!(
        exec_refused(&front, &ann, Some("websocket"), 403).await,
        r#"pods "p" is forbidden: User "ann" cannot create resource "pods/exec" in API group "" in the namespace "default""#
    );
    front.stop().await;
}
