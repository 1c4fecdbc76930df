//! `kubectl get`: lists and objects, as tables or in any other form, once or as they change.

use std::sync::Arc;

use api_objects::jsonpath::{self, JsonPath, MissingKeys};
use api_objects::list::ListMeta;
use api_objects::params::QueryWriter;
use api_objects::quantity::Quantity;
use api_objects::selector::FieldSelector;
use api_objects::table::{Row, Table};
use api_objects::watch::{EventType, Frame};
use api_objects::{Resource, Value};
use bytes::BytesMut;
use futures_util::StreamExt;
use http::Method;
use jiff::Timestamp;
use serde_json::json;

use crate::cli::GetArgs;
use crate::error::Error;
use crate::manifests;
use crate::output;
use crate::printers::table::{Options, TablePrinter, fallback};
use crate::printers::{Format, Printer};
use crate::resources::{self, Names, Target};
use crate::session::{AS_TABLE, Session, decode};

/// Carries out the command.
pub(crate) async fn run(args: &GetArgs, session: &Session) -> Result<(), Error> {
    if args.output_watch_events && !args.watch && !args.watch_only {
        return Err(Error::message(
            "--output-watch-events option can only be used with --watch or --watch-only",
        ));
    }
    if let Some(path) = &args.raw {
        if !args.targets.is_empty() {
            return Err(Error::message("arguments may not be passed when --raw is specified"));
        }
        let body = session.call(Method::GET, path, None, "application/json").await?;
        return output::bytes(&body);
    }
    let printer = Printer::new(&args.output)?.headed(!args.no_headers);
    let mut targets = Vec::new();
    for manifest in manifests::read(&args.files).await? {
        let resource = session.resource_of(&manifest.object, &manifest.source).await?;
        let name = manifest.object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        targets.push(Target { resource, name });
    }
    if args.files.filenames.is_empty() {
        targets = resources::targets(session, &args.targets, Names::Optional, "get").await?;
    } else if !args.targets.is_empty() {
        return Err(Error::message(
            "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
        ));
    }
    if targets.iter().any(|target| target.name.is_some()) && args.all_namespaces {
        return Err(Error::message("a resource cannot be retrieved by name across all namespaces"));
    }
    if (args.select.selector.is_some() || args.select.field_selector.is_some())
        && targets.iter().any(|target| target.name.is_some())
    {
        return Err(Error::message("name cannot be provided when a selector is specified"));
    }
    let get = Get { args, session, printer: &printer };
    if args.watch || args.watch_only {
        return get.watch(&targets).await;
    }
    if printer.is_human() { get.tables(&targets).await } else { get.objects(&targets).await }
}

struct Get<'a> {
    args: &'a GetArgs,
    session: &'a Session,
    printer: &'a Printer,
}

