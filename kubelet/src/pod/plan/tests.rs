//! The planner against the documented life of a pod, and a property: it always comes to rest.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pod::testing::{at, exited, pod, running, view};

fn decide(pod: &Pod, view: Option<&PodView>) -> Plan {
    plan(pod, view, &Inputs::default(), &BackOff::default(), at(100))
}

fn starts(plan: &Plan) -> Vec<(&str, u32)> {
    plan.start.iter().map(|start| (start.name.as_str(), start.attempt)).collect()
}

#[test]
fn a_new_pod_gets_a_sandbox_and_all_containers_in_order() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let plan = decide(&pod, None);
    assert_eq!(plan.create_sandbox, Some(0));
    assert!(!plan.reset);
    assert_eq!(starts(&plan), [("a", 0), ("b", 0)]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]}));
    assert_eq!(starts(&decide(&pod, None)), [("i", 0)]);
    let running_first = view(0, true, vec![running(&pod, "i", 0, 0)]);
    assert!(decide(&pod, Some(&running_first)).is_idle());
    let first_done = view(0, true, vec![exited(&pod, "i", 0, (0, 1), 0)]);
    assert_eq!(starts(&decide(&pod, Some(&first_done))), [("j", 0)]);
    let both_done = view(0, true, vec![exited(&pod, "i", 0, (0, 1), 0), exited(&pod, "j", 0, (1, 2), 0)]);
    assert_eq!(starts(&decide(&pod, Some(&both_done))), [("a", 0)]);
    let failed = view(0, true, vec![exited(&pod, "i", 0, (0, 1), 3)]);
    assert_eq!(starts(&decide(&pod, Some(&failed))), [("i", 1)]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod(
        json!({"restartPolicy": "Never", "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}),
    );
    assert!(decide(&pod, Some(&view(0, true, vec![exited(&pod, "i", 0, (0, 1), 1)]))).finished);
}

#[test]
fn sidecars_start_before_and_keep_running() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
        "initContainers": [{"name": "s", "restartPolicy": "Always"}]}));
    assert_eq!(starts(&decide(&pod, None)), [("s", 0)]);
    let up = view(0, true, vec![running(&pod, "s", 0, 0)]);
    assert_eq!(starts(&decide(&pod, Some(&up))), [("a", 0)]);
    let crashed = view(0, true, vec![exited(&pod, "s", 0, (0, 5), 1), running(&pod, "a", 0, 1)]);
    assert_eq!(starts(&decide(&pod, Some(&crashed))), [("s", 1)]);
    let done = view(0, true, vec![running(&pod, "s", 0, 0), exited(&pod, "a", 0, (0, 5), 0)]);
    assert!(decide(&pod, Some(&done)).finished, "a sidecar does not keep a pod alive");
}

#[test]
fn restart_policies_and_counts() {
    let with = |policy| pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
    for (policy, code, expected) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 1, false),
    ] {
        let pod = with(policy);
        let plan = decide(&pod, Some(&view(0, true, vec![exited(&pod, "a", 4, (0, 50), code)])));
        assert_eq!(plan.finished, !expected, "{policy} {code}");
        assert_eq!(starts(&plan), if expected { vec![("a", 5)] } else { vec![] });
    }
}

#[test]
fn a_second_crash_waits() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut backoff = BackOff::default();
    backoff.advance(&backoff_key(&spec(&pod).containers[0]), at(90), at(90));
    let crashed = view(0, true, vec![exited(&pod, "a", 1, (91, 96), 1)]);
    let decided = plan(&pod, Some(&crashed), &Inputs::default(), &backoff, at(100));
    assert!(decided.is_idle());
    assert_eq!(decided.backing_off, [("a".to_owned(), Duration::from_secs(6))]);
    assert_eq!(decided.wake_after, Some(Duration::from_secs(6)));
    assert_eq!(starts(&plan(&pod, Some(&crashed), &Inputs::default(), &backoff, at(106))), [("a", 2)]);
}

