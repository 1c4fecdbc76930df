//! What upstream's validation says to typical mistakes; texts from its documentation and sources.

use api_objects::schema::{self, FieldValidation};
use api_objects::{Resource, Value, resource};
use serde_json::json;

use super::*;

fn row(name: &str) -> &'static Resource {
    resource::find_by_any_name(name).unwrap()
}

/// An object as it reaches validation: checked, with defaults and a name.
fn complete(resource: &Resource, mut object: Value) -> Value {
    schema::check(schema::for_resource(resource), &mut object, FieldValidation::Strict).unwrap();
    schema::apply_defaults(resource, &mut object);
    object
}

fn on_create(name: &str, object: Value) -> Vec<String> {
    let object = complete(row(name), object);
    validate_create(row(name), &object).iter().map(ToString::to_string).collect()
}

fn on_update(name: &str, old: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let old = complete(row(name), old.clone());
    let mut new = old.clone();
    change(&mut new);
    validate_update(row(name), "", &new, &old).iter().map(ToString::to_string).collect()
}

fn pod() -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "a", "image": "nginx"}]}})
}

/// A pod with other fields in its spec, and in its first container.
fn pod_with(spec: &Value, container: &Value) -> Value {
    let mut pod = pod();
    for (name, value) in spec.as_object().unwrap() {
        pod["spec"][name] = value.clone();
    }
    for (name, value) in container.as_object().unwrap() {
        pod["spec"]["containers"][0][name] = value.clone();
    }
    pod
}

