//! `kubectl config`: reads and changes kubeconfig files.
//!
//! Files are changed as YAML documents, so that what we do not know stays in them.

use std::path::{Path, PathBuf};

use api_objects::{Value, yaml};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cli::{ConfigArgs, ConfigCommand, GlobalArgs};
use crate::error::Error;
use crate::output;
use crate::printers::{Format, Printer, table};
use crate::settings;

/// A kubeconfig and where it is.
struct File {
    path: PathBuf,
    config: Value,
}

impl File {
    fn read(path: PathBuf) -> Result<Self, Error> {
        let mut config = match std::fs::read_to_string(&path) {
            Ok(text) => yaml::document(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(Error::message(format!("failed to read {}: {error}", path.display()))),
        };
        if !config.is_object() {
            config = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": ""});
        }
        for list in ["clusters", "contexts", "users"] {
            if !config[list].is_array() {
                config[list] = json!([]);
            }
        }
        Ok(Self { path, config })
    }

    /// Writes the file whole or not at all; only its owner may read it.
    fn write(&self) -> Result<(), Error> {
        let directory = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(directory)?;
        // Made readable by its owner alone from the start.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        std::io::Write::write_all(&mut file, yaml::to_string(&self.config).as_bytes())?;
        file.persist(&self.path).map_err(|error| {
            Error::message(format!("failed to write {}: {}", self.path.display(), error.error))
        })?;
        Ok(())
    }

    fn current(&self) -> &str {
        self.config["current-context"].as_str().unwrap_or_default()
    }

    fn names(&self, list: &str) -> Vec<String> {
        let entries = self.config[list].as_array().into_iter().flatten();
        entries.filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect()
    }

    fn find(&self, list: &str, name: &str) -> Option<&Value> {
        self.config[list].as_array()?.iter().find(|entry| entry["name"] == name)
    }

    /// The entry of that name, made when there is none; says whether it was there.
    fn entry(&mut self, list: &str, part: &str, name: &str) -> (bool, &mut Value) {
        let entries =
            self.config[list].as_array_mut().expect("the lists must have been made when the file was read");
        let place = entries.iter().position(|entry| entry["name"] == name);
        let at = place.unwrap_or_else(|| {
            entries.push(json!({"name": name, part: {}}));
            entries.len() - 1
        });
        if !entries[at][part].is_object() {
            entries[at][part] = json!({});
        }
        (place.is_some(), &mut entries[at][part])
    }

    fn remove(&mut self, list: &str, what: &str, name: &str) -> Result<(), Error> {
        let entries =
            self.config[list].as_array_mut().expect("the lists must have been made when the file was read");
        let before = entries.len();
        entries.retain(|entry| entry["name"] != name);
        if entries.len() == before {
            return Err(Error::message(format!(
                "cannot delete {what} {name}, not in {}",
                self.path.display()
            )));
        }
        Ok(())
    }
}

/// Carries out the command.
pub(crate) fn run(args: &ConfigArgs, global: &GlobalArgs) -> Result<(), Error> {
    let mut file = File::read(settings::kubeconfig_path(global))?;
    match &args.command {
        ConfigCommand::View { raw, minify, output } => {
            let mut config = file.config.clone();
            if *minify {
                minimise(&mut config, global.context.as_deref())?;
            }
            if !raw {
                redact(&mut config);
            }
            let printer = Printer::new(output)?;
            if matches!(printer.format, Format::Human | Format::Wide) {
                return output::print(&yaml::to_string(&config));
            }
            output::print(&printer.render(None, &config)?)
        }
        ConfigCommand::CurrentContext => match file.current() {
            "" => Err(Error::message("current-context is not set")),
            current => output::line(current),
        },
        ConfigCommand::UseContext { name } => {
            if file.find("contexts", name).is_none() {
                return Err(Error::message(format!("no context exists with the name: {name:?}")));
            }
            file.config["current-context"] = json!(name);
            file.write()?;
            output::line(&format!("Switched to context {name:?}."))
        }
        ConfigCommand::GetContexts { names, no_headers, output } => {
            contexts(&file, names, *no_headers, output.as_deref())
        }
        ConfigCommand::GetClusters => {
            output::line("NAME")?;
            file.names("clusters").iter().try_for_each(|name| output::line(name))
        }
        ConfigCommand::GetUsers => {
            output::line("NAME")?;
            file.names("users").iter().try_for_each(|name| output::line(name))
        }
        ConfigCommand::SetContext { name, current } => {
            let name = match (name, current) {
                (Some(name), false) => name.clone(),
                (None, true) if !file.current().is_empty() => file.current().to_owned(),
                (None, true) => return Err(Error::message("no current context is set")),
                _ => return Err(Error::message("you must specify a non-empty context name or --current")),
            };
            let (existed, context) = file.entry("contexts", "context", &name);
            let user = global.user.last().cloned();
            for (field, value) in
                [("cluster", &global.cluster), ("user", &user), ("namespace", &global.namespace)]
            {
                if let Some(value) = value {
                    context[field] = json!(value);
                }
            }
            file.write()?;
            output::line(&format!("Context {name:?} {}.", if existed { "modified" } else { "created" }))
        }
        ConfigCommand::SetCluster { name, embed_certs } => {
            let (_, cluster) = file.entry("clusters", "cluster", name);
            if let Some(server) = &global.server {
                cluster["server"] = json!(server);
            }
            if global.insecure_skip_tls_verify {
                cluster["insecure-skip-tls-verify"] = json!(true);
            }
            if let Some(path) = &global.certificate_authority {
                put_file(cluster, "certificate-authority", path, *embed_certs)?;
            }
            file.write()?;
            output::line(&format!("Cluster {name:?} set."))
        }
        ConfigCommand::SetCredentials { name, embed_certs } => {
            let (_, user) = file.entry("users", "user", name);
            if let Some(token) = &global.token {
                user["token"] = json!(token);
            }
            for (field, path) in
                [("client-certificate", &global.client_certificate), ("client-key", &global.client_key)]
            {
                if let Some(path) = path {
                    put_file(user, field, path, *embed_certs)?;
                }
            }
            file.write()?;
            output::line(&format!("User {name:?} set."))
        }
        ConfigCommand::DeleteContext { name } => {
            if file.current() == name {
                output::complain(
                    "warning: this removed your active context, use \"kubectl config use-context\" to select a different one",
                );
            }
            file.remove("contexts", "context", name)?;
            file.write()?;
            output::line(&format!("deleted context {name} from {}", file.path.display()))
        }
        ConfigCommand::DeleteCluster { name } => {
            file.remove("clusters", "cluster", name)?;
            file.write()?;
            output::line(&format!("deleted cluster {name} from {}", file.path.display()))
        }
        ConfigCommand::DeleteUser { name } => {
            file.remove("users", "user", name)?;
            file.write()?;
            output::line(&format!("deleted user {name} from {}", file.path.display()))
        }
        ConfigCommand::RenameContext { from, to } => {
            if file.find("contexts", to).is_some() {
                return Err(Error::message(format!(
                    "cannot rename the context {from:?}, the context {to:?} already exists in {}",
                    file.path.display()
                )));
            }
            let was_current = file.current() == from;
            let contexts = file.config["contexts"].as_array_mut().into_iter().flatten();
            let Some(context) = contexts.into_iter().find(|context| context["name"] == *from) else {
                return Err(Error::message(format!(
                    "cannot rename the context {from:?}, it's not in {}",
                    file.path.display()
                )));
            };
            context["name"] = json!(to);
            if was_current {
                file.config["current-context"] = json!(to);
            }
            file.write()?;
            output::line(&format!("Context {from:?} renamed to {to:?}."))
        }
    }
}

fn put_file(entry: &mut Value, field: &str, path: &Path, embed: bool) -> Result<(), Error> {
    let data = format!("{field}-data");
    if embed {
        let bytes = std::fs::read(path)
            .map_err(|error| Error::message(format!("could not read {}: {error}", path.display())))?;
        entry[data] = json!(STANDARD.encode(bytes));
        entry.as_object_mut().map(|entry| entry.remove(field));
    } else {
        let path = std::path::absolute(path)?;
        entry[field] = json!(path.to_string_lossy());
        entry.as_object_mut().map(|entry| entry.remove(&data));
    }
    Ok(())
}

fn contexts(file: &File, names: &[String], no_headers: bool, output: Option<&str>) -> Result<(), Error> {
    for name in names {
        if file.find("contexts", name).is_none() {
            return Err(Error::message(format!("context {name} not found")));
        }
    }
    let mut shown = file.names("contexts");
    shown.retain(|name| names.is_empty() || names.contains(name));
    shown.sort_unstable();
    match output {
        Some("name") => return shown.iter().try_for_each(|name| output::line(name)),
        Some(other) => return Err(Error::message(format!("output must be one of '' or 'name': {other:?}"))),
        None => {}
    }
    let mut rows = Vec::new();
    if !no_headers {
        rows.push(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned).to_vec());
    }
    for name in shown {
        let context = file.find("contexts", &name).map(|entry| entry["context"].clone()).unwrap_or_default();
        let text = |field: &str| context[field].as_str().unwrap_or_default().to_owned();
        let mark = if name == file.current() { "*" } else { "" };
        rows.push(vec![mark.to_owned(), name.clone(), text("cluster"), text("user"), text("namespace")]);
    }
    output::print(&table::align(rows))
}

