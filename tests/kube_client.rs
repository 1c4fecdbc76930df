//! The `kube` crate as a client: an implementation of the protocol that is not ours.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{
        AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    config::Kubeconfig,
};
use serde_json::json;

use crate::harness::{Cluster, IMAGE, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn kube_does_everything_a_client_does() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster = Cluster::start(&[]);
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("the kubeconfig must be readable");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("it must be usable");
    let client = Client::try_from(config).expect("a client must be had");
    let scenario = async {
        config_maps(&client).await;
        pods(&client).await;
    };
    tokio::time::timeout(PATIENCE, scenario).await.expect("the scenario must end in time");
}

async fn config_maps(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = |name: &str| -> ConfigMap {
        serde_json::from_value(
            json!({ "metadata": { "name": name, "labels": { "set": "kube" } }, "data": { "a": "1" } }),
        )
        .expect("the map must be valid")
    };
    let created = maps.create(&PostParams::default(), &map("one")).await.expect("create");
    let taken = maps.create(&PostParams::default(), &map("one")).await.expect_err("the name is taken");
    assert!(matches!(taken, kube::Error::Api(status) if status.is_already_exists()));

    let mut changed = created.clone();
    changed.data.get_or_insert_default().insert("a".into(), "2".into());
    let replaced = maps.replace("one", &PostParams::default(), &changed).await.expect("replace");
    let stale =
        maps.replace("one", &PostParams::default(), &changed).await.expect_err("the version is stale");
    assert!(matches!(stale, kube::Error::Api(status) if status.is_conflict()));

    let version = replaced.metadata.resource_version.clone().expect("an object must have a version");
    let watch = maps.watch(&WatchParams::default().labels("set=kube"), &version).await.expect("watch");
    let patch = json!({ "data": { "b": "3" } });
    maps.patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
    maps.create(&PostParams::default(), &map("two")).await.expect("create");
    maps.delete("one", &DeleteParams::default()).await.expect("delete");
    let events: Vec<String> = watch
        .take(3)
        .map_ok(|event| match event {
            WatchEvent::Added(map) => format!("added {}", map.metadata.name.unwrap_or_default()),
            WatchEvent::Modified(map) => format!("modified {}", map.data.unwrap_or_default().len()),
            WatchEvent::Deleted(map) => format!("deleted {}", map.metadata.name.unwrap_or_default()),
            other => format!("{other:?}"),
        })
        .try_collect()
        .await
        .expect("the watch must go on");
    assert_eq!(events, ["modified 2", "added two", "deleted one"]);

    let page = maps.list(&ListParams::default().limit(1)).await.expect("list");
    assert_eq!(page.items.len(), 1);
    let next = page.metadata.continue_.expect("there must be a second page");
    let rest = maps.list(&ListParams::default().continue_token(&next)).await.expect("list");
    let names: Vec<_> =
        page.items.iter().chain(&rest.items).filter_map(|map| map.metadata.name.as_deref()).collect();
    assert_eq!(names, ["kube-root-ca.crt", "two"]);
}

async fn pods(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "talker" },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "main", "image": IMAGE,
            "command": ["sh", "-c", "echo first; sleep 100000"] }] },
    }))
    .expect("the pod must be valid");
    pods.create(&PostParams::default(), &pod).await.expect("create");
    kube::runtime::wait::await_condition(
        pods.clone(),
        "talker",
        kube::runtime::wait::conditions::is_pod_running(),
    )
    .await
    .expect("the pod must run");
    let mut log = String::new();
    while log.is_empty() {
        // The container runs before its first line is written.
        log = pods.logs("talker", &LogParams::default()).await.expect("logs");
    }
    assert_eq!(log, "first\n");

    let mut process = pods
        .exec("talker", ["sh", "-c", "cat; exit 7"], &AttachParams::default().stdin(true).stderr(false))
        .await
        .expect("exec");
    let mut input = process.stdin().expect("there must be an input");
    let output = process.stdout().expect("there must be an output");
    tokio::io::AsyncWriteExt::write_all(&mut input, b"over and back").await.expect("the input must be taken");
    // Dropping the writer does not end a simplex stream; shutting it down does.
    tokio::io::AsyncWriteExt::shutdown(&mut input).await.expect("the input must end");
    let mut text = String::new();
    let mut output = output;
    tokio::io::AsyncReadExt::read_to_string(&mut output, &mut text).await.expect("the output must come");
    assert_eq!(text, "over and back");
    let status = process.take_status().expect("there must be a status").await.expect("the status must come");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));

    let uid = pods.get("talker").await.expect("get").metadata.uid.expect("a pod must have a uid");
    pods.delete("talker", &DeleteParams::default()).await.expect("delete");
    kube::runtime::wait::await_condition(pods, "talker", kube::runtime::wait::conditions::is_deleted(&uid))
        .await
        .expect("the pod must go");
}
