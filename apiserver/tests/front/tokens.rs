//! ServiceAccount tokens from request to end.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Front, Identity};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn account(front: &Front, name: &str) -> String {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let answer = front.post(&front.admin(), path, &object).await.expect(201);
    answer["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn token(front: &Front, account: &str, spec: Value) -> Value {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    front.post(&front.admin(), &path, &request).await.expect(201)
}

fn bearer(answer: &Value) -> Identity {
    Identity::token(answer["status"]["token"].as_str().unwrap())
}

async fn whoami(front: &Front, identity: &Identity) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    front.post(identity, path, &review).await.expect(201)["status"]["userInfo"].clone()
}

#[tokio::test]
async fn a_token_is_its_account_until_the_account_is_gone() {
    let front = Front::start().await;
    let uid = account(&front, "builder").await;
    let answer = token(&front, "builder", json!({"expirationSeconds": 600})).await;
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    assert!(answer["status"]["expirationTimestamp"].is_string());
    let builder = bearer(&answer);
    let user = whoami(&front, &builder).await;
    assert_eq!(user["username"], "system:serviceaccount:default:builder");
    assert_eq!(user["uid"], json!(uid));
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );

    // A second token, not yet remembered, must not pass once the account is gone.
    let late = bearer(&token(&front, "builder", json!({})).await);
    let path = "/api/v1/namespaces/default/serviceaccounts/builder";
    front.request(&front.admin(), Method::DELETE, path, None).await.expect(200);
    assert_eq!(front.get(&late, "/api").await.refused(401), "Unauthorized");
    // And not for an account of the same name that was made anew.
    account(&front, "builder").await;
    assert_eq!(front.get(&late, "/api").await.refused(401), "Unauthorized");
    front.stop().await;
}

#[tokio::test]
async fn a_bound_token_names_its_pod_and_ends_with_it() {
    let front = Front::start().await;
    let admin = front.admin();
    account(&front, "runner").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "runner", "containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let created = front.post(&admin, pods, &pod).await.expect(201);
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p",
        "uid": created["metadata"]["uid"]}});
    let first = bearer(&token(&front, "runner", bound.clone()).await);
    let user = whoami(&front, &first).await;
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"], json!([created["metadata"]["uid"]]));

    let late = bearer(&token(&front, "runner", bound).await);
    front.request(&admin, Method::DELETE, &format!("{pods}/p"), None).await.expect(200);
    assert_eq!(front.get(&late, "/api").await.code, 401);
    front.stop().await;
}

#[tokio::test]
async fn token_requests_that_make_no_sense_are_refused() {
    let front = Front::start().await;
    account(&front, "builder").await;
    let admin = front.admin();
    let ask = async |account: &str, spec: Value| {
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        front.post(&admin, &path, &json!({"spec": spec})).await
    };
    let message = ask("builder", json!({"expirationSeconds": 60})).await.refused(422);
    assert!(message.ends_with("may not specify a duration less than 10 minutes"), "{message}");
    assert_eq!(ask("nobody", json!({})).await.refused(404), r#"serviceaccounts "nobody" not found"#);
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "gone", "uid": "1"}});
    assert_eq!(ask("builder", bound).await.refused(404), r#"pods "gone" not found"#);
    front.stop().await;
}

#[tokio::test]
async fn reviews_tell_whose_a_token_is_and_for_whom() {
    let front = Front::start().await;
    let admin = front.admin();
    account(&front, "builder").await;
    let answer = token(&front, "builder", json!({"audiences": ["vault"]})).await;
    let secret = answer["status"]["token"].clone();
    assert_eq!(front.get(&bearer(&answer), "/api").await.code, 401, "a token for somebody else");
    let review = async |spec: Value| {
        let object = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        front.post(&admin, path, &object).await.expect(201)["status"].clone()
    };
    let good = review(json!({"token": secret, "audiences": ["vault", "other"]})).await;
    assert_eq!(good["authenticated"], true);
    assert_eq!(good["audiences"], json!(["vault"]));
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:builder");
    assert!(review(json!({"token": secret})).await.get("authenticated").is_none());
    assert!(review(json!({"token": "nonsense"})).await["error"].is_string());
    front.stop().await;
}

#[tokio::test]
async fn the_issuer_publishes_its_key() {
    let front = Front::start().await;
    account(&front, "builder").await;
    // Any account may read it.
    let builder = bearer(&token(&front, "builder", json!({})).await);
    let discovery = front.get(&builder, "/.well-known/openid-configuration").await.expect(200);
    assert_eq!(discovery["issuer"], ISSUER);
    assert!(discovery["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"));
    let keys = front.get(&builder, "/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
    front.stop().await;
}