#[test]
fn good_objects_have_nothing_wrong() {
    assert_eq!(on_create("pods", pod()), [""; 0]);
    let meta = json!({"name": "a", "namespace": "default"});
    assert_eq!(on_create("configmaps", json!({"metadata": meta, "data": {"game.properties": "x"}})), [""; 0]);
    assert_eq!(on_create("secrets", json!({"metadata": meta, "data": {"a": "YQ=="}})), [""; 0]);
    assert_eq!(on_create("namespaces", json!({"metadata": {"name": "dev"}})), [""; 0]);
    assert_eq!(
        on_create("nodes", json!({"metadata": {"name": "node-1"}, "status": {"capacity": {"cpu": "2"}}})),
        [""; 0]
    );
    assert_eq!(
        on_create(
            "services",
            json!({"metadata": meta, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
        ),
        [""; 0]
    );
    let set = json!({"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    assert_eq!(on_create("replicasets", set.clone()), [""; 0]);
    assert_eq!(on_create("deployments", set), [""; 0]);
    assert_eq!(
        on_create(
            "clusterroles",
            json!({"metadata": {"name": "system:x"}, "rules": [{"nonResourceURLs": ["/"], "verbs": ["get"]}]})
        ),
        [""; 0]
    );
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let name = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    assert_eq!(
        on_create("configmaps", name("Game_Demo")),
        [
            "metadata.name: Invalid value: \"Game_Demo\": a lowercase RFC 1123 subdomain must consist of lower case \
          alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
          'example.com', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(
        on_create("configmaps", json!({"metadata": {"namespace": "default"}})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    assert_eq!(on_create("roles", name("system:x")), [""; 0]);
    assert_eq!(
        on_create("configmaps", json!({"metadata": {"name": "a"}})),
        ["metadata.namespace: Required value"]
    );
    assert_eq!(
        on_create("namespaces", json!({"metadata": {"name": "a", "namespace": "b"}})),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    let labels = on_create(
        "configmaps",
        json!({"metadata": {"name": "a", "namespace": "b", "labels": {"a": "x y", "-": ""}}}),
    );
    assert_eq!(labels.len(), 2);
    assert!(
        labels
            .iter()
            .any(|error| error.starts_with("metadata.labels: Invalid value: \"x y\": a valid label must be"))
    );
    assert!(
        labels
            .iter()
            .any(|error| error.starts_with("metadata.labels: Invalid value: \"-\": name part must consist"))
    );
    let large =
        json!({"metadata": {"name": "a", "namespace": "b", "annotations": {"a": "x".repeat(262_144)}}});
    assert_eq!(
        on_create("configmaps", large),
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true},
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b", "uid": "", "controller": true}]);
    let errors = on_create(
        "configmaps",
        json!({"metadata": {"name": "a", "namespace": "b", "ownerReferences": owners}}),
    );
    assert_eq!(errors[0], "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty");
    assert!(errors[1].ends_with(
        "Only one reference can have Controller set to true. Found \"true\" in references for Pod/a and ReplicaSet/b"
    ));
}

#[test]
fn metadata_that_must_stay() {
    let object = json!({"metadata": {"name": "a", "namespace": "b", "uid": "1"}});
    assert_eq!(
        on_update("configmaps", &object, |new| new["metadata"]["uid"] = "2".into()),
        ["metadata.uid: Invalid value: \"2\": field is immutable"]
    );
    let dying = json!({"metadata": {"name": "a", "namespace": "b", "deletionTimestamp": "2026-11-21T10:00:00Z",
        "finalizers": ["x.io/y"]}});
    assert_eq!(
        on_update("configmaps", &dying, |new| new["metadata"]["finalizers"] = json!(["x.io/y", "x.io/z"])),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers []string{\"x.io/z\"}"
        ]
    );
    assert_eq!(on_update("configmaps", &dying, |new| new["metadata"]["finalizers"] = json!([])), [""; 0]);
}

#[test]
fn containers() {
    let of = |container: Value| on_create("pods", pod_with(&json!({}), &container));
    assert_eq!(
        of(json!({"name": "", "image": ""})),
        ["spec.containers[0].name: Required value", "spec.containers[0].image: Required value",]
    );
    assert_eq!(
        of(json!({"imagePullPolicy": "Sometimes"})),
        [
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
          \"IfNotPresent\", \"Never\""
        ]
    );
    assert_eq!(
        of(json!({"ports": [{"containerPort": 70000}, {"containerPort": 80, "name": "a--b"}]})),
        [
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].name: Invalid value: \"a--b\": must not contain consecutive hyphens",
        ]
    );
    assert_eq!(
        of(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
        ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
    );
    assert_eq!(
        of(json!({"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi", "cpus": "1"}}})),
        [
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
            "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit of 1Gi",
        ]
    );
    assert_eq!(
        of(json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]})).len(),
        2
    );
    assert_eq!(
        of(json!({"livenessProbe": {"successThreshold": 2, "exec": {"command": ["true"]}}})),
        ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"]
    );
    assert_eq!(
        of(json!({"readinessProbe": {"periodSeconds": 5}})),
        ["spec.containers[0].readinessProbe: Required value: must specify a handler type"]
    );
}

#[test]
fn pod_specs() {
    let of = |spec: Value| on_create("pods", pod_with(&spec, &json!({})));
    assert_eq!(of(json!({"containers": []})), ["spec.containers: Required value"]);
    assert_eq!(
        of(json!({"restartPolicy": "Maybe"})),
        [
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\""
        ]
    );
    assert_eq!(
        of(json!({"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]})),
        ["spec.containers[1].name: Duplicate value: \"a\""]
    );
    assert_eq!(
        of(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]})),
        ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"]
    );
    assert_eq!(
        of(json!({"volumes": [{"name": "v", "configMap": {"items": [{"key": "a", "path": "../b"}]}}]})),
        [
            "spec.volumes[0].configMap.name: Required value",
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../b\": must not contain '..'",
        ]
    );
    assert_eq!(
        of(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]})),
        [
            "spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"
        ]
    );
    assert_eq!(
        of(json!({"activeDeadlineSeconds": 0})),
        ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]
    );
    assert_eq!(
        of(
            json!({"initContainers": [{"name": "i", "image": "x", "livenessProbe": {"exec": {"command": ["a"]}}}]})
        ),
        [
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
        ]
    );
    let ports = json!([{"name": "a", "image": "x", "ports": [{"containerPort": 80, "hostPort": 80}]},
        {"name": "b", "image": "x", "ports": [{"containerPort": 81, "hostPort": 80}]}]);
    assert_eq!(
        of(json!({"containers": ports})),
        ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""]
    );
}

