//! The objects that `kubectl create KIND` makes of its flags, as upstream makes them
//! (`k8s.io/kubectl/pkg/cmd/create`).

use std::path::Path;

use api_objects::{
    Value,
    selector::{LabelSelector, Operator},
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use crate::cli::{
    BudgetArgs, CreateCommon, CronJobArgs, JobArgs, PriorityClassArgs, QuotaArgs, RegistrySecretArgs,
    ServiceKind, TlsSecretArgs,
};
use crate::error::{Error, file_problem};
use crate::session::Session;

/// A Service and the flags of all kinds.
pub(super) fn service(kind: &ServiceKind) -> Result<(&CreateCommon, Value), Error> {
    let (common, ports, service_type) = match kind {
        ServiceKind::ClusterIp { common, ports, .. } => (common, ports, "ClusterIP"),
        ServiceKind::NodePort { common, ports, .. } => (common, ports, "NodePort"),
        ServiceKind::LoadBalancer { common, ports } => (common, ports, "LoadBalancer"),
        ServiceKind::ExternalName { common, ports, .. } => (common, ports, "ExternalName"),
    };
    let labels = json!({"app": common.name});
    let mut spec = json!({"selector": labels, "type": service_type});
    let mut listed = ports.tcp.iter().map(|text| port(text)).collect::<Result<Vec<Value>, Error>>()?;
    let mut may_lack_ports = false;
    match kind {
        ServiceKind::ClusterIp { clusterip: Some(address), .. } => {
            spec["clusterIP"] = json!(address);
            may_lack_ports = address == "None";
        }
        ServiceKind::NodePort { node_port: Some(number), .. } => {
            for port in &mut listed {
                port["nodePort"] = json!(number);
            }
        }
        ServiceKind::ExternalName { external_name, .. } => {
            spec["externalName"] = json!(external_name);
            may_lack_ports = true;
        }
        ServiceKind::ClusterIp { .. } | ServiceKind::NodePort { .. } | ServiceKind::LoadBalancer { .. } => {}
    }
    if listed.is_empty() && !may_lack_ports {
        return Err(Error::message("at least one tcp port specifier must be provided"));
    }
    if !listed.is_empty() {
        spec["ports"] = json!(listed);
    }
    Ok((common, json!({"apiVersion": "v1", "kind": "Service", "metadata": {"labels": labels}, "spec": spec})))
}

/// `80` or `80:8080` or `80:name`.
fn port(text: &str) -> Result<Value, Error> {
    let (number, target) = text.split_once(':').unwrap_or((text, text));
    let parsed = number.parse::<u16>().ok().filter(|number| *number > 0);
    let Some(parsed) = parsed else {
        return Err(Error::message(format!("invalid port specifier {text:?}: expected PORT or PORT:TARGET")));
    };
    let target = target.parse::<u16>().map_or_else(|_| json!(target), |number| json!(number));
    Ok(json!({"name": text.replace(':', "-"), "protocol": "TCP", "port": parsed, "targetPort": target}))
}

/// A Job, from an image or from a CronJob of the cluster.
pub(super) async fn job(args: &JobArgs, session: &Session) -> Result<Value, Error> {
    match (&args.image, &args.from) {
        (Some(image), None) => {
            let template = template(&args.common.name, image, &args.command, "Never");
            Ok(json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template}}))
        }
        (None, Some(from)) => {
            if !args.command.is_empty() {
                return Err(Error::message("cannot specify --from and command"));
            }
            let (kind, name) = from.split_once('/').unwrap_or(("cronjob", from));
            let resource = session.resource(kind).await?;
            if resource.kind != "CronJob" {
                return Err(Error::message("from must be an existing cronjob"));
            }
            let cron_job = session.get_object(&resource, &session.namespace, name).await?;
            Ok(from_cron_job(&cron_job))
        }
        _ => Err(Error::message("either --image or --from must be specified")),
    }
}

fn from_cron_job(cron_job: &Value) -> Value {
    let text = |pointer: &str| cron_job.pointer(pointer).cloned().unwrap_or_default();
    let mut annotations = Map::from_iter([("cronjob.kubernetes.io/instantiate".to_owned(), json!("manual"))]);
    let given = cron_job.pointer("/spec/jobTemplate/metadata/annotations").and_then(Value::as_object);
    annotations.extend(given.cloned().unwrap_or_default());
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "controller": true,
        "name": text("/metadata/name"), "uid": text("/metadata/uid"),
    });
    let mut metadata = json!({"annotations": annotations, "ownerReferences": [owner]});
    if let Some(labels) = cron_job.pointer("/spec/jobTemplate/metadata/labels") {
        metadata["labels"] = labels.clone();
    }
    let spec = text("/spec/jobTemplate/spec");
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
}

