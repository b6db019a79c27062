//! Keys, signatures and a registry, as an author uses them. The registry is a real one.

use serde_json::Value;

use crate::support::{Chains, command, component, finish, policyctl};

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../../../../tests/support/registry.rs"]
mod server;

use server::{Door, RegistryServer};

#[test]
fn a_component_goes_into_a_registry_and_a_chain_takes_it_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = RegistryServer::start(folder.path(), Door::Open).unwrap_or_else(|problem| panic!("{problem}"));
    let name = format!("oci://{}/acme/rules:1.0", registry.address);
    let file = component("classify-rules");
    let pushed = policyctl(&["push", &file, &name, "--json"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let reference = pushed.json()["reference"].as_str().unwrap().to_owned();
    let again = policyctl(&["push", &file, &name]).ended(0);
    assert!(again.contains(&format!("component = \"{reference}\"")), "{again}");

    // A tag is looked up; what is printed is pinned.
    let inspected = policyctl(&["inspect", &name, "--json"]).json();
    assert_eq!(inspected["reference"], Value::from(reference.as_str()));
    assert_eq!(inspected["description"]["name"], "classify-rules");
    assert_eq!(inspected["sha256"], pushed.json()["component_sha256"]);

    let chains = Chains::new();
    let unpinned = format!("component = \"{name}\"");
    chains.change("chain.toml", "component = \"../components/classify-rules.wasm\"", &unpinned);
    let refused = policyctl(&["check", &chains.text()]).ended(2);
    assert!(refused.contains("the tag `1.0`") && refused.contains(&format!("policyctl inspect {name}")), "{refused}");
    chains.change("chain.toml", &unpinned, &format!("component = \"{reference}\""));
    policyctl(&["check", &chains.text()]).ended(0);
    registry.stop();
    let unreachable = policyctl(&["check", &chains.text()]).ended(4);
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");
    let missing = policyctl(&["push", "none.wasm", &name]).ended(2);
    assert!(missing.contains("none.wasm is not there"), "{missing}");
}

#[test]
fn keys_are_made_and_sign_files_and_artefacts() {
    let folder = tempfile::tempdir().unwrap();
    let here = |arguments: &[&str]| finish(&mut command(folder.path(), arguments));
    std::fs::copy(component("tone-brand"), folder.path().join("tone.wasm")).unwrap();
    for algorithm in ["ecdsa-p256", "ed25519"] {
        let made = here(&["keygen", algorithm, "--algorithm", algorithm]).ended(0);
        assert!(made.contains("[[policies.trust.keys]]") && !made.contains("PRIVATE"), "{made}");
        let (key, public) = (format!("{algorithm}.key"), format!("{algorithm}.pub"));
        #[cfg(unix)]
        {
            let mode = std::fs::metadata(folder.path().join(&key)).unwrap();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        }
        let again = here(&["keygen", algorithm]).ended(2);
        assert!(again.contains("cannot be written"), "a key is never overwritten: {again}");
        let unsigned = here(&["inspect", "tone.wasm", "--key", &public, "--json"]);
        assert_eq!((unsigned.code, &unsigned.json()["signed"]), (1, &Value::Bool(false)));
        here(&["sign", "tone.wasm", "--key", &key]).ended(0);
        let signed = here(&["inspect", "tone.wasm", "--key", &public, "--json"]);
        assert_eq!((signed.code, &signed.json()["signed"]), (0, &Value::Bool(true)));
        let wrong = here(&["sign", "tone.wasm", "--key", &public]).ended(2);
        assert!(wrong.contains("this is no private key"), "{wrong}");
    }
    // One line for each key, as other programs read it.
    let lines = std::fs::read_to_string(folder.path().join("tone.wasm.sig")).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");

    let data = tempfile::tempdir().unwrap();
    let registry = RegistryServer::start(data.path(), Door::Open).unwrap_or_else(|problem| panic!("{problem}"));
    let name = format!("oci://{}/acme/tone:2", registry.address);
    here(&["push", "tone.wasm", &name]).ended(0);
    assert_eq!(here(&["inspect", &name, "--key", "ed25519.pub"]).code, 1);
    here(&["sign", &name, "--key", "ed25519.key"]).ended(0);
    let signed = here(&["inspect", &name, "--key", "ed25519.pub"]).ended(0);
    assert!(signed.contains("1 signature, one by the given key"), "{signed}");
    assert_eq!(here(&["inspect", &name, "--key", "ecdsa-p256.pub"]).code, 1);
    let unknown = here(&["sign", "oci://127.0.0.1:1/acme/x:1", "--key", "ed25519.key"]).ended(4);
    assert!(unknown.contains("cannot be reached"), "{unknown}");
}
