//! create, update and patch.

use http::Method;
use serde_json::{Value, json};

use super::harness::{CONFIG_MAPS, Cluster};

#[tokio::test]
async fn create_fills_the_servers_metadata() {
    let cluster = Cluster::start().await;
    let made = cluster.config_map("a", &json!({"k": "v"})).await;
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(metadata["managedFields"][0]["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}));
    assert_eq!(metadata["managedFields"][0]["manager"], "tester");
    assert_eq!(metadata["managedFields"][0]["operation"], "Update");
    let read = cluster.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(read, made);

    let again = cluster.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await.expect(409);
    assert_eq!(
        again,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "configmaps \"a\" already exists", "reason": "AlreadyExists",
            "details": {"name": "a", "kind": "configmaps"}, "code": 409})
    );
    cluster.stop().await;
}

#[tokio::test]
async fn generated_names() {
    let cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "web-"}})).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_eq!(made["metadata"]["generateName"], "web-");
    let nameless = cluster.post(CONFIG_MAPS, &json!({"metadata": {}})).await.expect(422);
    assert_eq!(nameless["reason"], "Invalid");
    assert_eq!(nameless["details"]["causes"][0]["field"], "metadata.name");
    assert!(
        nameless["message"]
            .as_str()
            .unwrap()
            .ends_with("metadata.name: Required value: name or generateName is required")
    );
    cluster.stop().await;
}