/// Leaves only what a context uses.
fn minimise(config: &mut Value, context: Option<&str>) -> Result<(), Error> {
    let name = context.or_else(|| config["current-context"].as_str()).unwrap_or_default().to_owned();
    let found = config["contexts"]
        .as_array()
        .and_then(|contexts| contexts.iter().find(|entry| entry["name"] == name));
    let Some(found) = found.cloned() else {
        return Err(Error::message(format!("cannot locate context {name}")));
    };
    for (list, wanted) in [
        ("contexts", json!(name)),
        ("clusters", found["context"]["cluster"].clone()),
        ("users", found["context"]["user"].clone()),
    ] {
        if let Some(entries) = config[list].as_array_mut() {
            entries.retain(|entry| entry["name"] == wanted);
        }
    }
    config["current-context"] = json!(name);
    Ok(())
}

/// Takes out what must not be shown.
fn redact(config: &mut Value) {
    let hide = |entry: &mut Value, field: &str, with: &str| {
        if entry.get(field).is_some() {
            entry[field] = json!(with);
        }
    };
    for user in config["users"].as_array_mut().into_iter().flatten() {
        let user = &mut user["user"];
        for field in ["client-certificate-data", "client-key-data"] {
            hide(user, field, "DATA+OMITTED");
        }
        for field in ["token", "password"] {
            hide(user, field, "REDACTED");
        }
    }
    for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
        hide(&mut cluster["cluster"], "certificate-authority-data", "DATA+OMITTED");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({"apiVersion": "v1", "kind": "Config", "current-context": "a", "unknown": 1,
            "clusters": [{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "secret"}}, {"name": "d", "cluster": {}}],
            "users": [{"name": "u", "user": {"token": "secret", "client-key-data": "secret"}}],
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}, {"name": "b", "context": {"cluster": "d", "user": "u"}}]})
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut shown = config();
        redact(&mut shown);
        assert!(!shown.to_string().contains("secret"), "{shown}");
    }

    #[test]
    fn only_what_a_context_uses() {
        let mut shown = config();
        minimise(&mut shown, None).unwrap();
        assert_eq!(shown["contexts"].as_array().unwrap().len(), 1);
        assert_eq!(shown["clusters"][0]["name"], "c");
        assert!(minimise(&mut config(), Some("missing")).is_err());
    }

    #[test]
    fn files_keep_what_we_do_not_know() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config");
        let global = |words: &str| {
            let line = format!("kubectl --kubeconfig {} {words}", path.display());
            <crate::cli::Cli as clap::Parser>::try_parse_from(line.split_whitespace()).unwrap()
        };
        let run_line = |words: &str| {
            let cli = global(words);
            match &cli.command {
                crate::cli::Command::Config(args) => run(args, &cli.global),
                other => panic!("not config: {other:?}"),
            }
        };
        File { path: path.clone(), config: config() }.write().unwrap();
        run_line("config use-context b").unwrap();
        run_line("config set-context --current --namespace=n").unwrap();
        run_line("config set-context new --cluster=c --user=u").unwrap();
        run_line("config delete-context a").unwrap();
        assert!(run_line("config use-context a").is_err());
        let read = File::read(path.clone()).unwrap().config;
        assert_eq!(read["unknown"], 1);
        assert_eq!(read["current-context"], "b");
        assert_eq!(read["contexts"][0]["context"], json!({"cluster": "d", "user": "u", "namespace": "n"}));
        assert_eq!(read["contexts"][1]["name"], "new");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
