//! A key that a setting points at: by the name of an environment variable, or by the path of a file.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

#[derive(Debug, Clone, Default)]
pub(crate) struct SecretSource {
    pub env: Option<String>,
    pub file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SecretSourceError {
    #[error("{setting}: give either {setting}_env or {setting}_file, not both")]
    Both { setting: &'static str },
    #[error("{setting}_env names the variable {variable}, which is not set or empty; export it, or use {setting}_file")]
    Variable { setting: &'static str, variable: String },
    #[error("{setting}_file names {path}, which cannot be read: {source}", path = path.display())]
    File {
        setting: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{setting}_file names {path}, which is empty; expected the key", path = path.display())]
    Empty { setting: &'static str, path: PathBuf },
}

impl SecretSource {
    /// The key, or `None` when neither a variable nor a file is named (an endpoint that asks for no key).
    pub fn read(&self, setting: &'static str) -> Result<Option<SecretString>, SecretSourceError> {
        match (&self.env, &self.file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(SecretSourceError::Both { setting }),
            (Some(variable), None) => std::env::var(variable)
                .ok()
                .filter(|value| !value.trim().is_empty())
                .map(|value| Some(SecretString::from(value.trim().to_owned())))
                .ok_or_else(|| SecretSourceError::Variable { setting, variable: variable.clone() }),
            (None, Some(path)) => read_file(setting, path).map(Some),
        }
    }
}

fn read_file(setting: &'static str, path: &Path) -> Result<SecretString, SecretSourceError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretSourceError::File {
        setting,
        path: path.to_owned(),
        source,
    })?;
    match text.trim() {
        "" => Err(SecretSourceError::Empty { setting, path: path.to_owned() }),
        key => Ok(SecretString::from(key.to_owned())),
    }
}
