use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Settings {
    threshold: f64,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    texts: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Rule {
    label: String,
    weight: u8,
}

const SCHEMA: &str = r##"{
    "type": "object",
    "additionalProperties": false,
    "required": ["threshold"],
    "properties": {
        "threshold": { "type": "number", "minimum": 0, "maximum": 1 },
        "mode": { "enum": ["block", "rewrite"] },
        "rules": { "type": "array", "maxItems": 3, "items": { "$ref": "#/$defs/rule" } },
        "texts": { "type": "object", "additionalProperties": { "type": "string", "minLength": 1 } }
    },
    "$defs": {
        "rule": {
            "type": "object",
            "additionalProperties": false,
            "required": ["label"],
            "properties": { "label": { "type": "string" }, "weight": { "type": "integer" } }
        }
    }
}"##;

#[test]
fn a_good_document_is_read() {
    let settings: Settings = parse(SCHEMA, r#"{"threshold": 0.5, "rules": [{"label": "a", "weight": 2}]}"#).unwrap();
    assert_eq!(settings.rules, [Rule { label: "a".to_owned(), weight: 2 }]);
}

#[test]
fn every_mistake_is_listed_with_its_pointer() {
    let document = r#"{
        "treshold": 0.5, "threshold": 7, "mode": "blok",
        "rules": [{"label": 3}, {"weight": 1.5}, "x", {"label": "ok", "a/b~c": 1}],
        "texts": {"en": ""}
    }"#;
    let errors = parse::<Settings>(SCHEMA, document).unwrap_err();
    let listed: Vec<(&str, &str)> = errors.iter().map(|e| (e.path.as_str(), e.message.as_str())).collect();
    assert_eq!(
        listed,
        [
            ("/treshold", "there is no property `treshold`; did you mean `threshold`?"),
            ("/threshold", "expected at most 1, found 7"),
            ("/mode", "expected one of \"block\", \"rewrite\", found the string \"blok\"; did you mean `block`?"),
            ("/rules", "expected at most 3 entries, found 4"),
            ("/rules/0/label", "expected string, found the number 3"),
            ("/rules/1", "the property `label` is missing; add it"),
            ("/rules/1/weight", "expected integer, found the number 1.5"),
            ("/rules/2", "expected object, found the string \"x\""),
            ("/rules/3/a~1b~0c", "there is no property `a/b~c`; known are label, weight"),
            ("/texts/en", "expected at least 1 characters, found 0"),
        ]
    );
}

#[test]
fn what_the_schema_does_not_say_is_found_by_the_type() {
    let errors = parse::<Settings>("{}", r#"{"threshold": 1, "rules": [{"label": "a", "weight": 300}]}"#).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].path, "/rules/0/weight");
    let errors = parse::<Settings>("{}", r#"{"threshold": 1, "rules": [{"label": "a", "wight": 3}]}"#).unwrap_err();
    assert!(errors[0].path.starts_with("/rules/0"), "{errors:?}");
}

#[test]
fn no_json_is_one_mistake_of_the_whole() {
    let errors = parse::<Settings>(SCHEMA, "{").unwrap_err();
    assert_eq!((errors.len(), errors[0].path.as_str()), (1, ""));
}