#[test]
fn kernel_parameters_have_names_and_a_namespace_of_the_pods_own() {
    let of = |spec: Value| on_create("pods", pod_with(&spec, &json!({})));
    let sysctls = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        json!({"sysctls": list})
    };
    let good = ["net.core.somaxconn", "net/ipv4/conf/eth0.100/forwarding", "kernel.shm_rmid_forced", "a_b-c"];
    assert_eq!(of(json!({"securityContext": sysctls(&good)})), [""; 0]);
    let wrong = of(json!({"securityContext": sysctls(&["", "net..core", "a", "a", "kernel.sem_"])}));
    let form = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    assert_eq!(
        wrong,
        [
            "spec.securityContext.sysctls[0].name: Required value".to_owned(),
            format!("spec.securityContext.sysctls[1].name: Invalid value: \"net..core\": {form}"),
            "spec.securityContext.sysctls[3].name: Duplicate value: \"a\"".to_owned(),
            format!("spec.securityContext.sysctls[4].name: Invalid value: \"kernel.sem_\": {form}"),
        ]
    );
    let shared = json!({"hostNetwork": true, "hostIPC": true,
        "securityContext": sysctls(&["net/core/somaxconn", "kernel.shmmax", "kernel.domainname"])});
    assert_eq!(
        of(shared),
        [
            "spec.securityContext.sysctls[0].name: Invalid value: \"net/core/somaxconn\": may not be specified when 'hostNetwork' is true",
            "spec.securityContext.sysctls[1].name: Invalid value: \"kernel.shmmax\": may not be specified when 'hostIPC' is true",
        ]
    );
}

#[test]
fn hooks_sleep_no_longer_than_their_pod_may_take_to_end() {
    let of = |seconds: i64| {
        let hook = json!({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}});
        on_create("pods", pod_with(&json!({"terminationGracePeriodSeconds": 20}), &hook))
    };
    assert_eq!((of(0), of(20)), (vec![], vec![]));
    for seconds in [-1, 21] {
        assert_eq!(
            of(seconds),
            [format!(
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: {seconds}: must be non-negative and less than terminationGracePeriodSeconds (20)"
            )]
        );
    }
}

#[test]
fn what_may_change_of_a_pod() {
    let update = |change: fn(&mut Value)| on_update("pods", &pod(), change);
    assert_eq!(update(|pod| pod["spec"]["containers"][0]["image"] = "nginx:2".into()), [""; 0]);
    assert_eq!(update(|pod| pod["spec"]["activeDeadlineSeconds"] = 5.into()), [""; 0]);
    assert_eq!(update(|pod| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}])), [""; 0]);
    assert_eq!(update(|pod| pod["metadata"]["labels"] = json!({"a": "b"})), [""; 0]);
    let errors = update(|pod| pod["spec"]["nodeName"] = "other".into());
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
        ),
        "{}",
        errors[0]
    );
    assert!(errors[0].contains("nodeName"), "{}", errors[0]);
    assert_eq!(
        update(|pod| pod["spec"]["containers"] = json!([])).last().unwrap(),
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    );
    let tolerant = pod_with(&json!({"tolerations": [{"key": "a", "operator": "Exists"}]}), &json!({}));
    assert_eq!(
        on_update("pods", &tolerant, |pod| pod["spec"]["tolerations"] = json!([])),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
}