/// A CronJob.
pub(super) fn cron_job(args: &CronJobArgs) -> Value {
    let name = &args.common.name;
    let template = template(name, &args.image, &args.command, &args.restart);
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {
        "schedule": args.schedule,
        "jobTemplate": {"metadata": {"name": name}, "spec": {"template": template}},
    }})
}

fn template(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    let mut container = json!({"name": name, "image": image});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({"spec": {"containers": [container], "restartPolicy": restart}})
}

/// A Secret with the login for a registry.
pub(super) fn registry_secret(args: &RegistrySecretArgs) -> Value {
    let login = format!("{}:{}", args.docker_username, args.docker_password);
    let mut entry = json!({"username": args.docker_username, "password": args.docker_password});
    if let Some(email) = &args.docker_email {
        entry["email"] = json!(email);
    }
    entry["auth"] = json!(STANDARD.encode(login));
    let config = json!({"auths": {args.docker_server.as_str(): entry}});
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": STANDARD.encode(config.to_string())},
    })
}

/// A Secret with a certificate and its key.
pub(super) fn tls_secret(args: &TlsSecretArgs) -> Result<Value, Error> {
    let read = |path: &Path| {
        std::fs::read(path).map(|bytes| STANDARD.encode(bytes)).map_err(|error| {
            let path = path.display();
            Error::message(format!("Cannot read file {path}, open {path}: {}", file_problem(&error)))
        })
    };
    let (certificate, key) = (read(&args.cert)?, read(&args.key)?);
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "data": {"tls.crt": certificate, "tls.key": key},
    }))
}

/// A ResourceQuota.
pub(super) fn quota(args: &QuotaArgs) -> Result<Value, Error> {
    let mut spec = json!({});
    for limit in &args.hard {
        let (resource, amount) = limit.split_once('=').ok_or_else(|| {
            Error::message(format!("invalid argument syntax {limit:?}, expected <resource>=<value>"))
        })?;
        spec["hard"][resource] = json!(amount);
    }
    if !args.scopes.is_empty() {
        spec["scopes"] = json!(args.scopes);
    }
    Ok(json!({"apiVersion": "v1", "kind": "ResourceQuota", "spec": spec}))
}

/// A PodDisruptionBudget.
pub(super) fn budget(args: &BudgetArgs) -> Result<Value, Error> {
    let amount = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number));
    let selector = LabelSelector::parse(&args.selector)
        .map_err(|error| Error::message(format!("a valid --selector must be given: {error}")))?;
    let mut spec = json!({"selector": selector_object(&selector)?});
    match (&args.min_available, &args.max_unavailable) {
        (Some(least), None) => spec["minAvailable"] = amount(least),
        (None, Some(most)) => spec["maxUnavailable"] = amount(most),
        _ => return Err(Error::message("one of min-available or max-unavailable must be specified")),
    }
    Ok(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": spec}))
}

/// A selector as objects hold it.
fn selector_object(selector: &LabelSelector) -> Result<Value, Error> {
    let mut object = json!({});
    for requirement in selector.requirements() {
        let operator = match requirement.operator() {
            Operator::Equals | Operator::DoubleEquals => {
                object["matchLabels"][requirement.key()] = json!(requirement.values().first());
                continue;
            }
            Operator::In => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => {
                return Err(Error::message("a selector of pods compares no numbers"));
            }
        };
        let mut expression = json!({"key": requirement.key(), "operator": operator});
        if !requirement.values().is_empty() {
            expression["values"] = json!(requirement.values());
        }
        match &mut object["matchExpressions"] {
            Value::Array(expressions) => expressions.push(expression),
            none => *none = json!([expression]),
        }
    }
    Ok(object)
}

