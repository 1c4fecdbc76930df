//! Deletion: preconditions, grace, finalizers, namespaces.

use http::Method;
use serde_json::{Value, json};

use super::harness::{CONFIG_MAPS, Cluster};

async fn delete_with(cluster: &Cluster, path: &str, options: &Value) -> super::harness::Answer {
    cluster.send(Method::DELETE, path, &[], options.to_string().into()).await
}

#[tokio::test]
async fn a_deletion_answers_with_a_status() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let other = delete_with(&cluster, &path, &json!({"preconditions": {"uid": "x"}})).await.expect(409);
    let uid = a["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        other["message"],
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (x) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )
    );
    let gone = cluster.delete(&path).await.expect(200);
    assert_eq!(
        gone,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": uid}})
    );
    let missing = cluster.delete(&path).await.expect(404);
    assert_eq!(missing["message"], "configmaps \"a\" not found");
    cluster.stop().await;
}

#[tokio::test]
async fn finalizers_hold_an_object_back() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    cluster.post(CONFIG_MAPS, &held).await.expect(201);
    let marked = cluster.delete(&path).await.expect(200);
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    // A second deletion changes nothing, and the mark cannot be taken away.
    let again = cluster.delete(&path).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    let kept = cluster
        .patch(&path, "merge-patch", &json!({"metadata": {"deletionTimestamp": null}, "data": {"k": "v"}}))
        .await
        .expect(200);
    assert_eq!(kept["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    cluster.patch(&path, "merge-patch", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(cluster.get(&path).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let cluster = Cluster::start().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let name = policy.to_lowercase();
        cluster.config_map(&name, &json!({})).await;
        let options = json!({"propagationPolicy": policy});
        let marked = delete_with(&cluster, &format!("{CONFIG_MAPS}/{name}"), &options).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    let odd =
        delete_with(&cluster, &format!("{CONFIG_MAPS}/orphan"), &json!({"propagationPolicy": "Sideways"}))
            .await;
    assert_eq!(odd.expect(422)["reason"], "Invalid");
    cluster.stop().await;
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn pods_end_gracefully() {
    let cluster = Cluster::start().await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.post(PODS, &pod("waiting")).await.expect(201);
    // A pod that runs nowhere goes at once, and is answered.
    assert_eq!(cluster.delete(&format!("{PODS}/waiting")).await.expect(200)["kind"], "Pod");
    assert_eq!(cluster.get(&format!("{PODS}/waiting")).await.code, 404);

    let path = format!("{PODS}/running");
    cluster.post(PODS, &pod("running")).await.expect(201);
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    cluster.post(&format!("{path}/binding"), &binding).await.expect(201);
    let marked = cluster.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(
        marked["metadata"]["deletionTimestamp"].as_str().unwrap()
            > marked["metadata"]["creationTimestamp"].as_str().unwrap()
    );
    // Only a shorter period counts; none at all ends it.
    let longer = delete_with(&cluster, &path, &json!({"gracePeriodSeconds": 60})).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = delete_with(&cluster, &path, &json!({"gracePeriodSeconds": 5})).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let uid = marked["metadata"]["uid"].clone();
    delete_with(&cluster, &path, &json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}))
        .await
        .expect(200);
    assert_eq!(cluster.get(&path).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn namespaces_wait_to_be_emptied() {
    let cluster = Cluster::start().await;
    let made = cluster.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.expect(201);
    assert_eq!(
        (&made["spec"], &made["status"]),
        (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"}))
    );
    assert_eq!(made["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "team"}));
    let going = cluster.delete("/api/v1/namespaces/team").await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let refused = cluster
        .post("/api/v1/namespaces/team/configmaps", &json!({"metadata": {"name": "a"}}))
        .await
        .expect(403);
    assert_eq!(
        refused["message"],
        "configmaps \"a\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut emptied = going.clone();
    emptied["spec"] = json!({});
    cluster.put("/api/v1/namespaces/team/finalize", &emptied).await.expect(200);
    assert_eq!(cluster.get("/api/v1/namespaces/team").await.code, 404);
    let nowhere = cluster
        .post("/api/v1/namespaces/team/configmaps", &json!({"metadata": {"name": "a"}}))
        .await
        .expect(404);
    assert_eq!(nowhere["message"], "namespaces \"team\" not found");
    let immortal = cluster.delete("/api/v1/namespaces/default").await.expect(403);
    assert_eq!(immortal["message"], "namespaces \"default\" is forbidden: this namespace may not be deleted");
    cluster.stop().await;
}

#[tokio::test]
async fn collections_go_by_selection() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        let labels = if name == "c" { json!({}) } else { json!({"go": "yes"}) };
        cluster.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": labels}})).await.expect(201);
    }
    let gone = cluster.delete(&format!("{CONFIG_MAPS}?labelSelector=go%3Dyes")).await.expect(200);
    assert_eq!((&gone["kind"], gone["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 2));
    let left = cluster.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
    // With a limit one page goes, and the answer says where the rest is.
    cluster.config_map("d", &json!({})).await;
    let page = cluster.delete(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    assert_eq!(page["items"][0]["metadata"]["name"], "c");
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.delete(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!(rest["items"][0]["metadata"]["name"], "d");
    cluster.stop().await;
}
