//! A chain's folder.
//!
//! `chain.toml` names its files relative to the folder; they may lie beside it (`../components`), but not outside of the
//! folder that holds the chains. Beside a component its signatures may lie (`x.wasm.sig`). Golden cases are the TOML, JSON
//! and YAML files in the folder `cases`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use frontdesk_policy_engine::cases::is_case_file;
use frontdesk_policy_engine::chain::{CHAIN_BYTES_MAX, SIGNATURE_BYTES_MAX, SIGNATURE_SUFFIX};
use frontdesk_policy_engine::{Bundle, ChainSpec, FileKind, WantedFile};

use crate::{BundleError, CASE_BYTES_MAX, CASE_FILES_MAX, CASES_BYTES_MAX, Read, limit_of};

/// Reads all of a chain.
///
/// # Errors
/// The first file that cannot be used, and why.
pub fn read(folder: &Path) -> Result<Read, BundleError> {
    let path = folder.join("chain.toml");
    let chain_toml = read_text(&path, CHAIN_BYTES_MAX)?;
    let spec = ChainSpec::parse(&chain_toml).map_err(|source| BundleError::Chain { path: path.clone(), source })?;
    let mut files = BTreeMap::new();
    let mut missing = Vec::new();
    for file in spec.wanted_files() {
        let is_in_folder = file.is_in_folder();
        let WantedFile { path: wanted, kind } = file;
        if !is_in_folder {
            missing.push(wanted);
        } else if stays_inside(&wanted) {
            let bytes = read_file(&folder.join(&wanted), limit_of(kind))?;
            let signatures = format!("{wanted}{SIGNATURE_SUFFIX}");
            if kind == FileKind::Component && folder.join(&signatures).is_file() {
                let bytes = read_file(&folder.join(&signatures), SIGNATURE_BYTES_MAX)?;
                files.insert(signatures, bytes);
            }
            files.insert(wanted, bytes);
        } else {
            return Err(BundleError::Outside { chain_toml: path, path: wanted });
        }
    }
    let cases = read_cases(&folder.join("cases"))?;
    Ok(Read { bundle: Bundle { chain_toml, files, cases }, missing, known: BTreeMap::new() })
}

/// The golden cases; none when there is no such folder.
fn read_cases(folder: &Path) -> Result<BTreeMap<String, String>, BundleError> {
    let problem = |source| BundleError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(problem(error)),
    };
    let too_many = |problem: String| BundleError::TooManyCases { path: folder.to_owned(), problem };
    let mut cases = BTreeMap::new();
    let mut bytes = 0;
    for entry in entries {
        let path = entry.map_err(problem)?.path();
        // Editors leave hidden and temporary files beside the real ones.
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with(['.', '#']));
        let Some(name) = name.filter(|_| is_case_file(&path) && path.is_file()) else { continue };
        let text = read_text(&path, CASE_BYTES_MAX)?;
        bytes += text.len();
        if cases.len() == CASE_FILES_MAX {
            return Err(too_many(format!("more than {CASE_FILES_MAX} files")));
        }
        if bytes > CASES_BYTES_MAX {
            return Err(too_many(format!("more than {CASES_BYTES_MAX} bytes together")));
        }
        cases.insert(format!("cases/{name}"), text);
    }
    Ok(cases)
}

/// Whether a path relative to the chain's folder stays in the folder above it.
pub(crate) fn stays_inside(path: &str) -> bool {
    let mut depth = 1_i32;
    for part in Path::new(path).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

/// Reads a regular file of at most `limit` bytes, even if it grows meanwhile.
///
/// # Errors
/// It cannot be read, is no regular file (a pipe would be waited for, a device never ends), or is larger.
pub fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, BundleError> {
    let problem = |source| BundleError::Read { path: path.to_owned(), source };
    // Asked before it is opened, because opening a pipe waits for its writer; and again of what was opened.
    let is_file = std::fs::metadata(path).map_err(problem)?.is_file();
    let file = is_file.then(|| File::open(path)).transpose().map_err(problem)?;
    let Some(file) = file else { return Err(BundleError::NotAFile { path: path.to_owned() }) };
    let meta = file.metadata().map_err(problem)?;
    if !meta.is_file() {
        return Err(BundleError::NotAFile { path: path.to_owned() });
    }
    let too_large = |found| BundleError::TooLarge { path: path.to_owned(), found, limit };
    if usize::try_from(meta.len()).is_ok_and(|found| found <= limit) {
        let mut bytes = Vec::new();
        file.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes).map_err(problem)?;
        return if bytes.len() <= limit { Ok(bytes) } else { Err(too_large(bytes.len() as u64)) };
    }
    Err(too_large(meta.len()))
}

