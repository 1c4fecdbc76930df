//! Manifests: files, directories, URLs and stdin, with any number of documents and lists in them.

use std::io::Read;
use std::path::Path;

use api_objects::{Value, legacy, yaml};

use crate::cli::FileArgs;
use crate::error::Error;
use crate::output;

/// One object and where it came from.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The object as written, in Kubernetes' dialect.
    pub(crate) object: Value,
    /// The file, URL or `STDIN`.
    pub(crate) source: String,
}

/// Reads every object of the files.
pub(crate) async fn read(files: &FileArgs) -> Result<Vec<Manifest>, Error> {
    let mut manifests = Vec::new();
    for name in &files.filenames {
        if name == "-" {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            add(&mut manifests, &text, "STDIN")?;
        } else if name.starts_with("http://") || name.starts_with("https://") {
            add(&mut manifests, &fetch(name).await?, name)?;
        } else {
            let path = Path::new(name);
            if !path.exists() {
                return Err(Error::message(format!("the path {name:?} does not exist")));
            }
            add_path(&mut manifests, path, files.recursive, true)?;
        }
    }
    if manifests.is_empty() && !files.filenames.is_empty() {
        return Err(Error::message("no objects passed to apply"));
    }
    Ok(manifests)
}

async fn fetch(url: &str) -> Result<String, Error> {
    let failed = |error: reqwest::Error| {
        if error.is_connect()
            && let Some(host) =
                error.url().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)))
        {
            return Error::Unreachable(format!(
                "The connection to the server {}:{} was refused - did you specify the right host or port?",
                host.0, host.1
            ));
        }
        Error::message(format!("unable to read URL {url:?}: {}", client::error::chain(&error)))
    };
    let response = reqwest::get(url).await.map_err(failed)?;
    if !response.status().is_success() {
        let status = response.status();
        return Err(Error::message(format!(
            "unable to read URL {url:?}, server reported {status}, status code={}",
            status.as_u16()
        )));
    }
    response.text().await.map_err(failed)
}

/// A file that is named is read whatever it is called; in directories only manifests are.
fn add_path(manifests: &mut Vec<Manifest>, path: &Path, recursive: bool, named: bool) -> Result<(), Error> {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let below = entry.path();
            if recursive || !below.is_dir() {
                add_path(manifests, &below, recursive, false)?;
            }
        }
        return Ok(());
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !named && !matches!(extension, Some("json" | "yaml" | "yml")) {
        return Ok(());
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::message(format!("failed to read {}: {error}", path.display())))?;
    add(manifests, &text, &path.to_string_lossy())
}

fn add(manifests: &mut Vec<Manifest>, text: &str, source: &str) -> Result<(), Error> {
    let documents = yaml::documents(text).map_err(|error| {
        Error::message(format!(
            "error parsing {source}: {}",
            error.to_string().trim_start_matches("error parsing ")
        ))
    })?;
    for mut object in documents {
        if let (Some(kind), Some(Value::Array(items))) = (object["kind"].as_str(), object.get("items"))
            && kind.ends_with("List")
        {
            let item_kind = kind.trim_end_matches("List").to_owned();
            let api_version = object["apiVersion"].clone();
            for mut item in items.clone() {
                if !item_kind.is_empty() && item.get("kind").is_none() {
                    item["kind"] = Value::from(item_kind.as_str());
                    item["apiVersion"] = api_version.clone();
                }
                translate(&mut item, source);
                manifests.push(Manifest { object: item, source: source.to_owned() });
            }
            continue;
        }
        if !object.is_object() {
            return Err(Error::message(format!(
                "error parsing {source}: a manifest must be an object, found {object}"
            )));
        }
        translate(&mut object, source);
        manifests.push(Manifest { object, source: source.to_owned() });
    }
    Ok(())
}

fn translate(object: &mut Value, source: &str) {
    for note in legacy::translate(object) {
        output::complain(&format!("note: {source}: {note}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_lists_and_documents() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        put("a.yaml", "kind: A\n---\nkind: B\n");
        put("b.json", r#"{"kind":"List","items":[{"kind":"C"},{"kind":"D"}]}"#);
        put("c.txt", "not a manifest");
        std::fs::create_dir(directory.path().join("deep")).unwrap();
        put("deep/d.yml", "kind: E\n");
        let kinds = |recursive: bool| {
            let mut manifests = Vec::new();
            add_path(&mut manifests, directory.path(), recursive, true).unwrap();
            manifests
                .iter()
                .map(|manifest| manifest.object["kind"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(false), ["A", "B", "C", "D"]);
        assert_eq!(kinds(true), ["A", "B", "C", "D", "E"]);
    }
}
