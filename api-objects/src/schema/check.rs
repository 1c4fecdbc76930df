//! Checks a decoded body against a schema and brings it into the shape that upstream's decoder and encoder
//! would give it.
//!
//! Unknown fields are dropped (and reported), wrong types refused with the words of Go's decoder, `null`
//! becomes the zero value, zero values are left out or written as the Go types' tags say, quantities and
//! times take their canonical form. Checking is idempotent. It is on the path of every write: paths are put
//! together only when there is something to report.

use serde_json::{Map, Value};

use crate::quantity::Quantity;

use super::parse::prefix;
use super::{Definition, FieldValidation, Kind, Presence, Schema};

/// Why a body does not fit its schema.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A value has the wrong type or form; the text of Go's decoder.
    #[error("{0}")]
    Type(String),
    /// There are unknown fields, and the client asked for strictness. One message each.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Checks and normalises an object in place.
///
/// Unknown fields are dropped; with [`FieldValidation::Warn`] they are returned as `unknown field "spec.foo"`,
/// with [`FieldValidation::Strict`] they are the error.
pub fn check(schema: &Schema, value: &mut Value, mode: FieldValidation) -> Result<Vec<String>, CheckError> {
    let mut unknown = Vec::new();
    walk(schema, value, &mut unknown).map_err(|mismatch| CheckError::Type(mismatch.text()))?;
    if mode == FieldValidation::Ignore || unknown.is_empty() {
        return Ok(Vec::new());
    }
    let messages: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    if mode == FieldValidation::Strict { Err(CheckError::Strict(messages)) } else { Ok(messages) }
}

/// A value that its Go type cannot hold; boxed, since it is rare and large.
pub(super) struct Mismatch {
    /// The whole text, if the type decodes itself (times, quantities).
    text: Option<String>,
    /// Whether the type decodes itself: then nothing after it is decoded.
    ends: bool,
    /// What stands there: `string`, `number 1.5`.
    found: String,
    /// The Go type.
    wanted: String,
    /// The innermost struct and the fields from the root, as Go reports them.
    structure: Option<String>,
    fields: Vec<String>,
}

impl Mismatch {
    fn type_of(schema: &Schema, value: &Value) -> Box<Self> {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if matches!(schema.kind, Kind::Int32 | Kind::Int64) => {
                format!("number {number}")
            }
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let wanted = go_type(schema);
        Box::new(Self { text: None, ends: false, found, wanted, structure: None, fields: Vec::new() })
    }

    /// The mismatch of a type that decodes itself by decoding another one first.
    fn within(schema: &Schema, value: &Value) -> Box<Self> {
        Box::new(Self { ends: true, ..*Self::type_of(schema, value) })
    }

    fn own(text: String) -> Box<Self> {
        Box::new(Self {
            text: Some(text),
            ends: true,
            found: String::new(),
            wanted: String::new(),
            structure: None,
            fields: Vec::new(),
        })
    }

    fn inside(mut self: Box<Self>, definition: &Definition, field: &str) -> Box<Self> {
        self.structure.get_or_insert_with(|| short_name(&definition.name).to_owned());
        self.fields.push(field.to_owned());
        self
    }

    /// Whether nothing after it is decoded.
    pub(super) fn ends_decoding(&self) -> bool {
        self.ends
    }

    /// The mismatch in the place where the caller has found it; `fields` from the root.
    pub(super) fn at(mut self, structure: Option<&str>, fields: &[String]) -> Self {
        self.structure = structure.map(str::to_owned);
        self.fields = fields.iter().rev().cloned().collect();
        self
    }

    pub(super) fn text(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        let Some(structure) = &self.structure else {
            return format!("json: cannot unmarshal {} into Go value of type {}", self.found, self.wanted);
        };
        let path: Vec<&str> = self.fields.iter().rev().map(String::as_str).collect();
        format!(
            "json: cannot unmarshal {} into Go struct field {structure}.{} of type {}",
            self.found,
            path.join("."),
            self.wanted
        )
    }
}