fn read_text(path: &Path, limit: usize) -> Result<String, BundleError> {
    String::from_utf8(read_file(path, limit)?).map_err(|_| BundleError::NotText { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use frontdesk_policy_engine::sha256_hex;

    use super::*;
    use crate::content_sha256;

    #[test]
    fn paths_may_leave_the_chain_but_not_the_folder_of_chains() {
        let cases = [
            ("classify.toml", true),
            ("../components/classify.wasm", true),
            ("../../etc/passwd", false),
            ("a/../../..", false),
            ("../components/../../x", false),
            ("/etc/passwd", false),
        ];
        for (path, inside) in cases {
            assert_eq!(stays_inside(path), inside, "{path}");
        }
    }

    fn chain_of(component: &str) -> String {
        let policy = |hook: &str, on_fault: &str| {
            format!("[[policy]]\nhook = \"{hook}\"\ncomponent = \"{component}\"\non_fault = \"{on_fault}\"\n")
        };
        let (classify, tone, escalate) =
            (policy("classify", "human"), policy("tone", "default-prompt"), policy("escalate", "human"));
        format!("version = 1\n{classify}{tone}{escalate}")
    }

    #[test]
    fn a_chain_is_read_as_a_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let chain = root.path().join("shop");
        std::fs::create_dir_all(&chain).unwrap();
        let missing = read(&chain).unwrap_err().to_string();
        assert!(missing.contains("chain.toml cannot be read"), "{missing}");
        let digest = format!("sha256:{}", sha256_hex(b"wasm"));
        std::fs::write(chain.join("chain.toml"), chain_of(&digest)).unwrap();
        assert_eq!(read(&chain).unwrap().missing, [digest]);
        std::fs::create_dir_all(root.path().join("components")).unwrap();
        std::fs::write(root.path().join("components/any.wasm"), "wasm").unwrap();
        std::fs::write(chain.join("chain.toml"), chain_of("../components/any.wasm")).unwrap();
        assert_eq!(read(&chain).unwrap().bundle.files["../components/any.wasm"], b"wasm");
        std::fs::write(chain.join("chain.toml"), chain_of("../../outside.wasm")).unwrap();
        assert!(matches!(read(&chain), Err(BundleError::Outside { .. })));
    }

    #[test]
    fn a_file_is_a_regular_file_within_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        let found = read_file(&path, 4).unwrap_err();
        assert!(matches!(found, BundleError::TooLarge { found: 5, limit: 4, .. }), "{found}");
        assert!(matches!(read_file(root.path(), 5), Err(BundleError::NotAFile { .. })));
        assert!(matches!(read_file(&root.path().join("none"), 5), Err(BundleError::Read { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_not_waited_for_and_what_has_no_end_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let (pipe, link, to_pipe) = (root.path().join("pipe"), root.path().join("link"), root.path().join("to-pipe"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        std::fs::write(root.path().join("file"), "12345").unwrap();
        std::os::unix::fs::symlink(root.path().join("file"), &link).unwrap();
        std::os::unix::fs::symlink(&pipe, &to_pipe).unwrap();
        assert_eq!(read_file(&link, 5).unwrap(), b"12345", "a link is followed");
        for path in [pipe.as_path(), to_pipe.as_path(), Path::new("/dev/zero")] {
            let said = read_file(path, 5).unwrap_err().to_string();
            assert!(said.contains("is no regular file"), "{said}");
        }
        // Files of the kernel announce no length.
        let grown = read_file(Path::new("/proc/self/status"), 5).unwrap_err();
        assert!(matches!(grown, BundleError::TooLarge { limit: 5, .. }), "{grown}");
    }

    #[test]
    fn golden_cases_are_content_and_what_editors_leave_is_not() {
        let root = tempfile::tempdir().unwrap();
        let chain = root.path().join("shop");
        std::fs::create_dir_all(chain.join("cases")).unwrap();
        std::fs::write(chain.join("chain.toml"), chain_of(&format!("sha256:{}", sha256_hex(b"wasm")))).unwrap();
        let without = content_sha256(&read(&chain).unwrap().bundle);
        for name in [".classify.toml.swp", "classify.toml~", "#classify.toml", "notes.md"] {
            std::fs::write(chain.join("cases").join(name), "x").unwrap();
        }
        assert_eq!(content_sha256(&read(&chain).unwrap().bundle), without);
        std::fs::write(chain.join("cases/classify.toml"), "x").unwrap();
        let with = read(&chain).unwrap().bundle;
        assert_eq!(with.cases.keys().collect::<Vec<_>>(), ["cases/classify.toml"]);
        assert_ne!(content_sha256(&with), without);
        for name in ["chain.yml", "filter.json", "tone.yaml"] {
            std::fs::write(chain.join("cases").join(name), "x").unwrap();
        }
        assert_eq!(read(&chain).unwrap().bundle.cases.len(), 4);
        for n in 0..CASE_FILES_MAX {
            std::fs::write(chain.join(format!("cases/filter-{n}.toml")), "x").unwrap();
        }
        assert!(matches!(read(&chain), Err(BundleError::TooManyCases { .. })));
    }
}
