//! `kubectl create`: from manifests, or common kinds from flags.

use std::collections::BTreeMap;
use std::path::Path;

use api_objects::duration::parse_go;
use api_objects::params::QueryWriter;
use api_objects::{Value, names};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use crate::cli::{BindingArgs, CreateArgs, CreateCommon, CreateKind, DataArgs, DryRun, RuleArgs, SecretKind};
use crate::error::Error;
use crate::manifests;
use crate::output;
use crate::printers::Printer;
use crate::session::Session;

use super::apply::{field_validation, place, with_last_applied};
use super::create_kinds;

/// Carries out the command.
pub(crate) async fn run(args: &CreateArgs, users: &[String], session: &Session) -> Result<(), Error> {
    let Some(kind) = &args.kind else {
        return from_files(args, session).await;
    };
    let (common, object) = match kind {
        CreateKind::Namespace(common) => (common, json!({"apiVersion": "v1", "kind": "Namespace"})),
        CreateKind::ServiceAccount(common) => (common, json!({"apiVersion": "v1", "kind": "ServiceAccount"})),
        CreateKind::ConfigMap { common, data } => (common, config_map(data, &common.name)?),
        CreateKind::Secret { kind: SecretKind::Generic { common, data, secret_type } } => {
            (common, secret(data, &common.name, secret_type.as_deref())?)
        }
        CreateKind::Secret { kind: SecretKind::DockerRegistry(args) } => {
            (&args.common, create_kinds::registry_secret(args))
        }
        CreateKind::Secret { kind: SecretKind::Tls(args) } => (&args.common, create_kinds::tls_secret(args)?),
        CreateKind::Service { kind } => create_kinds::service(kind)?,
        CreateKind::Job(args) => (&args.common, create_kinds::job(args, session).await?),
        CreateKind::CronJob(args) => (&args.common, create_kinds::cron_job(args)),
        CreateKind::Quota(args) => (&args.common, create_kinds::quota(args)?),
        CreateKind::PodDisruptionBudget(args) => (&args.common, create_kinds::budget(args)?),
        CreateKind::PriorityClass(args) => (&args.common, create_kinds::priority_class(args)),
        CreateKind::Deployment { common, image, replicas, port, command } => {
            (common, deployment(&common.name, image, *replicas, *port, command)?)
        }
        CreateKind::Token { name, duration, audience } => {
            return token(session, name, duration.as_deref(), audience).await;
        }
        CreateKind::Role { common, rule } => (common, role("Role", rule, session).await?),
        CreateKind::ClusterRole { common, rule } => (common, role("ClusterRole", rule, session).await?),
        CreateKind::RoleBinding { common, binding } => (common, role_binding("RoleBinding", binding, users)?),
        CreateKind::ClusterRoleBinding { common, binding } => {
            (common, role_binding("ClusterRoleBinding", binding, users)?)
        }
    };
    one(common, object, session).await
}

