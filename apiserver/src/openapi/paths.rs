//! The paths of a group version: every operation of every resource with its parameters.
//!
//! `kubectl` reads from them whether a kind can be patched with `fieldValidation` and `dryRun`; other tools
//! make clients of them. Names follow upstream's (`k8s.io/apiserver/pkg/endpoints/installer.go`).

use api_objects::{Resource, resource};
use serde_json::{Map, Value, json};

use super::schemas::Form;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const STREAM: &str = "application/json;stream=watch";
const PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// Where an operation takes place, and on what.
struct Place<'a> {
    resource: &'a Resource,
    form: Form,
    /// Path parameters, in order.
    path_parameters: Vec<&'static str>,
    /// The scope as it stands in operation ids.
    scope: &'static str,
    /// Subresource, or empty.
    subresource: &'a str,
    /// Group, version and kind that the operation is about.
    subject: [String; 3],
    /// The definition of what is sent and answered.
    definition: String,
}

/// All paths of a group version.
pub(super) fn of_group_version(group: &str, version: &str, form: Form) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resource::builtin() {
        if resource.group == group && resource.version == version {
            add_resource(&mut paths, resource, form);
        }
    }
    paths
}

fn add_resource(paths: &mut Map<String, Value>, resource: &Resource, form: Form) {
    let base = resource.api_path();
    let plural = &resource.plural;
    let (root, scope, outer) = if resource.namespaced {
        (format!("{base}/namespaces/{{namespace}}/{plural}"), "Namespaced", vec!["namespace"])
    } else {
        (format!("{base}/{plural}"), "", Vec::new())
    };
    let place = |path_parameters: Vec<&'static str>, scope| Place {
        resource,
        form,
        path_parameters,
        scope,
        subresource: "",
        subject: [resource.group.to_string(), resource.version.to_string(), resource.kind.to_string()],
        definition: resource.definition.to_string(),
    };
    let has = |verb: &str| resource.verbs.iter().any(|have| have == verb);
    let collection = place(outer.clone(), scope);
    let operations = [
        ("get", "list", has("list")),
        ("post", "post", has("create")),
        ("delete", "deletecollection", has("deletecollection")),
    ];
    insert(paths, &root, &collection, &operations);
    if resource.namespaced && has("list") {
        let everywhere = place(Vec::new(), "ForAllNamespaces");
        insert(paths, &format!("{base}/{plural}"), &everywhere, &[("get", "list", true)]);
    }
    let mut named = outer;
    named.push("name");
    let object = place(named.clone(), scope);
    let operations = [
        ("get", "get", has("get")),
        ("put", "put", has("update")),
        ("patch", "patch", has("patch")),
        ("delete", "delete", has("delete")),
    ];
    insert(paths, &format!("{root}/{{name}}"), &object, &operations);
    for subresource in &resource.subresources {
        let has = |verb: &str| subresource.verbs.iter().any(|have| have == verb);
        let streams = super::is_stream(&subresource.name);
        let subject =
            [subresource.group.to_string(), subresource.version.to_string(), subresource.kind.to_string()];
        let definition = resource::find_kind(&subject[0], &subject[1], &subject[2])
            .map(|found| found.definition.to_string())
            .unwrap_or_else(|| super::definition_of(&subject[0], &subject[1], &subject[2]));
        let below =
            Place { subresource: &subresource.name, subject, definition, ..place(named.clone(), scope) };
        let get = if streams { "connect" } else { "get" };
        let post = if streams { "connect" } else { "post" };
        let operations = [
            ("get", get, has("get")),
            ("post", post, has("create")),
            ("put", if streams { "connect" } else { "put" }, has("update")),
            ("patch", if streams { "connect" } else { "patch" }, has("patch")),
            ("delete", "connect", streams && has("delete")),
        ];
        insert(paths, &format!("{root}/{{name}}/{}", subresource.name), &below, &operations);
    }
}

fn insert(paths: &mut Map<String, Value>, path: &str, place: &Place<'_>, operations: &[(&str, &str, bool)]) {
    let mut item = Map::new();
    for (method, action, served) in operations {
        if *served {
            item.insert((*method).to_owned(), place.operation(method, action));
        }
    }
    if item.is_empty() {
        return;
    }
    let parameters: Vec<Value> =
        place.path_parameters.iter().map(|name| place.path_parameter(name)).collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.into());
    }
    paths.insert(path.to_owned(), item.into());
}

