//! Texts that people give: names, descriptions, metadata. Pure.

use serde_json::Value;

/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 255;
/// Longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 4_096;

/// Why a text is refused. It says which field, and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InputError(pub String);

/// A name: 1 to 255 characters, no control characters.
///
/// # Errors
/// [`InputError`].
pub fn name(field: &str, text: &str) -> Result<String, InputError> {
    if text.trim().is_empty() || text.chars().count() > NAME_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(InputError(format!(
            "{field} must have 1 to {NAME_CHARS_MAX} characters and no control characters"
        )));
    }
    Ok(text.to_owned())
}

/// A description: at most 4096 characters. An empty one is none.
///
/// # Errors
/// [`InputError`].
pub fn description(text: Option<String>) -> Result<Option<String>, InputError> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if text.chars().count() > DESCRIPTION_CHARS_MAX || text.contains('\0') => {
            Err(InputError(format!("description must have at most {DESCRIPTION_CHARS_MAX} characters and no NUL")))
        }
        text => Ok(text),
    }
}

/// An open object of the client's. Postgres cannot keep NUL in JSON. `null` is none.
///
/// # Errors
/// [`InputError`].
pub fn object(field: &str, value: Option<Value>) -> Result<Option<Value>, InputError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(_)) if !has_nul(&value) => Ok(Some(value)),
        Some(_) => Err(InputError(format!("{field} must be an object without NUL characters"))),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_have_bounds() {
        assert_eq!(name("name", " a "), Ok(" a ".to_owned()));
        assert!(name("name", &"é".repeat(255)).is_ok());
        for text in ["", "  ", "a\0b", "a\nb", &"a".repeat(256)] {
            assert!(name("name", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nul_never_reaches_the_database() {
        assert!(object("metadata", Some(json!({"a": {"b": ["x\0"]}}))).is_err());
        assert!(object("metadata", Some(json!({"a\0": 1}))).is_err());
        assert!(object("metadata", Some(json!([1]))).is_err());
        assert_eq!(object("metadata", Some(json!(null))), Ok(None));
        assert!(description(Some("a\0".to_owned())).is_err());
        assert_eq!(description(Some(String::new())), Ok(None));
    }
}
