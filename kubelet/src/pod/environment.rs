//! Environment variables of a container, and `$(NAME)` in commands.
//!
//! Order and precedence are upstream's `makeEnvironmentVariables`: Service variables first, then `envFrom`,
//! then `env`, a later definition of a name winning in place; `$(NAME)` sees what was defined before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{Container, EnvVar, FileKeySelector, Pod};

use super::{
    container as find_container,
    downward::{self, Surroundings},
    env_file::EnvFiles,
    namespace,
    resources::{self, Demand},
    spec,
};

/// Replaces `$(NAME)`: what `lookup` does not know stays as it is, and `$$` is an escaped `$`.
#[must_use]
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some(body) = after.strip_prefix('(')
            && let Some(end) = body.find(')')
        {
            let name = &body[..end];
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = &body[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// A ConfigMap or Secret, as bytes by key.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Which of the two kinds of data objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataKind {
    /// `ConfigMap`
    ConfigMap,
    /// `Secret`
    Secret,
}

impl DataKind {
    /// `ConfigMap`, `Secret`: in messages about keys.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// `configmap`, `secret`: in messages about objects.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// The data objects that were found, by kind and name; absent means that there is none.
#[derive(Debug, Clone, Default)]
pub struct DataObjects(pub BTreeMap<(DataKind, String), Data>);

impl DataObjects {
    /// The object, or upstream's text that it is missing.
    pub fn get(&self, kind: DataKind, name: &str) -> Result<&Data, String> {
        self.find(kind, name).ok_or_else(|| format!("{} \"{name}\" not found", kind.noun()))
    }

    /// The object, if there is one.
    #[must_use]
    pub fn find(&self, kind: DataKind, name: &str) -> Option<&Data> {
        self.0.get(&(kind, name.to_owned()))
    }
}

/// The data objects that a container's environment refers to.
#[must_use]
pub fn references(container: &Container) -> BTreeSet<(DataKind, String)> {
    let mut found = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        if let Some(reference) = &from.config_map_ref {
            found.insert((DataKind::ConfigMap, reference.name.clone()));
        }
        if let Some(reference) = &from.secret_ref {
            found.insert((DataKind::Secret, reference.name.clone()));
        }
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(reference) = &source.config_map_key_ref {
            found.insert((DataKind::ConfigMap, reference.name.clone()));
        }
        if let Some(reference) = &source.secret_key_ref {
            found.insert((DataKind::Secret, reference.name.clone()));
        }
    }
    found
}

/// A Service as environment variables tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Its ClusterIP.
    pub address: IpAddr,
    /// Ports: name, number, protocol.
    pub ports: Vec<(String, i32, String)>,
}

/// The variables of the Services that a pod sees: those of its namespace (unless `enableServiceLinks` is
/// false) and always the API server's, `default/kubernetes`.
#[must_use]
pub fn service_variables(pod: &Pod, services: &[ServiceFacts]) -> Vec<(String, String)> {
    let links = spec(pod).enable_service_links.unwrap_or(true);
    let mut chosen: BTreeMap<&str, &ServiceFacts> = BTreeMap::new();
    for service in services {
        let master = service.namespace == "default" && service.name == "kubernetes";
        if master && !chosen.contains_key(service.name.as_str())
            || links && service.namespace == namespace(pod)
        {
            chosen.insert(&service.name, service);
        }
    }
    let mut variables = Vec::new();
    for service in chosen.values() {
        let Some((_, first, first_protocol)) = service.ports.first() else { continue };
        let prefix = service.name.to_uppercase().replace('-', "_");
        let address = service.address;
        variables.push((format!("{prefix}_SERVICE_HOST"), address.to_string()));
        variables.push((format!("{prefix}_SERVICE_PORT"), first.to_string()));
        for (name, port, _) in service.ports.iter().filter(|(name, ..)| !name.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            variables.push((format!("{prefix}_SERVICE_PORT_{name}"), port.to_string()));
        }
        let url = |protocol: &str, port: i32| {
            let protocol = protocol.to_lowercase();
            match address {
                IpAddr::V4(address) => format!("{protocol}://{address}:{port}"),
                IpAddr::V6(address) => format!("{protocol}://[{address}]:{port}"),
            }
        };
        variables.push((format!("{prefix}_PORT"), url(first_protocol, *first)));
        for (_, port, protocol) in &service.ports {
            let base = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
            variables.push((base.clone(), url(protocol, *port)));
            variables.push((format!("{base}_PROTO"), protocol.to_lowercase()));
            variables.push((format!("{base}_PORT"), port.to_string()));
            variables.push((format!("{base}_ADDR"), address.to_string()));
        }
    }
    variables
}

