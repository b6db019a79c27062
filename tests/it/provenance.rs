//! Components from a registry, and signatures, in a running host. The registry is a real one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use frontdesk_policy_engine::{OciName, OciReference, sha256_hex};
use frontdesk_provenance::artifact::{ComponentConfig, Manifest, lay_out};
use frontdesk_provenance::signature::payload;
use frontdesk_provenance::{Algorithm, Credentials, ManifestSignature, PrivateKey, Registry, RegistryOptions};
use frontdesk_server::policies::{KeySettings, TrustSettings};
use frontdesk_testkit::registry::{Door, RegistryServer};
use serde_json::{Value, json};

use crate::fleet::{own_policies, replace};
use crate::host::{Host, QUESTION};
use crate::outage::chain;

const CLASSIFIER: &str = "../components/classify-rules.wasm";
/// bcrypt of `a password: of the tests`.
const USERS: &str = "ada:$2y$05$abcdefghijklmnopqrstuueg2FKgUxSYCF/uQsAeooMWwl6BiKW.i\n";
const PASSWORD: &str = "a password: of the tests";

/// A registry with its folder.
struct Ground {
    server: RegistryServer,
    client: Registry,
    _folder: tempfile::TempDir,
}

fn registry() -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let server = RegistryServer::start(folder.path(), Door::Open).unwrap_or_else(|problem| panic!("{problem}"));
    Ground { server, client: Registry::new(RegistryOptions::default()).unwrap(), _folder: folder }
}

impl Ground {
    fn name(&self, rest: &str) -> OciName {
        OciName::parse(&format!("oci://{}/{rest}", self.server.address)).unwrap()
    }

    async fn push(&self, rest: &str, wasm: &[u8]) -> OciReference {
        push(&self.client, &self.name(rest), wasm).await.unwrap()
    }

    async fn sign(&self, reference: &OciReference, key: &PrivateKey) {
        let payload = payload("any/repository", reference.digest()).unwrap();
        let signature = key.sign(&payload).unwrap();
        self.client.push_signature(reference, &ManifestSignature { payload, signature }).await.unwrap();
    }
}

async fn push(
    client: &Registry,
    name: &OciName,
    wasm: &[u8],
) -> Result<OciReference, frontdesk_provenance::RegistryError> {
    let about = ComponentConfig { exports: Vec::new(), imports: Vec::new() };
    client.push(name, wasm, &lay_out(wasm, about, "classify-rules.wasm").unwrap()).await
}

fn classifier(policies: &Path) -> Vec<u8> {
    std::fs::read(policies.join("components/classify-rules.wasm")).unwrap()
}

/// Writes the chain anew with another classifier.
fn name_classifier(policies: &Path, component: &str) {
    let path = policies.join("default/chain.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("component =")).unwrap();
    replace(&path, text.replacen(line, &format!("component = \"{component}\""), 1).as_bytes());
}

async fn host_on(policies: &Path, trust: Option<TrustSettings>) -> Host {
    let dir = policies.to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 200;
        plan.settings.policies.registries.retry_ms = 100;
        plan.settings.policies.registries.timeout_ms = 20_000;
        if let Some(trust) = &trust {
            plan.settings.policies.trust = trust.clone();
        }
    })
    .await;
    host.teach_answer().await;
    host
}

/// Waits until the chain's candidate is rejected for a reason that holds `said`; the reason stands in the table, too.
async fn rejected(host: &Host, said: &str) -> String {
    let reason_of = |status: &Value| status["rejected"]["reason"].as_str().unwrap_or_default().to_owned();
    host.until(&format!("a rejection because of: {said}"), async || reason_of(&chain(host).await).contains(said)).await;
    let reason = reason_of(&chain(host).await);
    host.until("the rejection is noted", async || {
        let found: i64 = sqlx::query_scalar(
            "select count(*) from policy_transitions where state = 'rejected' and right(reason, length($1)) = $1",
        )
        .bind(&reason)
        .fetch_one(host.pool())
        .await
        .unwrap();
        found > 0
    })
    .await;
    reason
}

async fn serves(host: &Host, other_than: &Value) -> Value {
    host.until("the candidate serves", async || {
        let now = chain(host).await;
        now["revision"].is_string() && now["revision"] != *other_than && now["rejected"].is_null()
    })
    .await;
    chain(host).await["revision"].clone()
}