/// `Pod` of `io.k8s.api.core.v1.Pod`.
pub(super) fn short_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or(definition)
}

/// A type's name as Go prints it: `[]v1.Container`.
fn go_type(schema: &Schema) -> String {
    match &schema.kind {
        Kind::Boolean => "bool".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::String => match schema.go_type.as_deref() {
            None => "string".to_owned(),
            Some(name) if name.contains('.') => name.to_owned(),
            Some(name) => format!("v1.{name}"),
        },
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::List(items) => format!("[]{}", go_type(items)),
        Kind::Map(values) => format!("map[string]{}", go_type(values)),
        Kind::Object | Kind::Time | Kind::MicroTime | Kind::Quantity | Kind::IntOrString | Kind::Any => {
            let name = schema.definition().map_or("", |definition| &definition.name);
            let mut parts = name.rsplit('.');
            let kind = parts.next().unwrap_or_default();
            format!("{}.{kind}", parts.next().unwrap_or_default())
        }
    }
}

type Outcome = Result<(), Box<Mismatch>>;

/// Checks one value; `null` becomes the zero value.
pub(super) fn walk(schema: &Schema, value: &mut Value, unknown: &mut Vec<String>) -> Outcome {
    if value.is_null() {
        *value = zero(schema);
    }
    match (&schema.kind, &mut *value) {
        (Kind::Object, Value::Object(fields)) => {
            let definition = schema.definition().expect("a struct must have a definition");
            return object(definition, fields, unknown);
        }
        (Kind::List(items), Value::Array(elements)) => {
            for (index, element) in elements.iter_mut().enumerate() {
                let before = unknown.len();
                walk(items, element, unknown)?;
                prefix(&mut unknown[before..], &format_args!("[{index}]"));
            }
        }
        (Kind::Map(values), Value::Object(entries)) => {
            for (key, entry) in entries {
                let before = unknown.len();
                walk(values, entry, unknown)?;
                prefix(&mut unknown[before..], key);
            }
        }
        (Kind::Int32, Value::Number(number))
            if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {}
        (Kind::Int64, Value::Number(number)) if number.as_i64().is_some() => {}
        (Kind::String, Value::String(_))
        | (Kind::Boolean, Value::Bool(_))
        | (Kind::Double, Value::Number(_))
        | (Kind::Any, _)
        | (Kind::Time | Kind::MicroTime | Kind::List(_) | Kind::Map(_), Value::Null) => {}
        (Kind::Bytes, Value::String(text)) => base64(text)?,
        (Kind::Quantity, Value::String(_) | Value::Number(_)) => quantity(value)?,
        (Kind::IntOrString, Value::String(_)) => {}
        (Kind::IntOrString, found) => {
            let fits = found.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            if !fits {
                let number = Schema { kind: Kind::Int32, ..schema.clone() };
                return Err(Mismatch::within(&number, found));
            }
        }
        (Kind::Time, Value::String(text)) => time(text, false)?,
        (Kind::MicroTime, Value::String(text)) => time(text, true)?,
        (Kind::Time | Kind::MicroTime, found) => {
            let text = Schema { kind: Kind::String, go_type: None, ..schema.clone() };
            return Err(Mismatch::within(&text, found));
        }
        (_, found) => return Err(Mismatch::type_of(schema, found)),
    }
    Ok(())
}

