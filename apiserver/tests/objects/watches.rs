//! Watches: order, resumption, selectors, bookmarks.

use serde_json::json;

use super::harness::{CONFIG_MAPS, Cluster, event};

#[tokio::test]
async fn a_watch_shows_every_change_in_order() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", &json!({"k": "1"})).await;
    // Without a resource version a watch begins with what is there.
    let mut watch = cluster.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    cluster.config_map("b", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let changed = cluster.patch(&path, "merge-patch", &json!({"data": {"k": "2"}})).await.expect(200);
    cluster.delete(&path).await.expect(200);
    assert_eq!(watch.event().await, event("ADDED", "b"));
    let modified = watch.next().await.unwrap();
    assert_eq!(modified, json!({"type": "MODIFIED", "object": changed}));
    // A deletion shows the last state, under the deletion's resource version.
    let deleted = watch.next().await.unwrap();
    assert_eq!((&deleted["type"], &deleted["object"]["data"]), (&json!("DELETED"), &json!({"k": "2"})));
    let version = |frame: &serde_json::Value| {
        frame["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
    };
    assert!(version(&deleted) > version(&modified));
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_resumes_where_it_was() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", &json!({})).await;
    cluster.config_map("b", &json!({})).await;
    cluster.config_map("c", &json!({})).await;
    let since = a["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={since}")).await;
    assert_eq!(watch.event().await, event("ADDED", "b"));
    assert_eq!(watch.event().await, event("ADDED", "c"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_selector_turns_changes_into_arrivals_and_departures() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", &json!({})).await;
    let mut watch = cluster.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=in%3Dyes")).await;
    let path = format!("{CONFIG_MAPS}/a");
    let label = async |value: serde_json::Value| {
        cluster.patch(&path, "merge-patch", &json!({"metadata": {"labels": {"in": value}}})).await.expect(200)
    };
    label(json!("yes")).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    cluster.patch(&path, "merge-patch", &json!({"data": {"k": "v"}})).await.expect(200);
    assert_eq!(watch.event().await, event("MODIFIED", "a"));
    label(json!("no")).await;
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    // The object is shown as it was while it still matched.
    assert_eq!(gone["object"]["metadata"]["labels"]["in"], "yes");
    cluster.stop().await;
}

#[tokio::test]
async fn one_object_can_be_watched() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.watch(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Da")).await;
    cluster.config_map("ab", &json!({})).await;
    cluster.config_map("a", &json!({})).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    cluster.stop().await;
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", &json!({})).await;
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = cluster.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let alone = cluster.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await.expect(422);
    assert_eq!(alone["details"]["causes"][0]["field"], "resourceVersionMatch");
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout_and_with_the_server() {
    let cluster = Cluster::start().await;
    let mut short = cluster.watch(&format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1")).await;
    assert_eq!(short.next().await, None);
    let mut long = cluster.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    cluster.stop().await;
    assert_eq!(long.next().await, None);
}
