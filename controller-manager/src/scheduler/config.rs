//! The scheduler's configuration: a `KubeSchedulerConfiguration` in a ConfigMap, followed live.
//!
//! `kube-system/kube-scheduler-config`, key `config.yaml`. Of upstream's configuration the profile
//! `default-scheduler` is read, and of its plug-in configuration the entry `Strategy` (ours) and the scoring
//! strategy of `NodeResourcesFit`. What else stands there is named in a warning, not silently accepted.

use api_objects::{Value, object::ObjectMeta};
use tracing::warn;

use super::scores::Strategy;
use crate::controllers::typed;

/// Namespace of the ConfigMap.
pub const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap.
pub const NAME: &str = "kube-scheduler-config";
/// Key in the ConfigMap.
pub const KEY: &str = "config.yaml";

/// What is read of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How nodes are chosen.
    pub strategy: Strategy,
}

impl SchedulerConfig {
    /// Reads the ConfigMap; what cannot be read leaves the default and a warning.
    pub(super) fn project(bytes: &[u8], _: &ObjectMeta) -> Option<Self> {
        let map: Value = typed(bytes)?;
        let text = map["data"][KEY].as_str()?;
        match parse(text) {
            Ok(config) => Some(config),
            Err(problem) => {
                warn!(problem, "the scheduler's configuration cannot be used; the default stands");
                Some(Self::default())
            }
        }
    }
}

/// Reads a `KubeSchedulerConfiguration`.
///
/// # Errors
/// What is wrong with it, naming the field.
pub fn parse(text: &str) -> Result<SchedulerConfig, String> {
    let documents = api_objects::yaml::documents(text).map_err(|error| error.to_string())?;
    let [document] = documents.as_slice() else {
        return Err("exactly one document is expected".into());
    };
    if document["kind"] != "KubeSchedulerConfiguration" {
        return Err(format!("kind: {} is not KubeSchedulerConfiguration", document["kind"]));
    }
    let mut config = SchedulerConfig::default();
    for (index, profile) in document["profiles"].as_array().into_iter().flatten().enumerate() {
        let name = profile["schedulerName"].as_str().unwrap_or("default-scheduler");
        if name != "default-scheduler" {
            return Err(format!(
                "profiles[{index}].schedulerName: only default-scheduler is supported, not {name:?}"
            ));
        }
        for entry in profile["pluginConfig"].as_array().into_iter().flatten() {
            let args = &entry["args"];
            match entry["name"].as_str().unwrap_or_default() {
                "Strategy" => {
                    let name = args["strategy"].as_str().unwrap_or_default();
                    config.strategy = Strategy::from_name(name).ok_or_else(|| {
                        format!(
                            "profiles[{index}].pluginConfig: strategy {name:?} is none of default, random, \
                             min-pods, max-pods, min-cpu, min-mem"
                        )
                    })?;
                }
                "NodeResourcesFit" => match args["scoringStrategy"]["type"].as_str() {
                    None | Some("LeastAllocated") => {}
                    Some(other) => {
                        return Err(format!("scoringStrategy.type: {other:?} is not supported yet"));
                    }
                },
                other => {
                    return Err(format!(
                        "profiles[{index}].pluginConfig: plug-in {other:?} is not supported yet"
                    ));
                }
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_strategy_and_names_what_it_cannot_do() {
        let text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: default-scheduler\n  pluginConfig:\n  - name: Strategy\n    args: {strategy: min-cpu}\n";
        assert_eq!(parse(text).unwrap().strategy, Strategy::MinCpu);
        assert!(parse(&text.replace("min-cpu", "best")).unwrap_err().contains("\"best\""));
        assert!(parse(&text.replace("name: Strategy", "name: NodePorts")).unwrap_err().contains("NodePorts"));
        assert!(parse("kind: Other").unwrap_err().contains("KubeSchedulerConfiguration"));
    }
}
