//! Reads a settings document: JSON text, checked against the policy's own JSON Schema so that *every* mistake is
//! reported with its JSON Pointer, then deserialized into the policy's type.
//!
//! The check knows the keywords that describe settings: `type`, `enum`, `const`, `properties`, `required`,
//! `additionalProperties`, `propertyNames` (with `pattern` and `enum` left to the policy), `items`, `minItems`,
//! `maxItems`, `uniqueItems`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength`, and
//! `$ref` to `#/$defs/…`. Keywords that it does not know are left to the policy's `configure`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::policy::SettingError;

mod schema;

/// The longest document that is read.
pub const DOCUMENT_MAX_BYTES: usize = 4 << 20;
/// No more mistakes than this are listed.
pub const ERRORS_MAX: usize = 100;

/// Parses `document` into `T`, having checked it against `schema` (JSON text).
///
/// # Errors
/// Every mistake the schema shows; if there is none, the mistake at which deserialization stopped.
pub fn parse<T: DeserializeOwned>(schema: &str, document: &str) -> Result<T, Vec<SettingError>> {
    if document.len() > DOCUMENT_MAX_BYTES {
        let found = document.len();
        let message = format!("the settings have {found} bytes; at most {DOCUMENT_MAX_BYTES} are read, shorten them");
        return Err(vec![SettingError::new("", message)]);
    }
    let value: Value = serde_json::from_str(document)
        .map_err(|error| vec![SettingError::new("", format!("the settings are not JSON: {error}"))])?;
    let schema: Value = serde_json::from_str(schema)
        .map_err(|error| vec![SettingError::new("", format!("the policy's own settings schema is broken: {error}"))])?;
    let errors = schema::check(&schema, &value);
    if !errors.is_empty() {
        return Err(errors);
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = pointer(error.path());
        vec![SettingError::new(path, error.into_inner().to_string())]
    })
}

/// A `serde_path_to_error` path as a JSON Pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push_segment(&mut out, &index.to_string()),
            Segment::Map { key } => push_segment(&mut out, key),
            Segment::Enum { variant } => push_segment(&mut out, variant),
            Segment::Unknown => {}
        }
    }
    out
}

/// Appends one reference token (RFC 6901, section 3: `~` is `~0`, `/` is `~1`).
pub fn push_segment(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

/// Collects mistakes in `configure`.
#[derive(Debug, Default)]
pub struct Errors(Vec<SettingError>);

impl Errors {
    /// No mistakes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a mistake at `path`, a JSON Pointer.
    pub fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(SettingError::new(path, message));
        }
    }

    /// `value` if there was no mistake.
    ///
    /// # Errors
    /// All the mistakes.
    pub fn or<T>(self, value: T) -> Result<T, Vec<SettingError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

fn object_keys(map: &Map<String, Value>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

#[cfg(test)]
mod tests;
