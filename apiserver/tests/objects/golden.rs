//! Whole answers against the documented wire format, in `tests/golden/`.
//!
//! The files are written by hand from Kubernetes' documentation; what differs from run to run stands there as
//! `<uid>`, `<time>`, `<version>` and `<age>`. A change of one of them is a change of the API.

use http::Method;
use serde_json::{Value, json};

use super::harness::{CONFIG_MAPS, Cluster};

pub fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Puts placeholders where values differ from run to run.
fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), &*member) {
                    ("uid", Value::String(_)) => *member = json!("<uid>"),
                    ("resourceVersion", Value::String(_)) => *member = json!("<version>"),
                    ("creationTimestamp" | "deletionTimestamp" | "time", Value::String(_)) => {
                        *member = json!("<time>")
                    }
                    _ => mask(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn masked(mut value: Value) -> Value {
    mask(&mut value);
    value
}

#[tokio::test]
async fn statuses() {
    let cluster = Cluster::start().await;
    let absent = cluster.get(&format!("{CONFIG_MAPS}/absent")).await.expect(404);
    assert_eq!(absent, golden("status-not-found"));
    let old = cluster.config_map("a", &json!({})).await;
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &json!({"data": {"k": "v"}})).await.expect(200);
    let conflict = cluster.put(&format!("{CONFIG_MAPS}/a"), &old).await.expect(409);
    assert_eq!(conflict, golden("status-conflict"));
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(cluster.get(reviews).await.expect(405), golden("status-method-not-allowed"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_list() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", &json!({"k": "v"})).await;
    let list = cluster.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(masked(list), golden("list-config-maps"));
    cluster.stop().await;
}

#[tokio::test]
async fn the_frames_of_a_watch() {
    let cluster = Cluster::start().await;
    let query = "watch=true&fieldSelector=metadata.name%3Dteam";
    let mut watch = cluster.watch(&format!("/api/v1/namespaces?{query}")).await;
    cluster.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.expect(201);
    cluster.delete("/api/v1/namespaces/team").await.expect(200);
    let frames = json!([watch.next().await.unwrap(), watch.next().await.unwrap()]);
    assert_eq!(masked(frames), golden("watch-frames"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_table() {
    let cluster = Cluster::start().await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let path = "/api/v1/namespaces?fieldSelector=metadata.name%3Ddefault&includeObject=None";
    let mut shown = cluster.send(Method::GET, path, &table, Vec::new()).await.expect(200);
    // Descriptions are prose, and ages pass.
    for column in shown["columnDefinitions"].as_array_mut().unwrap() {
        assert!(column.as_object_mut().unwrap().remove("description").unwrap().as_str().unwrap().len() > 10);
    }
    let age = &mut shown["rows"][0]["cells"][2];
    assert!(age.as_str().unwrap().ends_with('s'), "{age}");
    *age = json!("<age>");
    assert_eq!(masked(shown), golden("table-namespaces"));
    cluster.stop().await;
}
