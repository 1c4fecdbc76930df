//! Defaults of scheduling.k8s.io.

use super::{Fields, absent};

pub(super) fn priority_class(object: &mut Fields) {
    absent(object, "preemptionPolicy", "PreemptLowerPriority");
}