async fn answers(host: &Host, psid: &str) {
    host.ask(psid, QUESTION).await;
    host.drained().await;
    assert_eq!(host.got(psid).len(), 1, "{psid}");
}

#[tokio::test]
async fn a_component_is_pulled_once_and_needs_its_registry_no_more() {
    let mut ground = registry();
    let policies = own_policies();
    let wasm = classifier(policies.path());
    let reference = ground.push("acme/rules:1.0", &wasm).await;
    name_classifier(policies.path(), &reference.to_string());
    let host = host_on(policies.path(), None).await;
    let first = chain(&host).await;
    assert!(first["revision"].is_string(), "{first}");
    assert_eq!(first["policies"][0]["component_sha256"], json!(sha256_hex(&wasm)), "{first}");
    answers(&host, "3001").await;

    ground.server.stop();
    let host = host.restart().await;
    assert_eq!(chain(&host).await["revision"], first["revision"], "the same, without the registry");
    answers(&host, "3002").await;

    // A revision's id follows from the component, wherever it came from.
    name_classifier(policies.path(), CLASSIFIER);
    host.until("the folder was read", async || {
        let status = chain(&host).await;
        status["revision"] == first["revision"] && status["rejected"].is_null()
    })
    .await;

    // What was never pulled cannot be had now; the old revision serves on, and the new one comes with its registry.
    let mut changed = wasm.clone();
    changed.extend_from_slice(&[0, 5, 4, b't', b'e', b's', b't']);
    ground.server.start_again().unwrap();
    let newer = ground.push("acme/rules:1.1", &changed).await;
    ground.server.stop();
    name_classifier(policies.path(), &newer.to_string());
    let reason = rejected(&host, "cannot be reached").await;
    assert!(reason.contains(&ground.server.address), "{reason}");
    assert_eq!(chain(&host).await["revision"], first["revision"]);
    answers(&host, "3003").await;
    ground.server.start_again().unwrap();
    let second = serves(&host, &first["revision"]).await;
    answers(&host, "3004").await;
    assert_eq!(host.turns("3004").await[0]["revision"], second);
}

#[tokio::test]
async fn what_is_not_the_named_component_is_refused_in_words() {
    let ground = registry();
    let policies = own_policies();
    let wasm = classifier(policies.path());
    let host = host_on(policies.path(), None).await;
    let before = chain(&host).await["revision"].clone();
    assert!(before.is_string());

    // A tag says nothing about tomorrow.
    ground.push("acme/tagged:1.0", &wasm).await;
    name_classifier(policies.path(), &ground.name("acme/tagged:1.0").to_string());
    let reason = rejected(&host, "the tag `1.0`").await;
    assert!(reason.contains(&format!("component = \"{}@sha256:", ground.name("acme/tagged"))), "{reason}");

    // A digest that the registry does not know.
    let unknown = ground.name("acme/tagged").pinned(&"ab".repeat(32)).unwrap();
    name_classifier(policies.path(), &unknown.to_string());
    rejected(&host, &format!("has no manifest acme/tagged:sha256:{}", "ab".repeat(32))).await;

    // Blob and manifest, each changed on the registry's disk.
    let damaged = [&wasm[..], &[0, 2, 1, b'a']].concat();
    let reference = ground.push("acme/blob", &damaged).await;
    let blob = ground.server.blob_path(&sha256_hex(&damaged));
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    name_classifier(policies.path(), &reference.to_string());
    let reason = rejected(&host, "gave other bytes for blob").await;
    assert!(reason.contains(&sha256_hex(&bytes)) && reason.contains(&sha256_hex(&damaged)), "{reason}");

    // More bytes than the manifest says.
    let longer = [&wasm[..], &[0, 2, 1, b'b']].concat();
    let reference = ground.push("acme/longer", &longer).await;
    let blob = ground.server.blob_path(&sha256_hex(&longer));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes.extend_from_slice(&[0; 4_096]);
    std::fs::write(&blob, &bytes).unwrap();
    name_classifier(policies.path(), &reference.to_string());
    rejected(&host, &format!("has more than {} bytes", longer.len())).await;

    // A manifest that announces more than is taken; nothing of it is read.
    let mut manifest: Manifest = serde_json::from_slice(&artifact(&wasm)).unwrap();
    manifest.layers[0].size = (64 << 20) + 1;
    let reference = push_manifest(&ground, "acme/large", &wasm, &manifest).await;
    name_classifier(policies.path(), &reference);
    rejected(&host, "its layer has 67108865 bytes; at most 67108864 are accepted").await;

    // Some other artefact, and a file that is no component.
    let mut manifest: Manifest = serde_json::from_slice(&artifact(&wasm)).unwrap();
    manifest.config.media_type = "application/vnd.oci.image.config.v1+json".to_owned();
    let reference = push_manifest(&ground, "acme/image", &wasm, &manifest).await;
    name_classifier(policies.path(), &reference);
    rejected(&host, "its config has the media type").await;
    let reference = ground.push("acme/text", b"not wasm at all").await;
    name_classifier(policies.path(), &reference.to_string());
    rejected(&host, "does not begin with the magic number").await;

    assert_eq!(chain(&host).await["revision"], before);
    answers(&host, "3101").await;
    name_classifier(policies.path(), CLASSIFIER);
    host.until("the complaint is gone", async || chain(&host).await["rejected"].is_null()).await;
    assert_eq!(host.count("select count(*) from policy_artifacts").await, 1, "only the text came whole");
}

