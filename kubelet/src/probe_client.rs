//! The HTTP client of probes and hooks: no proxy, no pool, certificates unchecked as documented.

use reqwest::{
    Client,
    redirect::{Action, Attempt, Policy},
};

/// How often a probe lets itself be sent on, as Go's clients do.
const MOST_REDIRECTS: usize = 10;

/// A client.
pub(crate) fn new() -> Client {
    let builder = Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .redirect(Policy::custom(follow))
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true);
    builder.build().expect("a client without files must build")
}

/// A probe goes where it is sent, but not to another host: what stands there says nothing of the container
/// (`pkg/probe/http`, `RedirectChecker`).
fn follow(attempt: Attempt<'_>) -> Action {
    let from = attempt.previous();
    if from.first().and_then(|first| first.host_str()) != attempt.url().host_str() {
        return attempt.stop();
    }
    if from.len() >= MOST_REDIRECTS {
        return attempt.error(format!("stopped after {MOST_REDIRECTS} redirects"));
    }
    attempt.follow()
}

#[cfg(test)]
mod tests {
    use axum::{Router, response::Redirect, routing::get};

    use super::*;

    #[tokio::test]
    async fn a_probe_stays_with_its_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let there = async || Redirect::to("/here");
        let away = async || Redirect::to("http://0.0.0.0:1/");
        let round = async || Redirect::to("/round");
        let routes = Router::new()
            .route("/here", get(async || "here"))
            .route("/there", get(there))
            .route("/away", get(away))
            .route("/round", get(round));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let ask = async |path: &str| new().get(format!("http://{address}{path}")).send().await;
        assert_eq!(ask("/there").await.unwrap().text().await.unwrap(), "here");
        assert_eq!(ask("/away").await.unwrap().status(), 303);
        assert!(ask("/round").await.unwrap_err().is_redirect());
    }
}
