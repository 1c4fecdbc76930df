//! CertificateSigningRequests: what the server says of them, and who may decide.

use apiserver::auth::UserInfo;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::harness::{Cluster, PATIENCE};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn pem(group: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
    let key = rcgen::KeyPair::generate().unwrap();
    STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

fn request(name: &str, group: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"request": pem(group), "username": "somebody else",
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}})
}

async fn send_as(cluster: &Cluster, user: &str, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json")];
    let user = UserInfo::new(user, &[]);
    let response = cluster.request_as(user, method, path, &headers, body.to_string().into()).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

fn fields(status: &Value) -> Vec<&str> {
    let causes = status["details"]["causes"].as_array().unwrap().iter();
    causes.map(|cause| cause["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_request_is_checked_and_says_who_made_it() {
    let cluster = Cluster::start().await;
    let made = cluster.post(REQUESTS, &request("a", "dev")).await.expect(201);
    assert_eq!(made["spec"]["username"], "kubernetes-admin");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    // Nothing of it can be changed any more, and no decision brought in by this door.
    let mut changed = made.clone();
    changed["spec"]["usages"] = json!(["server auth"]);
    changed["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let put = cluster.put(&format!("{REQUESTS}/a"), &changed).await.expect(200);
    assert_eq!((&put["spec"], &put["status"]), (&made["spec"], &made["status"]));

    let refused = cluster.post(REQUESTS, &request("b", "system:masters")).await.expect(403);
    assert_eq!(
        refused["message"],
        "certificatesigningrequests.certificates.k8s.io \"b\" is forbidden: use of kubernetes.io/kube-apiserver-client \
         signer with system:masters group is not allowed"
    );
    let mut wrong = request("c", "dev");
    wrong["spec"]["request"] = json!("bm9uc2Vuc2U=");
    wrong["spec"]["usages"] = json!(["client auth", "client auth", "magic"]);
    wrong["spec"]["signerName"] = json!("local/Signer");
    wrong["spec"]["expirationSeconds"] = json!(599);
    let invalid = cluster.post(REQUESTS, &wrong).await.expect(422);
    assert_eq!(
        fields(&invalid),
        [
            "spec.request",
            "spec.usages[1]",
            "spec.usages[2]",
            "spec.signerName",
            "spec.signerName",
            "spec.expirationSeconds",
        ],
        "{invalid}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn only_who_may_decides_and_decisions_stay() {
    let cluster = Cluster::start().await;
    cluster.post(REQUESTS, &request("a", "dev")).await.expect(201);
    let role = json!({"metadata": {"name": "decide"}, "rules": [{"apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"],
        "verbs": ["update"]}]});
    cluster.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "decide"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "decide"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ben"}]});
    cluster.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);

    let mut approved = cluster.get(&format!("{REQUESTS}/a")).await.expect(200);
    approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "Good"}]);
    let approval = format!("{REQUESTS}/a/approval");
    // The role reaches the authorizer by a watch; until then it is what refuses.
    let told = async {
        loop {
            let (code, answer) = send_as(&cluster, "ben", Method::PUT, &approval, &approved).await;
            assert_eq!(code, 403, "{answer}");
            let message = answer["message"].as_str().unwrap().to_owned();
            if !message.contains("cannot update") {
                return message;
            }
            tokio::task::yield_now().await;
        }
    };
    let message = tokio::time::timeout(PATIENCE, told).await.expect("the role must count");
    assert!(
        message.ends_with(
            "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
        ),
        "{message}"
    );
    let done = cluster.put(&approval, &approved).await.expect(200);
    let condition = &done["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(), "{done}");

    let status = format!("{REQUESTS}/a/status");
    let mut signed = done.clone();
    signed["status"]["certificate"] = json!("bm9uc2Vuc2U=");
    let (code, answer) = send_as(&cluster, "ben", Method::PUT, &status, &signed).await;
    assert_eq!(code, 422, "{answer}");
    assert_eq!(fields(&answer), ["status.certificate"]);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    signed["status"]["certificate"] = json!(STANDARD.encode(certificate.pem()));
    let (code, answer) = send_as(&cluster, "ben", Method::PUT, &status, &signed).await;
    assert_eq!(code, 403, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("user not permitted to sign requests"), "{answer}");
    let mut withdrawn = signed.clone();
    withdrawn["status"]["conditions"] = json!([]);
    let refused = cluster.put(&status, &withdrawn).await.expect(422);
    assert_eq!(fields(&refused), ["status.conditions"]);
    let done = cluster.put(&status, &signed).await.expect(200);

    let mut both = done.clone();
    both["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "Denied", "status": "True"}));
    let refused = cluster.put(&approval, &both).await.expect(422);
    assert_eq!(fields(&refused), ["status.conditions[1].type"]);
    let mut other = done;
    other["status"]["certificate"] = json!(STANDARD.encode(format!("{0}{0}", certificate.pem())));
    let refused = cluster.put(&status, &other).await.expect(422);
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "Forbidden: updates may not modify existing certificate content"
    );
    cluster.stop().await;
}
