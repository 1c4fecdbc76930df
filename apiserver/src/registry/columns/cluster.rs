//! Nodes, namespaces, configuration, events, and what runs the cluster itself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AGE, Column, NAME, Printer, Row, integer, items, joined, length, text, text_or};

pub(super) const NODE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the node is ready, and takes pods."),
        Column::text("Roles", "What the node is for."),
        AGE,
        Column::text("Version", "The kubelet's version."),
        Column::text("Internal-IP", "The node's address inside the cluster.").wide(),
        Column::text("External-IP", "The node's address outside the cluster.").wide(),
        Column::text("OS-Image", "The node's operating system.").wide(),
        Column::text("Kernel-Version", "The node's kernel.").wide(),
        Column::text("Container-Runtime", "The node's container runtime and its version.").wide(),
    ],
    cells: node,
};

fn node(row: &Row<'_>) -> Vec<Value> {
    let status = &row.object["status"];
    let ready = items(&status["conditions"]).iter().find(|condition| condition["type"] == "Ready");
    let mut state = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if row.object["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let info = &status["nodeInfo"];
    let mut kernel = text_or(&info["kernelVersion"], "<unknown>").to_owned();
    let architecture = text(&info["architecture"]);
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        row.name(),
        state.into(),
        roles(row.object).into(),
        row.age(),
        text(&info["kubeletVersion"]).into(),
        address(status, "InternalIP").into(),
        address(status, "ExternalIP").into(),
        text_or(&info["osImage"], "<unknown>").into(),
        kernel.into(),
        text_or(&info["containerRuntimeVersion"], "<unknown>").into(),
    ]
}

fn address<'a>(status: &'a Value, kind: &str) -> &'a str {
    items(&status["addresses"])
        .iter()
        .find(|address| address["type"] == kind)
        .map_or("<none>", |address| text(&address["address"]))
}

/// Roles stand in labels: `node-role.kubernetes.io/<role>`, or the value of `kubernetes.io/role`.
fn roles(node: &Value) -> String {
    let roles: BTreeSet<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then(|| text(value)),
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { joined(roles) }
}

pub(super) const NAMESPACE: Printer = Printer {
    columns: &[NAME, Column::text("Status", "Whether the namespace is active or terminating."), AGE],
    cells: |row| vec![row.name(), text(&row.object["status"]["phase"]).into(), row.age()],
};

pub(super) const CONFIG_MAP: Printer = Printer {
    columns: &[NAME, Column::text("Data", "How many entries there are."), AGE],
    cells: |row| {
        let entries = length(&row.object["data"]) + length(&row.object["binaryData"]);
        vec![row.name(), entries.into(), row.age()]
    },
};

pub(super) const SECRET: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "What the secret is for."),
        Column::text("Data", "How many entries there are."),
        AGE,
    ],
    cells: |row| {
        vec![row.name(), text(&row.object["type"]).into(), length(&row.object["data"]).into(), row.age()]
    },
};

const EVENT_COLUMNS: &[Column] = &[
    Column::text("Last Seen", "How long ago it last happened."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in one word."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "The part of the object that it happened to.").wide(),
    Column::text("Source", "Who reported it.").wide(),
    Column::text("Message", "What happened."),
    Column::text("First Seen", "How long ago it first happened.").wide(),
    Column::text("Count", "How often it happened.").wide(),
    Column { priority: 1, ..NAME },
];

pub(super) const CORE_EVENT: Printer = Printer {
    columns: EVENT_COLUMNS,
    cells: |row| {
        let event = row.object;
        event_cells(
            row,
            &EventFields {
                object: &event["involvedObject"],
                message: &event["message"],
                source: &event["source"],
                component: &event["reportingComponent"],
                first: &event["firstTimestamp"],
                last: &event["lastTimestamp"],
                count: &event["count"],
            },
        )
    },
};

pub(super) const EVENT: Printer = Printer {
    columns: EVENT_COLUMNS,
    cells: |row| {
        let event = row.object;
        event_cells(
            row,
            &EventFields {
                object: &event["regarding"],
                message: &event["note"],
                source: &event["deprecatedSource"],
                component: &event["reportingController"],
                first: &event["deprecatedFirstTimestamp"],
                last: &event["deprecatedLastTimestamp"],
                count: &event["deprecatedCount"],
            },
        )
    },
};

/// The fields whose names differ between the two groups that serve events.
struct EventFields<'a> {
    object: &'a Value,
    message: &'a Value,
    source: &'a Value,
    component: &'a Value,
    first: &'a Value,
    last: &'a Value,
    count: &'a Value,
}