impl Get<'_> {
    fn namespace(&self) -> &str {
        if self.args.all_namespaces { "" } else { &self.session.namespace }
    }

    fn object_path(&self, resource: &Resource, name: &str) -> String {
        let path = resource.object_path(&self.session.namespace, name);
        match &self.args.subresource {
            Some(subresource) => format!("{path}/{subresource}"),
            None => path,
        }
    }

    fn selectors(&self) -> QueryWriter {
        let mut query = QueryWriter::default();
        query.put_text("labelSelector", self.args.select.selector.as_deref().unwrap_or_default());
        query.put_text("fieldSelector", self.args.select.field_selector.as_deref().unwrap_or_default());
        query
    }

    /// All pages of a list, in the representation asked for. Answers the last page with the items of all.
    async fn pages(&self, resource: &Resource, accept: &str) -> Result<Value, Error> {
        let items_of = |page: &Value| if page["kind"] == "Table" { "rows" } else { "items" };
        let mut token = String::new();
        let mut whole: Option<Value> = None;
        loop {
            let mut query = self.selectors();
            query.put_option("limit", (self.args.chunk_size > 0).then_some(self.args.chunk_size));
            query.put_text("continue", &token);
            // Rows are sorted by any field, so that the whole objects are needed.
            query.put_option("includeObject", self.args.sort_by.as_ref().map(|_| "Object"));
            let path = format!("{}?{}", resource.collection_path(self.namespace()), query.finish());
            let answer = self.session.call(Method::GET, &path, None, accept).await;
            let mut page = decode(&answer.map_err(|error| self.about_selectors(error, resource))?)?;
            token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
            whole = Some(match whole {
                None => page,
                Some(mut whole) => {
                    let field = items_of(&page);
                    let more = page[field].as_array_mut().map(std::mem::take).unwrap_or_default();
                    if let Some(items) = whole[field].as_array_mut() {
                        items.extend(more);
                    }
                    whole
                }
            });
            if token.is_empty() {
                let mut whole = whole.unwrap_or_default();
                if let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("continue");
                    metadata.remove("remainingItemCount");
                }
                return Ok(whole);
            }
        }
    }

    /// What cli-runtime says of a list that the server finds no sense in.
    fn about_selectors(&self, error: Error, resource: &Resource) -> Error {
        match error {
            Error::Server { mut status } if status.reason == "BadRequest" => {
                let select = &self.args.select;
                status.message = format!(
                    "Unable to find \"{}/{}, Resource={}\" that match label selector {:?}, field selector {:?}: {}",
                    resource.group,
                    resource.version,
                    resource.plural,
                    select.selector.as_deref().unwrap_or_default(),
                    select.field_selector.as_deref().unwrap_or_default(),
                    status.message
                );
                Error::Server { status }
            }
            other => other,
        }
    }

    /// A target as a table.
    async fn table(&self, target: &Target) -> Result<Table, Error> {
        let answer = match &target.name {
            Some(name) => {
                let path = self.object_path(&target.resource, name);
                decode(&self.session.call(Method::GET, &path, None, AS_TABLE).await?)?
            }
            None => self.pages(&target.resource, AS_TABLE).await?,
        };
        to_table(answer)
    }

    fn skip(&self, error: Error, errors: &mut Vec<Error>) {
        if !(self.args.ignore_not_found && error.is_not_found()) {
            errors.push(error);
        }
    }

    async fn tables(&self, targets: &[Target]) -> Result<(), Error> {
        // Rows of one kind stand in one table, whether they were listed or named.
        let mut groups: Vec<(Arc<Resource>, Table)> = Vec::new();
        let mut errors = Vec::new();
        for target in targets {
            match self.table(target).await {
                Ok(table) => match groups.iter_mut().find(|(resource, _)| *resource == target.resource) {
                    Some((_, whole)) => whole.rows.extend(table.rows),
                    None => groups.push((Arc::clone(&target.resource), table)),
                },
                Err(error) => self.skip(error, &mut errors),
            }
        }
        let several = self.args.show_kind || {
            let mut kinds: Vec<_> = targets.iter().map(|target| &target.resource).collect();
            kinds.dedup();
            kinds.len() > 1
        };
        let mut printed = false;
        for (resource, table) in &mut groups {
            if table.rows.is_empty() {
                continue;
            }
            if let Some(path) = &self.args.sort_by {
                sort_rows(&mut table.rows, path)?;
            }
            if printed {
                output::line("")?;
            }
            printed = true;
            let mut printer = TablePrinter::new(self.table_options(resource, several));
            output::print(&printer.render(table, None))?;
        }
        if !printed && errors.is_empty() && !self.args.ignore_not_found {
            let namespaced = targets.iter().any(|target| target.resource.namespaced);
            output::complain(&if namespaced && !self.args.all_namespaces {
                format!("No resources found in {} namespace.", self.session.namespace)
            } else {
                "No resources found".to_owned()
            });
        }
        Error::several(errors)
    }

    fn table_options(&self, resource: &Resource, several: bool) -> Options {
        Options {
            wide: matches!(self.printer.format, Format::Wide),
            namespace: self.args.all_namespaces && resource.namespaced,
            labels: self.args.show_labels,
            label_columns: self.args.label_columns.clone(),
            prefix: if several { format!("{}/", resources::kind_label(resource)) } else { String::new() },
            no_headers: self.args.no_headers,
        }
    }

    async fn objects(&self, targets: &[Target]) -> Result<(), Error> {
        let mut errors = Vec::new();
        let mut found: Vec<Value> = Vec::new();
        let mut single = targets.len() == 1 && targets[0].name.is_some();
        for target in targets {
            let answer = match &target.name {
                Some(name) => self.session.get(&self.object_path(&target.resource, name)).await,
                None => self.pages(&target.resource, "application/json").await,
            };
            match answer {
                Ok(object) if target.name.is_some() => found.push(object),
                Ok(list) => found.extend(typed_items(&list)),
                Err(error) => self.skip(error, &mut errors),
            }
        }
        if let Some(path) = &self.args.sort_by {
            let mut rows: Vec<Row> =
                found.drain(..).map(|object| Row { object, cells: Vec::new() }).collect();
            sort_rows(&mut rows, path)?;
            found = rows.into_iter().map(|row| row.object).collect();
        }
        single &= found.len() == 1;
        if !found.is_empty() || (errors.is_empty() && !self.args.ignore_not_found) {
            let whole = if single {
                found.remove(0)
            } else {
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": found})
            };
            output::print(&self.printer.render(None, &whole)?)?;
        }
        Error::several(errors)
    }

    /// Prints what is there and then what changes, until the person has enough.
    async fn watch(&self, targets: &[Target]) -> Result<(), Error> {
        let [target] = targets else {
            return Err(Error::message("you may only specify a single resource type when watching"));
        };
        let resource = &target.resource;
        let human = self.printer.is_human();
        let accept = if human { AS_TABLE } else { "application/json" };
        let mut table_printer = TablePrinter::new(self.table_options(resource, self.args.show_kind));
        let mut field_selector = self.args.select.field_selector.clone().unwrap_or_default();
        if let Some(name) = &target.name {
            field_selector = FieldSelector {
                terms: vec![api_objects::selector::FieldTerm {
                    field: "metadata.name".into(),
                    value: name.clone(),
                    equal: true,
                }],
            }
            .to_string();
            // A name that does not exist is an error, not an empty watch.
            self.session.get(&self.object_path(resource, name)).await?;
        }
        let selected = || {
            let mut query = QueryWriter::default();
            query.put_text("labelSelector", self.args.select.selector.as_deref().unwrap_or_default());
            query.put_text("fieldSelector", &field_selector);
            query
        };
        let collection = resource.collection_path(self.namespace());
        let path = format!("{collection}?{}", selected().finish());
        let list = decode(&self.session.call(Method::GET, &path, None, accept).await?)?;
        let mut revision =
            list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("0").to_owned();
        if !self.args.watch_only {
            if human {
                let table = to_table(list)?;
                let first = self.args.output_watch_events.then_some(("EVENT", "ADDED"));
                output::print(&table_printer.render(&table, first))?;
            } else {
                for item in typed_items(&list) {
                    self.print_event(EventType::Added, &item)?;
                }
            }
        }
        loop {
            let mut query = selected();
            query.put("watch", "true");
            query.put_switch("allowWatchBookmarks", true);
            query.put("resourceVersion", &revision);
            let mut stream =
                self.session.stream(&format!("{collection}?{}", query.finish()), Some(accept)).await?;
            let mut buffer = BytesMut::new();
            while let Some(chunk) = stream.next().await {
                buffer.extend_from_slice(&chunk.map_err(|error| Error::Unreachable(error.to_string()))?);
                while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line = buffer.split_to(end + 1);
                    let frame = Frame::parse(&line)
                        .map_err(|error| Error::message(format!("failed to read the watch: {error}")))?;
                    if let Some(status) = frame.status() {
                        return Err(status.into());
                    }
                    let object = decode(frame.bytes())?;
                    if let Some(seen) = revision_of(&object) {
                        revision = seen;
                    }
                    if frame.event == EventType::Bookmark {
                        continue;
                    }
                    if human {
                        let first = self.args.output_watch_events.then_some(("EVENT", frame.event.as_str()));
                        let table = to_table(object)?;
                        output::print(&table_printer.render(&table, first))?;
                    } else {
                        self.print_event(frame.event, &object)?;
                    }
                }
            }
        }
    }

    fn print_event(&self, event: EventType, object: &Value) -> Result<(), Error> {
        let whole;
        let shown =
            if self.args.output_watch_events && matches!(self.printer.format, Format::Json | Format::Yaml) {
                whole = json!({"type": event.as_str(), "object": object});
                &whole
            } else {
                object
            };
        if matches!(self.printer.format, Format::Yaml) {
            output::line("---")?;
        }
        let text = self.printer.render(None, shown)?;
        output::print(&text)?;
        if matches!(self.printer.format, Format::Path(_)) && !text.ends_with('\n') {
            output::line("")?;
        }
        Ok(())
    }
}

