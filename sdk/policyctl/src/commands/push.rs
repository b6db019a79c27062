//! `policyctl push`: a component into a registry, as the CNCF's Wasm artefact.

use std::path::PathBuf;

use frontdesk_provenance::artifact::{ComponentConfig, lay_out};
use serde_json::json;

use crate::cli::{Failure, Outcome, Report, Verdict};
use crate::oci::{self, RegistryArguments};
use crate::subject;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    pub file: PathBuf,
    /// Where to put it, such as oci://ghcr.io/acme/policies/rules:1.0; the tag may be left out.
    #[arg(value_name = "oci://REGISTRY/REPOSITORY[:TAG]")]
    pub to: String,
    #[command(flatten)]
    pub registry: RegistryArguments,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let name = oci::name(&options.to)?;
    if name.digest.is_some() {
        return Err(Failure::input(format!("{}: leave the digest out, it follows from the component", options.to)));
    }
    let engine = subject::engine()?;
    let (wasm, inspection) = subject::inspect(&engine, &options.file)?;
    if let Some(problem) = &inspection.problem {
        return Err(Failure::refused(format!("{}: the host would refuse it: {problem}", options.file.display())));
    }
    let imports = inspection.imports.iter().map(|import| import.name.clone()).collect();
    let about = ComponentConfig { exports: inspection.exports.clone(), imports };
    let title = options.file.file_name().unwrap_or_default().to_string_lossy();
    let artifact = lay_out(&wasm, about, &title).map_err(|error| Failure::input(format!("no manifest: {error}")))?;
    let registry = options.registry.client()?;
    let reference = runtime.block_on(registry.push(&name, &wasm, &artifact)).map_err(|error| oci::failure(&error))?;
    let text = format!("{name} is pushed; the line for chain.toml:\n\ncomponent = \"{reference}\"\n");
    let report = json!({
        "reference": reference.to_string(), "manifest_sha256": reference.digest(), "component_sha256": inspection.sha256,
    });
    Report::new(text, report, Verdict::Well)
}
