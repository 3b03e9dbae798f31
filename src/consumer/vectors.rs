//! The golden values of `tests/data/vectors-consumer.json`, for the unit tests beside the cores. Test code only.

use serde_json::Value;

/// The vectors whose id begins with `prefix`; panics when there is none.
pub(crate) fn vectors(prefix: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../tests/data/vectors-consumer.json")).unwrap();
    let has_prefix = |vector: &&Value| vector["id"].as_str().is_some_and(|id| id.starts_with(prefix));
    let found: Vec<Value> = file["vectors"].as_array().unwrap().iter().filter(has_prefix).cloned().collect();
    assert!(!found.is_empty(), "no vector {prefix}");
    found
}
