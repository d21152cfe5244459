//! Members of JSON objects, whatever the case of their names.
//!
//! Runtimes written in Go match names without regard to case, and some (containerd's go-cni) send
//! names whose case differs from the specification's.

use serde_json::{Map, Value};

/// The member of `object` with this name: an exact match, or else one that differs in case.
pub(crate) fn find<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let found = object.get(name).or_else(|| {
        object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    });
    found.filter(|value| !value.is_null())
}

/// The member of a value; `None` unless the value is an object.
pub(crate) fn of<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object().and_then(|object| find(object, name))
}

/// Whether a value counts as absent: null, or an empty text, list or object.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_match_in_any_case_and_the_exact_one_wins() {
        let value = json!({ "HOSTPORT": 1, "hostPort": 2, "Servers": [], "none": null });
        assert_eq!(of(&value, "hostPort"), Some(&json!(2)));
        assert_eq!(of(&value, "hostport").and_then(Value::as_u64).map(|n| n > 0), Some(true));
        assert_eq!(of(&value, "servers"), Some(&json!([])));
        assert_eq!(of(&value, "none"), None);
        assert_eq!(of(&json!(7), "hostPort"), None);
    }
}
