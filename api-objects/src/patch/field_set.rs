//! Sets of fields as `FieldsV1` writes them (KEP-555): a tree whose nodes may be members themselves.

use std::collections::BTreeMap;

use serde_json::Map;

use crate::object::Value;

/// A node of the tree and what hangs below it. The keys are path elements in wire form: `f:name`,
/// `k:{"name":"x"}`, `v:"x"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the place itself is in the set (`.`, or `{}` at a leaf).
    pub(super) member: bool,
    /// What is below it.
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Hangs a subtree under a path element; an empty one is dropped.
    pub(super) fn attach(&mut self, element: String, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// Reads `fieldsV1`.
    pub(super) fn from_wire(fields: &Value) -> Self {
        let mut set = Self::read(fields);
        set.member = false;
        set
    }

    fn read(fields: &Value) -> Self {
        let Some(fields) = fields.as_object() else {
            return Self { member: true, children: BTreeMap::new() };
        };
        let children: BTreeMap<String, Self> = fields
            .iter()
            .filter(|(element, _)| *element != ".")
            .map(|(element, below)| (element.clone(), Self::read(below)))
            .collect();
        Self { member: children.is_empty() || fields.contains_key("."), children }
    }

    /// Writes `fieldsV1`.
    pub(super) fn into_wire(self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in self.children {
            fields.insert(element, child.into_wire());
        }
        Value::Object(fields)
    }

    /// Adds what the other set holds.
    pub(super) fn unite(&mut self, other: Self) {
        self.member |= other.member;
        for (element, child) in other.children {
            match self.children.get_mut(&element) {
                Some(own) => own.unite(child),
                None => {
                    self.children.insert(element, child);
                }
            }
        }
    }

    /// Takes away what the other set holds, and says whether that was anything.
    pub(super) fn subtract(&mut self, other: &Self) -> bool {
        let mut changed = self.member && other.member;
        self.member &= !other.member;
        for (element, child) in &other.children {
            if let Some(own) = self.children.get_mut(element) {
                changed |= own.subtract(child);
                if own.is_empty() {
                    self.children.remove(element);
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wire_form_round_trips() {
        let wire = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}});
        assert_eq!(FieldSet::from_wire(&wire).into_wire(), wire);
        assert!(FieldSet::from_wire(&json!({})).is_empty());
    }

    #[test]
    fn union_and_difference() {
        let mut set = FieldSet::from_wire(&json!({"f:a": {".": {}, "f:b": {}}}));
        set.unite(FieldSet::from_wire(&json!({"f:a": {"f:c": {}}, "f:d": {}})));
        assert_eq!(set.clone().into_wire(), json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}}));
        assert!(set.subtract(&FieldSet::from_wire(&json!({"f:a": {".": {}, "f:b": {}}}))));
        assert_eq!(set.clone().into_wire(), json!({"f:a": {"f:c": {}}, "f:d": {}}));
        assert!(!set.subtract(&FieldSet::from_wire(&json!({"f:x": {}}))));
    }
}
