//! Certificates, static tokens, roles and nodes: who is let in, to what, and what the others are told.

use http::Method;
use serde_json::json;

use crate::harness::{Front, Identity};

#[tokio::test]
async fn a_certificate_of_another_authority_is_unauthorized_not_a_broken_handshake() {
    let front = Front::start().await;
    let other = Front::start().await;
    let stranger = other.admin();
    assert_eq!(front.get(&stranger, "/api/v1/pods").await.refused(401), "Unauthorized");
    // Not even health: a credential that is not good is never "nobody".
    assert_eq!(front.get(&stranger, "/healthz").await.code, 401);
    assert_eq!(front.get(&Identity::token("nonsense"), "/healthz").await.code, 401);
    front.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn kubeconfigs_lead_to_the_server_as_their_component() {
    let front = Front::start().await;
    for (file, user) in [
        ("kubeconfig", "kubernetes-admin"),
        ("kubeconfigs/kube-scheduler.kubeconfig", "system:kube-scheduler"),
        ("kubeconfigs/kube-controller-manager.kubeconfig", "system:kube-controller-manager"),
    ] {
        let kubeconfig = kube::config::Kubeconfig::read_from(front.directory.path().join(file)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .body(br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.to_vec())
            .unwrap();
        let review: serde_json::Value = client.request(request).await.unwrap();
        assert_eq!(review["status"]["userInfo"]["username"], user);
    }
    front.stop().await;
}

#[tokio::test]
async fn refusals_say_who_may_not_do_what_and_where() {
    let front = Front::start().await;
    let ann = front.certificate("ann", &[]);
    for (method, path, expected) in [
        (
            Method::GET,
            "/api/v1/namespaces/default/pods",
            r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            Method::GET,
            "/api/v1/nodes/n",
            r#"nodes "n" is forbidden: User "ann" cannot get resource "nodes" in API group "" at the cluster scope"#,
        ),
        (
            Method::DELETE,
            "/apis/apps/v1/namespaces/x/replicasets/r",
            r#"replicasets.apps "r" is forbidden: User "ann" cannot delete resource "replicasets" in API group "apps" in the namespace "x""#,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/x/pods/p/log",
            r#"pods "p" is forbidden: User "ann" cannot get resource "pods/log" in API group "" in the namespace "x""#,
        ),
        (Method::GET, "/metrics", r#"forbidden: User "ann" cannot get path "/metrics""#),
    ] {
        assert_eq!(front.request(&ann, method, path, None).await.refused(403), expected);
    }
    // What everybody who is known may do.
    assert_eq!(front.get(&ann, "/api").await.code, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_role_counts_from_the_moment_it_is_bound_until_it_is_not() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "secret-token,bob,7,\"dev,ops\"\n").unwrap();
    let path = tokens.path().to_owned();
    let front = Front::start_with(|config| config.token_auth_file = Some(path)).await;
    let (admin, bob) = (front.admin(), Identity::token("secret-token"));
    let maps = "/api/v1/namespaces/default/configmaps";
    front.get(&bob, maps).await.refused(403);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "dev-views"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}]});
    front.post(&admin, bindings, &binding).await.expect(201);
    front.get_until(&bob, maps, 200).await;
    front.get(&bob, "/api/v1/namespaces/kube-system/configmaps").await.refused(403);
    front.get(&bob, "/api/v1/namespaces/default/secrets").await.refused(403);

    // A part that is added to the aggregate `view` counts too.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"]}]});
    front.post(&admin, "/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    front.get_until(&bob, "/api/v1/namespaces/default/secrets", 200).await;

    front.request(&admin, Method::DELETE, &format!("{bindings}/dev-views"), None).await.expect(200);
    front.get_until(&bob, maps, 403).await;
    front.stop().await;
}

