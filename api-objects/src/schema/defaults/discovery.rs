//! Defaults of discovery.k8s.io.

use super::{Fields, absent, each};

pub(super) fn endpoint_slice(object: &mut Fields) {
    each(object, "ports", |port| {
        absent(port, "name", "");
        absent(port, "protocol", "TCP");
    });
}