fn artifact(wasm: &[u8]) -> Vec<u8> {
    lay_out(wasm, ComponentConfig { exports: Vec::new(), imports: Vec::new() }, "x.wasm").unwrap().manifest
}

/// Pushes a manifest that no client of ours would make.
async fn push_manifest(ground: &Ground, repository: &str, wasm: &[u8], manifest: &Manifest) -> String {
    ground.push(repository, wasm).await;
    let bytes = serde_json::to_vec(manifest).unwrap();
    let digest = sha256_hex(&bytes);
    let address = format!("http://{}/v2/{repository}/manifests/sha256:{digest}", ground.server.address);
    let request = reqwest::Client::new().put(address).body(bytes);
    let answer = request.header("content-type", "application/vnd.oci.image.manifest.v1+json").send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    ground.name(repository).pinned(&digest).unwrap().to_string()
}

fn trust(keys: &[(&str, &PrivateKey)]) -> TrustSettings {
    let key = |(name, key): &(&str, &PrivateKey)| KeySettings {
        name: (*name).to_owned(),
        public_key: Some(key.public_key().unwrap().to_pem()),
        public_key_file: None,
        chains: Vec::new(),
        registries: Vec::new(),
    };
    TrustSettings { required: true, chains: Vec::new(), keys: keys.iter().map(key).collect() }
}

/// Signs every component of a folder as `policyctl sign` and `cosign sign-blob` do.
fn sign_files(policies: &Path, key: &PrivateKey) {
    for entry in std::fs::read_dir(policies.join("components")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let signature = key.sign(&std::fs::read(&path).unwrap()).unwrap();
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
            std::fs::write(path.with_extension("wasm.sig"), text).unwrap();
        }
    }
}

#[tokio::test]
async fn files_need_a_trusted_signature_when_the_host_demands_one() {
    let (ours, theirs) =
        (PrivateKey::generate(Algorithm::EcdsaP256).unwrap(), PrivateKey::generate(Algorithm::Ed25519).unwrap());
    let policies = own_policies();
    let host = host_on(policies.path(), Some(trust(&[("release", &ours)]))).await;
    let reason = rejected(&host, "has no trusted signature").await;
    let digest = sha256_hex(&classifier(policies.path()));
    assert!(reason.contains("looked for ../components/") && reason.contains(".wasm.sig"), "{reason}");
    assert!(reason.contains("trusted keys: release (ecdsa-p256 "), "{reason}");
    assert_eq!(chain(&host).await["revision"], Value::Null);

    sign_files(policies.path(), &theirs);
    let reason = rejected(&host, "there is one signature over its bytes, none by a trusted key").await;
    assert!(reason.contains("sha256:"), "{reason}");

    sign_files(policies.path(), &ours);
    let signed = serves(&host, &Value::Null).await;
    answers(&host, "3201").await;

    // A changed component needs a signature of its own, and the one that serves goes on.
    let path = policies.path().join("components/classify-rules.wasm");
    let changed = [&classifier(policies.path())[..], &[0, 2, 1, b'c']].concat();
    replace(&path, &changed);
    let reason = rejected(&host, "none by a trusted key").await;
    assert!(reason.contains(&sha256_hex(&changed)) && !reason.contains(&digest), "{reason}");
    assert_eq!(chain(&host).await["revision"], signed);

    // A start from what is stored verifies the signatures that were stored with it.
    std::fs::write(policies.path().join("default/chain.toml"), "nonsense").unwrap();
    let host = host.restart().await;
    assert_eq!(chain(&host).await["revision"], signed);
    answers(&host, "3202").await;
}