#[tokio::test]
async fn questions_about_access_are_answered() {
    let front = Front::start().await;
    let (admin, ann) = (front.admin(), front.certificate("ann", &["dev"]));
    let review =
        |spec| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let ask = json!({"user": "system:kube-scheduler",
        "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "binding", "namespace": "x"}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = front.post(&admin, path, &review(ask)).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(
        answer["status"]["reason"],
        r#"RBAC: allowed by ClusterRoleBinding "system:kube-scheduler" of ClusterRole "system:kube-scheduler" to User "system:kube-scheduler""#
    );
    front.post(&ann, path, &review(json!({"user": "x"}))).await.refused(403);

    let local = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": "other"}, "spec": {"user": "x",
            "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let elsewhere = front.post(&admin, path, &local).await.expect(400);
    assert_eq!(
        elsewhere["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );

    // There is nothing to list in a table.
    let mut table =
        Front::build(&admin, Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", None);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap();
    table.headers_mut().insert(http::header::ACCEPT, accept);
    assert_eq!(front.open(&admin, table).await.status(), 406);

    let own = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(front.post(&ann, path, &own).await.expect(201)["status"]["allowed"], false);

    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = front.post(&ann, path, &rules).await.expect(201);
    let paths = answer["status"]["nonResourceRules"].to_string();
    assert!(paths.contains("/healthz"), "{paths}");

    let whoami = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer =
        front.post(&ann, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &whoami).await.expect(201);
    assert_eq!(answer["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
    front.stop().await;
}

#[tokio::test]
async fn a_node_reads_what_its_own_pods_refer_to_and_nothing_else() {
    let front = Front::start().await;
    let admin = front.admin();
    let node = front.certificate("system:node:n1", &["system:nodes"]);
    let other = front.certificate("system:node:n2", &["system:nodes"]);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let created = front.post(&admin, "/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert!(matches!(created.code.as_u16(), 201 | 409), "{}", created.text());
    for name in ["used", "unused"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        front.post(&admin, "/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": "used"}}]}});
    front.post(&admin, "/api/v1/namespaces/default/pods", &pod).await.expect(201);

    let secret = |name: &str| format!("/api/v1/namespaces/default/secrets/{name}");
    front.get_until(&node, &secret("used"), 200).await;
    let message = front.get(&node, &secret("unused")).await.refused(403);
    assert_eq!(
        message,
        r#"secrets "unused" is forbidden: User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node "n1" and this object"#
    );
    front.get(&other, &secret("used")).await.refused(403);
    front.get(&node, "/api/v1/namespaces/default/secrets").await.refused(403);
    front.get(&node, "/api/v1/pods").await.refused(403);
    front.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    front.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await.refused(403);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    front.post(&node, leases, &lease).await.expect(201);
    front.get(&node, &format!("{leases}/n1")).await.expect(200);
    front.get(&other, &format!("{leases}/n1")).await.refused(403);
    front.stop().await;
}

#[tokio::test]
async fn impersonation_is_refused_rather_than_ignored() {
    let front = Front::start().await;
    let admin = front.admin();
    let mut request = Front::build(&admin, Method::GET, "/api/v1/pods", None);
    request.headers_mut().insert("Impersonate-User", "ann".parse().unwrap());
    assert_eq!(front.open(&admin, request).await.status(), 501);
    front.stop().await;
}

#[tokio::test]
async fn a_role_in_a_namespace_opens_nothing_beyond_it() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "t1,bob,1\nt2,eve,2\n").unwrap();
    let path = tokens.path().to_owned();
    let front = Front::start_with(|config| config.token_auth_file = Some(path)).await;
    let (admin, bob, eve) = (front.admin(), Identity::token("t1"), Identity::token("t2"));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let mine = "/api/v1/namespaces/default";
    for (user, rules) in [
        ("bob", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])),
        (
            "eve",
            json!([{"verbs": ["list", "watch", "deletecollection"], "apiGroups": [""],
                "resources": ["secrets"], "resourceNames": ["hers"]}]),
        ),
    ] {
        let role = json!({"metadata": {"name": user}, "rules": rules});
        front.post(&admin, &format!("{rbac}/namespaces/default/roles"), &role).await.expect(201);
        let binding = json!({"metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
        front.post(&admin, &format!("{rbac}/namespaces/default/rolebindings"), &binding).await.expect(201);
    }
    front.get_until(&bob, &format!("{mine}/secrets"), 200).await;

    // What belongs to the whole cluster is not in a namespace, whatever the path says.
    let crown = json!({"metadata": {"name": "crown"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    front.post(&bob, &format!("{rbac}/namespaces/default/clusterrolebindings"), &crown).await.refused(404);
    for target in ["nodes", "nodes/n", "namespaces", "namespaces/kube-system", "persistentvolumes"] {
        front.get(&bob, &format!("{mine}/{target}")).await.refused(404);
    }
    for target in ["/api/v1/secrets", "/api/v1/namespaces//secrets", "/api/v1/namespaces/kube-system/secrets"]
    {
        front.get(&bob, target).await.refused(403);
    }

    // A role for one name opens that one: selectors that only look like it, and the old form of a watch.
    for name in ["hers", "others"] {
        front
            .post(&admin, &format!("{mine}/secrets"), &json!({"metadata": {"name": name}}))
            .await
            .expect(201);
    }
    let listed =
        front.get_until(&eve, &format!("{mine}/secrets?fieldSelector=metadata.name%3Dhers"), 200).await;
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
    for query in [
        "",
        "?fieldSelector=metadata.name!%3Da%5C,metadata.name%3Dhers",
        "?fieldSelector=&fieldSelector=metadata.name%3Dhers",
        "?%66ieldSelector=&fieldSelector=metadata.name%3Dhers",
    ] {
        front.get(&eve, &format!("{mine}/secrets{query}")).await.refused(403);
    }
    let all = format!("{mine}/secrets?fieldSelector=metadata.name%3Dhers");
    front.request(&eve, Method::DELETE, &all, None).await.refused(403);
    let watch = |name: &str| format!("/api/v1/watch/namespaces/default/secrets/{name}?timeoutSeconds=1");
    let seen = front.get(&eve, &watch("hers")).await;
    assert!(seen.text().contains("\"hers\"") && !seen.text().contains("\"others\""), "{}", seen.text());
    front.get(&eve, &watch("others")).await.refused(403);
    front.stop().await;
}
