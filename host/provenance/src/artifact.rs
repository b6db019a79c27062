//! How a component lies in a registry: the CNCF's "Wasm OCI artifact layout".
//!
//! ```text
//! manifest  application/vnd.oci.image.manifest.v1+json
//!   config  application/vnd.wasm.config.v0+json    what the component imports and exports, and its layer's digest
//!   layer   application/wasm                       the component, exactly one
//! ```
//! Tools of the Wasm world (wkg, wasmtime's and wasmCloud's) read and write the same. The manifest's digest names all of
//! it, because the manifest holds the digests of config and layer.

use frontdesk_policy_engine::load::COMPONENT_BYTES_MAX;
use frontdesk_policy_engine::sha256_hex;
use serde::{Deserialize, Serialize};

/// Media type of the manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the config that marks a Wasm artefact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of a component.
pub const WASM_LAYER: &str = "application/wasm";
/// Largest manifest that is read, in bytes; the distribution specification asks registries to take as much.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// A manifest, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; older tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub annotations: serde_json::Map<String, serde_json::Value>,
}

/// A blob, named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Remarks; a signature lies here.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub annotations: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    /// Describes bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{}", sha256_hex(bytes)),
            size: bytes.len() as u64,
            annotations: serde_json::Map::new(),
        }
    }
}

/// The config of a Wasm artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WasmConfig {
    /// Always `wasm`.
    pub architecture: String,
    /// `wasip2` for a component.
    pub os: String,
    /// The layer's digest.
    pub layer_digests: Vec<String>,
    /// What the component is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentConfig>,
}

/// What a component is, for people who look at the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentConfig {
    /// Names of its exports.
    pub exports: Vec<String>,
    /// Names of its imports.
    pub imports: Vec<String>,
}

/// The two documents that go with a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

/// Lays a component out. Equal arguments give equal bytes, so a component has one digest however often it is pushed.
///
/// # Errors
/// Never in practice: these documents are plain JSON.
pub fn lay_out(component: &[u8], about: ComponentConfig, title: &str) -> Result<Artifact, serde_json::Error> {
    let mut layer = Descriptor::of(WASM_LAYER, component);
    let config = WasmConfig {
        architecture: "wasm".to_owned(),
        os: "wasip2".to_owned(),
        layer_digests: vec![layer.digest.clone()],
        component: Some(about),
    };
    let config = serde_json::to_vec(&config)?;
    layer.annotations.insert("org.opencontainers.image.title".to_owned(), title.into());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        config: Descriptor::of(WASM_CONFIG, &config),
        layers: vec![layer],
        annotations: serde_json::Map::new(),
    };
    Ok(Artifact { manifest: serde_json::to_vec(&manifest)?, config })
}

/// The layer that holds the component, from a manifest's bytes.
///
/// # Errors
/// What is not as the layout wants it, as a sentence.
pub fn component_layer(manifest: &[u8]) -> Result<Descriptor, String> {
    let found: Manifest = serde_json::from_slice(manifest).map_err(|error| {
        format!("the manifest is none of an artefact ({error}); an index of several platforms is not taken, name one of its manifests")
    })?;
    if found.config.media_type != WASM_CONFIG {
        return Err(format!(
            "its config has the media type `{}`, and a Wasm artefact has `{WASM_CONFIG}`: push it with `policyctl push` or \
             `wkg oci push`",
            found.config.media_type.escape_debug()
        ));
    }
    let [layer] = found.layers.as_slice() else {
        return Err(format!(
            "it has {} layers; exactly one is expected, of the media type `{WASM_LAYER}`",
            found.layers.len()
        ));
    };
    if layer.media_type != WASM_LAYER {
        return Err(format!(
            "its layer has the media type `{}`; `{WASM_LAYER}` is expected",
            layer.media_type.escape_debug()
        ));
    }
    if digest_of(layer).is_none() {
        return Err(format!("its layer's digest is `{}`; sha256 is expected", layer.digest.escape_debug()));
    }
    if layer.size > COMPONENT_BYTES_MAX as u64 {
        return Err(format!("its layer has {} bytes; at most {COMPONENT_BYTES_MAX} are accepted", layer.size));
    }
    Ok(layer.clone())
}

/// The hexadecimal digits of a descriptor's digest, if it is a SHA-256.
#[must_use]
pub fn digest_of(descriptor: &Descriptor) -> Option<&str> {
    let digits = descriptor.digest.strip_prefix("sha256:")?;
    let fits = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> ComponentConfig {
        ComponentConfig { exports: vec!["frontdesk:policy/lifecycle@0.1.0".to_owned()], imports: Vec::new() }
    }

    #[test]
    fn what_is_laid_out_is_found_again() {
        let artifact = lay_out(b"\0asm component", about(), "rules.wasm").unwrap();
        assert_eq!(artifact, lay_out(b"\0asm component", about(), "rules.wasm").unwrap());
        let layer = component_layer(&artifact.manifest).unwrap();
        assert_eq!(digest_of(&layer), Some(sha256_hex(b"\0asm component").as_str()));
        assert_eq!(layer.size, 14);
        let config: WasmConfig = serde_json::from_slice(&artifact.config).unwrap();
        assert_eq!((config.architecture.as_str(), config.os.as_str()), ("wasm", "wasip2"));
        assert_eq!(config.layer_digests, [layer.digest]);
    }

    #[test]
    fn other_artefacts_are_refused_in_words() {
        type Change = fn(&mut Manifest);
        let artifact = lay_out(b"x", about(), "x").unwrap();
        let manifest: Manifest = serde_json::from_slice(&artifact.manifest).unwrap();
        let changed = |change: Change| {
            let mut manifest = manifest.clone();
            change(&mut manifest);
            component_layer(&serde_json::to_vec(&manifest).unwrap()).unwrap_err()
        };
        let cases: [(Change, &str); 5] = [
            (
                |it| it.config.media_type = "application/vnd.oci.image.config.v1+json".to_owned(),
                "its config has the media type",
            ),
            (|it| it.layers.clear(), "it has 0 layers"),
            (
                |it| it.layers[0].media_type = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
                "its layer has the media type",
            ),
            (|it| it.layers[0].digest = "sha512:00".to_owned(), "sha256 is expected"),
            (|it| it.layers[0].size = (64 << 20) + 1, "67108865 bytes; at most 67108864"),
        ];
        for (change, expected) in cases {
            let error = changed(change);
            assert!(error.contains(expected), "{expected}: {error}");
        }
        assert!(
            component_layer(br#"{"schemaVersion": 2, "manifests": []}"#)
                .unwrap_err()
                .contains("index of several platforms")
        );
    }
}