/// Checks a struct's fields, drops what is unknown or left out when zero, and writes what is always written.
fn object(definition: &Definition, fields: &mut Map<String, Value>, unknown: &mut Vec<String>) -> Outcome {
    let mut emitted = 0;
    let mut dropped = 0;
    for (name, value) in fields.iter_mut() {
        let Some((_, field)) = definition.find(name) else {
            unknown.push(name.clone());
            dropped += 1;
            continue;
        };
        let schema = &field.schema;
        if value.is_null() && matches!(schema.presence, Presence::Keep | Presence::Drop) {
            dropped += 1;
            continue;
        }
        if value.is_null() && schema.presence == Presence::EmitNull {
            emitted += 1;
            continue;
        }
        let before = unknown.len();
        walk(schema, value, unknown).map_err(|mismatch| mismatch.inside(definition, name))?;
        if unknown.len() > before {
            prefix(&mut unknown[before..], name);
        }
        match schema.presence {
            Presence::Drop if is_zero(value) => dropped += 1,
            Presence::Emit | Presence::EmitNull => emitted += 1,
            Presence::Drop | Presence::Keep => {}
        }
    }
    if dropped > 0 {
        fields.retain(|name, value| {
            definition.find(name).is_some_and(|(_, field)| match field.schema.presence {
                Presence::Keep => !value.is_null(),
                Presence::Drop => !is_zero(value),
                Presence::Emit | Presence::EmitNull => true,
            })
        });
    }
    if emitted < definition.emitted.len() {
        complete(definition, fields);
    }
    Ok(())
}

/// Writes the fields of an object that are always written and are not there: `status: {}`.
pub(super) fn complete(definition: &Definition, fields: &mut Map<String, Value>) {
    for at in &definition.emitted {
        let field = &definition.fields[usize::from(*at)];
        if !fields.contains_key(&*field.name) {
            let mut value = Value::Null;
            if field.schema.presence == Presence::Emit {
                let outcome = walk(&field.schema, &mut value, &mut Vec::new());
                debug_assert!(outcome.is_ok(), "a zero value fits its schema");
            }
            fields.insert(field.name.to_string(), value);
        }
    }
}

/// What `null` decodes to.
fn zero(schema: &Schema) -> Value {
    match schema.kind {
        Kind::Boolean => Value::Bool(false),
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => Value::from(0),
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Quantity => Value::String("0".to_owned()),
        Kind::Object => Value::Object(Map::new()),
        Kind::List(_) | Kind::Map(_) | Kind::Time | Kind::MicroTime | Kind::Any => Value::Null,
    }
}

/// Whether `omitempty` leaves a value out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}

/// Standard base64 with padding, as Go's decoder of `[]byte` wants it (it skips line breaks).
fn base64(text: &str) -> Outcome {
    let bytes = text.as_bytes();
    let illegal = |at: usize| Err(Mismatch::own(format!("illegal base64 data at input byte {at}")));
    let mut symbols = 0;
    let mut padding = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if symbols % 4 >= 2 && padding < 4 - symbols % 4 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => symbols += 1,
            _ => return illegal(at),
        }
    }
    if (symbols + padding) % 4 == 0 { Ok(()) } else { illegal(bytes.len()) }
}

/// Brings a quantity into its canonical text.
fn quantity(value: &mut Value) -> Outcome {
    let parsed = Quantity::from_value(value).map_err(|error| Mismatch::own(error.to_string()))?;
    let canonical = parsed.to_string();
    if value.as_str() != Some(&canonical) {
        *value = Value::String(canonical);
    }
    Ok(())
}

/// Canonical form of a time: UTC, whole seconds or exactly six digits of a fraction.
fn time(text: &mut String, micro: bool) -> Outcome {
    let canonical_length =
        if micro { "2006-01-02T15:04:05.000000Z".len() } else { "2006-01-02T15:04:05Z".len() };
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    match parsed {
        Ok(_)
            if text.len() == canonical_length
                && text.ends_with('Z')
                && text.as_bytes().get(10) == Some(&b'T') =>
        {
            Ok(())
        }
        Ok(timestamp) => {
            *text = if micro { format!("{timestamp:.6}") } else { format!("{:.0}", floor_second(timestamp)) };
            Ok(())
        }
        Err(_) => Err(Mismatch::own(format!(
            "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\""
        ))),
    }
}

