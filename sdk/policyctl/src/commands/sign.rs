//! `policyctl sign`: a signature beside a component, in a file (`FILE.wasm.sig`) or in its registry.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use frontdesk_policy_bundle::read_file;
use frontdesk_policy_engine::load::COMPONENT_BYTES_MAX;
use frontdesk_provenance::evidence::{EVIDENCE_BYTES_MAX, SUFFIX};
use frontdesk_provenance::signature::{KEY_BYTES_MAX, payload};
use frontdesk_provenance::{Evidence, ManifestSignature, PrivateKey};
use serde_json::json;

use crate::cli::{Failure, Outcome, Report, Verdict};
use crate::oci::{self, RegistryArguments};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The component; in a registry with its digest, or with a tag that is looked up first.
    #[arg(value_name = "FILE.wasm|oci://…")]
    pub component: String,
    /// The private key (`policyctl keygen` makes one).
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub registry: RegistryArguments,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let key = read_key(&options.key)?;
    let fingerprint = key.public_key().map_err(Failure::input)?.fingerprint();
    let (component, place) = if oci::is_oci(&options.component) {
        runtime.block_on(sign_in_registry(&key, options))?
    } else {
        sign_file(&key, Path::new(&options.component))?
    };
    let text = format!("{component} is signed with the key {fingerprint}; the signature is in {place}");
    Report::new(text, json!({ "component": component, "signature": place, "key": fingerprint }), Verdict::Well)
}

fn read_key(path: &Path) -> Result<PrivateKey, Failure> {
    let bytes = read_file(path, KEY_BYTES_MAX).map_err(Failure::input)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::input(format!("{} is not UTF-8", path.display())))?;
    PrivateKey::from_pem(&text).map_err(|error| Failure::input(format!("{}: {error}", path.display())))
}

/// Adds a signature to those that are in the file beside the component, of other keys for example.
fn sign_file(key: &PrivateKey, file: &Path) -> Result<(String, String), Failure> {
    let wasm = read_file(file, COMPONENT_BYTES_MAX).map_err(Failure::input)?;
    let mut beside = file.to_owned().into_os_string();
    beside.push(SUFFIX);
    let beside = PathBuf::from(beside);
    let known = if beside.is_file() {
        let bytes = read_file(&beside, EVIDENCE_BYTES_MAX).map_err(Failure::input)?;
        Evidence::parse(&bytes).map_err(|problem| Failure::input(format!("{}: {problem}", beside.display())))?
    } else {
        Evidence::default()
    };
    let public = key.public_key().map_err(Failure::input)?;
    if !known.detached.iter().any(|it| public.verifies(&wasm, it)) {
        let detached = vec![key.sign(&wasm).map_err(Failure::input)?];
        let by_us = |part: &Evidence| -> BTreeSet<()> {
            part.detached.iter().filter(|it| public.verifies(&wasm, it)).map(|_| ()).collect()
        };
        let bytes = known.merged(Evidence { detached, registries: Vec::new() }, by_us).to_bytes();
        let bytes = bytes.map_err(|error| Failure::input(format!("no signature: {error}")))?;
        std::fs::write(&beside, bytes).map_err(|error| Failure::file(&beside, "written", &error))?;
    }
    Ok((file.display().to_string(), beside.display().to_string()))
}

async fn sign_in_registry(key: &PrivateKey, options: &Options) -> Result<(String, String), Failure> {
    let name = oci::name(&options.component)?;
    let registry = options.registry.client()?;
    let reference = registry.resolve(&name).await.map_err(|error| oci::failure(&error))?;
    // What is signed is looked at first: a signature says that somebody meant this component.
    registry.pull(&reference).await.map_err(|error| oci::failure(&error))?;
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    let payload = payload(&repository, reference.digest())
        .map_err(|error| Failure::input(format!("no payload to sign: {error}")))?;
    let signature = key.sign(&payload).map_err(Failure::input)?;
    let signature = ManifestSignature { payload, signature };
    registry.push_signature(&reference, &signature).await.map_err(|error| oci::failure(&error))?;
    Ok((reference.to_string(), format!("{repository}:sha256-{}.sig", reference.digest())))
}
