//! The checks, keyword by keyword.

use serde_json::{Map, Value};

use super::{ERRORS_MAX, SettingError, object_keys, push_segment};

/// References may point to references, but not for ever.
const DEPTH_MAX: usize = 64;

pub(super) fn check(schema: &Value, value: &Value) -> Vec<SettingError> {
    let mut checker = Checker { root: schema, errors: Vec::new() };
    checker.check(schema, value, &mut String::new(), 0);
    checker.errors
}

/// Whether a number, found first, keeps to a limit.
type Holds = fn(f64, f64) -> bool;

struct Checker<'a> {
    root: &'a Value,
    errors: Vec<SettingError>,
}

impl<'a> Checker<'a> {
    fn error(&mut self, path: &str, message: String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(SettingError::new(path, message));
        }
    }

    fn check(&mut self, schema: &'a Value, value: &Value, path: &mut String, depth: usize) {
        let Some(schema) = schema.as_object() else { return };
        if depth > DEPTH_MAX {
            return self.error(path, format!("the settings are nested more than {DEPTH_MAX} deep; flatten them"));
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str)
            && let Some(target) = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer))
        {
            self.check(target, value, path, depth + 1);
        }
        if !self.check_type(schema, value, path) || !self.check_choice(schema, value, path) {
            return;
        }
        match value {
            Value::Object(map) => self.check_object(schema, map, path, depth),
            Value::Array(items) => self.check_array(schema, items, path, depth),
            Value::String(text) => self.check_length(schema, text.chars().count(), "Length", "characters", path),
            Value::Number(number) => self.check_number(schema, number.as_f64().unwrap_or(0.0), path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_type(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> bool {
        let wanted: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        if wanted.iter().any(|wanted| is_of_type(value, wanted)) {
            return true;
        }
        self.error(path, format!("expected {}, found {}", wanted.join(" or "), describe(value)));
        false
    }

    fn check_choice(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> bool {
        let choices = match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(choices)), _) => choices.as_slice(),
            (_, Some(only)) => std::slice::from_ref(only),
            _ => return true,
        };
        if choices.contains(value) {
            return true;
        }
        let names: Vec<String> = choices.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        let hint = value.as_str().and_then(|found| nearest(found, &texts));
        let hint = hint.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.error(path, format!("expected one of {}, found {}{hint}", names.join(", "), describe(value)));
        false
    }

    fn check_object(
        &mut self,
        schema: &'a Map<String, Value>,
        map: &Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) {
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&EMPTY);
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                self.error(path, format!("the property `{name}` is missing; add it"));
            }
        }
        for (name, value) in map {
            let length = path.len();
            push_segment(path, name);
            match (properties.get(name), schema.get("additionalProperties")) {
                (Some(property), _) => self.check(property, value, path, depth + 1),
                (None, Some(Value::Bool(false))) => {
                    let message = unknown_property(name, &object_keys(properties));
                    self.error(path, message);
                }
                (None, Some(other)) => self.check(other, value, path, depth + 1),
                (None, None) => {}
            }
            path.truncate(length);
        }
        self.check_length(schema, map.len(), "Properties", "properties", path);
    }

    fn check_array(&mut self, schema: &'a Map<String, Value>, items: &[Value], path: &mut String, depth: usize) {
        self.check_length(schema, items.len(), "Items", "entries", path);
        let unique = schema.get("uniqueItems") == Some(&Value::Bool(true));
        for (index, item) in items.iter().enumerate() {
            let length = path.len();
            push_segment(path, &index.to_string());
            if unique && items[..index].contains(item) {
                self.error(path, format!("{} stands in the list twice; remove one", describe(item)));
            }
            if let Some(schema) = schema.get("items") {
                self.check(schema, item, path, depth + 1);
            }
            path.truncate(length);
        }
    }

    /// `minLength`/`maxLength`, `minItems`/`maxItems`, `minProperties`/`maxProperties`.
    fn check_length(&mut self, schema: &Map<String, Value>, found: usize, keyword: &str, unit: &str, path: &str) {
        let limit = |prefix: &str| schema.get(&format!("{prefix}{keyword}")).and_then(Value::as_u64);
        if let Some(min) = limit("min").filter(|min| (found as u64) < *min) {
            self.error(path, format!("expected at least {min} {unit}, found {found}"));
        }
        if let Some(max) = limit("max").filter(|max| (found as u64) > *max) {
            self.error(path, format!("expected at most {max} {unit}, found {found}"));
        }
    }

    fn check_number(&mut self, schema: &Map<String, Value>, found: f64, path: &str) {
        let rules: [(&str, &str, Holds); 4] = [
            ("minimum", "at least", |found, limit| found >= limit),
            ("maximum", "at most", |found, limit| found <= limit),
            ("exclusiveMinimum", "more than", |found, limit| found > limit),
            ("exclusiveMaximum", "less than", |found, limit| found < limit),
        ];
        for (keyword, words, holds) in rules {
            if let Some(limit) = schema.get(keyword).and_then(Value::as_f64)
                && !holds(found, limit)
            {
                self.error(path, format!("expected {words} {limit}, found {found}"));
            }
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

/// A value in a message: its type, and the value itself when it is short.
fn describe(value: &Value) -> String {
    let name = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the string",
        Value::Array(items) => return format!("an array of {} entries", items.len()),
        Value::Object(_) => return "an object".to_owned(),
    };
    let text = value.to_string();
    let shown = crate::text::clip(&text, 60);
    format!("{name} {shown}{}", if shown.len() < text.len() { "…" } else { "" })
}

fn unknown_property(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("there is no property `{name}`; did you mean `{near}`?"),
        None => format!("there is no property `{name}`; known are {}", known.join(", ")),
    }
}

/// The candidate with the fewest typing errors, if they are few.
fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    candidates
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance * 3 <= name.chars().count().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
