//! A bundle as one JSON document.
//!
//! ```json
//! {"format": 1, "chain_toml": "…", "settings": {"<path>": "<text>"},
//!  "components": {"<path>": "<base64>"}, "signatures": {"<path of the component>": "<text>"},
//!  "cases": {"cases/<name>": "<text>"}}
//! ```
//! It holds exactly the files that `chain.toml` names, but for components named by their digest, which the host may have,
//! and those in a registry, which it can pull. A component that the host has already may be given as `sha256:<digest>`
//! instead of base64 (`GET /admin/components/{digest}` says whether it has). Signatures may be left out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frontdesk_policy_engine::chain::{SIGNATURE_BYTES_MAX, SIGNATURE_SUFFIX};
use frontdesk_policy_engine::{Bundle, ChainSpec, FileKind, WantedFile};
use serde::{Deserialize, Serialize};

use crate::folder::stays_inside;
use crate::{BundleError, CASE_BYTES_MAX, CASE_FILES_MAX, CASES_BYTES_MAX, Read, limit_of};

/// The version of the document's form.
pub const FORMAT: u32 = 1;
/// Begins a component that is named instead of given.
const DIGEST_PREFIX: &str = "sha256:";

/// A bundle as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    pub chain_toml: String,
    /// Settings by the name that the chain gives them.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Components by the name that the chain gives them: base64, or `sha256:<digest>` of one that the host has.
    #[serde(default)]
    pub components: BTreeMap<String, String>,
    /// Signatures by the name of their component.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signatures: BTreeMap<String, String>,
    /// Golden cases by their path in the chain's folder.
    #[serde(default)]
    pub cases: BTreeMap<String, String>,
}

impl Document {
    /// The document of a bundle.
    ///
    /// # Errors
    /// `chain.toml` cannot be parsed, or its settings are no text.
    pub fn of(bundle: &Bundle) -> Result<Self, BundleError> {
        let mut document = Self {
            format: FORMAT,
            chain_toml: bundle.chain_toml.clone(),
            settings: BTreeMap::new(),
            components: BTreeMap::new(),
            signatures: BTreeMap::new(),
            cases: bundle.cases.clone(),
        };
        for WantedFile { path, kind } in parse(&bundle.chain_toml)?.wanted_files() {
            let Some(bytes) = bundle.files.get(&path) else { continue };
            match kind {
                FileKind::Component => {
                    let beside = format!("{path}{SIGNATURE_SUFFIX}");
                    if let Some(signatures) = bundle.files.get(&beside) {
                        let text = String::from_utf8(signatures.clone());
                        let text = text.map_err(|_| BundleError::NotText { path: beside.into() })?;
                        document.signatures.insert(path.clone(), text);
                    }
                    document.components.insert(path, STANDARD.encode(bytes));
                }
                FileKind::Settings => {
                    let text = String::from_utf8(bytes.clone())
                        .map_err(|_| BundleError::NotText { path: path.clone().into() })?;
                    document.settings.insert(path, text);
                }
            }
        }
        Ok(document)
    }

    /// Leaves out the bytes of a component that the host has.
    pub fn omit(&mut self, path: &str, digest: &str) {
        if let Some(given) = self.components.get_mut(path) {
            *given = format!("{DIGEST_PREFIX}{digest}");
        }
    }

    /// The bundle of a document.
    ///
    /// # Errors
    /// What is missing, too large, or not asked for.
    pub fn into_bundle(mut self) -> Result<Read, BundleError> {
        if self.format != FORMAT {
            return Err(problem("format", format!("{} was given, expected {FORMAT}", self.format)));
        }
        let mut files = BTreeMap::new();
        let (mut missing, mut known) = (Vec::new(), BTreeMap::new());
        for file in parse(&self.chain_toml)?.wanted_files() {
            let is_in_folder = file.is_in_folder();
            let WantedFile { path, kind } = file;
            if is_in_folder && !stays_inside(&path) {
                return Err(BundleError::Outside { chain_toml: "chain.toml".into(), path });
            }
            let given = match kind {
                FileKind::Settings => self.settings.remove(&path).map(String::into_bytes),
                FileKind::Component => {
                    let text = self.components.remove(&path);
                    if let Some(digest) = text.as_deref().and_then(|text| text.strip_prefix(DIGEST_PREFIX)) {
                        if !is_sha256(digest) {
                            let expected = format!("{DIGEST_PREFIX}{digest} has no 64 lower-case hex digits");
                            return Err(problem(format!("components.{path}"), expected));
                        }
                        known.insert(path.clone(), digest.to_owned());
                        None
                    } else {
                        let given = text.map(|text| STANDARD.decode(text)).transpose();
                        given.map_err(|error| problem(format!("components.{path}"), format!("not base64: {error}")))?
                    }
                }
            };
            if let Some(signatures) = self.signatures.remove(&path) {
                let beside = format!("{path}{SIGNATURE_SUFFIX}");
                if kind != FileKind::Component || signatures.len() > SIGNATURE_BYTES_MAX {
                    let (found, limit) = (signatures.len() as u64, SIGNATURE_BYTES_MAX);
                    return Err(BundleError::TooLarge { path: beside.into(), found, limit });
                }
                files.insert(beside, signatures.into_bytes());
            }
            match given {
                Some(bytes) if bytes.len() > limit_of(kind) => {
                    let (found, limit) = (bytes.len() as u64, limit_of(kind));
                    return Err(BundleError::TooLarge { path: path.into(), found, limit });
                }
                Some(bytes) => {
                    files.insert(path, bytes);
                }
                None if known.contains_key(&path) => {}
                None if !is_in_folder => missing.push(path),
                None => return Err(problem(path, "chain.toml names this file, and the document has it not")),
            }
        }
        if let Some(path) = self.settings.keys().chain(self.components.keys()).chain(self.signatures.keys()).next() {
            return Err(problem(path, "chain.toml does not name this file"));
        }
        self.check_cases()?;
        Ok(Read { bundle: Bundle { chain_toml: self.chain_toml, files, cases: self.cases }, missing, known })
    }

