//! The forms in which objects are printed.

mod columns;
pub(crate) mod table;
pub(crate) mod tabs;

use std::path::Path;

use api_objects::jsonpath::{JsonPath, MissingKeys};
use api_objects::{Resource, Value, yaml};
use serde_json::json;

pub(crate) use columns::Columns;

use crate::cli::OutputArgs;
use crate::error::Error;
use crate::output;
use crate::resources;

/// What `-o` asks for.
#[derive(Debug)]
pub(crate) enum Format {
    /// The server's table, its main columns; or the command's short message.
    Human,
    /// All of the table's columns.
    Wide,
    /// `pod/a`
    Name,
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
    /// A JSONPath template.
    Path(JsonPath),
    /// The results of a JSONPath as a JSON list.
    PathAsJson(JsonPath),
    /// Columns of one's own.
    Columns(Columns),
}

/// `-o` and what belongs to it.
#[derive(Debug)]
pub(crate) struct Printer {
    /// The form.
    pub(crate) format: Format,
    show_managed_fields: bool,
    missing: MissingKeys,
    headed: bool,
}

impl Printer {
    /// Reads the flags.
    pub(crate) fn new(args: &OutputArgs) -> Result<Self, Error> {
        let missing = if args.allow_missing_template_keys { MissingKeys::Allow } else { MissingKeys::Refuse };
        Ok(Self {
            format: format(args.output.as_deref().unwrap_or_default())?,
            show_managed_fields: args.show_managed_fields,
            missing,
            headed: true,
        })
    }

    /// The same, with headings above columns of one's own or without.
    pub(crate) fn headed(self, headed: bool) -> Self {
        Self { headed, ..self }
    }

    /// Whether the command prints messages or tables rather than objects.
    pub(crate) fn is_human(&self) -> bool {
        matches!(self.format, Format::Human | Format::Wide)
    }

    /// Prints the outcome of a command on an object: `pod/a created`, or the object in the form asked for.
    pub(crate) fn outcome(&self, resource: &Resource, object: &Value, what: &str) -> Result<(), Error> {
        if self.is_human() {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            return output::line(&format!("{} {what}", resources::label(resource, name)));
        }
        self.print(resource, object)
    }

    /// Prints an object, or a list of objects of one kind.
    pub(crate) fn print(&self, resource: &Resource, object: &Value) -> Result<(), Error> {
        output::print(&self.render(Some(resource), object)?)
    }

    /// The text of an object or list.
    pub(crate) fn render(&self, resource: Option<&Resource>, object: &Value) -> Result<String, Error> {
        let mut object = object.clone();
        if !self.show_managed_fields {
            strip_managed_fields(&mut object);
        }
        Ok(match &self.format {
            Format::Json => {
                let text = serde_json::to_string_pretty(&object)
                    .map_err(|error| Error::message(error.to_string()))?;
                // Go indents by four.
                reindent(&text)
            }
            Format::Yaml => yaml::to_string(&object),
            Format::Path(path) => path.render(&object, self.missing)?,
            Format::PathAsJson(path) => {
                let found = path.find(&object, self.missing)?;
                let text = serde_json::to_string_pretty(&json!(found))
                    .map_err(|error| Error::message(error.to_string()))?;
                reindent(&text)
            }
            Format::Columns(columns) => columns.render(&items(&object), self.headed),
            Format::Name | Format::Human | Format::Wide => items(&object)
                .iter()
                .map(|item| {
                    let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                    match resource {
                        Some(resource)
                            if resource.kind == item["kind"].as_str().unwrap_or(&resource.kind) =>
                        {
                            format!("{}\n", resources::label(resource, name))
                        }
                        _ => format!("{}/{name}\n", kind_of(item)),
                    }
                })
                .collect(),
        })
    }
}

/// `deployment.apps` from the object itself.
fn kind_of(item: &Value) -> String {
    let kind = item["kind"].as_str().unwrap_or_default().to_lowercase();
    match item["apiVersion"].as_str().and_then(|version| version.split_once('/')) {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    }
}

/// The items of a list, or the object alone.
pub(crate) fn items(object: &Value) -> Vec<Value> {
    match object.get("items").and_then(Value::as_array) {
        Some(items) if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
        _ => vec![object.clone()],
    }
}

fn strip_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip_managed_fields);
    }
}

/// Doubles the indentation of pretty JSON and ends it with a line break.
fn reindent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        let body = line.trim_start_matches(' ');
        out.extend(std::iter::repeat_n(' ', (line.len() - body.len()) * 2));
        out.push_str(body);
        out.push('\n');
    }
    out
}

fn format(text: &str) -> Result<Format, Error> {
    let (name, argument) = text.split_once('=').unwrap_or((text, ""));
    let need = |what: &str| {
        if argument.is_empty() {
            return Err(Error::message(format!("{what} format specified but no {what} given")));
        }
        Ok(argument)
    };
    let columns = |argument| match argument {
        "" => Err(Error::message("custom-columns format specified but no custom columns given")),
        given => Ok(given),
    };
    let file = |path: &str| {
        std::fs::read_to_string(Path::new(path)).map_err(|error| {
            let problem = crate::error::file_problem(&error);
            Error::message(format!("error reading --template {path}, open {path}: {problem}"))
        })
    };
    Ok(match name {
        "" => Format::Human,
        "wide" => Format::Wide,
        "name" => Format::Name,
        "json" => Format::Json,
        "yaml" => Format::Yaml,
        "jsonpath" => Format::Path(parse_path(need("template")?)?),
        "jsonpath-as-json" => Format::PathAsJson(parse_path(need("template")?)?),
        "jsonpath-file" => Format::Path(parse_path(&file(need("template")?)?)?),
        "custom-columns" => Format::Columns(Columns::parse(columns(argument)?)?),
        "custom-columns-file" => Format::Columns(Columns::parse_file(&file(columns(argument)?)?)?),
        "go-template" | "go-template-file" | "template" | "templatefile" => {
            return Err(Error::message(
                "go templates are not supported here; use -o jsonpath=… or -o custom-columns=…",
            ));
        }
        _ => {
            return Err(Error::message(format!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml"
            )));
        }
    })
}

fn parse_path(template: &str) -> Result<JsonPath, Error> {
    JsonPath::parse(template)
        .map_err(|error| Error::message(format!("error parsing jsonpath {template}, {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(output: &str) -> Printer {
        Printer::new(&OutputArgs {
            output: Some(output.into()),
            show_managed_fields: false,
            allow_missing_template_keys: true,
        })
        .unwrap()
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "managedFields": [{}]}, "spec": {"x": []}})
    }

    #[test]
    fn forms_of_an_object() {
        assert_eq!(printer("name").render(None, &pod()).unwrap(), "pod/a\n");
        assert_eq!(
            printer("yaml").render(None, &pod()).unwrap(),
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  x: []\n"
        );
        assert_eq!(
            printer("json").render(None, &pod()).unwrap(),
            "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Pod\",\n    \"metadata\": {\n        \"name\": \"a\"\n    },\n    \"spec\": {\n        \"x\": []\n    }\n}\n"
        );
        assert_eq!(printer("jsonpath={.metadata.name}").render(None, &pod()).unwrap(), "a");
    }

    #[test]
    fn unknown_forms_are_refused() {
        for bad in ["xml", "jsonpath", "jsonpath={.a", "go-template={{.}}", "custom-columns=A"] {
            let args = OutputArgs { output: Some(bad.into()), ..OutputArgs::default() };
            assert!(Printer::new(&args).is_err(), "{bad}");
        }
    }
}