#[tokio::test]
async fn components_of_a_registry_need_a_trusted_signature_when_the_host_demands_one() {
    let mut ground = registry();
    let (ours, theirs) =
        (PrivateKey::generate(Algorithm::Ed25519).unwrap(), PrivateKey::generate(Algorithm::EcdsaP256).unwrap());
    let policies = own_policies();
    sign_files(policies.path(), &ours);
    let wasm = [&classifier(policies.path())[..], &[0, 2, 1, b'd']].concat();
    let reference = ground.push("acme/rules:1.0", &wasm).await;
    name_classifier(policies.path(), &reference.to_string());
    let host = host_on(policies.path(), Some(trust(&[("release", &ours)]))).await;
    let reason = rejected(&host, "no signature was found").await;
    let tag = format!("{}/acme/rules:sha256-{}.sig", ground.server.address, reference.digest());
    assert!(reason.contains(&tag) && reason.contains(&sha256_hex(&wasm)), "{reason}");

    ground.sign(&reference, &theirs).await;
    rejected(&host, &format!("there is one signature in {tag}, none by a trusted key")).await;

    // The right key's signature is found without any change in the folder.
    ground.sign(&reference, &ours).await;
    ground.sign(&reference, &ours).await;
    let signed = serves(&host, &Value::Null).await;
    answers(&host, "3301").await;
    let found = ground.client.signatures(&reference, b"{}").await.unwrap().evidence.signatures.len();
    assert_eq!(found, 2, "one each, though one signed twice with one outcome");

    ground.server.stop();
    let host = host.restart().await;
    assert_eq!(chain(&host).await["revision"], signed, "the signatures are stored, too");
    answers(&host, "3302").await;
}

#[tokio::test]
async fn credentials_open_a_registry_and_go_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let server = RegistryServer::start(folder.path(), Door::Htpasswd(USERS.to_owned())).unwrap();
    let name = OciName::parse(&format!("oci://{}/acme/rules", server.address)).unwrap();
    let client = |credentials: Credentials| {
        Registry::new(RegistryOptions { credentials, ..RegistryOptions::default() }).unwrap()
    };
    let config = |registry: &str, password: &str| {
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ada:{password}"));
        Credentials::parse(&json!({ "auths": { registry: { "auth": auth } } }).to_string()).unwrap()
    };
    let wasm = b"\0asm anything";
    let cases = [
        (Credentials::default(), "there are no credentials for 127.0.0.1:"),
        (config("other.example", PASSWORD), "there are no credentials for 127.0.0.1:"),
        (config(&server.address, "wrong"), "are not enough"),
        (Credentials::parse(r#"{"credsStore": "desktop"}"#).unwrap(), "are in a credential helper"),
    ];
    for (credentials, expected) in cases {
        let error = push(&client(credentials), &name, wasm).await.unwrap_err().to_string();
        assert!(error.contains("401") && error.contains(expected) && !error.contains("wrong"), "{expected}: {error}");
    }
    let ada = client(config(&server.address, PASSWORD));
    let reference = push(&ada, &name, wasm).await.unwrap();
    assert_eq!(ada.pull(&reference).await.unwrap().component, wasm);

    // The same behind a token service: it gets the credentials, and the registry the token.
    let asked = Arc::new(AtomicUsize::new(0));
    let service = token_service(Arc::clone(&asked)).await;
    let folder = tempfile::tempdir().unwrap();
    let server = RegistryServer::start(folder.path(), Door::Token(service)).unwrap();
    let name = OciName::parse(&format!("oci://{}/acme/rules", server.address)).unwrap();
    let denied = push(&client(Credentials::default()), &name, wasm).await.unwrap_err().to_string();
    assert!(denied.contains("a token") && denied.contains("there are no credentials"), "{denied}");
    let ada = client(config(&server.address, PASSWORD));
    let reference = push(&ada, &name, wasm).await.unwrap();
    assert_eq!(ada.pull(&reference).await.unwrap().component, wasm);
    assert_eq!(asked.load(Ordering::Relaxed), 2, "one token for each operation");
}

/// A token service (Docker's token authentication) that knows Ada; gives its address.
async fn token_service(asked: Arc<AtomicUsize>) -> String {
    use axum::extract::{Query, State};
    use axum::http::{HeaderMap, StatusCode};
    use std::collections::HashMap;
    type Answer = Result<axum::Json<Value>, StatusCode>;
    async fn token(
        State(asked): State<Arc<AtomicUsize>>,
        Query(query): Query<HashMap<String, String>>,
        headers: HeaderMap,
    ) -> Answer {
        let expected = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ada:{PASSWORD}"));
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        if authorization != Some(&format!("Basic {expected}")) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        assert_eq!(query["service"], "registry.test");
        assert!(query["scope"].starts_with("repository:acme/rules:pull"), "{query:?}");
        asked.fetch_add(1, Ordering::Relaxed);
        Ok(axum::Json(json!({ "token": "a-token" })))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/token", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/token", axum::routing::get(token)).with_state(asked);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn only_registries_that_are_allowed_are_asked() {
    let ground = registry();
    let policies = own_policies();
    let reference = ground.push("acme/rules", &classifier(policies.path())).await;
    name_classifier(policies.path(), &reference.to_string());
    let dir = policies.path().to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.registries.allowed = vec!["ghcr.io".to_owned()];
    })
    .await;
    let reason = rejected(&host, "policies.registries.allowed has ghcr.io").await;
    assert!(reason.contains(&ground.server.address), "{reason}");
}

