//! Statuses of pods at the moments that people look at.

use serde_json::{Value, json};

use super::*;
use crate::pod::testing::{at, exited, pod, running, view};

fn inputs() -> Inputs {
    Inputs {
        runtime: "docker".into(),
        pod_ips: vec!["10.244.0.2".parse().unwrap()],
        host_ips: vec!["192.168.0.1".parse().unwrap()],
        network_ready: true,
        ..Inputs::default()
    }
}

fn compute(pod: &Pod, view: Option<&PodView>, inputs: &Inputs) -> Value {
    serde_json::to_value(status(pod, view, inputs, None, at(100))).unwrap()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap()
}

#[test]
fn a_running_pod() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let status = compute(&pod, Some(&view(0, true, vec![running(&pod, "a", 0, 10)])), &inputs());
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.244.0.2");
    assert_eq!(status["podIPs"], json!([{"ip": "10.244.0.2"}]));
    assert_eq!(status["hostIPs"], json!([{"ip": "192.168.0.1"}]));
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 1);
    let container = &status["containerStatuses"][0];
    assert_eq!(container["containerID"], "docker://a-0");
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
    assert!(container["state"]["running"]["startedAt"].is_string());
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&status, kind)["status"], "True", "{kind}");
    }
}

#[test]
fn a_pod_before_its_containers() {
    let plain = pod(json!({"containers": [{"name": "a"}]}));
    let status = compute(&plain, None, &Inputs { network_ready: false, pod_ips: vec![], ..inputs() });
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(condition(&status, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(condition(&status, "Ready")["message"], "containers with unready status: [a]");
    let with_init = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
    let status = compute(&with_init, None, &inputs());
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition(&status, "Initialized")["message"], "containers with incomplete status: [i]");
}

#[test]
fn crash_loop() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let crashed = view(0, true, vec![exited(&pod, "a", 2, (10, 20), 7)]);
    let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 20s".into() };
    let with = Inputs { waiting: [("a".to_owned(), waiting)].into(), ..inputs() };
    let status = compute(&pod, Some(&crashed), &with);
    let container = &status["containerStatuses"][0];
    assert_eq!(status["phase"], "Running");
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(container["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(container["restartCount"], 2);
    let again = view(0, true, vec![exited(&pod, "a", 2, (10, 20), 7), running(&pod, "a", 3, 40)]);
    let status = compute(&pod, Some(&again), &inputs());
    let container = &status["containerStatuses"][0];
    assert!(container["state"]["running"].is_object());
    assert_eq!(container["lastState"]["terminated"]["containerID"], "docker://a-2");
}

#[test]
fn completion() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let done = view(0, true, vec![exited(&pod, "a", 0, (10, 20), 0)]);
    let status = compute(&pod, Some(&done), &inputs());
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&status, "Ready")["reason"], "PodCompleted");
    assert_eq!(condition(&status, "Initialized")["reason"], "PodCompleted");
}

#[test]
fn a_rejected_pod() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let verdict =
        Verdict { reason: "OutOfcpu".into(), message: "Pod was rejected: no".into(), rejected: true };
    let status = compute(&pod, None, &Inputs { verdict: Some(verdict), ..inputs() });
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("OutOfcpu")));
    assert!(status.get("containerStatuses").is_none());
}

#[test]
fn times_and_counts_survive() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let up = view(0, true, vec![running(&pod, "a", 3, 10)]);
    let first = status(&pod, Some(&up), &inputs(), None, at(100));
    let second = status(&pod, Some(&up), &inputs(), Some(&first), at(200));
    assert_eq!(first, second, "an unchanged world makes an unchanged status");
    let lost = status(&pod, None, &inputs(), Some(&first), at(300));
    let container = &lost.container_statuses.unwrap()[0];
    assert_eq!(container.restart_count, 3);
}

#[test]
fn a_run_that_vanished_has_ended_somehow() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let up = status(&pod, Some(&view(0, true, vec![running(&pod, "a", 0, 10)])), &inputs(), None, at(100));
    let lost = status(&pod, Some(&view(0, true, vec![])), &inputs(), Some(&up), at(200));
    let again = view(0, true, vec![running(&pod, "a", 1, 210)]);
    let again = status(&pod, Some(&again), &inputs(), Some(&lost), at(300));
    for (seen, doing) in [(lost, "waiting"), (again, "running")] {
        let seen = serde_json::to_value(seen).unwrap();
        assert_eq!(seen["phase"], "Running", "{doing}");
        let container = &seen["containerStatuses"][0];
        assert!(container["state"][doing].is_object(), "{container}");
        let ended = &container["lastState"]["terminated"];
        assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)));
    }
}

