//! Discovery and OpenAPI over the wire.

use http::Method;
use serde_json::json;

use super::{golden::golden, harness::Cluster};

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn groups_and_versions() {
    let cluster = Cluster::start().await;
    let api = cluster.get("/api").await.expect(200);
    assert_eq!((&api["kind"], &api["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    let groups = cluster.get("/apis").await.expect(200);
    assert_eq!((&groups["kind"], &groups["apiVersion"]), (&json!("APIGroupList"), &json!("v1")));
    let apps = cluster.get("/apis/apps").await.expect(200);
    assert_eq!(apps, golden("api-group-apps"));
    let autoscaling = cluster.get("/apis/autoscaling").await.expect(200);
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
    assert_eq!(cluster.get("/apis/none").await.code, 404);
    assert_eq!(cluster.get("/apis/apps/v9/deployments").await.code, 404);
    assert_eq!(cluster.get("/api/v1/nothing").await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn resources_of_a_version() {
    let cluster = Cluster::start().await;
    let list = cluster.get("/apis/coordination.k8s.io/v1").await.expect(200);
    assert_eq!(list, golden("api-resources-coordination"));
    cluster.stop().await;
}

#[tokio::test]
async fn aggregated_discovery_has_etags() {
    let cluster = Cluster::start().await;
    let answer = cluster.get_as("/apis", AGGREGATED).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    let list = answer.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    let groups = list["items"].as_array().unwrap();
    let coordination =
        groups.iter().find(|group| group["metadata"]["name"] == "coordination.k8s.io").unwrap();
    assert_eq!(*coordination, golden("aggregated-coordination"));
    let again = cluster
        .send(Method::GET, "/apis", &[("accept", AGGREGATED), ("if-none-match", &etag)], Vec::new())
        .await;
    assert_eq!((again.code, again.bytes.len()), (304, 0));
    cluster.stop().await;
}

#[tokio::test]
async fn openapi_documents() {
    let cluster = Cluster::start().await;
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/coordination.k8s.io/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/coordination.k8s.io/v1?hash="), "{url}");
    let answer = cluster.get(url).await;
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    let document = answer.expect(200);
    assert_eq!(document["openapi"], "3.0.0");
    let patch =
        &document["paths"]["/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(cluster.send(Method::GET, url, &[("if-none-match", &etag)], Vec::new()).await.code, 304);
    let packed = cluster.send(Method::GET, url, &[("accept-encoding", "gzip")], Vec::new()).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let v2 = cluster.get("/openapi/v2").await.expect(200);
    assert_eq!(v2["swagger"], "2.0");
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"].is_string());
    // Old clients ask under a name that Go's media type parser refuses in an answer.
    let answer =
        cluster.get_as("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf").await;
    let protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((answer.code, answer.headers["content-type"].to_str().unwrap()), (200, protobuf));
    // Field 1, length-delimited: the swagger version.
    assert_eq!(&answer.bytes[..5], b"\x0a\x032.0");
    cluster.stop().await;
}