async fn from_files(args: &CreateArgs, session: &Session) -> Result<(), Error> {
    if args.files.filenames.is_empty() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    let printer = Printer::new(&args.output)?;
    let mut errors = Vec::new();
    for manifest in manifests::read(&args.files).await? {
        let mut object = manifest.object;
        let outcome = async {
            let (resource, namespace, _) = place(session, &mut object, &manifest.source).await?;
            if args.save_config {
                object = with_last_applied(&object);
            }
            if args.dry_run.dry_run == DryRun::Client {
                return Ok((resource, object));
            }
            let mut query = QueryWriter::default();
            query.put_option("dryRun", (args.dry_run.dry_run == DryRun::Server).then_some("All"));
            query.put("fieldManager", args.field_manager.as_deref().unwrap_or("kubectl-create"));
            query.put("fieldValidation", field_validation(&args.validate)?);
            let path = format!("{}?{}", resource.collection_path(&namespace), query.finish());
            let created = session.post(&path, &object).await;
            created
                .map(|created| (resource, created))
                .map_err(|error| error.doing("creating", &manifest.source))
        };
        match outcome.await {
            Ok((resource, object)) => {
                printer.outcome(&resource, &object, &format!("created{}", args.dry_run.dry_run.note()))?;
            }
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}

async fn one(common: &CreateCommon, mut object: Value, session: &Session) -> Result<(), Error> {
    let printer = Printer::new(&common.output)?;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = json!(common.name);
    let (resource, namespace, _) = place(session, &mut object, "").await?;
    let created = if common.dry_run.dry_run == DryRun::Client {
        if !session.namespace_given
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("namespace");
        }
        object
    } else {
        let all = if common.dry_run.dry_run == DryRun::Server { "&dryRun=All" } else { "" };
        let path = format!(
            "{}?fieldManager=kubectl-create&fieldValidation=Strict{all}",
            resource.collection_path(&namespace)
        );
        session.post(&path, &object).await.map_err(|error| match (resource.kind.as_ref(), error) {
            // Upstream wraps the failures of some kinds and not those of others.
            ("ConfigMap" | "ServiceAccount" | "Deployment", Error::Server { status }) => Error::message(
                format!("failed to create {}: {}", resource.kind.to_lowercase(), status.message),
            ),
            ("Secret", Error::Server { status }) => {
                Error::message(format!("failed to create secret {}", status.message))
            }
            (_, error) => error,
        })?
    };
    printer.outcome(&resource, &created, &format!("created{}", common.dry_run.dry_run.note()))
}

/// The entries that `--from-…` flags name, as bytes.
fn entries(data: &DataArgs, kind: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut entries = BTreeMap::new();
    let mut put = |key: &str, value: Vec<u8>| {
        let errors = names::config_map_key(key);
        if !errors.is_empty() {
            return Err(Error::message(format!("{key:?} is not a valid key name: {}", errors.join("; "))));
        }
        if entries.insert(key.to_owned(), value).is_some() {
            return Err(Error::message(format!(
                "cannot add key {key:?}, another key by that name already exists in Data for {kind} {name:?}"
            )));
        }
        Ok(())
    };
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            Error::message(format!(
                "error reading {}: {}",
                path.display(),
                crate::error::file_problem(&error)
            ))
        })
    };
    for literal in &data.from_literal {
        let (key, value) = literal
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Error::message(format!("invalid literal source {literal}, expected key=value")))?;
        put(key, value.as_bytes().to_vec())?;
    }
    for source in &data.from_file {
        let (key, path) = match source.split_once('=') {
            Some((key, path)) => (Some(key), Path::new(path)),
            None => (None, Path::new(source)),
        };
        let name_of = |path: &Path| {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        if path.is_dir() {
            let mut files: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
            files.sort_by_key(std::fs::DirEntry::file_name);
            for file in files.iter().map(std::fs::DirEntry::path).filter(|path| path.is_file()) {
                put(&name_of(&file), read(&file)?)?;
            }
        } else {
            put(key.unwrap_or(&name_of(path)), read(path)?)?;
        }
    }
    for path in &data.from_env_file {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            put(key.trim(), value.as_bytes().to_vec())?;
        }
    }
    Ok(entries)
}

fn config_map(data: &DataArgs, name: &str) -> Result<Value, Error> {
    let (mut texts, mut binaries) = (Map::new(), Map::new());
    for (key, bytes) in entries(data, "ConfigMap", name)? {
        match String::from_utf8(bytes) {
            Ok(text) => texts.insert(key, json!(text)),
            Err(error) => binaries.insert(key, json!(STANDARD.encode(error.as_bytes()))),
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    if !texts.is_empty() {
        object["data"] = Value::Object(texts);
    }
    if !binaries.is_empty() {
        object["binaryData"] = Value::Object(binaries);
    }
    Ok(object)
}

fn secret(data: &DataArgs, name: &str, secret_type: Option<&str>) -> Result<Value, Error> {
    let encoded: Map<String, Value> = entries(data, "Secret", name)?
        .into_iter()
        .map(|(key, bytes)| (key, json!(STANDARD.encode(bytes))))
        .collect();
    let mut object = json!({"apiVersion": "v1", "kind": "Secret"});
    if !encoded.is_empty() {
        object["data"] = Value::Object(encoded);
    }
    if let Some(secret_type) = secret_type {
        object["type"] = json!(secret_type);
    }
    Ok(object)
}

fn deployment(
    name: &str,
    images: &[String],
    replicas: u32,
    port: Option<u16>,
    command: &[String],
) -> Result<Value, Error> {
    if images.len() > 1 && !command.is_empty() {
        return Err(Error::message("cannot specify multiple --image options and command"));
    }
    let containers: Vec<Value> = images
        .iter()
        .map(|image| {
            // The container is called as the image is, without registry, tag and digest.
            let base = image.rsplit('/').next().unwrap_or(image);
            let base = base.split(['@', ':']).next().unwrap_or(base);
            let base: String = base
                .to_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
                .collect();
            let mut container = json!({"name": base.trim_matches('-'), "image": image});
            if let Some(port) = port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if !command.is_empty() {
                container["command"] = json!(command);
            }
            container
        })
        .collect();
    Ok(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}}}))
}

