//! `kubectl explain`: what the fields of a kind are.

use std::fmt::Write;

use api_objects::schema::explain::{self, Descriptions};
use api_objects::schema::{Kind, Schema};
use api_objects::{Resource, resource, schema};

use crate::cli::ExplainArgs;
use crate::error::Error;
use crate::output;
use crate::session::Session;

/// Width at which descriptions are broken.
const WIDTH: usize = 80;

/// The kind's name in `pods.spec.containers`.
fn kind_name(args: &ExplainArgs) -> &str {
    args.target.split('.').next().unwrap_or_default()
}

/// Whether the kind is built in, so that all about it is known here.
pub(crate) fn needs_no_server(args: &ExplainArgs) -> bool {
    resource::find_by_any_name(kind_name(args)).is_some()
}

fn find(args: &ExplainArgs) -> Option<&'static Resource> {
    let found = resource::find_by_any_name(kind_name(args))?;
    match &args.api_version {
        None => Some(found),
        Some(api_version) => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            resource::find(group, version, &found.plural).map(|found| &**found)
        }
    }
}

/// Carries out the command.
pub(crate) async fn run(args: &ExplainArgs, session: Option<&Session>) -> Result<(), Error> {
    let Some(resource) = find(args) else {
        if let Some(session) = session {
            let known = session.resource(kind_name(args)).await?;
            return Err(Error::message(format!(
                "{} are custom objects; explaining those is not supported yet: see 'kubectl get crd -o yaml'",
                known.plural
            )));
        }
        return Err(Error::message(format!("couldn't find resource for {:?}", args.target)));
    };
    let path: Vec<&str> = args.target.split('.').skip(1).filter(|part| !part.is_empty()).collect();
    output::print(&text(resource, &path, args.recursive)?)
}

fn text(resource: &Resource, path: &[&str], recursive: bool) -> Result<String, Error> {
    let descriptions = explain::descriptions(&resource.group, &resource.version);
    let mut schema: &Schema = schema::definition(&resource.definition)
        .ok_or_else(|| Error::message(format!("nothing is known about {}", resource.plural)))?;
    let mut description =
        schema.definition().and_then(|definition| descriptions.definition(&definition.name));
    let mut own_type = String::new();
    for name in path {
        let parent = inner(schema);
        let field =
            parent.field(name).ok_or_else(|| Error::message(format!("field {name:?} does not exist")))?;
        description = parent.definition().and_then(|definition| descriptions.field(&definition.name, name));
        own_type = type_name(field);
        schema = field;
    }
    let mut out = String::new();
    if !resource.group.is_empty() {
        let _ = writeln!(out, "GROUP:      {}", resource.group);
    }
    let _ = writeln!(out, "KIND:       {}\nVERSION:    {}\n", resource.kind, resource.version);
    let target = inner(schema);
    if let Some(name) = path.last() {
        let _ = writeln!(out, "FIELD: {name} <{own_type}>\n\n");
    }
    out.push_str("DESCRIPTION:\n");
    wrap(&mut out, description.unwrap_or("<empty>"), 4);
    let below = target.definition().filter(|_| matches!(target.kind(), Kind::Object));
    if let (Some(definition), false) = (below, path.is_empty()) {
        // The field's own words are followed by those of its type, as upstream prints them.
        if let Some(text) =
            descriptions.definition(&definition.name).filter(|text| Some(*text) != description)
        {
            wrap(&mut out, text, 4);
        }
    }
    out.push('\n');
    if !target.fields().is_empty() {
        out.push_str("FIELDS:\n");
        fields(&mut out, target, &descriptions, 2, recursive, &mut Vec::new());
    }
    Ok(out)
}

/// The struct behind lists and maps.
fn inner(schema: &Schema) -> &Schema {
    match schema.kind() {
        Kind::List(items) | Kind::Map(items) => inner(items),
        _ => schema,
    }
}

fn type_name(schema: &Schema) -> String {
    match schema.kind() {
        Kind::Boolean => "boolean".to_owned(),
        Kind::Int32 | Kind::Int64 => "integer".to_owned(),
        Kind::Double => "number".to_owned(),
        Kind::String | Kind::Bytes => "string".to_owned(),
        Kind::Time => "Time".to_owned(),
        Kind::MicroTime => "MicroTime".to_owned(),
        Kind::Quantity => "Quantity".to_owned(),
        Kind::IntOrString => "IntOrString".to_owned(),
        Kind::Any => "Object".to_owned(),
        Kind::List(items) => format!("[]{}", type_name(items)),
        Kind::Map(values) => format!("map[string]{}", type_name(values)),
        Kind::Object => {
            let name =
                schema.definition().map(|definition| definition.name.rsplit('.').next().unwrap_or_default());
            name.unwrap_or("Object").to_owned()
        }
    }
}

fn fields<'s>(
    out: &mut String,
    schema: &'s Schema,
    descriptions: &Descriptions,
    depth: usize,
    recursive: bool,
    above: &mut Vec<&'s str>,
) {
    let definition = schema.definition().map(|definition| &*definition.name).unwrap_or_default();
    if above.contains(&definition) {
        return;
    }
    above.push(definition);
    for field in schema.fields() {
        let required = if field.required { " -required-" } else { "" };
        let _ = writeln!(out, "{:depth$}{}\t<{}>{required}", "", field.name, type_name(&field.schema));
        if recursive {
            fields(out, inner(&field.schema), descriptions, depth + 2, true, above);
        } else {
            wrap(out, descriptions.field(definition, &field.name).unwrap_or("<no description>"), depth + 2);
            out.push('\n');
        }
    }
    above.pop();
}

fn wrap(out: &mut String, text: &str, depth: usize) {
    for paragraph in text.lines() {
        let mut width = 0;
        for word in paragraph.split_whitespace() {
            if width > 0 && width + 1 + word.chars().count() > WIDTH - depth {
                out.push('\n');
                width = 0;
            }
            if width == 0 {
                let _ = write!(out, "{:depth$}", "");
            } else {
                out.push(' ');
                width += 1;
            }
            out.push_str(word);
            width += word.chars().count();
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> &'static Resource {
        resource::find("", "v1", "pods").unwrap()
    }

    #[test]
    fn a_field_is_explained() {
        let text = text(pods(), &["spec", "containers", "image"], false).unwrap();
        assert!(
            text.starts_with(
                "KIND:       Pod\nVERSION:    v1\n\nFIELD: image <string>\n\n\nDESCRIPTION:\n    "
            ),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH || !line.contains(' ')), "{text}");
    }

    #[test]
    fn fields_are_listed() {
        let text = text(pods(), &["spec"], true).unwrap();
        assert!(text.contains("  containers\t<[]Container> -required-\n    args\t<[]string>\n"), "{text}");
        let error = super::text(pods(), &["spec", "nonsense"], false).unwrap_err();
        assert_eq!(error.to_string(), r#"error: field "nonsense" does not exist"#);
    }
}