fn floor_second(timestamp: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> &'static Schema {
        crate::schema::definition("io.k8s.api.core.v1.Pod").unwrap()
    }

    fn refused(mut value: Value) -> String {
        check(pod(), &mut value, FieldValidation::Ignore).unwrap_err().to_string()
    }

    #[test]
    fn unknown_fields_are_dropped_and_named() {
        let mut value = json!({"spec": {"containers": [{"name": "a", "imagee": "x", "env": [{"name": "b", "vaule": ""}]}]},
            "metadata": {"lables": {}}});
        let strict = check(pod(), &mut value.clone(), FieldValidation::Strict).unwrap_err();
        assert_eq!(
            strict.to_string(),
            "strict decoding error: unknown field \"metadata.lables\", \
             unknown field \"spec.containers[0].env[0].vaule\", unknown field \"spec.containers[0].imagee\""
        );
        assert_eq!(check(pod(), &mut value, FieldValidation::Warn).unwrap().len(), 3);
        assert_eq!(
            value,
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "env": [{"name": "b"}], "resources": {}}]},
                "status": {}})
        );
    }

    #[test]
    fn wrong_types_are_refused_in_gos_words() {
        let port = json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}});
        assert_eq!(
            refused(port),
            "json: cannot unmarshal string into Go struct field \
             ContainerPort.spec.containers.ports.containerPort of type int32"
        );
        assert_eq!(
            refused(json!({"spec": {"containers": [{"env": [{"name": "a", "value": 1}]}]}})),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string"
        );
        assert_eq!(
            refused(json!({"spec": {"containers": {}}})),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
        );
        assert_eq!(
            refused(json!({"spec": {"activeDeadlineSeconds": 1.5}})),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64"
        );
        assert_eq!(refused(json!([])), "json: cannot unmarshal array into Go value of type v1.Pod");
        assert_eq!(
            refused(json!({"spec": {"restartPolicy": true}})),
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"
        );
    }

    #[test]
    fn zero_values_are_left_out_or_written_as_upstream_does() {
        let mut value = json!({
            "metadata": {"creationTimestamp": null, "labels": {}, "annotations": {"a": null}},
            "spec": {"hostNetwork": false, "nodeName": "", "volumes": [{"name": "v", "emptyDir": {}}],
                "terminationGracePeriodSeconds": 0, "tolerations": [], "securityContext": {},
                "containers": [{"name": "a", "image": "b", "securityContext": {"privileged": false}}]},
        });
        check(pod(), &mut value, FieldValidation::Strict).unwrap();
        let expected = json!({
            "metadata": {"annotations": {"a": ""}},
            "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
                "securityContext": {},
                "containers": [{"name": "a", "image": "b", "resources": {}, "securityContext": {"privileged": false}}]},
            "status": {},
        });
        assert_eq!(value, expected);
        check(pod(), &mut value, FieldValidation::Strict).unwrap();
        assert_eq!(value, expected, "checking twice changes nothing");
    }

    #[test]
    fn scalars_take_their_canonical_form() {
        let event = crate::schema::definition("io.k8s.api.core.v1.Event").unwrap();
        let mut value = json!({"metadata": {"name": "e"}, "involvedObject": {},
            "firstTimestamp": "2026-11-21T12:00:00+02:00", "eventTime": "2026-11-21T10:00:00Z"});
        check(event, &mut value, FieldValidation::Strict).unwrap();
        assert_eq!(value["firstTimestamp"], "2026-11-21T10:00:00Z");
        assert_eq!(value["eventTime"], "2026-11-21T10:00:00.000000Z");
        assert_eq!(value["lastTimestamp"], Value::Null);
        assert!(value.as_object().unwrap().contains_key("lastTimestamp"));
        assert_eq!(value["reportingComponent"], "");

        let secret = crate::schema::definition("io.k8s.api.core.v1.Secret").unwrap();
        for (data, ok) in
            [("YQ==", true), ("", true), ("YQ", false), ("Y*==", false), ("YWI=", true), ("YQ===", false)]
        {
            let mut value = json!({"data": {"k": data}});
            assert_eq!(check(secret, &mut value, FieldValidation::Strict).is_ok(), ok, "{data}");
        }
    }
}