/// The revision that an event shows: of the object, or of the table's only row.
fn revision_of(object: &Value) -> Option<String> {
    let own =
        object.pointer("/metadata/resourceVersion").and_then(Value::as_str).filter(|text| !text.is_empty());
    let row = object.pointer("/rows/0/object/metadata/resourceVersion").and_then(Value::as_str);
    own.or(row).map(str::to_owned)
}

/// The server's table, or one of names and ages.
pub(crate) fn to_table(answer: Value) -> Result<Table, Error> {
    if answer["kind"] == "Table" {
        return serde_json::from_value(answer)
            .map_err(|error| Error::message(format!("failed to read the server's table: {error}")));
    }
    let metadata = ListMeta::default();
    let table = fallback(&crate::printers::items(&answer), Timestamp::now());
    Ok(Table { metadata, ..table })
}

/// The items of a list with kind and version, which lists leave out.
pub(crate) fn typed_items(list: &Value) -> Vec<Value> {
    let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let typed = items.into_iter().map(|mut item| {
        if item.get("kind").is_none() {
            item["kind"] = json!(kind);
            item["apiVersion"] = list["apiVersion"].clone();
        }
        item
    });
    typed.collect()
}

/// Sorts by a path: numbers and quantities by size, all else as text; what lacks the field comes first.
fn sort_rows(rows: &mut [Row], path: &str) -> Result<(), Error> {
    let path = JsonPath::parse(&jsonpath::relaxed(path)?)?;
    let key = |row: &Row| {
        path.find(&row.object, MissingKeys::Allow)
            .ok()
            .and_then(|found| found.first().map(|value| (*value).clone()))
    };
    if !rows.is_empty() && rows.iter().all(|row| key(row).is_none()) {
        return Err(Error::message("couldn't find any field with path in the list of objects"));
    }
    rows.sort_by(|left, right| compare(key(left).as_ref(), key(right).as_ref()));
    Ok(())
}

fn compare(left: Option<&Value>, right: Option<&Value>) -> std::cmp::Ordering {
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            left.as_f64().unwrap_or_default().total_cmp(&right.as_f64().unwrap_or_default())
        }
        (Some(Value::String(left)), Some(Value::String(right))) => {
            match (left.parse::<Quantity>(), right.parse::<Quantity>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                _ => left.cmp(right),
            }
        }
        (left, right) => left.map(ToString::to_string).cmp(&right.map(ToString::to_string)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted() {
        let row = |value: Value| Row { object: json!({"a": value}), cells: Vec::new() };
        let mut rows = vec![row(json!("1Gi")), row(json!("500Mi")), row(json!("2Ki"))];
        sort_rows(&mut rows, "{.a}").unwrap();
        let sorted: Vec<_> = rows.iter().map(|row| row.object["a"].clone()).collect();
        assert_eq!(sorted, [json!("2Ki"), json!("500Mi"), json!("1Gi")]);
        assert!(sort_rows(&mut rows, ".missing").is_err());
    }

    #[test]
    fn items_get_their_kind() {
        let list = json!({"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}}]});
        assert_eq!(typed_items(&list)[0]["kind"], "Pod");
    }
}
