//! scale, binding, eviction, and conversion between versions.

use serde_json::json;

use super::harness::Cluster;

const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn scales() {
    let cluster = Cluster::start().await;
    let set = json!({"metadata": {"name": "rs"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.post(SETS, &set).await.expect(201);
    let path = format!("{SETS}/rs/scale");
    let mut scale = cluster.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 2}), &json!({"replicas": 0, "selector": "a=b"}))
    );
    scale["spec"]["replicas"] = json!(5);
    assert_eq!(cluster.put(&path, &scale).await.expect(200)["spec"]["replicas"], 5);
    // The scale that was read is outdated now.
    assert_eq!(cluster.put(&path, &scale).await.expect(409)["reason"], "Conflict");
    let patched = cluster.patch(&path, "merge-patch", &json!({"spec": {"replicas": 0}})).await.expect(200);
    assert_eq!(patched["spec"], json!({}));
    assert_eq!(cluster.get(&format!("{SETS}/rs")).await.expect(200)["spec"]["replicas"], 0);
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.post(PODS, &pod).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let done = cluster.post(&format!("{PODS}/a/binding"), &binding).await.expect(201);
    assert_eq!(
        (&done["kind"], &done["status"], &done["code"]),
        (&json!("Status"), &json!("Success"), &json!(201))
    );
    let bound = cluster.get(&format!("{PODS}/a")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let condition = &bound["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("True")));
    assert_eq!(condition["observedGeneration"], bound["metadata"]["generation"]);
    let again = cluster.post("/api/v1/namespaces/default/bindings", &binding).await.expect(409);
    assert_eq!(
        again["message"],
        "Operation cannot be fulfilled on pods \"a\": pod a is already assigned to node \"n1\""
    );
    cluster.stop().await;
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.post(PODS, &pod).await.expect(201);
    let path = format!("{PODS}/a/ephemeralcontainers");
    // What kubectl debug sends; the image and the label are not this subresource's to change.
    let patch = json!({"metadata": {"labels": {"x": "y"}}, "spec": {
        "containers": [{"name": "c", "image": "other"}],
        "ephemeralContainers": [{"name": "debugger-1", "image": "busybox:1", "targetContainerName": "c", "stdin": true, "tty": true}]}});
    let patched = cluster.patch(&path, "strategic-merge-patch", &patch).await.expect(200);
    let debugger = &patched["spec"]["ephemeralContainers"][0];
    assert_eq!(debugger["terminationMessagePolicy"], "File", "defaults are filled in");
    assert_eq!(
        (
            &patched["spec"]["containers"][0]["image"],
            &patched["metadata"]["labels"],
            &patched["metadata"]["generation"]
        ),
        (&json!("i"), &json!(null), &json!(2))
    );
    let mut read = cluster.get(&path).await.expect(200);
    assert_eq!(read["kind"], "Pod");
    read["spec"]["ephemeralContainers"] = json!([]);
    let refused = cluster.put(&path, &read).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("may not be removed"), "{refused}");
    // The pod itself cannot add any.
    let direct = cluster
        .patch(
            &format!("{PODS}/a"),
            "strategic-merge-patch",
            &json!({"spec": {
        "ephemeralContainers": [{"name": "e", "image": "busybox:1"}]}}),
        )
        .await;
    direct.expect(422);
    cluster.stop().await;
}

#[tokio::test]
async fn an_eviction_respects_budgets() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "a", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.post(PODS, &pod).await.expect(201);
    cluster
        .patch(&format!("{PODS}/a/status"), "merge-patch", &json!({"status": {"phase": "Running"}}))
        .await
        .expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.post(budgets, &budget).await.expect(201);
    let status = |allowed: i64| json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    cluster.patch(&format!("{budgets}/b/status"), "merge-patch", &status(0)).await.expect(200);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let refused = cluster.post(&format!("{PODS}/a/eviction"), &eviction).await.expect(429);
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget b needs 1 healthy pods and has 1 currently"}])
    );
    cluster.patch(&format!("{budgets}/b/status"), "merge-patch", &status(1)).await.expect(200);
    cluster.post(&format!("{PODS}/a/eviction"), &eviction).await.expect(201);
    assert_eq!(cluster.get(&format!("{PODS}/a")).await.code, 404);
    let spent = cluster.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    cluster.stop().await;
}