#[tokio::test]
async fn bodies_must_fit_the_path() {
    let cluster = Cluster::start().await;
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "other"}});
    let answer = cluster.post(CONFIG_MAPS, &elsewhere).await.expect(400);
    assert_eq!(
        answer["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    // What belongs to the whole cluster has no namespace, whatever its author wrote; charts often do.
    let role = json!({"metadata": {"name": "r", "namespace": "other"}, "rules": []});
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let made = cluster.post(roles, &role).await.expect(201);
    assert_eq!(made["metadata"].get("namespace"), None);
    let changed = json!({"metadata": {"name": "r", "namespace": "other", "labels": {"a": "b"}}, "rules": []});
    let changed = cluster.put(&format!("{roles}/r"), &changed).await.expect(200);
    assert_eq!(
        (changed["metadata"].get("namespace"), &changed["metadata"]["labels"]["a"]),
        (None, &json!("b"))
    );
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
    let answer = cluster.post(CONFIG_MAPS, &other).await.expect(400);
    assert_eq!(
        answer["message"],
        "Deployment in version \"v1\" cannot be handled as a ConfigMap: \
         converting (v1.Deployment) to (core.ConfigMap): unknown conversion"
    );
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    for (path, body, expected) in [
        (
            autoscalers,
            r#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler"}"#,
            "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
        ),
        (
            CONFIG_MAPS,
            r#"{"apiVersion":"v1","kind":"Nope"}"#,
            "Nope in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nope\" is registered for \
             version \"v1\" in scheme \"pkg/runtime/scheme.go:111\"",
        ),
        (
            CONFIG_MAPS,
            r#"{"data":{"a":1,"b":[]},"immutable":"x"}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number \
             into Go struct field ConfigMap.data of type string",
        ),
        (
            CONFIG_MAPS,
            r#"{"a" 1}"#,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; \
             json parse error: invalid character '1' after object key ({\"a\" 1})",
        ),
        (
            CONFIG_MAPS,
            r#"{"kind":5}"#,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; \
             json parse error: json: cannot unmarshal number into Go struct field .kind of type string \
             ({\"kind\":5})",
        ),
    ] {
        let answer = cluster.send(Method::POST, path, &[], body.as_bytes().to_vec()).await.expect(400);
        assert_eq!(answer["message"], expected);
    }
    // Nested deeper than anything is, and than any stack.
    let deep = cluster.send(Method::POST, CONFIG_MAPS, &[], b"[".repeat(1_000_000)).await.expect(400);
    assert!(deep["message"].as_str().unwrap().contains("exceeded max depth"), "{deep}");
    let cbor = [("content-type", "application/cbor")];
    assert_eq!(
        cluster.send(Method::POST, CONFIG_MAPS, &cbor, vec![1]).await.expect(415)["reason"],
        "UnsupportedMediaType"
    );
    // Neither a body without a type nor YAML is a problem.
    assert_eq!(
        cluster.send(Method::POST, CONFIG_MAPS, &[], br#"{"metadata":{"name":"j"}}"#.to_vec()).await.code,
        201
    );
    let yaml = [("content-type", "application/yaml")];
    let body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: of-yaml\ndata:\n  k: \"1\"\n".to_vec();
    let made = cluster.send(Method::POST, CONFIG_MAPS, &yaml, body).await.expect(201);
    assert_eq!(made["data"]["k"], "1");
    cluster.stop().await;
}

#[tokio::test]
async fn unknown_fields_are_dropped_warned_of_or_refused() {
    let cluster = Cluster::start().await;
    let object = |name: &str| json!({"metadata": {"name": name}, "data": {"k": "v"}, "dota": {}});
    let warned = cluster.post(CONFIG_MAPS, &object("a")).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dota\\\"\"");
    assert_eq!(warned.expect(201).get("dota"), None);
    let ignored = cluster.post(&format!("{CONFIG_MAPS}?fieldValidation=Ignore"), &object("b")).await;
    assert!(!ignored.headers.contains_key("warning"));
    let refused =
        cluster.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), &object("c")).await.expect(400);
    assert_eq!(refused["reason"], "BadRequest");
    assert!(
        refused["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"dota\""),
        "{refused}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn updates_are_optimistic_and_no_ops_are_not_written() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let first = cluster.config_map("a", &json!({"k": "1"})).await;
    let unchanged = cluster.put(&path, &first).await.expect(200);
    assert_eq!(unchanged, first);

    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    let second = cluster.put(&path, &second).await.expect(200);
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);

    let outdated = cluster.put(&path, &first).await.expect(409);
    assert_eq!(outdated["reason"], "Conflict");
    assert_eq!(
        outdated["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a resource version the last writer wins.
    let blind = json!({"metadata": {"name": "a"}, "data": {"k": "3"}});
    assert_eq!(cluster.put(&path, &blind).await.expect(200)["data"]["k"], "3");
    assert_eq!(
        cluster.put(&format!("{CONFIG_MAPS}/none"), &json!({"metadata": {"name": "none"}})).await.code,
        404
    );
    let nameless = cluster.put(&path, &json!({"metadata": {}, "data": {"k": "4"}})).await.expect(400);
    let undeterminable = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!(nameless["message"], undeterminable);
    let unnamed = cluster.patch(&path, "merge-patch", &json!({"metadata": {"name": null}})).await.expect(400);
    assert_eq!(unnamed["message"], undeterminable);
    let misnamed = cluster.put(&path, &json!({"metadata": {"name": "b"}})).await.expect(400);
    assert_eq!(misnamed["message"], "the name of the object (b) does not match the name on the URL (a)");
    cluster.stop().await;
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    cluster.config_map("a", &json!({"k": "1", "l": "1"})).await;
    let merged =
        cluster.patch(&path, "merge-patch", &json!({"data": {"k": "2", "l": null}})).await.expect(200);
    assert_eq!(merged["data"], json!({"k": "2"}));
    let operations = json!([{"op": "test", "path": "/data/k", "value": "2"}, {"op": "add", "path": "/data/m", "value": "3"}]);
    let patched = cluster.patch(&path, "json-patch", &operations).await.expect(200);
    assert_eq!(patched["data"], json!({"k": "2", "m": "3"}));
    let failed = json!([{"op": "test", "path": "/data/k", "value": "9"}]);
    assert_eq!(cluster.patch(&path, "json-patch", &failed).await.code, 422);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let strategic = cluster.patch(&path, "strategic-merge-patch", &labels).await.expect(200);
    assert_eq!(strategic["metadata"]["labels"], json!({"a": "b"}));
    // A patch that changes nothing changes nothing.
    assert_eq!(cluster.patch(&path, "strategic-merge-patch", &labels).await.expect(200), strategic);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "x"}});
    assert_eq!(cluster.patch(&path, "merge-patch", &stale).await.expect(409)["reason"], "Conflict");
    let apply = [("content-type", "application/apply-patch+yaml")];
    let answer = cluster.send(Method::PATCH, &format!("{path}?fieldManager=m"), &apply, b"{}".to_vec()).await;
    assert_eq!(answer.expect(415)["reason"], "UnsupportedMediaType");
    assert_eq!(cluster.patch(&format!("{CONFIG_MAPS}/none"), "merge-patch", &json!({})).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn dry_runs_write_nothing() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}}))
        .await
        .expect(201);
    assert_eq!(made["metadata"].get("resourceVersion"), None);
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    let kept = cluster.config_map("a", &json!({"k": "1"})).await;
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    let patched = cluster.patch(&path, "merge-patch", &json!({"data": {"k": "2"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "2");
    assert_eq!(cluster.delete(&path).await.code, 200);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.expect(200), kept);
    assert_eq!(
        cluster.post(&format!("{CONFIG_MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.code,
        409
    );
    let odd = cluster
        .post(&format!("{CONFIG_MAPS}?dryRun=Some"), &json!({"metadata": {"name": "b"}}))
        .await
        .expect(422);
    assert_eq!(odd["details"]["causes"][0]["field"], "dryRun");
    cluster.stop().await;
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let cluster = Cluster::start().await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({"metadata": {"name": "rs"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 7}});
    let made = cluster.post(sets, &set).await.expect(201);
    assert_eq!(made["status"], json!({"replicas": 0}));
    assert_eq!(made["metadata"]["generation"], 1);
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 1}});
    let patched = cluster.patch(&format!("{sets}/rs/status"), "merge-patch", &status).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["status"]["replicas"]), (&json!(2), &json!(1)));
    assert_eq!(patched["metadata"]["generation"], 1);
    let both = json!({"spec": {"replicas": 3}, "status": {"replicas": 5}});
    let patched = cluster.patch(&format!("{sets}/rs"), "merge-patch", &both).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["status"]["replicas"]), (&json!(3), &json!(1)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let managers = patched["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry: &Value| entry["subresource"] == "status"));
    cluster.stop().await;
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let cluster = std::sync::Arc::new(Cluster::start().await);
    cluster.config_map("a", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..20 {
        let (cluster, path) = (cluster.clone(), path.clone());
        writers.spawn(async move {
            let patch = json!({"data": {format!("k{writer}"): "v"}});
            cluster.patch(&path, "merge-patch", &patch).await.expect(200);
        });
    }
    writers.join_all().await;
    assert_eq!(cluster.get(&path).await.expect(200)["data"].as_object().unwrap().len(), 20);
}

/// A length-delimited protobuf field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

#[tokio::test]
async fn protobuf_bodies_are_read() {
    let cluster = Cluster::start().await;
    let type_meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let object = [field(1, &field(1, b"a")), field(2, &[field(1, b"k"), field(2, b"v")].concat())].concat();
    let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &object)].concat();
    let kind = [("content-type", "application/vnd.kubernetes.protobuf")];
    let made = cluster.send(Method::POST, CONFIG_MAPS, &kind, body).await.expect(201);
    assert_eq!((&made["metadata"]["name"], &made["data"]), (&json!("a"), &json!({"k": "v"})));
    let odd = cluster.send(Method::POST, CONFIG_MAPS, &kind, b"{}".to_vec()).await.expect(400);
    assert_eq!(odd["reason"], "BadRequest");
    cluster.stop().await;
}

#[tokio::test]
async fn secrets_and_jobs_are_shaped() {
    let cluster = Cluster::start().await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"user": "admin"}});
    let made = cluster.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    assert_eq!((&made["data"], made.get("stringData")), (&json!({"user": "YWRtaW4="}), None));
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    let made = cluster.post("/apis/batch/v1/namespaces/default/jobs", &job).await.expect(201);
    let uid = &made["metadata"]["uid"];
    assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    assert_eq!(made["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "j");
    cluster.stop().await;
}

#[tokio::test]
async fn a_future_resource_version_is_waited_for_and_refused() {
    let cluster = Cluster::start().await;
    let answer = cluster
        .get(&format!("{CONFIG_MAPS}?resourceVersion=999999&resourceVersionMatch=NotOlderThan"))
        .await
        .expect(504);
    assert_eq!(answer["reason"], "Timeout");
    assert_eq!(answer["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .starts_with("Timeout: Too large resource version: 999999, current: "),
        "{answer}"
    );
    cluster.stop().await;
}