#[test]
fn replica_sets() {
    let template =
        json!({"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let set = |spec: Value| json!({"metadata": {"name": "a", "namespace": "default"}, "spec": spec});
    assert_eq!(
        on_create("rs", set(json!({"selector": {"matchLabels": {"a": "b"}}, "template": template}))),
        [
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(on_create("rs", set(json!({"template": template}))), ["spec.selector: Required value"]);
    let good = set(json!({"selector": {"matchLabels": {"a": "c"}}, "template": template}));
    assert_eq!(
        on_update("rs", &good, |set| set["spec"]["selector"] = json!({"matchLabels": {"a": "c", "x": "y"}}))
            .last()
            .unwrap(),
        "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\",\"x\":\"y\"}}: field is immutable"
    );
    assert_eq!(
        on_update("rs", &good, |set| set["spec"]["replicas"] = (-1).into()),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
    let mut more = good.clone();
    more["status"] = json!({"replicas": 1, "readyReplicas": 2});
    let errors = validate_status_update(row("rs"), &more, &good);
    assert_eq!(
        errors[0].to_string(),
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
    );
}

#[test]
fn configuration() {
    let meta = json!({"name": "a", "namespace": "default"});
    let keys = on_create("cm", json!({"metadata": meta, "data": {"a b": ""}, "binaryData": {"a b": ""}}));
    assert!(
        keys[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must consist of"),
        "{}",
        keys[0]
    );
    assert!(
        keys.contains(
            &"data[a b]: Invalid value: \"a b\": duplicate of key present in binaryData".to_owned()
        )
    );
    let fixed = json!({"metadata": meta, "immutable": true, "data": {"a": "1"}});
    assert_eq!(
        on_update("cm", &fixed, |map| map["data"]["a"] = "2".into()),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let tls = json!({"metadata": meta, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
    assert_eq!(on_create("secrets", tls.clone()), ["data[tls.key]: Required value"]);
    assert_eq!(
        on_update("secrets", &tls, |secret| secret["type"] = "Opaque".into()),
        ["type: Invalid value: \"Opaque\": field is immutable"]
    );
    let large = json!({"metadata": meta, "data": {"a": "x".repeat(1_048_577)}});
    assert_eq!(on_create("cm", large).len(), 1);
}

#[test]
fn services() {
    let service = |spec: Value| {
        on_create("svc", json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec}))
    };
    assert_eq!(service(json!({})), ["spec.ports: Required value"]);
    assert_eq!(service(json!({"clusterIP": "None", "clusterIPs": ["None"]})), [""; 0]);
    assert_eq!(
        service(json!({"ports": [{"port": 80}, {"port": 81}]})),
        ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"]
    );
    assert_eq!(
        service(json!({"ports": [{"port": 80, "nodePort": 30000}]})),
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
    );
    assert_eq!(service(json!({"type": "ExternalName"})), ["spec.externalName: Required value"]);
    let old = json!({"metadata": {"name": "s", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]}});
    assert_eq!(
        on_update("svc", &old, |service| {
            service["spec"]["clusterIP"] = "10.96.0.6".into();
            service["spec"]["clusterIPs"] = json!(["10.96.0.6"]);
        }),
        ["spec.clusterIPs[0]: Invalid value: \"10.96.0.6\": may not change once set"]
    );
}

#[test]
fn roles_and_bindings() {
    let meta = json!({"name": "r", "namespace": "default"});
    assert_eq!(
        on_create("roles", json!({"metadata": meta, "rules": [{"resources": ["pods"], "verbs": []}]})),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ]
    );
    let binding = json!({"metadata": meta, "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "Robot", "name": "x"}]});
    assert_eq!(
        on_create("rolebindings", binding.clone()),
        [
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\""
        ]
    );
    let errors = on_update("rolebindings", &binding, |binding| binding["roleRef"]["name"] = "other".into());
    assert!(errors.last().unwrap().ends_with(": cannot change roleRef"));
}

#[test]
fn the_cluster_itself() {
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}});
    assert_eq!(
        on_update("nodes", &node, |node| node["spec"]["podCIDRs"] = json!(["10.0.1.0/24"])),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
    let taints = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "Never"}]}});
    assert_eq!(
        on_create("nodes", taints),
        [
            "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \
          \"PreferNoSchedule\""
        ]
    );
    let class = |name: &str, value: i64| on_create("pc", json!({"metadata": {"name": name}, "value": value}));
    assert_eq!(
        class("high", 2_000_000_000),
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
    );
    assert_eq!(class("system-node-critical", 2_000_001_000), [""; 0]);
    assert_eq!(
        class("system-x", 1),
        [
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
          error: system-x is not a known system priority class"
        ]
    );
    let lease =
        json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"leaseDurationSeconds": 0}});
    assert_eq!(
        on_create("leases", lease),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
    let namespace = json!({"metadata": {"name": "n"}, "status": {"phase": "Terminating"}});
    let errors = validate_status_update(row("ns"), &namespace, &namespace);
    assert_eq!(
        errors[0].to_string(),
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    );
}