/// The environment in order of definition.
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: &[ServiceFacts],
    objects: &DataObjects,
    files: &EnvFiles,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(reference), _) => (DataKind::ConfigMap, &reference.name, reference.optional),
            (None, Some(reference)) => (DataKind::Secret, &reference.name, reference.optional),
            (None, None) => continue,
        };
        match objects.get(kind, name) {
            Ok(data) => {
                for (key, value) in data {
                    variables.set(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
                }
            }
            Err(_) if optional == Some(true) => {}
            Err(missing) => return Err(missing),
        }
    }
    let from_services = service_variables(pod, services);
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                let lookup = |name: &str| {
                    variables.get(name).map(str::to_owned).or_else(|| {
                        from_services.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
                    })
                };
                Some(expand(variable.value.as_deref().unwrap_or_default(), lookup))
            }
            Some(_) => value_from(pod, container, variable, (objects, files), around)?,
        };
        if let Some(value) = value {
            variables.set(variable.name.clone(), value);
        }
    }
    // Services come last and never replace what the pod defines itself.
    for (name, value) in from_services {
        if variables.get(&name).is_none() {
            variables.set(name, value);
        }
    }
    Ok(variables.in_order)
}

fn value_from(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    (objects, files): (&DataObjects, &EnvFiles),
    around: &Surroundings,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else { return Ok(None) };
    if let Some(reference) = &source.field_ref {
        return downward::field(pod, &reference.field_path, around).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource_field(pod, container, reference, around.allocatable).map(Some);
    }
    if let Some(reference) = &source.file_key_ref {
        return file_key(reference, files);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(selector), _) => (DataKind::ConfigMap, &selector.name, &selector.key, selector.optional),
        (None, Some(selector)) => (DataKind::Secret, &selector.name, &selector.key, selector.optional),
        (None, None) => return Ok(None),
    };
    let optional = optional == Some(true);
    match objects.get(kind, name) {
        Err(_) if optional => Ok(None),
        Err(missing) => Err(missing),
        Ok(data) => match data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {key} in {} {}/{name}", kind.kind(), namespace(pod))),
        },
    }
}

/// The value of a `fileKeyRef`: without the file or the key in it there is none, if that may be.
fn file_key(reference: &FileKeySelector, files: &EnvFiles) -> Result<Option<String>, String> {
    let FileKeySelector { key, optional, path, volume_name } = reference;
    let found = match files.0.get(&(volume_name.clone(), path.clone())) {
        Some(Ok(variables)) => variables.as_ref(),
        Some(Err(why)) => {
            return Err(format!("couldn't parse env file {path:?} in volume {volume_name:?}: {why}"));
        }
        None => None,
    };
    match found.and_then(|variables| variables.get(key)) {
        Some(value) => Ok(Some(value.clone())),
        None if *optional == Some(true) => Ok(None),
        None => Err(format!("environment variable key {key:?} not found in file {path:?}")),
    }
}

/// The value of a `resourceFieldRef`, of this or another container.
pub fn resource_field(
    pod: &Pod,
    container: &Container,
    reference: &k8s_openapi::api::core::v1::ResourceFieldSelector,
    allocatable: Demand,
) -> Result<String, String> {
    let of = match reference.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
        None => container,
    };
    resources::field(pod, of, &reference.resource, reference.divisor.as_ref(), allocatable)
}

#[derive(Default)]
struct Variables {
    in_order: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(place) => self.in_order[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.in_order.len());
                self.in_order.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.in_order[*place].1.as_str())
    }
}

