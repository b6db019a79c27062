//! Policy folders for tests: chains of the guests in `tests/guests`, whose settings say what they do.

use std::path::{Path, PathBuf};

/// A folder of chains with the chain `default`.
pub struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    pub fn new(chain_toml: &str) -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        let components = folder.path().join("components");
        std::fs::create_dir_all(&components).unwrap();
        std::fs::create_dir_all(folder.chain()).unwrap();
        for guest in ["guest-obedient", "guest-misbehaving"] {
            std::fs::copy(guests().join(guest).with_extension("wasm"), components.join(guest).with_extension("wasm"))
                .unwrap();
        }
        std::fs::write(folder.chain_toml(), chain_toml).unwrap();
        folder
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The chain's own folder.
    pub fn chain(&self) -> PathBuf {
        self.path().join("default")
    }

    pub fn chain_toml(&self) -> PathBuf {
        self.chain().join("chain.toml")
    }

    /// Saves `chain.toml` as a whole, as a deployment does.
    pub fn save(&self, chain_toml: &str) {
        replace(&self.chain_toml(), chain_toml.as_bytes());
    }
}

/// Writes beside, and renames.
pub fn replace(path: &Path, content: &[u8]) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, content).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

fn guests() -> PathBuf {
    let built = std::env::var_os("FRONTDESK_GUESTS_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests"), PathBuf::from);
    assert!(
        built.join("guest-obedient.wasm").is_file(),
        "no guests in {}: run `cargo xtask components --guests`",
        built.display()
    );
    built
}

/// A chain whose every call logs `mark:<mark>`, and which sends what is drafted.
pub fn marked(mark: &str) -> String {
    chain(mark, &obedient("classify", "human", mark), "")
}

/// The same with more tables, such as `[tripwire]`.
pub fn marked_with(mark: &str, tables: &str) -> String {
    chain(mark, &obedient("classify", "human", mark), tables)
}

/// A chain whose classifier is well until a customer writes `word`; then it does what `action` says.
pub fn faulty(mark: &str, action: &str, word: &str, tables: &str) -> String {
    let classify = format!(
        "[[policy]]\nhook = \"classify\"\ncomponent = \"../components/guest-misbehaving.wasm\"\non_fault = \"human\"\n\
         [policy.settings]\ndo = \"{action}\"\nword = \"{word}\"\n[policy.grants]\nknowledge = true\n"
    );
    chain(mark, &classify, tables)
}

fn chain(mark: &str, classify: &str, tables: &str) -> String {
    let rest: String = [("tone", "default-prompt"), ("filter", "hold"), ("escalate", "human")]
        .map(|(hook, on_fault)| obedient(hook, on_fault, mark))
        .concat();
    format!("version = 1\n{classify}{rest}{tables}")
}

fn obedient(hook: &str, on_fault: &str, mark: &str) -> String {
    format!(
        "[[policy]]\nhook = \"{hook}\"\ncomponent = \"../components/guest-obedient.wasm\"\non_fault = \"{on_fault}\"\n\
         [policy.settings]\nmark = \"{mark}\"\n"
    )
}
