//! `kubectl api-resources` and `kubectl api-versions`.

use std::sync::Arc;

use api_objects::{Resource, Value};

use crate::cli::ApiResourcesArgs;
use crate::error::Error;
use crate::output;
use crate::printers::table;
use crate::session::Session;

/// Carries out `api-resources`.
pub(crate) async fn run(args: &ApiResourcesArgs, session: &Session) -> Result<(), Error> {
    let wanted = |row: &&Arc<Resource>| {
        args.api_group.as_ref().is_none_or(|group| *group == row.group)
            && args.namespaced.is_none_or(|namespaced| namespaced == row.namespaced)
            && args.verbs.iter().all(|verb| row.verbs.iter().any(|other| other == verb))
    };
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut rows: Vec<&Arc<Resource>> = Vec::new();
    for row in session.discover().await?.iter().filter(wanted) {
        // The preferred version of a group comes first; others are left out.
        if !seen.contains(&(row.group.as_ref(), row.plural.as_ref())) {
            seen.push((row.group.as_ref(), row.plural.as_ref()));
            rows.push(row);
        }
    }
    match args.sort_by.as_deref() {
        None => rows.sort_by(|left, right| (&left.group, &left.plural).cmp(&(&right.group, &right.plural))),
        Some("name") => rows.sort_by(|left, right| left.plural.cmp(&right.plural)),
        Some("kind") => rows.sort_by(|left, right| left.kind.cmp(&right.kind)),
        Some(other) => {
            return Err(Error::message(format!("--sort-by accepts only name or kind, not {other:?}")));
        }
    }
    let wide = match args.output.as_deref() {
        None => false,
        Some("wide") => true,
        Some("name") => {
            let names: String = rows
                .iter()
                .map(|row| {
                    if row.group.is_empty() {
                        format!("{}\n", row.plural)
                    } else {
                        format!("{}.{}\n", row.plural, row.group)
                    }
                })
                .collect();
            return output::print(&names);
        }
        Some(other) => {
            return Err(Error::message(format!("--output {other} is not available: use name or wide")));
        }
    };
    let mut lines = Vec::new();
    if !args.no_headers {
        let mut headings = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        if wide {
            headings.extend(["VERBS", "CATEGORIES"]);
        }
        lines.push(headings.into_iter().map(str::to_owned).collect());
    }
    for row in rows {
        let mut line = vec![
            row.plural.to_string(),
            row.short_names.join(","),
            row.api_version(),
            row.namespaced.to_string(),
            row.kind.to_string(),
        ];
        if wide {
            line.extend([row.verbs.join(","), row.categories.join(",")]);
        }
        lines.push(line);
    }
    output::print(&table::align(lines))
}

/// Carries out `api-versions`.
pub(crate) async fn versions(session: &Session) -> Result<(), Error> {
    let core = session.get("/api").await?;
    let groups = session.get("/apis").await?;
    let mut versions: Vec<String> = core["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(groups["groups"].as_array().into_iter().flatten().flat_map(|group| {
            group["versions"].as_array().into_iter().flatten().map(|version| &version["groupVersion"])
        }))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    versions.sort_unstable();
    output::print(&versions.into_iter().map(|version| version + "\n").collect::<String>())
}