fn event_cells(row: &Row<'_>, fields: &EventFields<'_>) -> Vec<Value> {
    let event = row.object;
    let first = if fields.first.is_null() { &event["eventTime"] } else { fields.first };
    let mut last = if fields.last.is_null() { first } else { fields.last };
    let mut count = integer(fields.count).max(1);
    let series = &event["series"];
    if series.is_object() {
        last = &series["lastObservedTime"];
        count = integer(&series["count"]);
    }
    let kind = text(&fields.object["kind"]).to_lowercase();
    let target = match text(&fields.object["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = text_or(&fields.source["component"], text(fields.component));
    let source = match text_or(&fields.source["host"], text(&event["reportingInstance"])) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        row.since(last),
        text(&event["type"]).into(),
        text(&event["reason"]).into(),
        target.into(),
        text(&fields.object["fieldPath"]).into(),
        source.into(),
        text(fields.message).trim().into(),
        row.since(first),
        count.into(),
        row.name(),
    ]
}

pub(super) const RESOURCE_QUOTA: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Request", "What is used of what may be requested."),
        Column::text("Limit", "What is used of what limits may amount to."),
        AGE,
    ],
    cells: |row| {
        let (hard, used) = (&row.object["status"]["hard"], &row.object["status"]["used"]);
        let usage = |limits: bool| {
            hard.as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| name.starts_with("limits.") == limits)
                .map(|(name, quantity)| format!("{name}: {}/{}", text_or(&used[name], "0"), text(quantity)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![row.name(), usage(false).into(), usage(true).into(), row.age()]
    },
};

pub(super) const COMPONENT_STATUS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the component is healthy."),
        Column::text("Message", "What the component says."),
        Column::text("Error", "What is wrong with it."),
    ],
    cells: |row| {
        let healthy =
            items(&row.object["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
        let condition = healthy.unwrap_or(&Value::Null);
        let status = match text(&condition["status"]) {
            "True" => "Healthy",
            "" => "Unknown",
            _ => "Unhealthy",
        };
        vec![row.name(), status.into(), text(&condition["message"]).into(), text(&condition["error"]).into()]
    },
};

pub(super) const LEASE: Printer = Printer {
    columns: &[NAME, Column::text("Holder", "Who holds the lease."), AGE],
    cells: |row| vec![row.name(), text(&row.object["spec"]["holderIdentity"]).into(), row.age()],
};

pub(super) const PRIORITY_CLASS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Value", "The priority of the class's pods."),
        Column::boolean("Global-Default", "Whether pods without a class get this one."),
        AGE,
        Column::text("PreemptionPolicy", "Whether its pods may push out others."),
    ],
    cells: |row| {
        let class = row.object;
        vec![
            row.name(),
            integer(&class["value"]).into(),
            (class["globalDefault"] == true).into(),
            row.age(),
            text(&class["preemptionPolicy"]).into(),
        ]
    },
};

pub(super) const RUNTIME_CLASS: Printer = Printer {
    columns: &[NAME, Column::text("Handler", "The runtime's configuration for the class's pods."), AGE],
    cells: |row| vec![row.name(), text(&row.object["handler"]).into(), row.age()],
};

pub(super) const FLOW_SCHEMA: Printer = Printer {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "The priority level of the requests."),
        Column::text("MatchingPrecedence", "Which schema wins where several match: the lowest."),
        Column::text("DistinguisherMethod", "How requests are told apart into flows."),
        AGE,
        Column::text("MissingPL", "Whether the priority level does not exist."),
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let dangling = items(&row.object["status"]["conditions"])
            .iter()
            .find(|condition| condition["type"] == "Dangling")
            .map_or("?", |condition| text(&condition["status"]));
        vec![
            row.name(),
            text(&spec["priorityLevelConfiguration"]["name"]).into(),
            integer(&spec["matchingPrecedence"]).into(),
            text_or(&spec["distinguisherMethod"]["type"], "<none>").into(),
            row.age(),
            dangling.into(),
        ]
    },
};

pub(super) const PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "Whether the level is limited."),
        Column::text("NominalConcurrencyShares", "The level's share of the server's concurrency."),
        Column::text("Queues", "How many queues there are."),
        Column::text("HandSize", "How many queues a flow may use."),
        Column::text("QueueLengthLimit", "How many requests a queue holds."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let queuing = &spec["limited"]["limitResponse"]["queuing"];
        let number = |value: &Value| value.as_i64().map_or_else(|| "<none>".into(), Value::from);
        vec![
            row.name(),
            text(&spec["type"]).into(),
            number(&spec["limited"]["nominalConcurrencyShares"]),
            number(&queuing["queues"]),
            number(&queuing["handSize"]),
            number(&queuing["queueLengthLimit"]),
            row.age(),
        ]
    },
};

pub(super) const RESOURCE_CLAIM: Printer = Printer {
    columns: &[NAME, Column::text("State", "Whether the claim is pending, allocated or reserved."), AGE],
    cells: |row| {
        let status = &row.object["status"];
        let mut states = Vec::new();
        if row.deleted() {
            states.push("deleted");
        }
        if status["allocation"].is_object() {
            states.push("allocated");
            if !items(&status["reservedFor"]).is_empty() {
                states.push("reserved");
            }
        } else if !row.deleted() {
            states.push("pending");
        }
        vec![row.name(), joined(states).into(), row.age()]
    },
};

pub(super) const RESOURCE_SLICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Node", "The node that has the devices."),
        Column::text("Driver", "The driver of the devices."),
        Column::text("Pool", "The pool that the slice is a part of."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let cells = [&spec["nodeName"], &spec["driver"], &spec["pool"]["name"]];
        let [node, driver, pool] = cells.map(|cell| Value::from(text(cell)));
        vec![row.name(), node, driver, pool, row.age()]
    },
};
