//! Deletes certificate requests that nobody waits for any more.
//!
//! As upstream's `pkg/controller/certificates/cleaner`, which looks every hour; here each request is looked at
//! when its time has come.

use std::{sync::Arc, time::Duration};

use api_objects::Resource;
use client::{Client, Error, Informer, Key};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use x509_parser::pem::Pem;

use super::{
    super::{Action, Context, Reconciler},
    RequestView,
};

/// How long a request stays that was decided on.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long one stays that nobody decided on, or signed.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// When a request goes; pure. The earliest of the times that apply.
fn deadline(view: &RequestView) -> Option<Timestamp> {
    let issued = !view.certificate.is_empty();
    let after = |from: Option<Timestamp>, wait| from.and_then(|from| from.checked_add(wait).ok());
    let since = |kind: &str| view.condition(kind).and_then(|condition| condition.last_update_time);
    let mut times = vec![after(since("Denied"), DECIDED), after(since("Failed"), DECIDED)];
    if issued {
        times.push(after(since("Approved"), DECIDED));
        times.push(view.condition("Approved").and_then(|_| expiry(&view.certificate)));
    } else if view.conditions.is_empty() {
        times.push(after(view.created, PENDING));
    } else {
        times.push(after(since("Approved"), PENDING));
    }
    times.into_iter().flatten().min()
}

/// When a certificate ends.
fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let block = Pem::iter_from_buffer(pem).next()?.ok()?;
    let certificate = block.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The controller. Keys are requests.
pub(super) struct Cleaner {
    client: Client,
    requests_resource: Arc<Resource>,
    requests: Informer<RequestView>,
}

impl Cleaner {
    pub(super) fn new(
        context: &Context,
        requests_resource: &Arc<Resource>,
        requests: &Informer<RequestView>,
    ) -> Self {
        Self {
            client: context.client.clone(),
            requests_resource: requests_resource.clone(),
            requests: requests.clone(),
        }
    }
}

impl Reconciler for Cleaner {
    type Key = Key;
    const NAME: &'static str = "certificate-cleaner";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(view) = self.requests.get(key) else { return Ok(Action::AwaitChange) };
        let Some(deadline) = deadline(&view) else { return Ok(Action::AwaitChange) };
        if let Ok(left) = Duration::try_from(deadline.duration_since(Timestamp::now()))
            && !left.is_zero()
        {
            return Ok(Action::RequeueAfter(left));
        }
        let options = json!({"preconditions": {"uid": view.uid}});
        match self.client.delete(&self.requests_resource, "", &key.name, &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(Action::AwaitChange),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Condition, *};

    #[test]
    fn each_state_has_its_time() {
        let at = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
        let condition = |kind: &str| Condition {
            r#type: kind.into(),
            status: "True".into(),
            last_update_time: Some(at(10)),
        };
        let pending = RequestView { created: Some(at(0)), ..RequestView::default() };
        assert_eq!(deadline(&pending), Some(at(24)));
        let with = |kind: &str| RequestView { conditions: vec![condition(kind)], ..pending.clone() };
        assert_eq!(deadline(&with("Denied")), Some(at(11)));
        assert_eq!(deadline(&with("Failed")), Some(at(11)));
        assert_eq!(deadline(&with("Approved")), Some(at(34)));
        let issued = RequestView { certificate: b"x".to_vec(), ..with("Approved") };
        assert_eq!(deadline(&issued), Some(at(11)));
    }
}
