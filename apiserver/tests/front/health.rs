//! Health, version and metrics, and the end of the server.

use http::{Method, StatusCode};
use http_body_util::BodyExt;

use crate::harness::{Front, Identity, PATIENCE};

#[tokio::test]
async fn anybody_may_ask_for_health_and_version_and_nothing_else() {
    let front = Front::start().await;
    let nobody = Identity::default();
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = front.get(&nobody, path).await;
        assert_eq!((answer.code, answer.text()), (StatusCode::OK, "ok"), "{path}");
    }
    let version = front.get(&nobody, "/version").await.expect(200);
    assert_eq!((&version["major"], &version["minor"]), (&"1".into(), &"36".into()));
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36.0+minik8s."));
    // What the role `system:public-info-viewer` does not name is refused to nobody in particular …
    let message = front.get(&nobody, "/readyz/etcd").await.refused(403);
    assert_eq!(message, r#"forbidden: User "system:anonymous" cannot get path "/readyz/etcd""#);
    // … and everything else needs a credential.
    for path in ["/", "/api", "/apis", "/metrics", "/api/v1/pods", "/openid/v1/jwks", "/openapi/v3"] {
        assert_eq!(front.get(&nobody, path).await.refused(401), "Unauthorized", "{path}");
    }
    front.stop().await;
}

#[tokio::test]
async fn checks_have_names_and_can_be_left_out() {
    let front = Front::start().await;
    let admin = front.admin();
    let verbose = front.get(&admin, "/readyz?verbose").await;
    let lines: Vec<&str> = verbose.text().lines().collect();
    assert!(lines.contains(&"[+]ping ok") && lines.contains(&"[+]etcd ok"), "{lines:?}");
    assert_eq!(lines.last(), Some(&"readyz check passed"));
    assert_eq!(front.get(&admin, "/livez/ping").await.text(), "ok");
    assert_eq!(front.get(&admin, "/livez/nonsense").await.code, 404);
    let excluded = front.get(&admin, "/healthz?verbose&exclude=etcd&exclude=nonsense").await;
    assert!(excluded.text().contains("[+]etcd excluded: ok\n"), "{}", excluded.text());
    assert!(
        excluded
            .text()
            .contains("warn: some health checks cannot be excluded: no matches for \"nonsense\"\n"),
        "{}",
        excluded.text()
    );
    front.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_under_upstreams_names() {
    let front = Front::start().await;
    let admin = front.admin();
    front.get(&admin, "/api/v1/namespaces/default/pods").await.expect(200);
    let metrics = front.get(&admin, "/metrics").await;
    let counted = metrics.text().lines().find(|line| {
        line.starts_with("apiserver_request_total{verb=\"LIST\"") && line.contains("resource=\"pods\"")
    });
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{counted:?}");
    assert!(metrics.text().contains("process_resident_memory_bytes "));
    front.stop().await;
}

#[tokio::test]
async fn http2_and_http1_answer_the_same() {
    let front = Front::start().await;
    let admin = front.admin();
    let one = front.get(&admin, "/api/v1/namespaces/default").await;
    let two = front.get_http2(&admin, "/api/v1/namespaces/default").await;
    assert_eq!(two.code, 200);
    assert_eq!(one.body, two.body);
    front.stop().await;
}

#[tokio::test]
async fn stopping_ends_watches_in_order() {
    let front = Front::start().await;
    let admin = front.admin();
    let request = Front::build(&admin, Method::GET, "/api/v1/namespaces?watch=true", None);
    let mut watch = front.open(&admin, request).await.into_body();
    let first = tokio::time::timeout(PATIENCE, watch.frame()).await.unwrap().unwrap().unwrap();
    assert!(first.into_data().unwrap().starts_with(br#"{"type":"ADDED""#));
    let ended = tokio::spawn(watch.collect());
    front.stop().await;
    // Not cut off: the last chunk says that this is the end.
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().expect("the watch must end in order");
}

#[tokio::test]
async fn everything_is_there_after_a_restart_on_the_embedded_store() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().to_owned();
    let mut found = Vec::new();
    for _ in 0..2 {
        let kept = kept.clone();
        let front = Front::start_with(|config| {
            config.data_dir = kept;
            config.store = apiserver::config::StoreKind::Embedded;
        })
        .await;
        let service = front.get(&front.admin(), "/api/v1/namespaces/default/services/kubernetes").await;
        found.push((service.expect(200)["metadata"].clone(), front.running.server.pki.ca_pem().to_owned()));
        let range = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
        let range = front.get(&front.admin(), range).await.expect(200);
        assert_eq!(range["status"]["conditions"][0]["type"], "Ready", "{range}");
        front.stop().await;
    }
    // The listener's port differs, and so the Service was updated; it is the same object all the same.
    assert_eq!(found[0].0["uid"], found[1].0["uid"]);
    assert_eq!(found[0].1, found[1].1);
}
