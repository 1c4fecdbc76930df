//! Approves what kubelets ask for: client certificates of whoever may have one, serving certificates of nodes
//! whose addresses they name.
//!
//! Client certificates as upstream's `pkg/controller/certificates/approver`: a SubjectAccessReview says whether the
//! requester may `create` `certificatesigningrequests/nodeclient` (somebody who joins) or `/selfnodeclient` (a
//! node that renews its own). Serving certificates upstream leaves to administrators; here they are approved if a
//! node asks for itself and names nothing but the addresses that its Node has. Everything else waits for a person.

use std::sync::Arc;

use api_objects::{
    Resource, Value,
    certificates::{
        KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, NODE_USER_PREFIX, NODES_GROUP, SigningRequest,
    },
};
use client::{Client, Error, Informer, Key, Scope};
use serde_json::json;

use super::{
    super::{Action, Context, Reconciler, resource, typed},
    RequestView,
};

/// What an approval says of itself, as upstream.
const REASON: &str = "AutoApproved";

/// A way in which a request may be approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// If the requester may create this subresource.
    IfAllowed { subresource: &'static str, message: &'static str },
    /// At once.
    Granted { message: &'static str },
}

const SELF_CLIENT: Way = Way::IfAllowed {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const CLIENT: Way = Way::IfAllowed {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};
const SERVING: Way = Way::Granted {
    message: "Auto approving kubelet serving certificate: it names addresses of its node only.",
};

/// The ways in which a request may be approved, in order. `addresses` are those of a Node. Pure.
fn decide(
    view: &RequestView,
    request: &SigningRequest,
    addresses: impl Fn(&str) -> Option<Arc<NodeAddresses>>,
) -> Vec<Way> {
    let own = view.username == request.common_name;
    match view.signer.as_str() {
        KUBELET_CLIENT_SIGNER if request.kubelet_client_problem(&view.usages()).is_none() => {
            if own {
                vec![SELF_CLIENT, CLIENT]
            } else {
                vec![CLIENT]
            }
        }
        KUBELET_SERVING_SIGNER if request.kubelet_serving_problem(&view.usages()).is_none() => {
            let is_node = own && view.groups.iter().any(|group| group == NODES_GROUP);
            let node = request.common_name.strip_prefix(NODE_USER_PREFIX).and_then(addresses);
            if is_node && node.is_some_and(|node| node.cover(request)) { vec![SERVING] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// The addresses and names of a Node.
#[derive(Debug, Default)]
pub(super) struct NodeAddresses(Vec<String>);

impl NodeAddresses {
    fn project(bytes: &[u8], _: &api_objects::object::ObjectMeta) -> Option<Self> {
        let node: Value = typed(bytes)?;
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        Some(Self(addresses.filter_map(|entry| entry["address"].as_str().map(str::to_owned)).collect()))
    }

    /// Whether a request names nothing else.
    fn cover(&self, request: &SigningRequest) -> bool {
        let addresses = request.addresses.iter().map(ToString::to_string);
        addresses.chain(request.dns_names.iter().cloned()).all(|name| self.0.contains(&name))
    }
}

/// The controller. Keys are requests.
pub(super) struct Approver {
    client: Client,
    requests_resource: Arc<Resource>,
    reviews: Arc<Resource>,
    requests: Informer<RequestView>,
    pub(super) nodes: Informer<NodeAddresses>,
}

impl Approver {
    pub(super) fn new(
        context: &Context,
        requests_resource: &Arc<Resource>,
        requests: &Informer<RequestView>,
    ) -> Self {
        let nodes = resource("", "v1", "nodes");
        Self {
            client: context.client.clone(),
            requests_resource: requests_resource.clone(),
            reviews: resource("authorization.k8s.io", "v1", "subjectaccessreviews"),
            requests: requests.clone(),
            nodes: context.informers.watch(&nodes, &Scope::default(), NodeAddresses::project),
        }
    }

    async fn is_allowed(&self, view: &RequestView, subresource: &str) -> Result<bool, Error> {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": view.username, "uid": view.user_uid, "groups": view.groups, "extra": view.extra,
            "resourceAttributes": {"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                "subresource": subresource, "verb": "create"}}});
        let answer = self.client.create(&self.reviews, "", &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    async fn approve(&self, key: &Key, view: &RequestView, message: &str) -> Result<(), Error> {
        let mut request = self.client.get(&self.requests_resource, "", &key.name).await?;
        let mut conditions = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_decided = conditions
            .iter()
            .any(|condition| condition["type"] == "Approved" || condition["type"] == "Denied");
        // The cache lags a moment behind: what has been decided in between stands.
        if request["metadata"]["uid"] != json!(view.uid) || is_decided {
            return Ok(());
        }
        conditions.push(json!({"type": "Approved", "status": "True", "reason": REASON, "message": message}));
        request["status"]["conditions"] = json!(conditions);
        self.client
            .update_subresource(&self.requests_resource, "", &key.name, "approval", &request)
            .await
            .map(drop)
    }
}

impl Reconciler for Approver {
    type Key = Key;
    const NAME: &'static str = "certificate-approver";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(view) = self.requests.get(key) else { return Ok(Action::AwaitChange) };
        if !view.certificate.is_empty() || view.is("Approved") || view.is("Denied") {
            return Ok(Action::AwaitChange);
        }
        let Ok(request) = SigningRequest::parse(&view.request) else { return Ok(Action::AwaitChange) };
        for way in decide(&view, &request, |node| self.nodes.get(&Key::new("", node))) {
            let message = match way {
                Way::Granted { message } => message,
                Way::IfAllowed { subresource, message } if self.is_allowed(&view, subresource).await? => {
                    message
                }
                Way::IfAllowed { subresource, .. } => {
                    tracing::info!(request = %key.name, user = view.username, "may not create {subresource}");
                    continue;
                }
            };
            self.approve(key, &view, message).await?;
            break;
        }
        Ok(Action::AwaitChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(names: &[&str]) -> SigningRequest {
        SigningRequest {
            common_name: "system:node:a".into(),
            organizations: vec![NODES_GROUP.into()],
            dns_names: names.iter().map(|&name| name.to_owned()).collect(),
            ..SigningRequest::default()
        }
    }

    fn view(user: &str, signer: &str, purpose: &str) -> RequestView {
        RequestView {
            username: user.into(),
            groups: vec![NODES_GROUP.into()],
            signer: signer.into(),
            usages: vec![purpose.into(), "digital signature".into()],
            ..RequestView::default()
        }
    }

    #[test]
    fn clients_are_asked_about_and_servers_must_name_their_node() {
        let addresses = |node: &str| (node == "a").then(|| Arc::new(NodeAddresses(vec!["a".into()])));
        let client =
            |user: &str| decide(&view(user, KUBELET_CLIENT_SIGNER, "client auth"), &request(&[]), addresses);
        assert_eq!(client("system:node:a"), [SELF_CLIENT, CLIENT]);
        assert_eq!(client("system:bootstrap:abcdef"), [CLIENT]);
        let serving = |user: &str, names: &[&str]| {
            decide(&view(user, KUBELET_SERVING_SIGNER, "server auth"), &request(names), addresses)
        };
        assert_eq!(serving("system:node:a", &["a"]), [SERVING]);
        assert_eq!(serving("system:node:a", &["a", "b"]), []);
        assert_eq!(serving("system:node:b", &["a"]), []);
        let mut outsider = view("system:node:a", KUBELET_SERVING_SIGNER, "server auth");
        outsider.groups.clear();
        assert_eq!(decide(&outsider, &request(&["a"]), addresses), []);
        // Of other signers nothing is approved.
        assert_eq!(decide(&view("x", "example.com/own", "client auth"), &request(&[]), addresses), []);
    }
}
