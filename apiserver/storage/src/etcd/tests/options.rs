//! The ways to reach an etcd: certificates, names with passwords, several endpoints.

use std::{net::IpAddr, path::Path};

use etcd_client::{Permission, PermissionType};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::{failures::update_through, *};

/// An authority of the test's own.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for loopback and its key, good for both ends of a connection.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn certificates_are_checked_in_both_directions() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue();
    let directory = tempfile::tempdir().unwrap();
    let arguments: Vec<String> = [
        ("--cert-file", file(directory.path(), "server.crt", &certificate)),
        ("--key-file", file(directory.path(), "server.key", &key)),
        ("--trusted-ca-file", file(directory.path(), "ca.crt", &authority.pem)),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .chain(["--client-cert-auth".to_owned()])
    .collect();
    let (certificate, key) = authority.issue();
    let reach = EtcdOptions {
        ca: Some(authority.pem.clone().into_bytes()),
        identity: Some((certificate.into_bytes(), key.into_bytes())),
        request_timeout: Duration::from_secs(1),
        ..EtcdOptions::new(vec!["https://".to_owned()])
    };
    let server = EtcdServer::start_with(1, &arguments, reach).await;
    let store = EtcdStore::connect(server.options()).await.unwrap();
    let first = create(&store, "a", "1").await;
    let mut watching = testing::watch(&store, first).await;
    let second = update(&store, "a", "2", first).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, second);

    let stranger = Authority::new();
    let (certificate, key) = stranger.issue();
    for (what, options) in [
        ("a client without a certificate", EtcdOptions { identity: None, ..server.options() }),
        (
            "a client whose certificate somebody else signed",
            EtcdOptions { identity: Some((certificate.into_bytes(), key.into_bytes())), ..server.options() },
        ),
        (
            "a server whose certificate somebody else signed",
            EtcdOptions { ca: Some(stranger.pem.into_bytes()), ..server.options() },
        ),
        ("certificates that are none", EtcdOptions { ca: Some(b"none".to_vec()), ..server.options() }),
    ] {
        let refused = EtcdStore::connect(options).await.map(drop);
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{what}: {refused:?}");
    }
}

#[tokio::test]
async fn a_user_gets_in_with_the_password_and_stays_in() {
    let mut server = EtcdServer::start().await;
    let client = Client::connect([server.url()], None).await.unwrap();
    let mut auth = client.auth_client();
    for (user, password) in [("root", "secret"), ("cluster", "pass word")] {
        auth.user_add(user, password, None).await.unwrap();
        auth.role_add(user).await.unwrap();
        auth.user_grant_role(user, user).await.unwrap();
    }
    // The cluster may do everything below its own prefix, and nothing elsewhere.
    let everything = Permission::new(PermissionType::Readwrite, "/cluster-a").with_prefix();
    auth.role_grant_permission("cluster", everything).await.unwrap();
    auth.auth_enable().await.unwrap();
    drop(client);
    server.asks_for("/cluster-a", "cluster", "pass word");

    let options = server.options();
    let store = EtcdStore::connect(options.clone()).await.unwrap();
    let first = create(&store, "a", "1").await;
    let mut watching = testing::watch(&store, first).await;
    let second = update(&store, "a", "2", first).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, second);
    for (what, options) in [
        ("nobody", EtcdOptions { user: None, ..options.clone() }),
        (
            "a wrong password",
            EtcdOptions { user: Some(("cluster".to_owned(), "guess".to_owned())), ..options.clone() },
        ),
        ("another cluster's keys", EtcdOptions { prefix: "/cluster-b".to_owned(), ..options.clone() }),
    ] {
        let refused = EtcdStore::connect(options).await.map(drop);
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{what}: {refused:?}");
    }
    // Whom it has let in, an etcd that is started again does not know any more.
    server.restart().await;
    let third = update_through(&store, "a", "3", second).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, third);
}

#[tokio::test]
async fn an_endpoint_that_is_dead_from_the_start_is_passed_over() {
    let server = EtcdServer::start().await;
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let options = EtcdOptions { endpoints: vec![dead.clone(), server.url().to_owned()], ..server.options() };
    let store = EtcdStore::connect(options).await.unwrap();
    assert!(!store.tells_progress(), "a member that cannot be asked is not relied on");
    let mut revision = create(&store, "a", "0").await;
    for round in 0..40 {
        revision = update(&store, "a", &round.to_string(), revision).await;
    }
    let nowhere = EtcdOptions {
        endpoints: vec![dead],
        request_timeout: Duration::from_secs(2),
        ..EtcdOptions::new(Vec::new())
    };
    let refused = EtcdStore::connect(nowhere).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}