#[test]
fn a_dead_sandbox_takes_all_with_it() {
    let pod = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
    let dead = view(0, false, vec![exited(&pod, "i", 0, (0, 1), 0), running(&pod, "a", 2, 5)]);
    let plan = decide(&pod, Some(&dead));
    assert!(plan.reset);
    assert_eq!(plan.create_sandbox, Some(1));
    assert_eq!(starts(&plan), [("i", 1)], "init containers run again in a new sandbox");
    let replaced = view(1, true, vec![exited(&pod, "i", 0, (0, 1), 0), exited(&pod, "a", 2, (5, 9), 137)]);
    assert_eq!(starts(&decide(&pod, Some(&replaced))), [("i", 1)]);
}

#[test]
fn a_finished_pod_gets_no_new_sandbox() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let plan = decide(&pod, Some(&view(0, false, vec![exited(&pod, "a", 0, (0, 1), 0)])));
    assert!(plan.finished);
    assert_eq!(plan.create_sandbox, None);
}

#[test]
fn unhealthy_and_changed_containers_are_killed() {
    let before = pod(json!({"containers": [{"name": "a"}]}));
    let up = view(0, true, vec![running(&before, "a", 1, 5)]);
    let failed = |attempt| Inputs {
        unhealthy: [("a".to_owned(), (attempt, Unhealthy::Liveness))].into(),
        ..Inputs::default()
    };
    let decided = plan(&before, Some(&up), &failed(1), &BackOff::default(), at(100));
    assert_eq!(decided.kill[0].message, "Container a failed liveness probe, will be restarted");
    assert!(
        plan(&before, Some(&up), &failed(0), &BackOff::default(), at(100)).is_idle(),
        "an old run's verdict"
    );
    let after = pod(json!({"containers": [{"name": "a", "image": "busybox:2"}]}));
    assert_eq!(
        decide(&after, Some(&up)).kill[0].message,
        "Container a definition changed, will be restarted"
    );
}

#[test]
fn ephemeral_containers_run_once() {
    let pod = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}],
        "ephemeralContainers": [{"name": "d"}]}));
    let initializing = view(0, true, vec![running(&pod, "i", 0, 0)]);
    assert_eq!(starts(&decide(&pod, Some(&initializing))), [("d", 0)], "it need not wait for the others");
    let mains = || vec![exited(&pod, "i", 0, (0, 1), 0), running(&pod, "a", 0, 1)];
    for (run, code) in [(running(&pod, "d", 0, 2), "running"), (exited(&pod, "d", 0, (2, 3), 1), "failed")] {
        let world = view(0, true, [mains(), vec![run]].concat());
        assert!(decide(&pod, Some(&world)).is_idle(), "{code}");
    }
    let inputs = Inputs { restart_floor: [("d".to_owned(), 1)].into(), ..Inputs::default() };
    let forgotten = plan(&pod, Some(&view(0, true, mains())), &inputs, &BackOff::default(), at(9));
    assert!(forgotten.is_idle(), "what the API has seen running does not run again");
}

#[test]
fn one_container_s_end_restarts_all() {
    let pod = pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"},
        {"name": "w", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]}]}),
    );
    let ended = |code| {
        let runs = vec![
            exited(&pod, "i", 0, (0, 1), 0),
            exited(&pod, "a", 0, (1, 2), 0),
            exited(&pod, "w", 0, (1, 3), code),
        ];
        view(0, true, runs)
    };
    let decided = decide(&pod, Some(&ended(88)));
    assert_eq!((decided.restart_all.as_deref(), decided.finished), (Some("w"), false));
    assert!(decide(&pod, Some(&ended(1))).finished, "another code is an ordinary end");
    let inputs =
        Inputs { restart_floor: [("i".to_owned(), 1), ("a".to_owned(), 1)].into(), ..Inputs::default() };
    let cleared = plan(&pod, Some(&view(0, true, vec![])), &inputs, &BackOff::default(), at(9));
    assert_eq!(starts(&cleared), [("i", 1)], "in the same sandbox, from the first init container on");
}

