//! What Go's decoder says of a body that does not fit: the findings in the order of the body.
//!
//! The fast path ([`super::check`]) works on decoded values, whose fields are sorted. A body with something to
//! report is read a second time here, as `sigs.k8s.io/json` reads it: type errors do not stop it and the first
//! one is told, but a value that decodes itself and fails (a quantity, a time) ends the decoding with its own
//! error; unknown and duplicate fields come in the order in which they stand, at most a hundred.

use std::{collections::HashSet, fmt, ops::ControlFlow};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    Definition, Kind, Schema,
    check::{Mismatch, walk},
};

/// As many findings as upstream's decoder collects.
const MOST: usize = 100;

/// What there is to say of a body.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The error of a value that its type cannot hold.
    pub(super) mismatch: Option<String>,
    /// Unknown and duplicate fields.
    pub(super) findings: Vec<String>,
}

/// Reads a body that is JSON.
pub(super) fn report(schema: &Schema, bytes: &[u8]) -> Report {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let Ok(node) = Seed.deserialize(&mut deserializer) else { return Report::default() };
    let mut reader = Reader::default();
    // Ended or not: what was found stands in the reader.
    let _ = reader.value(schema, node);
    Report { mismatch: reader.mismatch, findings: reader.findings }
}

/// A value whose fields keep their order, and stand as often as in the body.
enum Node {
    Leaf(Value),
    List(Vec<Self>),
    Fields(Vec<(String, Self)>),
}