async fn token(
    session: &Session,
    name: &str,
    duration: Option<&str>,
    audiences: &[String],
) -> Result<(), Error> {
    let mut spec = json!({});
    if let Some(duration) = duration {
        let duration = parse_go(duration).map_err(|error| Error::message(error.to_string()))?;
        spec["expirationSeconds"] = json!(duration.as_secs());
    }
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", session.namespace);
    let answer = session.post(&path, &request).await?;
    output::line(answer.pointer("/status/token").and_then(Value::as_str).unwrap_or_default())
}

/// Resources are grouped by API group: one rule for each.
async fn role(kind: &str, rule: &RuleArgs, session: &Session) -> Result<Value, Error> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in &rule.resource {
        let (plain, subresource) = name.split_once('/').unwrap_or((name, ""));
        let (group, plural) = if plain == "*" {
            ("*".to_owned(), "*".to_owned())
        } else {
            let resource = session.resource(plain).await?;
            (resource.group.to_string(), resource.plural.to_string())
        };
        let full = if subresource.is_empty() { plural } else { format!("{plural}/{subresource}") };
        groups.entry(group).or_default().push(full);
    }
    let rules: Vec<Value> = groups
        .into_iter()
        .map(|(group, resources)| {
            let mut entry = json!({"apiGroups": [group], "resources": resources, "verbs": rule.verb});
            if !rule.resource_name.is_empty() {
                entry["resourceNames"] = json!(rule.resource_name);
            }
            entry
        })
        .collect();
    Ok(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "rules": rules}))
}

fn role_binding(kind: &str, binding: &BindingArgs, users: &[String]) -> Result<Value, Error> {
    let (role_kind, role) = match (&binding.clusterrole, &binding.role) {
        (Some(role), None) => ("ClusterRole", role),
        (None, Some(role)) if kind == "RoleBinding" => ("Role", role),
        _ => return Err(Error::message("exactly one of clusterrole or role must be specified")),
    };
    let group = "rbac.authorization.k8s.io";
    let mut subjects = Vec::new();
    for name in users {
        subjects.push(json!({"kind": "User", "apiGroup": group, "name": name}));
    }
    for name in &binding.groups {
        subjects.push(json!({"kind": "Group", "apiGroup": group, "name": name}));
    }
    for account in &binding.service_accounts {
        let (namespace, name) = account
            .split_once(':')
            .ok_or_else(|| Error::message("serviceaccount must be <namespace>:<name>"))?;
        subjects.push(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}));
    }
    Ok(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "subjects": subjects,
        "roleRef": {"apiGroup": group, "kind": role_kind, "name": role}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_from_literals_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("text"), "hello").unwrap();
        std::fs::write(path("binary"), [0xff, 0]).unwrap();
        std::fs::write(path("env"), "# note\nA=1\n\nB=two words\n").unwrap();
        let data = DataArgs {
            from_literal: vec!["k=v=w".into()],
            from_file: vec![path("text").to_string_lossy().into(), format!("b={}", path("binary").display())],
            from_env_file: vec![path("env")],
        };
        let object = config_map(&data, "a").unwrap();
        assert_eq!(object["data"], json!({"k": "v=w", "text": "hello", "A": "1", "B": "two words"}));
        assert_eq!(object["binaryData"], json!({"b": "/wA="}));
        assert_eq!(secret(&data, "a", None).unwrap()["data"]["k"], "dj13");
        for bad in ["novalue", "=x", "bad key=x"] {
            let data = DataArgs { from_literal: vec![bad.into()], ..DataArgs::default() };
            assert!(config_map(&data, "a").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_deployment_names_its_container_as_its_image() {
        let object = deployment("web", &["registry:5000/a/nginx:1.2".into()], 2, Some(80), &[]).unwrap();
        assert_eq!(
            object.pointer("/spec/template/spec/containers/0").unwrap(),
            &json!({"name": "nginx", "image": "registry:5000/a/nginx:1.2", "ports": [{"containerPort": 80}]})
        );
    }
}
