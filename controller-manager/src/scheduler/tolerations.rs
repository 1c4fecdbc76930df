//! Tolerations and the taints that they bear.

use serde::Deserialize;

/// A toleration of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Empty with `Exists` for every key.
    pub key: String,
    /// `Exists` or `Equal`; empty means `Equal`.
    pub operator: String,
    /// Compared with `Equal`.
    pub value: String,
    /// Empty for every effect.
    pub effect: String,
    /// How long a `NoExecute` taint is borne; `None` for ever.
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether this taint is tolerated (`ToleratesTaint` of `k8s.io/component-helpers`).
    #[must_use]
    pub fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        (self.effect.is_empty() || self.effect == effect)
            && (self.key.is_empty() || self.key == key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => self.value == value,
                // `Lt` and `Gt` (v1.35, behind a feature gate) are refused by validation; unknown means no.
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_wildcards() {
        let all = Toleration { operator: "Exists".into(), ..Toleration::default() };
        assert!(all.tolerates("k", "v", "NoExecute"));
        let equal = Toleration {
            key: "k".into(),
            value: "v".into(),
            effect: "NoSchedule".into(),
            ..Toleration::default()
        };
        assert!(equal.tolerates("k", "v", "NoSchedule"));
        assert!(!equal.tolerates("k", "w", "NoSchedule"));
        assert!(!equal.tolerates("k", "v", "NoExecute"));
    }
}