#[tokio::test]
async fn two_versions_of_one_object() {
    let cluster = Cluster::start().await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 60,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    let v1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let v2 = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = cluster.post(v1, &scaler).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(60))
    );
    let read = cluster.get(&format!("{v2}/h")).await.expect(200);
    assert_eq!(read["apiVersion"], "autoscaling/v2");
    assert_eq!(read["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let list = cluster.get(v1).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 60);
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get(&format!("{PODS}/a/nothing")).await.code, 404);
    assert_eq!(cluster.post(&format!("{PODS}/a"), &json!({})).await.code, 405);
    cluster.stop().await;
}

#[tokio::test]
async fn a_resize_changes_cpu_and_memory_and_nothing_else() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}});
    cluster.post(PODS, &pod).await.expect(201);
    let path = format!("{PODS}/a/resize");
    let patch = |resources: serde_json::Value| json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "j", "resources": resources}]}});
    let more = patch(json!({"requests": {"cpu": "200m"}}));
    let resized = cluster.patch(&path, "strategic-merge-patch", &more).await.expect(200);
    let container = &resized["spec"]["containers"][0];
    assert_eq!(
        (&container["resources"]["requests"]["cpu"], &container["image"]),
        (&json!("200m"), &json!("i"))
    );
    assert_eq!(
        (&resized["metadata"]["labels"], &resized["metadata"]["generation"]),
        (&json!(null), &json!(2))
    );
    let refused =
        cluster.patch(&path, "strategic-merge-patch", &patch(json!({"requests": {"cpu": null}}))).await;
    let message = refused.expect(422)["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("resource requests cannot be removed"), "{message}");
    cluster.stop().await;
}

const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn services_hold_addresses_and_ports_that_nobody_else_gets() {
    let cluster = Cluster::start().await;
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let made = cluster.post(SERVICES, &service("a", "NodePort")).await.expect(201);
    let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.96."), "{address}");
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    assert_eq!(
        (&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv4"]), &json!("SingleStack"))
    );
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
    let claims = "/apis/networking.k8s.io/v1/ipaddresses";
    let claim = cluster.get(&format!("{claims}/{address}")).await.expect(200);
    assert_eq!(
        claim["spec"]["parentRef"],
        json!({"group": "", "resource": "services", "namespace": "default", "name": "a"})
    );

    let mut taken = service("b", "NodePort");
    taken["spec"]["clusterIP"] = json!(address);
    let refused = cluster.post(SERVICES, &taken).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("provided IP is already allocated"), "{refused}");
    let mut taken = service("b", "NodePort");
    taken["spec"]["ports"][0]["nodePort"] = json!(port);
    let refused = cluster.post(SERVICES, &taken).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.ports[0].nodePort");
    assert!(
        refused["message"].as_str().unwrap().ends_with("provided port is already allocated"),
        "{refused}"
    );
    // What the refused Service had claimed before that is free again: only `a` and `kubernetes` hold addresses.
    assert!(cluster.get(claims).await.expect(200)["items"].as_array().unwrap().len() <= 2);

    // An update that leaves out what was allocated keeps it; a change of the type gives it back.
    let kept = cluster.put(&format!("{SERVICES}/a"), &service("a", "NodePort")).await.expect(200);
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], port);
    let narrowed = cluster
        .patch(&format!("{SERVICES}/a"), "merge-patch", &json!({"spec": {"type": "ClusterIP"}}))
        .await
        .expect(200);
    assert_eq!(narrowed["spec"]["ports"][0].get("nodePort"), None);
    let mut free = service("c", "NodePort");
    free["spec"]["ports"][0]["nodePort"] = json!(port);
    cluster.post(SERVICES, &free).await.expect(201);
    cluster.delete(&format!("{SERVICES}/a")).await.expect(200);
    assert_eq!(cluster.get(&format!("{claims}/{address}")).await.code, 404);
    let mut headless = service("d", "ClusterIP");
    headless["spec"]["clusterIP"] = json!("None");
    let headless = cluster.post(SERVICES, &headless).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    cluster.stop().await;
}
