//! Several servers on one etcd.

use std::process::{Child, Command, Stdio};

use apiserver::config::StoreKind;
use serde_json::{Value, json};

use crate::harness::{Front, PATIENCE};

/// A real etcd on ports of its own, ended with the test.
struct Etcd {
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Etcd {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (client, peer) = (format!("http://127.0.0.1:{}", free()), format!("http://127.0.0.1:{}", free()));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd must be installed: apt-get install etcd-server");
        let etcd = Self { process, url: client, _directory: directory };
        let address = etcd.url.trim_start_matches("http://").to_owned();
        let listening = async {
            while tokio::net::TcpStream::connect(&address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("etcd must listen");
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn server(etcd: &Etcd, address: &str) -> Front {
    let (url, address) = (etcd.url.clone(), address.parse().unwrap());
    Front::start_with(|config| {
        config.store = StoreKind::Etcd;
        config.etcd.servers = vec![url];
        config.advertise_address = address;
    })
    .await
}

async fn endpoints(front: &Front) -> Value {
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = front.get(&front.admin(), path).await.expect(200);
    slice["endpoints"].as_array().unwrap().iter().map(|endpoint| endpoint["addresses"][0].clone()).collect()
}

#[tokio::test]
async fn the_service_kubernetes_leads_to_every_server_that_lives() {
    let etcd = Etcd::start().await;
    let first = server(&etcd, "192.0.2.11").await;
    assert_eq!(endpoints(&first).await, json!(["192.0.2.11"]));
    let second = server(&etcd, "192.0.2.12").await;
    let both = json!(["192.0.2.11", "192.0.2.12"]);
    assert_eq!(endpoints(&second).await, both);
    // What one writes the other shows.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}});
    first.post(&first.admin(), "/api/v1/namespaces/default/configmaps", &map).await.expect(201);
    second.get(&second.admin(), "/api/v1/namespaces/default/configmaps/shared").await.expect(200);

    first.stop().await;
    let left = async {
        while endpoints(&second).await == both {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("a server that stops must leave the Service");
    assert_eq!(endpoints(&second).await, json!(["192.0.2.12"]));
    second.stop().await;
}
