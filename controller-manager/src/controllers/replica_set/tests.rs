//! The decisions of the ReplicaSet controller, case by case.

use serde_json::json;

use super::*;

fn set(replicas: u64) -> SetView {
    let bytes = json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "set" },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c" }] } } },
    })
    .to_string();
    SetView::project(bytes.as_bytes(), &ObjectMeta::from_bytes(bytes.as_bytes()))
        .expect("the set must be readable")
}

fn pod(name: &str, change: impl FnOnce(&mut PodView)) -> (Key, Arc<PodView>) {
    let mut pod = PodView {
        uid: name.to_owned(),
        labels: BTreeMap::from([("app".into(), "web".into())]),
        controller: Some("set".into()),
        phase: "Running".into(),
        node: "n1".into(),
        ready_since: Some(time(0)),
        created: Some(time(0)),
        ..PodView::default()
    };
    change(&mut pod);
    (Key::new("ns", name), Arc::new(pod))
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("the second must be in range")
}

fn names(keys: &[(Key, String)]) -> Vec<&str> {
    keys.iter().map(|(key, _)| &*key.name).collect()
}

#[test]
fn creates_what_is_missing_and_ignores_the_dead() {
    let pods = [
        pod("a", |_| {}),
        pod("failed", |pod| pod.phase = "Failed".into()),
        pod("going", |pod| pod.deleting = true),
    ];
    let decision = decide(&set(3), &pods, time(1));
    assert_eq!((decision.create, decision.delete.len()), (2, 0));
    assert_eq!((decision.counts.replicas, decision.counts.terminating), (1, 1));
}

#[test]
fn adopts_matching_orphans_and_releases_strays() {
    let pods = [
        pod("orphan", |pod| pod.controller = None),
        pod("stray", |pod| pod.labels = BTreeMap::new()),
        pod("foreign", |pod| pod.controller = Some("other".into())),
    ];
    let decision = decide(&set(1), &pods, time(1));
    assert_eq!(names(&decision.adopt), ["orphan"]);
    assert_eq!(names(&decision.release), ["stray"]);
    assert_eq!((decision.create, decision.delete.len()), (0, 0));
}

#[test]
fn victims_in_upstreams_order() {
    let pods = [
        pod("old-ready", |_| {}),
        pod("restarted", |pod| pod.restarts = 3),
        pod("cheap", |pod| pod.deletion_cost = -5),
        pod("not-ready", |pod| pod.ready_since = None),
        pod("pending", |pod| {
            pod.phase = "Pending".into();
            pod.ready_since = None;
        }),
        pod("unassigned", |pod| {
            pod.node = String::new();
            pod.phase = "Pending".into();
            pod.ready_since = None;
        }),
    ];
    let decision = decide(&set(0), &pods, time(100));
    assert_eq!(
        names(&decision.delete),
        ["unassigned", "pending", "not-ready", "cheap", "restarted", "old-ready"]
    );
}

#[test]
fn the_crowded_node_and_the_youngest_lose_first() {
    let pods = [
        pod("alone", |pod| pod.node = "n2".into()),
        pod("crowded-old", |_| {}),
        pod("crowded-young", |pod| {
            pod.ready_since = Some(time(90));
            pod.created = Some(time(80));
        }),
    ];
    let decision = decide(&set(1), &pods, time(100));
    assert_eq!(names(&decision.delete), ["crowded-young", "crowded-old"]);
}

#[test]
fn a_deleted_set_neither_creates_nor_adopts() {
    let mut deleting = set(3);
    deleting.deleting = true;
    let decision = decide(&deleting, &[pod("orphan", |pod| pod.controller = None)], time(1));
    assert_eq!((decision.create, decision.adopt.len()), (0, 0));
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut set = set(1);
    set.min_ready = Duration::from_secs(30);
    let pods = [pod("a", |pod| pod.ready_since = Some(time(0)))];
    let early = decide(&set, &pods, time(10));
    assert_eq!((early.counts.available, early.look_again), (0, Some(Duration::from_secs(20))));
    assert_eq!(decide(&set, &pods, time(30)).counts.available, 1);
}

#[test]
fn status_counts_and_failure() {
    let set = set(2);
    let decision = Decision { create: 2, ..Decision::default() };
    let status = next_status(&set, &decision, None, time(0));
    assert_eq!(status["replicas"], 0);
    assert!(status.get("readyReplicas").is_none());
    let error = Error::Config("quota".into());
    let failed = next_status(&set, &decision, Some(&error), time(0));
    assert_eq!(failed["conditions"][0]["reason"], "FailedCreate");
}

proptest::proptest! {
    /// Whatever is there, acting on the decision leads to exactly the wanted number.
    #[test]
    fn decision_converges(replicas in 0_u64..20, count in 0_usize..30, dead in 0_usize..5) {
        let mut pods: Vec<_> = (0..count).map(|index| pod(&format!("p{index}"), |_| {})).collect();
        pods.extend((0..dead).map(|index| pod(&format!("d{index}"), |pod| pod.phase = "Failed".into())));
        let decision = decide(&set(replicas), &pods, time(1));
        proptest::prop_assert_eq!(count + decision.create - decision.delete.len(), replicas as usize);
        proptest::prop_assert!(decision.create == 0 || decision.delete.is_empty());
    }
}
