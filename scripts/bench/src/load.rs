//! Many requests of one kind over some connections, each sending its next as soon as it has its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use clap::ValueEnum;
use hyper::Method;

use crate::{
    connection::{Call, Target},
    measure::{Latencies, Outcome, Stretch},
};

/// The namespace that everything happens in.
pub(crate) const NAMESPACE: &str = "bench";

/// What each request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Create objects `<prefix>-0`, `<prefix>-1` …
    Create,
    /// Read them, one after another and again from the first
    Get,
    /// Change a field by a merge patch
    Patch,
    /// Delete them
    Delete,
}

/// Which kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// About 1 KB as stored
    ConfigMap,
    /// One container with requests; about 2.2 KB as stored with what admission adds
    Pod,
}

impl Kind {
    /// The path of the collection.
    pub(crate) fn collection(self) -> String {
        let plural = match self {
            Self::ConfigMap => "configmaps",
            Self::Pod => "pods",
        };
        format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
    }

    /// A manifest.
    pub(crate) fn manifest(self, name: &str) -> Bytes {
        Bytes::from(match self {
            Self::ConfigMap => {
                let padding = "x".repeat(560);
                format!(
                    r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"app":"bench"}}}},"data":{{"key":"value","padding":"{padding}"}}}}"#
                )
            }
            Self::Pod => format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"bench"}}}},"spec":{{"containers":[{{"name":"main","image":"registry.k8s.io/pause:3.10","resources":{{"requests":{{"cpu":"10m","memory":"16Mi"}}}}}}]}}}}"#
            ),
        })
    }

    fn patch(self, number: usize) -> String {
        match self {
            Self::ConfigMap => format!(r#"{{"data":{{"key":"patched-{number}"}}}}"#),
            Self::Pod => format!(r#"{{"metadata":{{"annotations":{{"patched":"{number}"}}}}}}"#),
        }
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) what: What,
    pub(crate) kind: Kind,
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    pub(crate) prefix: String,
    pub(crate) objects: usize,
}

impl Plan {
    fn call(&self, number: usize) -> Call {
        let collection = self.kind.collection();
        let prefix = &self.prefix;
        let cycled = number % self.objects.max(1);
        match self.what {
            What::Create => Call::post(collection, self.kind.manifest(&format!("{prefix}-{number}"))),
            What::Get => Call::new(Method::GET, format!("{collection}/{prefix}-{cycled}")),
            What::Patch => {
                Call::merge_patch(format!("{collection}/{prefix}-{cycled}"), self.kind.patch(number))
            }
            What::Delete => {
                let path = format!("{collection}/{prefix}-{number}?gracePeriodSeconds=0");
                Call::new(Method::DELETE, path)
            }
        }
    }
}

/// Carries a plan out.
pub(crate) async fn run(target: &Target, pid: Option<u32>, plan: &Plan) -> anyhow::Result<Outcome> {
    let plan = Arc::new(plan.clone());
    calls(target, pid, plan.requests, plan.connections, move |number| plan.call(number)).await
}

/// Sends so many calls over so many connections.
pub(crate) async fn calls(
    target: &Target,
    pid: Option<u32>,
    requests: usize,
    connections: usize,
    call: impl Fn(usize) -> Call + Send + Sync + 'static,
) -> anyhow::Result<Outcome> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(target.connect().await?);
    }
    let call = Arc::new(call);
    let next = Arc::new(AtomicUsize::new(0));
    let stretch = Stretch::begin(pid);
    let mut workers = Vec::with_capacity(connections);
    for mut connection in opened {
        let (call, next, target) = (Arc::clone(&call), Arc::clone(&next), target.clone());
        workers.push(tokio::spawn(async move {
            let mut outcome = (Latencies::default(), 0, None);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return outcome;
                }
                let begun = Instant::now();
                match connection.call(call(number)).await {
                    Ok(_) => outcome.0.add(begun.elapsed()),
                    Err(error) => {
                        outcome.1 += 1;
                        outcome.2.get_or_insert_with(|| format!("{error:#}"));
                        if let Ok(again) = target.connect().await {
                            connection = again;
                        }
                    }
                }
            }
        }));
    }
    let mut total = Outcome::default();
    for worker in workers {
        let (latencies, errors, first_error) = worker.await?;
        total.latencies.merge(&latencies);
        total.errors += errors;
        total.first_error = total.first_error.or(first_error);
    }
    total.cost = stretch.end();
    Ok(total)
}
