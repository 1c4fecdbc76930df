//! `kubectl cluster-info`.

use crate::error::Error;
use crate::output;
use crate::session::Session;

/// Carries out the command.
pub(crate) async fn run(session: &Session) -> Result<(), Error> {
    // An address alone would say nothing about whether anybody is there.
    let version = session.get("/version").await?;
    output::line(&format!("Kubernetes control plane is running at {}", session.server))?;
    let services = session
        .get("/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue")
        .await?;
    for service in services["items"].as_array().into_iter().flatten() {
        let name = service.pointer("/metadata/name").and_then(|name| name.as_str()).unwrap_or_default();
        let shown = service
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get("kubernetes.io/name"))
            .and_then(|label| label.as_str())
            .unwrap_or(name);
        output::line(&format!(
            "{shown} is running at {}/api/v1/namespaces/kube-system/services/{name}/proxy",
            session.server
        ))?;
    }
    output::line(&format!(
        "\nThe server is {}.",
        version["gitVersion"].as_str().unwrap_or("of an unknown version")
    ))
}
