//! Lists: selectors, pages, resource versions.

use serde_json::{Value, json};

use super::harness::{CONFIG_MAPS, Cluster};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// A query value that is not plain letters.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_list_is_as_documented() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", &json!({"k": "v"})).await;
    let list = cluster.get(CONFIG_MAPS).await.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert!(list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    // Items of a typed list carry neither kind nor apiVersion.
    let mut item = a.clone();
    item.as_object_mut().unwrap().remove("kind");
    item.as_object_mut().unwrap().remove("apiVersion");
    assert_eq!(list["items"], json!([item]));
    let none = cluster.get("/api/v1/namespaces/nowhere/configmaps").await.expect(200);
    assert_eq!(none["items"], json!([]));
    cluster.stop().await;
}

#[tokio::test]
async fn selectors_choose() {
    let cluster = Cluster::start().await;
    for (name, labels) in
        [("a", json!({"app": "web", "tier": "1"})), ("b", json!({"app": "web"})), ("c", json!({}))]
    {
        cluster.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": labels}})).await.expect(201);
    }
    let select = async |query: &str| {
        let list = cluster.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        names(&list).join(",")
    };
    assert_eq!(select("labelSelector=app%3Dweb").await, "a,b");
    assert_eq!(select(&format!("labelSelector={}", escaped("app=web,!tier"))).await, "b");
    assert_eq!(select(&format!("labelSelector={}", escaped("tier notin (1)"))).await, "b,c");
    assert_eq!(select("fieldSelector=metadata.name%3Db").await, "b");
    assert_eq!(select(&format!("fieldSelector={}", escaped("metadata.name!=b"))).await, "a,c");
    let unknown = cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=data.k%3Dv")).await.expect(400);
    assert_eq!(unknown["message"], "field label not supported: data.k");
    let all = cluster
        .get("/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault&labelSelector=app")
        .await
        .expect(200);
    assert_eq!(names(&all), ["a", "b"]);
    cluster.stop().await;
}

#[tokio::test]
async fn pages_are_one_state() {
    let cluster = Cluster::start().await;
    for index in 0..10 {
        cluster.config_map(&format!("m{index}"), &json!({})).await;
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=4")).await.expect(200);
    assert_eq!(names(&first), ["m0", "m1", "m2", "m3"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    // What happens between pages is not in them.
    cluster.delete(&format!("{CONFIG_MAPS}/m7")).await.expect(200);
    cluster.config_map("m55", &json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = cluster.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m4", "m5", "m6", "m7"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = cluster.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["m8", "m9"]);
    assert_eq!(third["metadata"].get("continue"), None);
    let odd = cluster.get(&format!("{CONFIG_MAPS}?limit=4&continue=zzz")).await.expect(400);
    assert!(odd["message"].as_str().unwrap().starts_with("continue key is not valid"));
    let both =
        cluster.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}&resourceVersion=5")).await.expect(400);
    assert_eq!(both["message"], "specifying resource version is not allowed when using continue");
    cluster.stop().await;
}

#[tokio::test]
async fn resource_versions_mean_what_the_table_says() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", &json!({})).await;
    let at_a = a["metadata"]["resourceVersion"].as_str().unwrap();
    cluster.config_map("b", &json!({})).await;
    let list = async |query: String| cluster.get(&format!("{CONFIG_MAPS}?{query}")).await;
    let exact = list(format!("resourceVersion={at_a}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!((names(&exact), &exact["metadata"]["resourceVersion"]), (vec!["a"], &json!(at_a)));
    let newer = list(format!("resourceVersion={at_a}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(names(&newer), ["a", "b"]);
    assert_eq!(names(&list("resourceVersion=0".to_owned()).await.expect(200)), ["a", "b"]);
    let alone = list("resourceVersionMatch=Exact".to_owned()).await.expect(422);
    assert_eq!(alone["details"]["causes"][0]["field"], "resourceVersionMatch");
    cluster.stop().await;
}