#[test]
fn events() {
    let event = json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}});
    assert_eq!(
        on_create("events", event),
        ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
    );
    let strict = json!({"metadata": {"name": "e", "namespace": "default"}, "regarding": {"namespace": "default"}, "type": "Odd"});
    let errors = on_create("events.events.k8s.io", strict);
    assert_eq!(errors, ["eventTime: Required value", "type: Invalid value: \"\": has invalid value: Odd"]);
}

#[test]
fn ephemeral_containers_are_only_added() {
    let with = |list: Value| {
        let mut pod = pod();
        pod["spec"]["ephemeralContainers"] = list;
        complete(row("pods"), pod)
    };
    let change = |old: Value, new: Value| -> Vec<String> {
        let found = validate_update(row("pods"), "ephemeralcontainers", &with(new), &with(old));
        found.iter().map(ToString::to_string).collect()
    };
    let debugger = json!({"name": "d", "image": "i", "targetContainerName": "a"});
    let none = json!([]);
    assert_eq!(change(none.clone(), json!([debugger])), [""; 0]);
    assert_eq!(
        change(json!([debugger]), none.clone()),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
    );
    let changed = change(json!([debugger]), json!([{"name": "d", "image": "j", "targetContainerName": "a"}]));
    assert!(changed[0].contains("existing ephemeral containers \"d\" may not be changed\n"), "{changed:?}");
    let wrong = json!([{"name": "d", "image": "i", "targetContainerName": "x", "ports": [{"containerPort": 1}],
        "resources": {"limits": {"cpu": "1"}}}, {"name": "a", "image": "i"}]);
    assert_eq!(
        change(none, wrong),
        [
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
            "spec.ephemeralContainers[1].name: Duplicate value: \"a\"",
        ]
    );
}

#[test]
fn restart_rules() {
    let found = |container: Value| on_create("pods", pod_with(&json!({}), &container));
    let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
    assert_eq!(found(json!({"restartPolicy": "Never", "restartPolicyRules": [rule]})), [""; 0]);
    assert_eq!(
        found(
            json!({"restartPolicyRules": [rule, {"action": "Stop", "exitCodes": {"operator": "Is", "values": []}}]})
        ),
        [
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            "spec.containers[0].restartPolicyRules[1].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
        ]
    );
    let mut old = pod_with(
        &json!({"restartPolicy": "Never"}),
        &json!({"restartPolicy": "Never", "restartPolicyRules": [rule]}),
    );
    let status = |code: i64| json!({"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": code}}}]});
    let mut new = old.clone();
    new["status"] = json!({"containerStatuses": [{"name": "a", "state": {"running": {}}}]});
    for (code, refused) in [(42, false), (1, true)] {
        old["status"] = status(code);
        assert_eq!(!validate_status_update(row("pods"), &new, &old).is_empty(), refused, "{code}");
    }
}

