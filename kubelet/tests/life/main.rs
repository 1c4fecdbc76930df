//! The lives of pods on a whole kubelet: real informers and workers over a small API and a pretending runtime.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fake_api;

use std::{sync::Arc, time::Duration};

use fake_api::FakeApi;
use futures_util::StreamExt;
use kubelet::{Args, RuntimeKind};
use kubelet_runtime::{
    ContainerState, PodRuntime, PodView,
    simulated::{SimulatedOptions, SimulatedRuntime},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NODE: &str = "node-1";

/// A kubelet on its world.
struct World {
    api: FakeApi,
    runtime: Arc<SimulatedRuntime>,
    root: tempfile::TempDir,
    running: Option<(CancellationToken, JoinHandle<Result<(), kubelet::Error>>)>,
}

impl World {
    fn new() -> Self {
        let mut world = Self::asleep();
        world.start();
        world
    }

    /// Before its kubelet starts.
    fn asleep() -> Self {
        let options = SimulatedOptions {
            first_address: Some([10, 244, 0, 2].into()),
            address_count: 200,
            ..SimulatedOptions::default()
        };
        Self {
            api: FakeApi::new(),
            runtime: Arc::new(SimulatedRuntime::new(options)),
            root: tempfile::tempdir().unwrap(),
            running: None,
        }
    }

    fn start(&mut self) {
        let args = Args {
            hostname_override: Some(NODE.to_owned()),
            container_runtime: Some(RuntimeKind::Simulated),
            root_dir: Some(self.root.path().to_owned()),
            pod_manifest_path: Some(self.root.path().join("manifests")),
            ..Args::default()
        };
        let shutdown = CancellationToken::new();
        let runtime: Arc<dyn PodRuntime> = self.runtime.clone();
        let run = kubelet::run_on(args.resolve().unwrap(), self.api.client(), runtime, shutdown.clone());
        self.running = Some((shutdown, tokio::spawn(run)));
    }

    /// Ends the kubelet; its tasks must all end.
    async fn stop(&mut self) {
        let (shutdown, task) = self.running.take().expect("the kubelet must be running");
        shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), task).await;
        ended.expect("every task must end at shutdown").unwrap().unwrap();
    }

    fn create(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        for container in spec["containers"].as_array_mut().unwrap() {
            container["image"] = json!("busybox:1");
        }
        let path = path(name);
        self.api.put(
            &path,
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "uid": uid(name), "generation": 1},
                "spec": spec,
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
        );
        path
    }

    /// Deletes gracefully, as the API server does.
    fn delete(&self, name: &str) {
        let mut pod = self.api.get(&path(name)).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
        self.api.put(&path(name), pod);
    }

    /// Waits until the runtime has a pod of that name whose container runs, in that attempt.
    async fn runs(&self, name: &str, attempt: u32) -> PodView {
        let look = async || {
            let all = self.runtime.list().await.unwrap();
            all.into_iter().find(|view| {
                view.pod.name == name
                    && view.containers.iter().any(|run| {
                        run.attempt == attempt && matches!(run.state, ContainerState::Running { .. })
                    })
            })
        };
        let found = async {
            let mut events = self.runtime.events().await.unwrap();
            loop {
                if let Some(view) = look().await {
                    return view;
                }
                events.next().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect("the pod must run")
    }

    async fn phase(&self, path: &str, phase: &str) {
        self.api.until(path, phase, |pod| pod.is_some_and(|pod| pod["status"]["phase"] == phase)).await;
    }

    async fn gone(&self, path: &str) {
        self.api.until(path, "gone", |pod| pod.is_none()).await;
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn uid(name: &str) -> String {
    format!("uid-{name}")
}

fn container(pod: Option<&Value>) -> Value {
    pod.map(|pod| pod["status"]["containerStatuses"][0].clone()).unwrap_or_default()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array().unwrap();
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_node_and_a_pod_from_start_to_end() {
    let mut world = World::new();
    let node = format!("/api/v1/nodes/{NODE}");
    let is_ready = |node: &Value| {
        node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    world.api.until(&node, "ready", |node| node.is_some_and(is_ready)).await;
    // Somebody lost sight of it for a while: it says at once that it is well, though nothing about it has changed.
    let mut lost = world.api.get(&node).unwrap();
    for condition in lost["status"]["conditions"].as_array_mut().unwrap() {
        condition["status"] = json!("Unknown");
    }
    world.api.put(&node, lost);
    world.api.until(&node, "ready again", |node| node.is_some_and(is_ready)).await;
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}");
    world.api.until(&lease, "there", |lease| lease.is_some()).await;

    let pod = world.create("web", json!({"containers": [{"name": "a"}]}));
    world.phase(&pod, "Running").await;
    let ready = |pod: Option<&Value>| pod.is_some_and(|pod| condition(pod, "Ready")["status"] == "True");
    world.api.until(&pod, "ready", ready).await;
    let found = world.api.get(&pod).unwrap();
    assert!(found["status"]["podIP"].as_str().unwrap().starts_with("10.244.0."));
    assert_eq!(found["status"]["observedGeneration"], 1);
    let scheduled = condition(&found, "PodScheduled");
    assert_eq!(
        scheduled["lastTransitionTime"], "2026-01-01T00:00:00Z",
        "the scheduler's condition stays as it was"
    );

    world.delete("web");
    world.gone(&pod).await;
    world.create("next", json!({"containers": [{"name": "a"}]}));
    world.phase(&path("next"), "Running").await;
    assert!(
        world
            .runtime
            .pod(&uid("web"))
            .await
            .unwrap()
            .is_none_or(|view| view.sandboxes.iter().all(|sandbox| !sandbox.ready))
    );
    let reasons: Vec<String> = world.api.events().into_iter().map(|(reason, _)| reason).collect();
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(reasons.iter().any(|known| known == reason), "{reason} is missing in {reasons:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_restarted_kubelet_finds_its_world_again() {
    let mut world = World::new();
    let kept = world.create("kept", json!({"containers": [{"name": "a"}]}));
    let deleted = world.create("deleted", json!({"containers": [{"name": "a"}]}));
    world.phase(&kept, "Running").await;
    world.phase(&deleted, "Running").await;
    let before = world.runtime.pod(&uid("kept")).await.unwrap().unwrap();
    world.stop().await;
    world.api.remove(&deleted);
    world.start();
    let fresh = world.create("fresh", json!({"containers": [{"name": "a"}]}));
    world.phase(&fresh, "Running").await;
    let after = world.runtime.pod(&uid("kept")).await.unwrap().unwrap();
    assert_eq!(before, after, "a running pod does not notice");
    let orphan_gone = async {
        while world.runtime.pod(&uid("deleted")).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), orphan_gone).await.expect("the orphan must be removed");
    assert_eq!(container(world.api.get(&kept).as_ref())["restartCount"], 0);
    world.stop().await;
}

#[tokio::test]
async fn exits_follow_the_restart_policy() {
    let mut world = World::new();
    let never = world.create("never", json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    world.phase(&never, "Running").await;
    world.runtime.finish(&uid("never"), "a", 3).unwrap();
    world.phase(&never, "Failed").await;
    let ended = container(world.api.get(&never).as_ref());
    assert_eq!(ended["state"]["terminated"]["exitCode"], 3);

    let always = world.create("always", json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    world.phase(&always, "Running").await;
    world.runtime.finish(&uid("always"), "a", 1).unwrap();
    let restarted = |pod: Option<&Value>| {
        let status = container(pod);
        status["restartCount"] == 1
            && status["state"]["running"].is_object()
            && status["lastState"]["terminated"]["exitCode"] == 1
    };
    world.api.until(&always, "restarted at once", restarted).await;
    world.runtime.finish(&uid("always"), "a", 1).unwrap();
    let backs_off = |pod: Option<&Value>| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    world.api.until(&always, "backing off", backs_off).await;
    let waiting = container(world.api.get(&always).as_ref());
    let message = "back-off 10s restarting failed container=a pod=always_default(uid-always)";
    assert_eq!(waiting["state"]["waiting"]["message"], message);
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let mut world = World::new();
    let refused = world.create("refused", json!({"hostUsers": false, "containers": [{"name": "a"}]}));
    world.phase(&refused, "Failed").await;
    let status = world.api.get(&refused).unwrap()["status"].clone();
    assert_eq!(status["reason"], "UnsupportedField");
    assert_eq!(status["message"], "Pod was rejected: field spec.hostUsers is not supported by this node");
    world.delete("refused");
    world.gone(&refused).await;

    let waits = world.create(
        "waits",
        json!({"containers": [{"name": "a", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]}]}),
    );
    let reason =
        |pod: Option<&Value>| container(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    world.api.until(&waits, "waiting for its ConfigMap", reason).await;
    let waiting = container(world.api.get(&waits).as_ref());
    assert_eq!(waiting["state"]["waiting"]["message"], "configmap \"none\" not found");
    world.stop().await;
}

/// What a pod was given is not what it asks for: a kubelet that starts in between must not mix them up.
#[tokio::test]
async fn a_resize_that_was_not_granted_is_not_granted_by_a_restart() {
    let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let mut world = World::new();
    let pod = world.create("grows", json!({"containers": [{"name": "a", "resources": cpu("100m")}]}));
    world.phase(&pod, "Running").await;
    let ask = |world: &World, amount: &str| {
        let mut object = world.api.get(&pod).unwrap();
        object["spec"]["containers"][0]["resources"] = cpu(amount);
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        world.api.put(&pod, object);
    };
    let given = |object: &Value| container(Some(object))["allocatedResources"]["cpu"].clone();
    let pending = |object: &Value| condition(object, "PodResizePending")["reason"].clone();
    let becomes = async |world: &World, amount: &str, reason: Value| {
        let holds = |object: Option<&Value>| {
            object.is_some_and(|object| {
                given(object) == amount
                    && pending(object) == reason
                    && object["status"]["observedGeneration"] == object["metadata"]["generation"]
            })
        };
        world.api.until(&pod, &format!("given {amount}, {reason}"), holds).await;
    };
    ask(&world, "200m");
    becomes(&world, "200m", Value::Null).await;
    ask(&world, "100000");
    becomes(&world, "200m", json!("Infeasible")).await;

    // The API forgot what it was told, as one that was restored from a backup; and another wish came meanwhile.
    world.stop().await;
    let mut object = world.api.get(&pod).unwrap();
    let forgotten = &mut object["status"]["containerStatuses"][0];
    for field in ["resources", "allocatedResources"] {
        forgotten.as_object_mut().unwrap().remove(field);
    }
    object["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .retain(|known| known["type"] != "PodResizePending");
    world.api.put(&pod, object);
    ask(&world, "200000");
    world.start();
    becomes(&world, "200m", json!("Infeasible")).await;

    // A damaged file: what the API was told counts.
    world.stop().await;
    let file = world.root.path().join("pods").join(uid("grows")).join("allocated.json");
    std::fs::write(&file, "{\"spec\":").unwrap();
    world.start();
    let fresh = world.create("fresh", json!({"containers": [{"name": "a"}]}));
    world.phase(&fresh, "Running").await;
    ask(&world, "150m");
    becomes(&world, "150m", Value::Null).await;
    ask(&world, "100000");
    becomes(&world, "150m", json!("Infeasible")).await;
    assert_eq!(container(world.api.get(&pod).as_ref())["restartCount"], 0);

    world.delete("grows");
    world.gone(&pod).await;
    world.stop().await;
    world.start();
    world.create("last", json!({"containers": [{"name": "a"}]}));
    world.phase(&path("last"), "Running").await;
    assert!(!file.exists(), "what a pod was given goes with it");
    world.stop().await;
}

/// A kubelet whose API server does not answer: static pods start, and nothing that runs is disturbed.
#[tokio::test]
async fn static_pods_need_no_api_server() {
    let mut world = World::asleep();
    let manifests = world.root.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: still}\nspec: {containers: [{name: a, image: 'busybox:1'}]}\n";
    std::fs::write(manifests.join("still.yaml"), manifest).unwrap();
    let picky = manifest.replace("still", "picky").replace("spec: {", "spec: {nodeSelector: {disk: ssd}, ");
    std::fs::write(manifests.join("picky.yaml"), picky).unwrap();
    let (name, node) = (format!("still-{NODE}"), format!("/api/v1/nodes/{NODE}"));
    // Somebody has labelled the node when it was here before, and a pod was bound to it meanwhile.
    world.api.put(&node, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "uid": "n", "labels": {"disk": "ssd"}}}));
    let chosen =
        world.create("chosen", json!({"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "a"}]}));
    let mirror = path(&name);
    world.api.set_away(true);
    world.start();
    let first = world.runs(&name, 0).await;
    let unheard = world.api.get(&node).unwrap();
    assert!(unheard.get("status").is_none() && world.api.get(&mirror).is_none());

    world.api.set_away(false);
    world.phase(&mirror, "Running").await;
    world.phase(&chosen, "Running").await;
    world.phase(&path(&format!("picky-{NODE}")), "Running").await;
    let owner = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"].clone();
    let node_uid = |world: &World| world.api.get(&node).unwrap()["metadata"]["uid"].clone();
    assert_eq!(owner(&world.api.get(&mirror).unwrap()), node_uid(&world));
    let pod = world.create("other", json!({"containers": [{"name": "a"}]}));
    world.phase(&pod, "Running").await;
    let other = world.runs("other", 0).await;

    world.stop().await;
    world.api.set_away(true);
    world.start();
    std::fs::write(manifests.join("second.yaml"), manifest.replace("still", "second")).unwrap();
    world.runs(&format!("second-{NODE}"), 0).await;
    world.runtime.finish(&first.pod.uid, "a", 1).unwrap();
    world.runs(&name, 1).await;
    assert_eq!(world.runs("other", 0).await, other, "what runs goes on running");
    world.api.set_away(false);
    let restarted = |pod: Option<&Value>| container(pod)["restartCount"] == 1;
    world.api.until(&mirror, "restarted once", restarted).await;
    world.phase(&path(&format!("second-{NODE}")), "Running").await;

    // The node's object is deleted: it comes again, and so does what it owns.
    let before = node_uid(&world);
    world.api.remove(&node);
    let another = |node: Option<&Value>| node.is_some_and(|node| node["metadata"]["uid"] != before);
    world.api.until(&node, "another one", another).await;
    let ready = |node: Option<&Value>| node.is_some_and(|node| condition(node, "Ready")["status"] == "True");
    world.api.until(&node, "ready again", ready).await;
    world.api.remove(&mirror);
    let after = node_uid(&world);
    world.api.until(&mirror, "of the new node", |pod| pod.is_some_and(|pod| owner(pod) == after)).await;
    assert_eq!(world.runs("other", 0).await, other, "its pods do not notice");
    world.stop().await;
}
