//! `policyctl keygen`: a pair of keys for signatures.

use std::io::Write;
use std::path::{Path, PathBuf};

use frontdesk_provenance::{Algorithm, PrivateKey};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::cli::{Failure, Outcome, Report, Verdict};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Beginning of the files' names: NAME.key is to be kept secret, NAME.pub goes into the host's settings.
    #[arg(value_name = "NAME")]
    pub name: PathBuf,
    /// The kind of key; cosign takes both.
    #[arg(long, value_enum, default_value_t = Kind::EcdsaP256)]
    pub algorithm: Kind,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Kind {
    EcdsaP256,
    Ed25519,
}

pub fn run(options: &Options) -> Outcome {
    let algorithm = match options.algorithm {
        Kind::EcdsaP256 => Algorithm::EcdsaP256,
        Kind::Ed25519 => Algorithm::Ed25519,
    };
    let key = PrivateKey::generate(algorithm).map_err(Failure::input)?;
    let public = key.public_key().map_err(Failure::input)?;
    let with = |extension: &str| {
        let mut name = options.name.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let (private_path, public_path) = (with(".key"), with(".pub"));
    write_new(&private_path, key.to_pem().map_err(Failure::input)?.expose_secret(), 0o600)?;
    write_new(&public_path, &public.to_pem(), 0o644)?;
    let name = options.name.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "{} signs (`policyctl sign`): keep it secret.\n{} verifies. For the host's settings:\n\n[[policies.trust.keys]]\nname = \
         {name:?}\npublic_key_file = {:?}\n",
        private_path.display(),
        public_path.display(),
        public_path.display().to_string()
    );
    let report = json!({
        "private_key": private_path, "public_key": public_path, "algorithm": algorithm.as_str(),
        "fingerprint": public.fingerprint(),
    });
    Report::new(text, report, Verdict::Well)
}

/// Writes a file that is not there yet: a key is never overwritten.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written =
        options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::file(path, "written", &error))
}
