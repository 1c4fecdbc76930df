//! The protobuf form of an OpenAPI v2 document: gnostic's `Document`, as far as `kubectl` reads it.
//!
//! Field numbers are those of `google/gnostic/openapiv2/OpenAPIv2.proto`. What no Kubernetes client reads
//! (responses' schemas, contacts, examples) is left out.

use prost::Message;
use serde_json::{Map, Value};

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<NamedSchemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, repeated, tag = "1")]
    tags: Vec<String>,
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(string, repeated, tag = "10")]
    schemes: Vec<String>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponseValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

/// One member of the message's `oneof`.
#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<ResponseMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseMessage {
    #[prost(string, tag = "1")]
    description: String,
}

/// One member of the message's `oneof`.
#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

/// The members of the message's `oneof`.
#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "1")]
    body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    non_body: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    place: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

/// The members of the message's `oneof`.
#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
    #[prost(bool, tag = "20")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(bool, tag = "19")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchemas {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<Strings>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<NamedSchemas>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

/// One member of the message's `oneof`.
#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

/// Any value, as YAML text: JSON is YAML.
#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "2")]
    yaml: String,
}

/// The protobuf form of a v2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let paths = members(&document["paths"])
        .map(|(name, item)| NamedPathItem { name: name.clone(), value: Some(path_item(item)) });
    Document {
        swagger: text(&document["swagger"]),
        info: Some(Info {
            title: text(&document["info"]["title"]),
            version: text(&document["info"]["version"]),
        }),
        paths: Some(Paths { path: paths.collect() }),
        definitions: Some(named_schemas(&document["definitions"])),
    }
    .encode_to_vec()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    members(value)
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(name, value)| NamedAny {
            name: name.clone(),
            value: Some(AnyValue { yaml: format!("{value}\n") }),
        })
        .collect()
}

fn path_item(item: &Value) -> PathItem {
    let operation = |method: &str| item.get(method).map(operation);
    PathItem {
        get: operation("get"),
        put: operation("put"),
        post: operation("post"),
        delete: operation("delete"),
        patch: operation("patch"),
        parameters: parameters(&item["parameters"]),
    }
}

fn operation(value: &Value) -> Operation {
    let responses = members(&value["responses"]).map(|(code, response)| NamedResponseValue {
        name: code.clone(),
        value: Some(ResponseValue {
            response: Some(ResponseMessage { description: text(&response["description"]) }),
        }),
    });
    Operation {
        tags: texts(&value["tags"]),
        operation_id: text(&value["operationId"]),
        produces: texts(&value["produces"]),
        consumes: texts(&value["consumes"]),
        parameters: parameters(&value["parameters"]),
        responses: Some(Responses { response_code: responses.collect() }),
        schemes: texts(&value["schemes"]),
        vendor_extension: extensions(value),
    }
}

fn parameters(value: &Value) -> Vec<ParametersItem> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| ParametersItem { parameter: Some(self::parameter(parameter)) })
        .collect()
}

fn parameter(value: &Value) -> Parameter {
    let (name, place, kind) = (text(&value["name"]), text(&value["in"]), text(&value["type"]));
    let required = value["required"].as_bool().unwrap_or(false);
    match place.as_str() {
        "body" => Parameter {
            body: Some(BodyParameter { name, place, required, schema: Some(schema(&value["schema"])) }),
            non_body: None,
        },
        "path" => Parameter {
            body: None,
            non_body: Some(NonBodyParameter {
                query: None,
                path: Some(PathParameter { required, place, name, kind, unique_items: true }),
            }),
        },
        _ => Parameter {
            body: None,
            non_body: Some(NonBodyParameter {
                query: Some(QueryParameter { place, name, kind, unique_items: true }),
                path: None,
            }),
        },
    }
}

fn named_schemas(value: &Value) -> NamedSchemas {
    let additional_properties = members(value)
        .map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) })
        .collect();
    NamedSchemas { additional_properties }
}

fn schema(value: &Value) -> Schema {
    Schema {
        reference: text(&value["$ref"]),
        format: text(&value["format"]),
        description: text(&value["description"]),
        required: texts(&value["required"]),
        additional_properties: value
            .get("additionalProperties")
            .map(|values| Box::new(AdditionalProperties { schema: Some(Box::new(schema(values))) })),
        kind: value["type"].as_str().map(|kind| Strings { value: vec![kind.to_owned()] }),
        items: value.get("items").map(|items| Items { schema: vec![schema(items)] }),
        properties: value.get("properties").map(named_schemas),
        vendor_extension: extensions(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_survives_the_wire() {
        let document = json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"},
            "paths": {"/p/{name}": {"patch": {"operationId": "patchP", "parameters": [
                {"in": "query", "name": "dryRun", "type": "string"}],
                "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "Pod"}},
                "parameters": [{"in": "path", "name": "name", "type": "string", "required": true}]}},
            "definitions": {"a": {"type": "object", "properties": {"b": {"type": "array", "items": {"$ref": "#/definitions/a"}}}}}});
        let decoded = Document::decode(&encode(&document)[..]).unwrap();
        let patch = decoded.paths.unwrap().path[0].value.clone().unwrap().patch.unwrap();
        assert_eq!(patch.vendor_extension[0].name, "x-kubernetes-group-version-kind");
        let definitions = decoded.definitions.unwrap().additional_properties;
        let properties = definitions[0].value.clone().unwrap().properties.unwrap().additional_properties;
        assert_eq!(
            properties[0].value.clone().unwrap().items.unwrap().schema[0].reference,
            "#/definitions/a"
        );
    }
}