/// A PriorityClass.
pub(super) fn priority_class(args: &PriorityClassArgs) -> Value {
    let mut object = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "value": args.value, "preemptionPolicy": args.preemption_policy,
    });
    if args.global_default {
        object["globalDefault"] = json!(true);
    }
    if !args.description.is_empty() {
        object["description"] = json!(args.description);
    }
    object
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, CreateKind, SecretKind};

    fn kind(line: &str) -> CreateKind {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        let Command::Create(args) = cli.command else { panic!("{line} creates something") };
        args.kind.expect("a kind must be named")
    }

    fn service_of(line: &str) -> Result<Value, Error> {
        let CreateKind::Service { kind } = kind(line) else { panic!("a Service") };
        service(&kind).map(|(_, object)| object)
    }

    #[test]
    fn services_of_all_types() {
        let made = service_of("kubectl create service clusterip a --tcp=80:8080 --tcp=443").unwrap();
        assert_eq!(made["metadata"]["labels"], json!({"app": "a"}));
        let ports = json!([
            {"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080},
            {"name": "443", "protocol": "TCP", "port": 443, "targetPort": 443},
        ]);
        assert_eq!(made["spec"], json!({"ports": ports, "selector": {"app": "a"}, "type": "ClusterIP"}));
        let made = service_of("kubectl create service nodeport a --tcp=80 --node-port=30000").unwrap();
        assert_eq!(made["spec"]["ports"][0]["nodePort"], 30_000);
        let made = service_of("kubectl create service externalname a --external-name=b.c").unwrap();
        let spec = json!({"selector": {"app": "a"}, "type": "ExternalName", "externalName": "b.c"});
        assert_eq!(made["spec"], spec);
        let made = service_of("kubectl create service clusterip a --clusterip=None").unwrap();
        assert_eq!(made["spec"]["clusterIP"], "None");
        assert!(service_of("kubectl create service loadbalancer a").is_err());
        assert!(service_of("kubectl create service loadbalancer a --tcp=x").is_err());
    }

    #[test]
    fn jobs_and_cron_jobs() {
        let CreateKind::CronJob(args) =
            kind("kubectl create cronjob c --image=x --schedule=@hourly -- date -u")
        else {
            panic!("a CronJob")
        };
        let container = json!({"name": "c", "image": "x", "command": ["date", "-u"]});
        let made = cron_job(&args);
        assert_eq!(
            made["spec"]["jobTemplate"]["spec"]["template"]["spec"],
            json!({"containers": [container], "restartPolicy": "OnFailure"})
        );
        let mut stored = made;
        stored["metadata"] = json!({"name": "c", "uid": "u-1"});
        let job = from_cron_job(&stored);
        assert_eq!(job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"], "manual");
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["name"], "c");
    }

    #[test]
    fn secrets_for_registries() {
        let line = "kubectl create secret docker-registry r --docker-server=a --docker-username=b --docker-password=c";
        let CreateKind::Secret { kind: SecretKind::DockerRegistry(args) } = kind(line) else {
            panic!("a Secret")
        };
        let made = registry_secret(&args);
        let config = STANDARD.decode(made["data"][".dockerconfigjson"].as_str().unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config, json!({"auths": {"a": {"username": "b", "password": "c", "auth": "Yjpj"}}}));
        let line = "kubectl create secret tls t --cert=/no --key=/no";
        let CreateKind::Secret { kind: SecretKind::Tls(args) } = kind(line) else { panic!("a Secret") };
        assert_eq!(
            tls_secret(&args).unwrap_err().to_string(),
            "error: Cannot read file /no, open /no: no such file or directory"
        );
    }

    #[test]
    fn quotas_budgets_and_classes() {
        let CreateKind::Quota(args) = kind("kubectl create quota q --hard=pods=1,cpu=2 --scopes=BestEffort")
        else {
            panic!("a quota")
        };
        let spec = json!({"hard": {"pods": "1", "cpu": "2"}, "scopes": ["BestEffort"]});
        assert_eq!(quota(&args).unwrap()["spec"], spec);
        let CreateKind::PodDisruptionBudget(args) =
            kind("kubectl create pdb p --selector=a=b --max-unavailable=50%")
        else {
            panic!("a budget")
        };
        let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "maxUnavailable": "50%"});
        assert_eq!(budget(&args).unwrap()["spec"], spec);
        let CreateKind::PriorityClass(args) =
            kind("kubectl create priorityclass c --value=-5 --description=x")
        else {
            panic!("a class")
        };
        let made = priority_class(&args);
        assert_eq!((&made["value"], &made["description"]), (&json!(-5), &json!("x")));
    }
}