impl Node {
    fn into_value(self) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::List(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Fields(fields) => {
                let fields = fields.into_iter().map(|(name, node)| (name, node.into_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// Where the reading is, and what it has found.
#[derive(Default)]
struct Reader {
    mismatch: Option<String>,
    findings: Vec<String>,
    seen: HashSet<String>,
    /// The path of findings: `spec.containers[0]`.
    path: String,
    /// The path of mismatches, as Go has it: names of fields only, and the innermost struct.
    fields: Vec<String>,
    structure: Option<String>,
}

impl Reader {
    fn value(&mut self, schema: &Schema, node: Node) -> ControlFlow<()> {
        match (schema.kind(), node) {
            (Kind::Object, Node::Fields(fields)) => {
                let definition = schema.definition().expect("a struct must have a definition");
                self.object(definition, fields)
            }
            (Kind::Map(values), Node::Fields(entries)) => self.map(values, entries),
            (Kind::List(items), Node::List(elements)) => {
                let here = self.path.len();
                for (index, element) in elements.into_iter().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    let outcome = self.value(items, element);
                    self.path.truncate(here);
                    outcome?;
                }
                ControlFlow::Continue(())
            }
            (_, node) => match walk(schema, &mut node.into_value(), &mut Vec::new()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(mismatch) => self.mismatched(*mismatch),
            },
        }
    }

    fn object(&mut self, definition: &Definition, fields: Vec<(String, Node)>) -> ControlFlow<()> {
        let outside = self.structure.clone();
        let mut known = HashSet::new();
        for (name, node) in fields {
            let Some((_, field)) = definition.find(&name) else {
                self.find("unknown", &name);
                continue;
            };
            if !known.insert(name.clone()) {
                self.find("duplicate", &name);
            }
            self.structure = Some(super::check::short_name(&definition.name).to_owned());
            let depth = self.fields.len();
            self.fields.extend(inlined(&definition.name, &name).map(str::to_owned));
            self.fields.push(name.clone());
            self.below(&name, |reader| reader.value(&field.schema, node))?;
            self.fields.truncate(depth);
        }
        self.structure = outside;
        ControlFlow::Continue(())
    }

    fn map(&mut self, values: &Schema, entries: Vec<(String, Node)>) -> ControlFlow<()> {
        let mut known = HashSet::new();
        for (key, node) in entries {
            if !known.insert(key.clone()) {
                self.find("duplicate", &key);
            }
            self.below(&key, |reader| reader.value(values, node))?;
        }
        ControlFlow::Continue(())
    }

    fn below(&mut self, name: &str, read: impl FnOnce(&mut Self) -> ControlFlow<()>) -> ControlFlow<()> {
        let here = self.path.len();
        if here > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let outcome = read(self);
        self.path.truncate(here);
        outcome
    }

    fn find(&mut self, what: &str, name: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        let finding = format!("{what} field \"{}{dot}{name}\"", self.path);
        if self.findings.len() < MOST && self.seen.insert(finding.clone()) {
            self.findings.push(finding);
        }
    }

    fn mismatched(&mut self, mismatch: Mismatch) -> ControlFlow<()> {
        let stops = mismatch.ends_decoding();
        let text = mismatch.at(self.structure.as_deref(), &self.fields).text();
        // What ends the decoding is its error; else the first one is, and the rest is still read.
        if stops || self.mismatch.is_none() {
            self.mismatch = Some(text);
        }
        if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The Go struct that a field stands in where another one inlines it: Go names it on the way, JSON does not.
fn inlined(definition: &str, field: &str) -> Option<&'static str> {
    match (definition.strip_prefix("io.k8s.api.core.v1.")?, field) {
        ("Probe", "exec" | "httpGet" | "tcpSocket" | "grpc") => Some("ProbeHandler"),
        ("Volume", field) if field != "name" => Some("VolumeSource"),
        ("EphemeralContainer", field) if field != "targetContainerName" => Some("EphemeralContainerCommon"),
        (
            "ConfigMapKeySelector"
            | "SecretKeySelector"
            | "ConfigMapEnvSource"
            | "SecretEnvSource"
            | "ConfigMapProjection"
            | "SecretProjection"
            | "ConfigMapVolumeSource",
            "name",
        ) => Some("LocalObjectReference"),
        _ => None,
    }
}

struct Seed;

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Node::Leaf(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(Self)? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            fields.push((name, map.next_value_seed(Self)?));
        }
        Ok(Node::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(body: &str) -> Report {
        report(crate::schema::definition("io.k8s.api.core.v1.Pod").unwrap(), body.as_bytes())
    }

    #[test]
    fn the_first_mismatch_of_the_body_is_told() {
        let body = r#"{"spec":{"nodeName":5,"containers":"x"},"metadata":{"name":1}}"#;
        assert_eq!(
            pod(body).mismatch.unwrap(),
            "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string"
        );
        let body = r#"{"spec":{"containers":[{"name":"a"},{"name":5,"image":6}]}}"#;
        assert_eq!(
            pod(body).mismatch.unwrap(),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string"
        );
    }

    #[test]
    fn inlined_structs_are_named() {
        let body = r#"{"spec":{"volumes":[{"name":"v","emptyDir":"x"}]}}"#;
        assert_eq!(
            pod(body).mismatch.unwrap(),
            "json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource.emptyDir \
             of type v1.EmptyDirVolumeSource"
        );
        let body = r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":true}}}]}}"#;
        assert_eq!(
            pod(body).mismatch.unwrap(),
            "json: cannot unmarshal bool into Go struct field \
             HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32"
        );
    }

    #[test]
    fn a_value_that_decodes_itself_ends_the_decoding() {
        let body = r#"{"spec":{"nodeName":5,"overhead":{"cpu":"x"},"hostNetwork":"y"}}"#;
        let text = pod(body).mismatch.unwrap();
        assert!(text.starts_with("quantities must match"), "{text}");
    }

    #[test]
    fn findings_come_as_they_stand() {
        let body = r#"{"zone":{"x":1,"x":2},"spec":{"b":1,"nodeName":"a","nodeName":"b","a":2,
            "nodeSelector":{"k":"1","k":"2"},"containers":[{"imagee":""},{"imagee":""}]},"a":1,"a":1}"#;
        assert_eq!(
            pod(body).findings,
            [
                r#"unknown field "zone""#,
                r#"unknown field "spec.b""#,
                r#"duplicate field "spec.nodeName""#,
                r#"unknown field "spec.a""#,
                r#"duplicate field "spec.nodeSelector.k""#,
                r#"unknown field "spec.containers[0].imagee""#,
                r#"unknown field "spec.containers[1].imagee""#,
                r#"unknown field "a""#,
            ]
        );
        let many: Vec<String> = (0..150).map(|n| format!("\"f{n}\":1")).collect();
        assert_eq!(pod(&format!("{{{}}}", many.join(","))).findings.len(), 100);
    }
}
