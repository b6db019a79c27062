//! Whether a component's schema of its settings is a JSON Schema (draft 2020-12) that a form can be drawn from.
//!
//! Only the shape is checked: every keyword of the draft that is there has the kind of value that the draft asks for, and
//! every reference leads to a place in the same document. A keyword of nobody's is let pass, as the draft wants it. Settings
//! themselves are judged by the component; what is checked here is what people and programs read.

use serde_json::Value;

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
/// Longest of the schema's own words in a message, in characters.
const WORD_CHARACTERS_MAX: usize = 40;

/// Checks a schema.
///
/// # Errors
/// The first place that is wrong, as a JSON Pointer, and what was expected there.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    Checker { root: schema }.schema(schema, "")
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn schema(&self, schema: &Value, at: &str) -> Result<(), String> {
        let keywords = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(keywords) => keywords,
            _ => return Err(expected(at, schema, "a schema: an object, true or false")),
        };
        keywords.iter().try_for_each(|(keyword, value)| self.keyword(keyword, value, &below(at, keyword)))
    }

    fn keyword(&self, keyword: &str, value: &Value, at: &str) -> Result<(), String> {
        let must = |fits: bool, what: &str| if fits { Ok(()) } else { Err(expected(at, value, what)) };
        match keyword {
            "type" => {
                let is_type = |value: &Value| value.as_str().is_some_and(|word| TYPES.contains(&word));
                let are_types = |list: &Vec<Value>| !list.is_empty() && list.iter().all(is_type);
                must(
                    is_type(value) || value.as_array().is_some_and(are_types),
                    "one of the seven types, or a list of them",
                )
            }
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                let Some(schemas) = value.as_object() else { return Err(expected(at, value, "an object of schemas")) };
                schemas.iter().try_for_each(|(name, schema)| self.schema(schema, &below(at, name)))
            }
            "items"
            | "additionalProperties"
            | "contains"
            | "not"
            | "if"
            | "then"
            | "else"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties" => self.schema(value, at),
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => {
                let list = value.as_array().filter(|list| !list.is_empty());
                let Some(list) = list else { return Err(expected(at, value, "a list of schemas")) };
                list.iter().enumerate().try_for_each(|(i, schema)| self.schema(schema, &below(at, &i.to_string())))
            }
            "required" => {
                must(value.as_array().is_some_and(|list| list.iter().all(Value::is_string)), "a list of names")
            }
            "enum" => must(value.is_array(), "a list"),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => must(value.is_number(), "a number"),
            "multipleOf" => must(value.as_f64().is_some_and(|number| number > 0.0), "a number above 0"),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minContains"
            | "maxContains" => {
                let is_count = value.as_f64().is_some_and(|number| number >= 0.0 && number.fract() == 0.0);
                must(is_count, "a number of 0 or more, without fraction")
            }
            "title" | "description" | "pattern" | "format" | "$id" | "$schema" | "$anchor" | "$comment" => {
                must(value.is_string(), "a text")
            }
            "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => must(value.is_boolean(), "true or false"),
            "$ref" => {
                let place = value.as_str().and_then(|reference| reference.strip_prefix('#'));
                // A name without a slash is an `$anchor`, which may stand anywhere.
                let leads = place.is_some_and(|it| self.root.pointer(it).is_some() || !it.starts_with('/'));
                must(leads, "a reference to a place in this schema, such as `#/$defs/name`")
            }
            _ => Ok(()),
        }
    }
}

fn below(at: &str, segment: &str) -> String {
    format!("{at}/{}", segment.replace('~', "~0").replace('/', "~1"))
}

fn expected(at: &str, found: &Value, what: &str) -> String {
    let place = if at.is_empty() { "the whole" } else { at };
    format!(
        "{}: {} was found; {what} is expected",
        short(place, WORD_CHARACTERS_MAX * 4),
        short(&found.to_string(), WORD_CHARACTERS_MAX)
    )
}

fn short(text: &str, characters_max: usize) -> String {
    let mut line: String = text.chars().take(characters_max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(characters_max).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_that_a_form_can_be_drawn_from_are_taken() {
        for schema in [
            json!({}),
            json!({"type": ["string", "null"], "x-widget": 5, "default": null, "examples": 1}),
            json!({"type": "object", "required": ["a"], "additionalProperties": false, "minProperties": 0,
                   "properties": {"a": {"$ref": "#/$defs/word"}, "b": true, "type": {"type": "integer", "multipleOf": 0.5}},
                   "$defs": {"word": {"type": "string", "minLength": 1, "pattern": "^a"}}}),
            json!({"oneOf": [{"const": 1}, {"enum": []}], "items": {"items": false}, "$ref": "#", "maxItems": 2.0}),
            json!({"$defs": {"a": {"$anchor": "here"}}, "not": {"$ref": "#here"}}),
        ] {
            assert_eq!(check(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn the_first_wrong_place_is_named() {
        for (schema, place) in [
            (json!({"type": "objekt"}), "/type: \"objekt\" was found"),
            (json!({"type": []}), "/type: [] was found"),
            (json!({"properties": ["a"]}), "/properties: [\"a\"] was found"),
            (json!({"properties": {"a/b": 5}}), "/properties/a~1b: 5 was found; a schema"),
            (json!({"properties": {"a": {"items": {"type": 7}}}}), "/properties/a/items/type: 7"),
            (json!({"anyOf": []}), "/anyOf: []"),
            (json!({"anyOf": [true, {"minLength": -1}]}), "/anyOf/1/minLength: -1"),
            (json!({"maxItems": 1.5}), "/maxItems: 1.5"),
            (json!({"required": "a"}), "/required: \"a\""),
            (json!({"required": [1]}), "/required: [1]"),
            (json!({"minimum": "0"}), "/minimum: \"0\""),
            (json!({"multipleOf": 0}), "/multipleOf: 0"),
            (json!({"title": {"en": "x"}}), "/title: {"),
            (json!({"uniqueItems": "yes"}), "/uniqueItems"),
            (json!({"enum": {}}), "/enum: {}"),
            (
                json!({"$ref": "#/$defs/gone"}),
                "/$ref: \"#/$defs/gone\" was found; a reference to a place in this schema",
            ),
            (json!({"$ref": "https://example.org/schema"}), "/$ref"),
        ] {
            let problem = check(&schema).unwrap_err();
            assert!(problem.contains(place), "{problem}");
        }
        let long = check(&json!({"type": "x".repeat(10_000)})).unwrap_err();
        assert!(long.len() < 300, "{long}");
    }
}