#[test]
fn a_container_s_own_policy_decides() {
    let pod = pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "restartPolicy": "OnFailure"}],
        "containers": [{"name": "a", "restartPolicy": "OnFailure"}, {"name": "b"}]}),
    );
    assert_eq!(
        starts(&decide(&pod, Some(&view(0, true, vec![exited(&pod, "i", 0, (0, 1), 1)])))),
        [("i", 1)]
    );
    let done = |a, b| {
        let runs = vec![
            exited(&pod, "i", 0, (0, 1), 0),
            exited(&pod, "a", 0, (1, 2), a),
            exited(&pod, "b", 0, (1, 2), b),
        ];
        view(0, true, runs)
    };
    assert_eq!(starts(&decide(&pod, Some(&done(1, 1)))), [("a", 1)]);
    assert!(decide(&pod, Some(&done(0, 1))).finished);
}

#[test]
fn the_restart_count_survives_a_lost_runtime() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let inputs = Inputs { restart_floor: [("a".to_owned(), 7)].into(), ..Inputs::default() };
    assert_eq!(starts(&plan(&pod, None, &inputs, &BackOff::default(), at(0))), [("a", 7)]);
}

proptest! {
    /// Whatever the state of things, carrying out plans comes to rest within a few rounds, never starts an
    /// attempt twice, and never starts a main container before the init containers are done.
    #[test]
    fn plans_come_to_rest(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        inits in prop::collection::vec(any::<bool>(), 0..3),
        mains in 1usize..4,
        sandbox in prop::option::of(any::<bool>()),
        codes in prop::collection::vec(prop::option::of(0i32..3), 6),
    ) {
        let init: Vec<_> = inits.iter().enumerate().map(|(index, sidecar)| {
            if *sidecar { json!({"name": format!("i{index}"), "restartPolicy": "Always"}) }
            else { json!({"name": format!("i{index}")}) }
        }).collect();
        let main: Vec<_> = (0..mains).map(|index| json!({"name": format!("m{index}")})).collect();
        let pod = pod(json!({"restartPolicy": policy, "initContainers": init, "containers": main}));
        let mut world = sandbox.map(|ready| {
            let runs = super::super::all_containers(&pod).zip(&codes).filter_map(|(container, code)| {
                code.map(|code| if code == 0 && ready { running(&pod, &container.name, 0, 1) }
                    else { exited(&pod, &container.name, 0, (1, 2), code) })
            }).collect();
            view(0, ready, runs)
        });
        for _ in 0..12 {
            let decided = decide(&pod, world.as_ref());
            if decided.finished || decided.is_idle() {
                return Ok(());
            }
            let mut next = world.clone().unwrap_or_else(|| view(0, false, vec![]));
            if decided.reset {
                for run in &mut next.containers {
                    if matches!(run.state, ContainerState::Running { .. }) {
                        *run = exited(&pod, &run.name, run.attempt, (1, 3), 137);
                    }
                }
            }
            if let Some(attempt) = decided.create_sandbox {
                next.sandboxes = view(attempt, true, vec![]).sandboxes;
            }
            for start in &decided.start {
                prop_assert!(!next.containers.iter().any(|run| run.name == start.name && run.attempt == start.attempt));
                let is_init = super::super::is_init(&pod, &start.name);
                let sidecar = super::super::container(&pod, &start.name).is_some_and(is_sidecar);
                if !is_init {
                    let world_now = Some(&next);
                    prop_assert!(initialized(&pod, world_now, &Inputs::default()));
                }
                let mut run = if is_init && !sidecar { exited(&pod, &start.name, start.attempt, (4, 5), 0) }
                    else { running(&pod, &start.name, start.attempt, 4) };
                let attempt = next.sandboxes[0].attempt;
                run.annotations.insert(SANDBOX_ANNOTATION.to_owned(), attempt.to_string());
                next.containers.push(run);
            }
            world = Some(next);
        }
        prop_assert!(false, "no rest after twelve rounds: {:?}", decide(&pod, world.as_ref()));
    }
}
