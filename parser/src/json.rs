//! The exec form: JSON arrays of strings (D8).

use serde_json::Value;

/// What a text is that may be a JSON array.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonArray {
    /// Not an array at all: the text is in shell form (D8.4).
    No,
    Strings(Vec<String>),
    /// An array with a member that is not a string: an error (D8.3).
    Mixed,
}

pub fn array(text: &str) -> JsonArray {
    if !text.trim_start().starts_with('[') {
        return JsonArray::No;
    }
    let Ok(Value::Array(members)) = serde_json::from_str(text) else { return JsonArray::No };
    let strings: Option<Vec<String>> = members
        .into_iter()
        .map(|member| match member {
            Value::String(text) => Some(text),
            _ => None,
        })
        .collect();
    strings.map_or(JsonArray::Mixed, JsonArray::Strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays() {
        assert_eq!(array(r#" ["a", "b\tc\u00e9"] "#), JsonArray::Strings(vec!["a".into(), "b\tcé".into()]));
        assert_eq!(array("[]"), JsonArray::Strings(vec![]));
        assert_eq!(array(r#"["a", 1]"#), JsonArray::Mixed);
        for text in ["['a']", r#"["a","#, r#"["a"] b"#, "[ -f x ]", r#"["a",]"#, "{}", ""] {
            assert_eq!(array(text), JsonArray::No, "{text}");
        }
        assert_eq!(array(&"[".repeat(100_000)), JsonArray::No);
    }
}