impl Place<'_> {
    fn operation(&self, method: &str, action: &str) -> Value {
        let [group, version, kind] = &self.subject;
        let mut operation = json!({
            "operationId": self.operation_id(method, action),
            "tags": [self.tag()],
            "responses": self.responses(action),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
        });
        let mut parameters: Vec<Value> =
            query_parameters(action).iter().map(|(name, kind)| self.query_parameter(name, kind)).collect();
        if let Some((media_types, definition)) = self.body(action) {
            let schema = self.form.reference(&definition);
            match self.form {
                Form::V3 => {
                    let content: Map<String, Value> = media_types
                        .iter()
                        .map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema })))
                        .collect();
                    operation["requestBody"] = json!({ "content": content, "required": action != "delete" });
                }
                Form::V2 => {
                    parameters.insert(
                        0,
                        json!({"in": "body", "name": "body", "required": action != "delete", "schema": schema}),
                    );
                    operation["consumes"] = json!(media_types);
                }
            }
        }
        if self.form == Form::V2 {
            operation["produces"] = json!([JSON, YAML]);
            operation["schemes"] = json!(["https"]);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        operation
    }

    fn body(&self, action: &str) -> Option<(Vec<&'static str>, String)> {
        match action {
            "post" | "put" => Some((vec!["*/*"], self.definition.clone())),
            "patch" => Some((PATCHES.to_vec(), format!("{META}.Patch"))),
            "delete" | "deletecollection" => Some((vec!["*/*"], format!("{META}.DeleteOptions"))),
            _ => None,
        }
    }

    fn responses(&self, action: &str) -> Value {
        let definition = match action {
            "list" => format!("{}List", self.definition),
            "delete" | "deletecollection" => format!("{META}.Status"),
            _ => self.definition.clone(),
        };
        let answer = |description: &str| {
            if action == "connect" {
                return self.text_answer(description);
            }
            let schema = self.form.reference(&definition);
            match self.form {
                Form::V2 => json!({ "description": description, "schema": schema }),
                Form::V3 => {
                    let mut content = json!({ JSON: { "schema": schema }, YAML: { "schema": schema } });
                    if action == "list" {
                        content[STREAM] = json!({ "schema": schema });
                    }
                    json!({ "description": description, "content": content })
                }
            }
        };
        let mut responses = json!({ "200": answer("OK"), "401": { "description": "Unauthorized" } });
        match action {
            "post" => {
                responses["201"] = answer("Created");
                responses["202"] = answer("Accepted");
            }
            "put" | "patch" => responses["201"] = answer("Created"),
            "delete" => responses["202"] = answer("Accepted"),
            _ => {}
        }
        responses
    }

    fn text_answer(&self, description: &str) -> Value {
        match self.form {
            Form::V2 => json!({ "description": description, "schema": { "type": "string" } }),
            Form::V3 => {
                json!({ "description": description, "content": { "*/*": { "schema": { "type": "string" } } } })
            }
        }
    }

    fn query_parameter(&self, name: &str, kind: &str) -> Value {
        self.parameter(name, kind, "query", false)
    }

    fn path_parameter(&self, name: &str) -> Value {
        self.parameter(name, "string", "path", true)
    }

    fn parameter(&self, name: &str, kind: &str, place: &str, required: bool) -> Value {
        let mut parameter = json!({ "name": name, "in": place, "uniqueItems": true });
        if required {
            parameter["required"] = json!(true);
        }
        match self.form {
            Form::V2 => parameter["type"] = json!(kind),
            Form::V3 => {
                parameter["schema"] = json!({ "type": kind, "uniqueItems": true });
                if let Some(parameter) = parameter.as_object_mut() {
                    parameter.remove("uniqueItems");
                }
            }
        }
        parameter
    }

    /// `rbacAuthorization_v1`.
    fn tag(&self) -> String {
        let name = camel(&self.resource.group);
        let mut letters = name.chars();
        let lower: String =
            letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect();
        format!("{lower}_{}", self.resource.version)
    }

    /// `listCoreV1NamespacedPod`.
    fn operation_id(&self, method: &str, action: &str) -> String {
        let verb = match action {
            "post" => "create".to_owned(),
            "put" => "replace".to_owned(),
            "get" => "read".to_owned(),
            "deletecollection" => "delete".to_owned(),
            "connect" => format!("connect{}", capital(method)),
            other => other.to_owned(),
        };
        let group = camel(&self.resource.group);
        let version = capital(&self.resource.version);
        let collection = if action == "deletecollection" { "Collection" } else { "" };
        let kind = &self.resource.kind;
        let below = capital(self.subresource);
        match self.scope {
            "ForAllNamespaces" => format!("{verb}{group}{version}{kind}ForAllNamespaces"),
            scope => format!("{verb}{group}{version}{collection}{scope}{kind}{below}"),
        }
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// `rbac.authorization.k8s.io` → `RbacAuthorization`, the core group → `Core`.
fn camel(name: &str) -> String {
    let name = if name.is_empty() { return "Core".to_owned() } else { name.trim_end_matches(".k8s.io") };
    name.split('.').map(capital).collect()
}

fn query_parameters(action: &str) -> &'static [(&'static str, &'static str)] {
    const LIST: &[(&str, &str)] = &[
        ("pretty", "string"),
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ];
    const WRITE: &[(&str, &str)] = &[
        ("pretty", "string"),
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
    ];
    const PATCH: &[(&str, &str)] = &[
        ("pretty", "string"),
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
        ("force", "boolean"),
    ];
    const DELETE: &[(&str, &str)] = &[
        ("pretty", "string"),
        ("dryRun", "string"),
        ("gracePeriodSeconds", "integer"),
        ("orphanDependents", "boolean"),
        ("propagationPolicy", "string"),
    ];
    const DELETE_COLLECTION: &[(&str, &str)] = &[
        ("pretty", "string"),
        ("continue", "string"),
        ("dryRun", "string"),
        ("fieldSelector", "string"),
        ("gracePeriodSeconds", "integer"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("orphanDependents", "boolean"),
        ("propagationPolicy", "string"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
    ];
    match action {
        "list" => LIST,
        "post" | "put" => WRITE,
        "patch" => PATCH,
        "delete" => DELETE,
        "deletecollection" => DELETE_COLLECTION,
        "get" => &[("pretty", "string")],
        _ => &[],
    }
}