    fn check_cases(&self) -> Result<(), BundleError> {
        let bytes: usize = self.cases.values().map(String::len).sum();
        if self.cases.len() > CASE_FILES_MAX || bytes > CASES_BYTES_MAX {
            let found = format!("{} files of {bytes} bytes", self.cases.len());
            let expected = format!("at most {CASE_FILES_MAX} of {CASES_BYTES_MAX}");
            return Err(problem("cases", format!("{found}, expected {expected}")));
        }
        for (path, text) in &self.cases {
            let name = path.strip_prefix("cases/").unwrap_or_default();
            if name.is_empty() || name.contains(['/', '\\', '\0']) || name.len() > 200 {
                return Err(problem(format!("cases, {path:?}"), "expected the name of a file in the folder `cases`"));
            }
            if text.len() > CASE_BYTES_MAX {
                let (found, limit) = (text.len() as u64, CASE_BYTES_MAX);
                return Err(BundleError::TooLarge { path: path.into(), found, limit });
            }
        }
        Ok(())
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn parse(chain_toml: &str) -> Result<ChainSpec, BundleError> {
    ChainSpec::parse(chain_toml).map_err(|source| BundleError::Chain { path: "chain.toml".into(), source })
}

fn problem(field: impl Into<String>, problem: impl Into<String>) -> BundleError {
    BundleError::Document { field: field.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = r#"
version = 1
[[policy]]
hook = "classify"
component = "../components/a.wasm"
settings = "a.toml"
on_fault = "human"
[[policy]]
hook = "tone"
component = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
on_fault = "default-prompt"
[[policy]]
hook = "escalate"
component = "../components/a.wasm"
on_fault = "human"
"#;

    fn bundle() -> Bundle {
        Bundle {
            chain_toml: CHAIN.to_owned(),
            files: [("../components/a.wasm", b"\0asm".to_vec()), ("a.toml", b"x = 1".to_vec())]
                .map(|(path, bytes)| (path.to_owned(), bytes))
                .into(),
            cases: [("cases/classify.toml".to_owned(), "[[case]]".to_owned())].into(),
        }
    }

    #[test]
    fn a_bundle_survives_the_journey() {
        let text = serde_json::to_string(&Document::of(&bundle()).unwrap()).unwrap();
        let read = serde_json::from_str::<Document>(&text).unwrap().into_bundle().unwrap();
        assert_eq!(read.bundle, bundle());
        assert_eq!(read.missing, [format!("sha256:{}", "0".repeat(64))]);
    }

    #[test]
    fn a_component_that_the_host_has_need_not_travel() {
        let mut document = Document::of(&bundle()).unwrap();
        let digest = "ab".repeat(32);
        document.omit("../components/a.wasm", &digest);
        let read = document.clone().into_bundle().unwrap();
        assert!(!read.bundle.files.contains_key("../components/a.wasm"));
        assert_eq!(read.known, [("../components/a.wasm".to_owned(), digest)].into());
        document.omit("../components/a.wasm", "ABCD");
        let said = document.into_bundle().unwrap_err().to_string();
        assert!(said.contains("components.../components/a.wasm: sha256:ABCD has no 64"), "{said}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let changed = |change: &dyn Fn(&mut Document)| {
            let mut document = Document::of(&bundle()).unwrap();
            change(&mut document);
            document.into_bundle().unwrap_err().to_string()
        };
        for (found, expected) in [
            (changed(&|it| it.format = 2), "format: 2 was given"),
            (changed(&|it| it.settings.clear()), "a.toml: chain.toml names this file"),
            (changed(&|it| drop(it.settings.insert("b.toml".into(), String::new()))), "b.toml: chain.toml does not"),
            (
                changed(&|it| drop(it.components.insert("../components/a.wasm".into(), "?".into()))),
                "components.../components/a.wasm: not base64",
            ),
            (changed(&|it| drop(it.cases.insert("../x".into(), String::new()))), "expected the name of a file"),
            (changed(&|it| it.chain_toml = CHAIN.replace("a.toml", "../../a.toml")), "leads out of the folder"),
            (changed(&|it| "version = 9".clone_into(&mut it.chain_toml)), "version = 9"),
        ] {
            assert!(found.contains(expected), "{found}");
        }
    }
}
