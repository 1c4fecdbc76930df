//! A client whose identity can be exchanged while it is in use: a node renews its certificate, and nobody who holds
//! the client notices.
//!
//! Each request goes over the newest connection. Older ones end with what is under way on them.

use std::sync::Arc;

use http::Request;
use kube::client::Body;
use parking_lot::RwLock;

use crate::Client;

/// Exchanges what a client is made of.
#[derive(Clone)]
pub struct Switch {
    /// Written by [`Switch::replace`] alone; held only to clone or to store.
    current: Arc<RwLock<kube::Client>>,
}

impl Switch {
    /// Every request from now on goes through `next`.
    pub fn replace(&self, next: &Client) {
        *self.current.write() = next.kube().clone();
    }
}

impl Client {
    /// A client that begins as `first`, and what exchanges it.
    #[must_use]
    pub fn switchable(first: &Self) -> (Self, Switch) {
        let switch = Switch { current: Arc::new(RwLock::new(first.kube().clone())) };
        let current = switch.current.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = current.read().clone();
            async move { client.send(request).await }
        });
        (Self::from_service(service), switch)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Response};

    use super::*;

    fn saying(word: &'static str) -> Client {
        Client::from_service(tower::service_fn(move |_: Request<Body>| async move {
            let body = http_body_util::Full::new(Bytes::from_static(word.as_bytes()));
            Ok::<_, std::convert::Infallible>(Response::new(body))
        }))
    }

    #[tokio::test]
    async fn the_next_request_goes_the_new_way() {
        let (client, switch) = Client::switchable(&saying("one"));
        let ask = async || client.request(Method::GET, "/", None, None).await.unwrap();
        assert_eq!(ask().await, "one");
        switch.replace(&saying("two"));
        assert_eq!(ask().await, "two");
    }
}
