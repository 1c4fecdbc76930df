//! Who may do what, and certificates.

use serde_json::Value;

use super::{AGE, Column, NAME, Printer, items, text, text_or};

pub(super) const BINDING: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Role", "The role that is granted."),
        AGE,
        Column::text("Users", "The users that get it.").wide(),
        Column::text("Groups", "The groups that get it.").wide(),
        Column::text("ServiceAccounts", "The service accounts that get it.").wide(),
    ],
    cells: |row| {
        let role = &row.object["roleRef"];
        let subjects = |kind: &str| -> Value {
            items(&row.object["subjects"])
                .iter()
                .filter(|subject| subject["kind"] == kind)
                .map(|subject| match text(&subject["namespace"]) {
                    namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                        format!("{namespace}/{}", text(&subject["name"]))
                    }
                    _ => text(&subject["name"]).to_owned(),
                })
                .collect::<Vec<_>>()
                .join(", ")
                .into()
        };
        vec![
            row.name(),
            format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
            row.age(),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

pub(super) const SIGNING_REQUEST: Printer = Printer {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is asked to sign."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "For how long the certificate should be valid."),
        Column::text("Condition", "Whether the request was approved, and the certificate issued."),
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let has = |kind| items(&status["conditions"]).iter().any(|condition| condition["type"] == kind);
        let mut state = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            state.push_str(",Failed");
        }
        if !text(&status["certificate"]).is_empty() {
            state.push_str(",Issued");
        }
        let valid = spec["expirationSeconds"].as_i64();
        vec![
            row.name(),
            row.age(),
            text_or(&spec["signerName"], "<none>").into(),
            text(&spec["username"]).into(),
            valid.map_or_else(|| "<none>".to_owned(), api_objects::duration::human).into(),
            state.into(),
        ]
    },
};
