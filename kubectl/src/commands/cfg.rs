//! `kubectl cfg`: settings of a local cluster, the first Minik8s' command.
//!
//! `sched=STRATEGY` writes a KubeSchedulerConfiguration into a ConfigMap that the scheduler follows.

use api_objects::{Value, yaml};
use serde_json::json;

use crate::cli::CfgArgs;
use crate::error::Error;
use crate::output;
use crate::session::Session;

/// The strategies, and what each does.
const STRATEGIES: [&str; 6] = ["random", "min-pods", "max-pods", "min-cpu", "min-mem", "default"];
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "kube-scheduler-config";

/// Carries out the command.
pub(crate) async fn run(args: &CfgArgs, session: &Session) -> Result<(), Error> {
    for setting in &args.settings {
        let Some(strategy) = setting.strip_prefix("sched=") else {
            return Err(Error::message(format!("unknown setting {setting:?}: there is sched=STRATEGY")));
        };
        if !STRATEGIES.contains(&strategy) {
            return Err(Error::message(format!(
                "unknown scheduling strategy {strategy:?}: choose one of {}",
                STRATEGIES.join(", ")
            )));
        }
        let data = json!({"data": {"config.yaml": yaml::to_string(&configuration(strategy))}});
        let path = format!("{CONFIG_MAP}/{NAME}?fieldManager=kubectl-cfg");
        match session.patch(&path, "application/merge-patch+json", &data).await {
            Err(error) if error.is_not_found() => {
                let mut object = data;
                object["apiVersion"] = json!("v1");
                object["kind"] = json!("ConfigMap");
                object["metadata"] = json!({"name": NAME, "namespace": "kube-system"});
                session.post(&format!("{CONFIG_MAP}?fieldManager=kubectl-cfg"), &object).await?;
            }
            other => {
                other?;
            }
        }
        output::line(&format!("scheduling strategy set to {strategy}"))?;
    }
    Ok(())
}

/// The scheduler's configuration for a strategy.
fn configuration(strategy: &str) -> Value {
    let mut profile = json!({"schedulerName": "default-scheduler"});
    if strategy != "default" {
        profile["pluginConfig"] = json!([{"name": "Strategy", "args": {"strategy": strategy}}]);
    }
    json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": [profile]})
}
