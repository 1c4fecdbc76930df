//! Representations: tables, partial metadata, YAML, gzip, pretty printing.

use http::Method;
use serde_json::json;

use super::harness::{CONFIG_MAPS, Cluster};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

#[tokio::test]
async fn tables() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", &json!({"k": "v"})).await;
    let table = cluster.get_as(CONFIG_MAPS, TABLE).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    let row = &table["rows"][0];
    assert_eq!(row["cells"][0], "a");
    assert_eq!(
        row["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": a["metadata"]})
    );
    let whole = cluster.get_as(&format!("{CONFIG_MAPS}/a?includeObject=Object"), TABLE).await.expect(200);
    assert_eq!(whole["rows"][0]["object"], a);
    let none = cluster.get_as(&format!("{CONFIG_MAPS}?includeObject=None"), TABLE).await.expect(200);
    assert_eq!(none["rows"][0]["object"], json!(null));
    cluster.stop().await;
}

#[tokio::test]
async fn partial_metadata() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", &json!({"k": "v"})).await;
    let list = cluster.get_as(CONFIG_MAPS, PARTIAL_LIST).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(list["items"][0]["metadata"], a["metadata"]);
    assert_eq!(list["items"][0].get("data"), None);
    let one = cluster.get_as(&format!("{CONFIG_MAPS}/a"), PARTIAL).await.expect(200);
    assert_eq!((&one["kind"], &one["metadata"]), (&json!("PartialObjectMetadata"), &a["metadata"]));
    cluster.stop().await;
}

#[tokio::test]
async fn tables_can_be_watched() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", &json!({})).await;
    let response = cluster
        .request(Method::GET, &format!("{CONFIG_MAPS}?watch=true"), &[("accept", TABLE)], Vec::new())
        .await;
    let mut body = response.into_body();
    let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    let frame: serde_json::Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
    assert_eq!((&frame["type"], &frame["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(frame["object"]["rows"][0]["cells"][0], "a");
    assert!(frame["object"]["columnDefinitions"].is_array());
    drop(body);
    cluster.stop().await;
}

#[tokio::test]
async fn encodings() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", &json!({"k": "v"})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let plain = cluster.get(&path).await;
    assert_eq!(plain.headers["content-type"], "application/json");
    assert!(
        plain.text().starts_with(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#),
        "{}",
        plain.text()
    );
    assert!(plain.text().ends_with("}\n"));
    let pretty = cluster.get(&format!("{path}?pretty=true")).await;
    assert!(
        pretty.text().starts_with("{\n  \"kind\": \"ConfigMap\",\n  \"apiVersion\": \"v1\",\n"),
        "{}",
        pretty.text()
    );
    let yaml = cluster.get_as(&path, "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.text().contains("data:\n  k: v\n"), "{}", yaml.text());
    assert_eq!(cluster.get_as(&path, "application/vnd.kubernetes.protobuf").await.code, 406);
    let fallback = "application/vnd.kubernetes.protobuf,application/json";
    assert_eq!(cluster.get_as(&path, fallback).await.code, 200);
    cluster.stop().await;
}

#[tokio::test]
async fn large_lists_come_whole_in_pieces_and_packed() {
    let cluster = Cluster::start().await;
    let text = "x".repeat(20_000);
    for index in 0..20 {
        cluster.config_map(&format!("m{index:02}"), &json!({"k": text})).await;
    }
    let list = cluster.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
    let packed = cluster.send(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], Vec::new()).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() < 40_000, "{}", packed.bytes.len());
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.bytes[..]), &mut unpacked).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&unpacked).unwrap(), list);
    cluster.stop().await;
}
