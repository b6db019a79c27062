//! The forms in which cases are written: TOML, JSON and YAML, all of one shape.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::FILE_BYTES_MAX;

/// Ends of the names of files of cases.
pub const EXTENSIONS: [&str; 4] = ["toml", "json", "yaml", "yml"];
/// Texts that a YAML document may have in all: more than is written only by what its aliases repeat.
const YAML_TEXT_BYTES_MAX: usize = 2 * FILE_BYTES_MAX;

/// Whether a file's name says that it holds cases.
#[must_use]
pub fn is_case_file(path: &Path) -> bool {
    path.extension().and_then(|found| found.to_str()).is_some_and(|found| EXTENSIONS.contains(&found))
}

/// Reads a text in the form that its file's extension names; TOML when it names none.
pub(super) fn read<T: DeserializeOwned>(extension: &str, text: &str) -> Result<T, String> {
    match extension {
        "json" => parse_json(text),
        "yaml" | "yml" => parse_yaml(text),
        _ => toml::from_str(text).map_err(|error| error.to_string()),
    }
}

/// JSON whose mistakes are named by their field.
///
/// # Errors
/// The first mistake.
pub fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let place = place(&error.path().to_string());
        format!("{place}{}", error.into_inner())
    })?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// YAML 1.2, one document, with the same names for mistakes. Aliases are read, and bounded in what they repeat; a key that
/// stands twice is a mistake, and `no` is a text.
fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_total_scalar_bytes: YAML_TEXT_BYTES_MAX },
        strict_booleans: true,
        with_snippet: false,
    };
    let mut path = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = place(&error.path().to_string());
            error.into_inner()
        })
    });
    parsed.map_err(|error| format!("{path}{}", error.without_snippet()))
}

/// A field's path before a message; nothing for the whole document.
fn place(path: &str) -> String {
    if path == "." { String::new() } else { format!("{path}: ") }
}

#[cfg(test)]
mod tests {
    use super::super::{Call, parse};
    use super::*;

    #[test]
    fn all_forms_say_the_same() {
        let toml = "hook = \"classify\"\n[[case]]\ntext = \"Где заказ?\"\nhistory = [\"one\", \"two\"]\nlabel = \"orders\"\n\
                    [case.expect]\nroute = \"answer\"\nconfidence_min = 0.5\nlabels_exclude = [\"spam\"]\n";
        let json = r#"{"hook": "classify", "case": [{"text": "Где заказ?", "history": ["one", "two"], "label": "orders",
                       "expect": {"route": "answer", "confidence_min": 0.5, "labels_exclude": ["spam"]}}]}"#;
        let yaml = "hook: classify\ncase:\n  - text: Где заказ?   # a remark\n    history: [one, two]\n    label: orders\n    \
                    expect:\n      route: answer\n      confidence_min: 0.5\n      labels_exclude: [spam]\n";
        let read = |name: &str, text: &str| {
            let file = parse(name, text).unwrap();
            assert_eq!(file.call, Some(Call::Classify), "{name}");
            format!("{:?}", file.cases)
        };
        let expected = read("x.toml", toml);
        for (name, text) in [("x.json", json), ("x.yaml", yaml), ("x.yml", yaml), ("x.yaml", json)] {
            assert_eq!(read(name, text), expected, "{name}");
        }
        assert!(["a.toml", "a/b.json", "c.yaml", "d.yml"].iter().all(|name| is_case_file(Path::new(name))));
        assert!(!["a.txt", "yaml", "a.yaml~", ".yml"].iter().any(|name| is_case_file(Path::new(name))));
    }

    #[test]
    fn yaml_texts_are_what_they_look_like() {
        let text = "case:\n  - name: &name Norway\n    text: no\n    language: no\n    time: 11:30\n    date: 2026-03-02\n    \
                    messages: [no, yes, on]\n    route: human\n  - name: *name\n    text: |\n      two\n      lines\n    \
                    route: human\n";
        let file = parse("classify.yaml", text).unwrap();
        let [first, second] = file.cases.as_slice() else { panic!("{:?}", file.cases) };
        assert_eq!((first.text.as_deref(), first.language.as_deref()), (Some("no"), Some("no")));
        assert_eq!((first.time.as_deref(), first.date.as_deref()), (Some("11:30"), Some("2026-03-02")));
        assert!(format!("{:?}", first.messages).contains(r#"Text("yes")"#), "{:?}", first.messages);
        assert_eq!((second.name.as_deref(), second.text.as_deref()), (Some("Norway"), Some("two\nlines\n")));
    }

    #[test]
    fn yaml_mistakes_name_file_field_and_line() {
        let case = |rest: &str| format!("case:\n  - text: x\n    {rest}\n");
        for (text, expected) in [
            (case("expect: {confidence_min: high}"), "case[0].expect.confidence_min"),
            (case("expect: {confidence_min: high}"), "line 3"),
            (case("route: humans"), "humans"),
            (case("txt: x"), "txt"),
            (case("text: y\n    route: human"), "duplicate"),
            (case("route: [human"), "classify.yaml"),
            (case("expect: {priority: low}"), "expect.priority"),
            (format!("{}---\n{}", case("route: human"), case("route: human")), "classify.yaml"),
            ("case: []".to_owned(), "holds no case"),
            ("\t".to_owned(), "classify.yaml"),
            (String::new(), "classify.yaml"),
        ] {
            let found = parse("classify.yaml", &text).unwrap_err();
            assert!(found.contains(expected) && found.contains("classify.yaml"), "{text}: {found}");
        }
    }

    #[test]
    fn yaml_cannot_make_much_of_little() {
        let mut text = format!("case:\n  - text: &long {}\n    route: human\n", "x".repeat(1 << 20));
        for _ in 0..64 {
            text.push_str("  - {text: *long, route: human}\n");
        }
        let found = parse("classify.yaml", &text).unwrap_err();
        assert!(found.len() < 2_000, "it holds the text: {} bytes", found.len());
        let deep = format!("case:\n  - text: {}\n", "[".repeat(100_000));
        assert!(parse("classify.yaml", &deep).is_err());
    }
}
