//! `-o custom-columns=NAME:.metadata.name,…`

use api_objects::Value;
use api_objects::jsonpath::{self, JsonPath, MissingKeys};

use super::table;
use crate::error::Error;

/// Columns that a person asked for.
#[derive(Debug)]
pub(crate) struct Columns(Vec<(String, JsonPath)>);

impl Columns {
    /// Reads `HEADING:path,HEADING:path`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let columns = text.split(',').map(|part| {
            let (heading, path) = part.split_once(':').ok_or_else(|| {
                Error::message(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                ))
            })?;
            Ok((heading.to_owned(), column_path(path)?))
        });
        Ok(Self(columns.collect::<Result<_, Error>>()?))
    }

    /// Reads a file of two lines: headings, and paths below them.
    pub(crate) fn parse_file(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let (Some(headings), Some(paths), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Error::message(
                "a custom-columns file must hold a line of headings and a line of paths",
            ));
        };
        let (headings, paths): (Vec<&str>, Vec<&str>) =
            (headings.split_whitespace().collect(), paths.split_whitespace().collect());
        if headings.len() != paths.len() {
            return Err(Error::message(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headings.len(),
                paths.len()
            )));
        }
        let columns = headings
            .into_iter()
            .zip(paths)
            .map(|(heading, path)| Ok((heading.to_owned(), column_path(path)?)));
        Ok(Self(columns.collect::<Result<_, Error>>()?))
    }

    /// The table of some objects, with headings or without; `<none>` where there is nothing.
    pub(crate) fn render(&self, objects: &[Value], headed: bool) -> String {
        let headings = headed.then(|| self.0.iter().map(|(heading, _)| heading.clone()).collect());
        let rows = objects.iter().map(|object| {
            self.0
                .iter()
                .map(|(_, path)| match path.find(object, MissingKeys::Allow) {
                    Ok(found) if !found.is_empty() => {
                        found.into_iter().map(jsonpath::print).collect::<Vec<_>>().join(",")
                    }
                    _ => "<none>".to_owned(),
                })
                .collect()
        });
        table::align(headings.into_iter().chain(rows).collect())
    }
}

fn column_path(path: &str) -> Result<JsonPath, Error> {
    let path = jsonpath::relaxed(path)?;
    JsonPath::parse(&path).map_err(|error| Error::message(format!("error parsing jsonpath {path}, {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_laid_out() {
        let columns = Columns::parse("NAME:.metadata.name,IMAGES:spec.containers[*].image").unwrap();
        let objects = [
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"image": "x"}, {"image": "y"}]}}),
            json!({"metadata": {"name": "long-name"}}),
        ];
        assert_eq!(
            columns.render(&objects, true),
            "NAME        IMAGES\na           x,y\nlong-name   <none>\n"
        );
        let file = Columns::parse_file("NAME  KIND\nmetadata.name  kind\n").unwrap();
        assert_eq!(file.render(&objects[..1], true), "NAME   KIND\na      <none>\n");
        // A column is at least six wide (upstream's `tabwriterMinWidth`).
        assert_eq!(file.render(&objects[..1], false), "a     <none>\n");
    }
}