/// Command and arguments with `$(NAME)` replaced from the container's environment.
#[must_use]
pub fn expand_all(words: Option<&Vec<String>>, variables: &[(String, String)]) -> Vec<String> {
    let lookup =
        |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    words.into_iter().flatten().map(|word| expand(word, lookup)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    /// The table of the expansion's documentation (`third_party/forked/golang/expansion`).
    #[test]
    fn expansion() {
        let lookup = |name: &str| match name {
            "VAR" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, expected) in [
            ("$(VAR)", "value"),
            ("a $(VAR) b$(VAR)", "a value bvalue"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(VAR)", "$(VAR)"),
            ("$$$(VAR)", "$value"),
            ("$VAR", "$VAR"),
            ("$(VAR", "$(VAR"),
            ("$(EMPTY)x", "x"),
            ("trailing $", "trailing $"),
        ] {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }

    fn kubernetes() -> ServiceFacts {
        ServiceFacts {
            name: "kubernetes".into(),
            namespace: "default".into(),
            address: "10.96.0.1".parse().unwrap(),
            ports: vec![("https".into(), 443, "TCP".into())],
        }
    }

    #[test]
    fn the_api_servers_service_is_always_there() {
        let mut pod = pod(json!({"enableServiceLinks": false, "containers": []}));
        pod.metadata.namespace = Some("elsewhere".into());
        let variables: BTreeMap<_, _> = service_variables(&pod, &[kubernetes()]).into_iter().collect();
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
            ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
            ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
            ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
            ("KUBERNETES_PORT_443_TCP_PORT", "443"),
            ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    fn objects() -> DataObjects {
        DataObjects(
            [
                ((DataKind::ConfigMap, "c".to_owned()), [("A".to_owned(), b"1".to_vec())].into()),
                ((DataKind::Secret, "s".to_owned()), [("B".to_owned(), b"2".to_vec())].into()),
            ]
            .into(),
        )
    }

    fn evaluate(container: &serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod = pod(json!({"containers": [container]}));
        let files = EnvFiles(
            [
                (("v".to_owned(), "good".to_owned()), Ok(Some([("A".to_owned(), "$(B)".to_owned())].into()))),
                (("v".to_owned(), "none".to_owned()), Ok(None)),
                (("v".to_owned(), "bad".to_owned()), Err("line 1: no".to_owned())),
            ]
            .into(),
        );
        environment(&pod, &spec(&pod).containers[0], &[], &objects(), &files, &Surroundings::default())
    }

    #[test]
    fn sources_order_and_precedence() {
        let found = evaluate(&json!({"name": "a",
            "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "P_", "secretRef": {"name": "s"}},
                {"configMapRef": {"name": "none", "optional": true}}],
            "env": [{"name": "A", "value": "over"}, {"name": "D", "value": "$(A)-$(P_B)-$(LATER)"},
                {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "B"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": true}}},
                {"name": "LATER", "value": "x"}]}))
        .unwrap();
        let expected = [("A", "over"), ("P_B", "2"), ("D", "over-2-$(LATER)"), ("K", "2"), ("LATER", "x")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_missing_is_said_as_upstream_says_it() {
        let key = evaluate(
            &json!({"name": "a", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]}),
        );
        assert_eq!(key.unwrap_err(), "couldn't find key k in ConfigMap default/c");
        let object = evaluate(&json!({"name": "a", "envFrom": [{"secretRef": {"name": "gone"}}]}));
        assert_eq!(object.unwrap_err(), "secret \"gone\" not found");
    }

    #[test]
    fn variables_come_out_of_files() {
        let from = |path: &str, key: &str, optional: bool| json!({"name": "X", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": path, "key": key, "optional": optional}}});
        let read = |variable: serde_json::Value| evaluate(&json!({"name": "a", "env": [variable]}));
        let taken = [("X".to_owned(), "$(B)".to_owned())];
        assert_eq!(read(from("good", "A", false)).unwrap(), taken, "it is taken as it stands");
        assert_eq!(read(from("none", "A", true)).unwrap(), []);
        assert_eq!(read(from("good", "Z", true)).unwrap(), []);
        let missing = read(from("none", "A", false)).unwrap_err();
        assert_eq!(missing, "environment variable key \"A\" not found in file \"none\"");
        let bad = read(from("bad", "A", true)).unwrap_err();
        assert_eq!(bad, "couldn't parse env file \"bad\" in volume \"v\": line 1: no");
    }

    proptest! {
        /// Text without a dollar never changes, and unknown names never vanish.
        #[test]
        fn expansion_is_conservative(text in "[a-z $()]{0,20}") {
            let expanded = expand(&text, |_| None);
            if !text.contains("$$") {
                prop_assert_eq!(expanded, text);
            }
        }
    }
}