#[test]
fn ephemeral_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d"}]}));
    let up = view(0, true, vec![running(&pod, "a", 0, 10), running(&pod, "d", 0, 20)]);
    let first = status(&pod, Some(&up), &inputs(), None, at(100));
    let shown = serde_json::to_value(&first).unwrap();
    let debugger = &shown["ephemeralContainerStatuses"][0];
    assert_eq!((&debugger["ready"], debugger.get("started")), (&json!(false), None));
    assert!(debugger["state"]["running"].is_object());
    assert_eq!(condition(&shown, "Ready")["status"], "True", "they change nothing about readiness");
    let ended = view(0, true, vec![running(&pod, "a", 0, 10), exited(&pod, "d", 0, (20, 30), 3)]);
    let after = compute(&pod, Some(&ended), &inputs());
    assert_eq!(after["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    let lost = view(0, true, vec![running(&pod, "a", 0, 10)]);
    let after = serde_json::to_value(status(&pod, Some(&lost), &inputs(), Some(&first), at(100))).unwrap();
    let state = &after["ephemeralContainerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["reason"], "ContainerStatusUnknown");
}

#[test]
fn an_evicted_pod() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let verdict = Verdict { reason: "Evicted".into(), message: "short".into(), rejected: false };
    let with =
        Inputs { verdict: Some(verdict), disruption: Some("short".into()), finished: true, ..inputs() };
    let status = compute(&pod, Some(&view(0, true, vec![exited(&pod, "a", 0, (10, 20), 0)])), &with);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
    let target = condition(&status, "DisruptionTarget");
    assert_eq!(
        (&target["status"], &target["reason"], &target["message"]),
        (&json!("True"), &json!("TerminationByKubelet"), &json!("short"))
    );
}

#[test]
fn all_containers_restart() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let done = view(0, true, vec![exited(&pod, "a", 0, (10, 20), 0)]);
    let with = |restarting_all| Inputs { restarting_all, ..inputs() };
    let running_still = view(0, true, vec![running(&pod, "a", 0, 10)]);
    let before = status(&pod, Some(&running_still), &with(false), None, at(11));
    let going = status(&pod, Some(&view(0, true, vec![])), &with(true), Some(&before), at(20));
    let shown = serde_json::to_value(&going).unwrap();
    let one = &shown["containerStatuses"][0];
    assert_eq!(one["state"]["waiting"]["reason"], "RestartingAllContainers");
    assert_eq!(one["lastState"]["terminated"]["reason"], "RestartingAllContainers");
    assert_eq!(one["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(condition(&shown, "AllContainersRestarting")["status"], "True");
    // What the new run says of the one before is what was said when that was removed.
    let started = view(0, true, vec![running(&pod, "a", 1, 25)]);
    let next =
        serde_json::to_value(status(&pod, Some(&started), &with(false), Some(&going), at(26))).unwrap();
    assert_eq!(next["containerStatuses"][0]["lastState"], one["lastState"]);
    assert_ne!(shown["phase"], "Failed");
    let again = serde_json::to_value(status(&pod, Some(&done), &with(false), Some(&going), at(30))).unwrap();
    assert_eq!(condition(&again, "AllContainersRestarting")["status"], "False");
}

#[test]
fn readiness_gates() {
    let pod =
        pod(json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "example.com/up"}]}));
    let status = compute(&pod, Some(&view(0, true, vec![running(&pod, "a", 0, 10)])), &inputs());
    assert_eq!(condition(&status, "ContainersReady")["status"], "True");
    assert_eq!(condition(&status, "Ready")["reason"], "ReadinessGatesNotReady");
}

#[test]
fn a_failed_probe_takes_readiness_away() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let with = Inputs { not_ready: ["a".to_owned()].into(), ..inputs() };
    let status = compute(&pod, Some(&view(0, true, vec![running(&pod, "a", 0, 10)])), &with);
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["ready"], false);
    assert_eq!(condition(&status, "Ready")["status"], "False");
}