#[test]
fn a_resize_keeps_containers_in_place() {
    let with = |spec: Value| complete(row("pods"), pod_with(&spec, &json!({})));
    let change = |old: Value, new: Value| -> Vec<String> {
        let found = validate_update(row("pods"), "resize", &with(new), &with(old));
        found.iter().map(ToString::to_string).collect()
    };
    let named = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        json!({"containers": list})
    };
    let reordered = "Forbidden: containers may not be renamed or reordered on resize";
    assert_eq!(
        change(named(&["a", "b"]), named(&["b", "a"])),
        [format!("spec.containers[0].name: {reordered}"), format!("spec.containers[1].name: {reordered}")]
    );
    let init = |cpu: &str, policy: &str| {
        json!({"initContainers": [{"name": "i", "image": "i", "resources": {"requests": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]})
    };
    assert_eq!(change(init("1", "NotRequired"), init("2", "NotRequired")), [""; 0]);
    assert_eq!(
        change(init("1", "RestartContainer"), init("2", "RestartContainer")),
        [
            "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
        ]
    );
}

#[test]
fn a_resize_changes_cpu_and_memory_only() {
    let with =
        |resources: Value| complete(row("pods"), pod_with(&json!({}), &json!({"resources": resources})));
    let change = |old: Value, new: Value| -> Vec<String> {
        let found = validate_update(row("pods"), "resize", &with(new), &with(old));
        found.iter().map(ToString::to_string).collect()
    };
    let some = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m"}});
    assert_eq!(
        change(
            some.clone(),
            json!({"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
        ),
        [""; 0]
    );
    assert_eq!(
        change(some.clone(), json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}})),
        ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
    );
    assert_eq!(
        change(
            some.clone(),
            json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "ephemeral-storage": "1Gi"}})
        ),
        ["spec: Forbidden: only cpu and memory resources are mutable"]
    );
    let same = json!({"limits": {"cpu": "200m", "memory": "64Mi"}});
    assert_eq!(
        change(some, same),
        ["spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing"]
    );
}

#[test]
fn an_unmasked_proc_needs_a_user_namespace_and_a_file_of_variables_a_volume() {
    let unmasked = json!({"securityContext": {"procMount": "Unmasked"}});
    assert_eq!(
        on_create("pods", pod_with(&json!({}), &unmasked)),
        [
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"
        ]
    );
    assert_eq!(on_create("pods", pod_with(&json!({"hostUsers": false}), &unmasked)), [""; 0]);

    let volumes = json!({"volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "node", "hostPath": {"path": "/"}}]});
    let from = |volume: &str, path: &str, key: &str| {
        let reference = json!({"volumeName": volume, "path": path, "key": key});
        let variables = json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": reference}}]});
        on_create("pods", pod_with(&volumes, &variables))
    };
    let at = "spec.containers[0].env[0].valueFrom.fileKeyRef";
    assert_eq!(from("scratch", "a/b.env", "KEY"), [""; 0]);
    assert_eq!(
        from("node", "/b.env", "KEY"),
        [
            format!("{at}.path: Invalid value: \"/b.env\": must be a relative path"),
            format!("{at}.volumeName: Invalid value: \"node\": referenced volume must be of type emptyDir"),
        ]
    );
    assert_eq!(
        from("none", "", ""),
        [
            format!("{at}.key: Required value"),
            format!("{at}.path: Required value"),
            format!("{at}.volumeName: Not found: \"none\""),
        ]
    );
}

#[test]
fn what_a_pod_has_as_a_whole_is_resized_and_never_taken_away() {
    let with = |cpu: &str| {
        let list = json!({"cpu": cpu, "memory": "1Gi"});
        pod_with(&json!({"resources": {"requests": list, "limits": list}}), &json!({}))
    };
    let resize = |new: &Value| {
        let (old, new) = (complete(row("pods"), with("1")), complete(row("pods"), new.clone()));
        let errors = validate_update(row("pods"), "resize", &new, &old);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(resize(&with("2")), [""; 0]);
    assert_eq!(
        resize(&pod()),
        [
            "spec.resources: Forbidden: pod-level resources cannot be removed",
            "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing",
        ]
    );
    let mut less = with("1");
    less["spec"]["resources"]["limits"] = json!({"cpu": "1"});
    let removed = "spec.resources.limits: Forbidden: pod-level resource limits cannot be removed";
    assert!(resize(&less).contains(&removed.to_owned()));
}