#[tokio::test]
async fn what_was_pulled_from_a_registry_that_is_allowed_no_more_is_not_taken_anew() {
    let ground = registry();
    let policies = own_policies();
    let reference = ground.push("acme/rules", &classifier(policies.path())).await;
    name_classifier(policies.path(), &reference.to_string());
    let (dir, is_allowed) = (policies.path().to_owned(), Arc::new(AtomicBool::new(true)));
    let allowed = Arc::clone(&is_allowed);
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 200;
        if !allowed.load(Ordering::Relaxed) {
            plan.settings.policies.registries.allowed = vec!["ghcr.io".to_owned()];
        }
    })
    .await;
    let served = chain(&host).await["revision"].clone();
    assert!(served.is_string());
    assert_eq!(host.count("select count(*) from policy_artifacts").await, 1);

    is_allowed.store(false, Ordering::Relaxed);
    let host = host.restart().await;
    let reason = rejected(&host, "policies.registries.allowed has ghcr.io").await;
    assert!(reason.contains(&ground.server.address), "{reason}");
    assert_eq!(chain(&host).await["revision"], served, "what serves goes on");
}

#[tokio::test]
async fn a_broken_layer_hides_no_signature() {
    let ground = registry();
    let (ours, theirs) =
        (PrivateKey::generate(Algorithm::Ed25519).unwrap(), PrivateKey::generate(Algorithm::EcdsaP256).unwrap());
    // Larger than a payload may be.
    let wasm = vec![b'x'; 100_000];
    let reference = ground.push("acme/odd", &wasm).await;
    let mut manifest: Manifest = serde_json::from_slice(&artifact(&wasm)).unwrap();
    let mut layer = manifest.layers.remove(0);
    layer.media_type = "application/vnd.dev.cosign.simplesigning.v1+json".to_owned();
    for signature in [None, Some("not Base64!"), Some("b25l")] {
        let annotation = signature.map(|text| ("dev.cosignproject.cosign/signature".to_owned(), Value::from(text)));
        layer.annotations = annotation.into_iter().collect();
        manifest.layers.push(layer.clone());
    }
    let tag = format!("sha256-{}.sig", reference.digest());
    let address = format!("http://{}/v2/acme/odd/manifests/{tag}", ground.server.address);
    let request = reqwest::Client::new().put(address).body(serde_json::to_vec(&manifest).unwrap());
    let answer = request.header("content-type", "application/vnd.oci.image.manifest.v1+json").send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    for (key, expected) in [(&ours, 1), (&theirs, 2)] {
        ground.sign(&reference, key).await;
        let found = ground.client.signatures(&reference, b"{}").await.unwrap();
        assert_eq!((found.evidence.signatures.len(), found.skipped), (expected, 3), "{found:?}");
    }
}
