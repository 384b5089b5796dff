//! The JSON form of instructions (D8).

/// Whether `text` would be taken as JSON: an array of whatever members.
pub(crate) fn is_array(text: &str) -> bool {
    text.trim_start().starts_with('[') && serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok()
}

/// An array of strings; `None` for anything that is not valid JSON, which is then shell form (D8.4); an error for an array with
/// other members (D8.3).
pub(crate) fn strings(text: &str) -> Option<Result<Vec<String>, &'static str>> {
    if !text.starts_with('[') {
        return None;
    }
    let members: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let strings = members.into_iter().map(|member| match member {
        serde_json::Value::String(text) => Ok(text),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only"),
    });
    Some(strings.collect())
}
