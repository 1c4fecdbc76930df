//! Collects what is wrong, and knows where it is.
//!
//! Validation walks every object that is written, and most have nothing wrong: a place is therefore a chain
//! of borrowed steps on the stack, put together as text only for an error.

use api_objects::{
    Value,
    field::{FieldError, Path},
};

/// A place in an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    parent: Option<&'a Spot<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Spot<'a> {
    /// A field of the object itself.
    pub(super) const fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Field(name) }
    }

    /// A field of the struct that is here.
    pub(super) const fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    /// An element of the list that is here.
    pub(super) const fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    /// An entry of the map that is here.
    pub(super) const fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }

    fn path(&self) -> Path {
        let parent = self.parent.map(Self::path).unwrap_or_default();
        match self.step {
            Step::Field(name) => parent.child(name),
            Step::Index(index) => parent.index(index),
            Step::Key(key) => parent.key(key),
        }
    }
}

/// Everything that is wrong with one object.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<FieldError>);

impl Findings {
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }

    /// How much was found so far.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn required(&mut self, at: &Spot<'_>, detail: &str) {
        self.0.push(FieldError::required(&at.path(), detail));
    }

    pub(super) fn invalid(&mut self, at: &Spot<'_>, value: impl Into<Value>, detail: &str) {
        self.0.push(FieldError::invalid(&at.path(), value, detail));
    }

    /// One error for each message about a text.
    pub(super) fn invalid_each(&mut self, at: &Spot<'_>, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(at, value, &message);
        }
    }

    pub(super) fn forbidden(&mut self, at: &Spot<'_>, detail: &str) {
        self.0.push(FieldError::forbidden(&at.path(), detail));
    }

    pub(super) fn duplicate(&mut self, at: &Spot<'_>, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(&at.path(), value));
    }

    pub(super) fn not_found(&mut self, at: &Spot<'_>, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(&at.path(), value));
    }

    pub(super) fn too_long(&mut self, at: &Spot<'_>, max: usize) {
        self.0.push(FieldError::too_long(&at.path(), max));
    }

    /// The data of the object as a whole is too long.
    pub(super) fn object_too_long(&mut self, max: usize) {
        self.0.push(FieldError::too_long(&Path::default(), max));
    }

    pub(super) fn too_many(&mut self, at: &Spot<'_>, actual: usize, max: usize) {
        self.0.push(FieldError::too_many(&at.path(), actual, max));
    }

    pub(super) fn not_supported(&mut self, at: &Spot<'_>, value: &str, supported: &[&str]) {
        self.0.push(FieldError::not_supported(&at.path(), value, supported));
    }

    /// A text that must be there and one of `supported`.
    pub(super) fn one_of(&mut self, at: &Spot<'_>, value: &Value, supported: &[&str]) {
        match value.as_str().unwrap_or_default() {
            "" => self.required(at, ""),
            value if supported.contains(&value) => {}
            value => self.not_supported(at, value, supported),
        }
    }

    /// The same, where upstream names the supported ones in an order of its own.
    pub(super) fn one_of_in_order(&mut self, at: &Spot<'_>, value: &Value, supported: &[&str]) {
        match value.as_str().unwrap_or_default() {
            "" => self.required(at, ""),
            value if supported.contains(&value) => {}
            value => self.0.push(FieldError::not_supported_in_order(&at.path(), value, supported)),
        }
    }

    /// A number that must not be negative; absent is zero.
    pub(super) fn not_negative(&mut self, at: &Spot<'_>, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number < 0) {
            self.invalid(at, number, "must be greater than or equal to 0");
        }
    }

    /// A field that must stay as it was.
    pub(super) fn immutable(&mut self, at: &Spot<'_>, new: &Value, old: &Value) {
        if new != old {
            self.invalid(at, new.clone(), "field is immutable");
        }
    }
}
