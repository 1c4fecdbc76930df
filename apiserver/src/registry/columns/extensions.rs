//! What extends the API: webhooks, admission policies, aggregated APIs.

use serde_json::Value;

use super::{AGE, Column, NAME, Printer, Row, items, length, text};

pub(super) const WEBHOOKS: Printer = Printer {
    columns: &[NAME, Column::integer("Webhooks", "How many webhooks are configured."), AGE],
    cells: |row| vec![row.name(), length(&row.object["webhooks"]).into(), row.age()],
};

const PARAM_KIND: Column = Column::text("ParamKind", "The kind of the policy's parameters.");

pub(super) const VALIDATING_POLICY: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Validations", "How many validations the policy makes."),
        PARAM_KIND,
        AGE,
    ],
    cells: |row| policy(row, "validations"),
};

pub(super) const MUTATING_POLICY: Printer = Printer {
    columns: &[NAME, Column::integer("Mutations", "How many mutations the policy makes."), PARAM_KIND, AGE],
    cells: |row| policy(row, "mutations"),
};

fn policy(row: &Row<'_>, rules: &str) -> Vec<Value> {
    let spec = &row.object["spec"];
    let kind = &spec["paramKind"];
    let kind = if kind.is_object() {
        format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"]))
    } else {
        "<unset>".to_owned()
    };
    vec![row.name(), length(&spec[rules]).into(), kind.into(), row.age()]
}

pub(super) const POLICY_BINDING: Printer = Printer {
    columns: &[
        NAME,
        Column::text("PolicyName", "The policy that is put to work."),
        Column::text("ParamRef", "The policy's parameters."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let (name, namespace) = (text(&spec["paramRef"]["name"]), text(&spec["paramRef"]["namespace"]));
        let parameters = match (name, namespace) {
            ("", _) if spec["paramRef"]["selector"].is_object() => {
                super::selector(&spec["paramRef"]["selector"])
            }
            ("", _) => "<unset>".to_owned(),
            // Nothing here says whether the parameters live in a namespace.
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        vec![row.name(), text(&spec["policyName"]).into(), parameters.into(), row.age()]
    },
};

pub(super) const API_SERVICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Service", "The service that answers for the API."),
        Column::text("Available", "Whether the API is available."),
        AGE,
    ],
    cells: |row| {
        let service = &row.object["spec"]["service"];
        let service = if service.is_object() {
            format!("{}/{}", text(&service["namespace"]), text(&service["name"]))
        } else {
            "Local".to_owned()
        };
        let available = items(&row.object["status"]["conditions"])
            .iter()
            .find(|condition| condition["type"] == "Available")
            .map_or_else(
                || "Unknown".to_owned(),
                |condition| match (text(&condition["status"]), text(&condition["reason"])) {
                    ("True", _) => "True".to_owned(),
                    (status, reason) => format!("{status} ({reason})"),
                },
            );
        vec![row.name(), service.into(), available.into(), row.age()]
    },
};
