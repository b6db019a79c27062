//! The life of policy revisions on real replicas: two hosts on one database, folders of their own, one simulated Meta.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frontdesk_policy_engine::sha256_hex;
use frontdesk_server::db::rollouts::{self, Cause, Changed};
use frontdesk_server::policies::rollout::Move;
use serde_json::{Value, json};

use crate::host::{Ground, Host, PAGE, QUESTION, shipped_policies};

const TONE: &str = "../components/tone-brand.wasm";

/// A copy of the shipped policies that a test may change.
pub fn own_policies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["default", "components"] {
        copy_folder(&shipped_policies().join(part), &folder.path().join(part));
    }
    folder
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Replaces a file as a whole, as a deployment does.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, content).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

/// Changes a text in a file of the default chain.
fn edit(policies: &Path, file: &str, from: &str, to: &str) {
    let path = policies.join("default").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} no longer has {from:?}");
    replace(&path, text.replacen(from, to, 1));
}

pub const DISCLOSURE: &str = "You are chatting with the automated assistant";

/// Gives the chain's first words another text. A golden case wants the automated assistant named in it.
fn reword(policies: &Path, words: &str) {
    let path = policies.join("default/tone-brand.toml");
    let shipped = std::fs::read_to_string(shipped_policies().join("default/tone-brand.toml")).unwrap();
    assert!(shipped.contains(DISCLOSURE));
    replace(&path, shipped.replace(DISCLOSURE, words));
}

async fn host_on(ground: &std::sync::Arc<Ground>, policies: &Path) -> Host {
    let dir: PathBuf = policies.to_owned();
    Host::start_on_ground(std::sync::Arc::clone(ground), move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 500;
    })
    .await
}

async fn overview(host: &Host) -> Value {
    let (status, answer) = host.admin("GET", "/admin/policies", None).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn chain(host: &Host) -> Value {
    overview(host).await["chains"][0].clone()
}

fn active(host: &Host) -> Option<String> {
    host.app.policies.current("default").map(|serving| serving.id().to_owned())
}

/// Waits until a host serves something else than before, and gives it.
async fn next(host: &Host, before: &str) -> String {
    host.until("another revision serves", async || active(host).is_some_and(|now| now != before)).await;
    active(host).unwrap()
}

async fn post(host: &Host, what: &str, body: Value) -> (u16, Value) {
    host.admin("POST", &format!("/admin/policies/default/{what}"), Some(body)).await
}

/// The bundle of a revision with a text of its settings changed.
pub async fn changed_bundle(host: &Host, revision: &str, from: &str, to: &str) -> Value {
    let (status, answer) = host.admin("GET", &format!("/admin/policies/default/revisions/{revision}"), None).await;
    assert_eq!(status, 200, "{answer}");
    let mut bundle = answer["bundle"].clone();
    let settings = bundle["settings"]["tone-brand.toml"].as_str().unwrap();
    assert!(settings.contains(from), "{settings}");
    bundle["settings"]["tone-brand.toml"] = settings.replace(from, to).into();
    bundle
}

async fn states_of(host: &Host, revision: &str) -> Vec<String> {
    sqlx::query_scalar("select state from policy_transitions where revision = $1 order by id")
        .bind(revision)
        .fetch_all(host.pool())
        .await
        .unwrap()
}

async fn state_of(host: &Host, revision: &str) -> String {
    sqlx::query_scalar("select state from policy_revisions where revision = $1")
        .bind(revision)
        .fetch_one(host.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_one_replica_publishes_all_activate_and_a_rollback_reaches_all() {
    let (one_folder, other_folder) = (own_policies(), own_policies());
    let ground = Ground::new().await;
    let one = host_on(&ground, one_folder.path()).await;
    let other = host_on(&ground, other_folder.path()).await;
    let first = active(&one).unwrap();
    assert_eq!(active(&other).as_ref(), Some(&first));
    assert_eq!(chain(&one).await["origin"], "folder");

    // The folder of one changes; the other follows, though its own folder is as it was.
    reword(one_folder.path(), "You are writing to the automated assistant");
    let second = next(&one, &first).await;
    assert_eq!(next(&other, &first).await, second);
    assert_eq!(state_of(&one, &first).await, "retired");
    one.until("both say so", async || {
        let replicas = overview(&one).await["replicas"].as_array().unwrap().clone();
        replicas.len() == 2
            && replicas.iter().all(|it| it["active"] == json!(second) && it["is_live"] == json!(true))
            && replicas.iter().all(|it| it["active_since"].is_string() && it["problem"].is_null())
    })
    .await;

    // Back by a person's word, through the replica that did not publish.
    let (status, answer) = post(&other, "rollback", json!({"reason": "customers complain"})).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(first)), "{answer}");
    assert_eq!(active(&other).as_ref(), Some(&first));
    assert_eq!(next(&one, &second).await, first);
    assert_eq!(chain(&one).await["origin"], "api");
    // No folder changed, so the person's word stays, also over a restart.
    let one = one.restart().await;
    assert_eq!(active(&one).as_ref(), Some(&first));
    assert_eq!(chain(&one).await["folder"], Value::Null);
    // The other's folder holds what was replaced: stale, once it starts again.
    let other = other.restart().await;
    assert_eq!(active(&other).as_ref(), Some(&first));
    assert!(chain(&other).await["folder"].as_str().is_some_and(|note| note.contains("replaced since")));

    // A folder that changes has the last word again, even back to what it held.
    reword(other_folder.path(), "Here writes the automated assistant");
    let third = next(&other, &first).await;
    assert_eq!(next(&one, &first).await, third);
    replace(
        &other_folder.path().join("default/tone-brand.toml"),
        std::fs::read(shipped_policies().join("default/tone-brand.toml")).unwrap(),
    );
    assert_eq!(next(&other, &third).await, first);
    assert_eq!(next(&one, &third).await, first);

    let (_, audit) = one.admin("GET", "/admin/audit?limit=200", None).await;
    let rollback = audit["entries"].as_array().unwrap().iter().find(|it| it["action"] == "policy.rollback").unwrap();
    assert_eq!((&rollback["actor"], &rollback["detail"]["reason"]), (&json!("ada"), &json!("customers complain")));
}

#[tokio::test]
async fn a_replica_that_cannot_stage_says_why_and_keeps_serving() {
    let policies = own_policies();
    let ground = Ground::new().await;
    let one = host_on(&ground, policies.path()).await;
    one.teach_answer().await;
    let first = active(&one).unwrap();
    let bundle = changed_bundle(&one, &first, DISCLOSURE, "You are writing to the automated assistant").await;
    let publish = json!({"bundle": bundle, "to": "stage", "reason": "for later"});
    let (status, answer) = post(&one, "revisions", publish).await;
    assert_eq!((status, &answer["state"]), (200, &json!("staged")), "{answer}");
    let second = answer["revision"].as_str().unwrap().to_owned();
    assert_eq!(active(&one).as_ref(), Some(&first));
    // Its component is damaged where it is stored, and the row says that it serves.
    sqlx::query("update policy_revisions set files = jsonb_set(files, '{components}', '{}') where revision = $1")
        .bind(&second)
        .execute(one.pool())
        .await
        .unwrap();
    sqlx::query("update policy_active set revision = $1, generation = generation + 1")
        .bind(&second)
        .execute(one.pool())
        .await
        .unwrap();
    one.until("it says why", async || chain(&one).await["problem"].is_string()).await;
    let status = chain(&one).await;
    assert_eq!(status["revision"], json!(first));
    let problem = status["problem"].as_str().unwrap();
    assert!(problem.contains(&second[..12]) && problem.contains("missing"), "{problem}");
    one.until("the fleet sees it", async || {
        overview(&one).await["replicas"][0]["problem"].as_str().is_some_and(|it| it.contains("missing"))
    })
    .await;
    one.ask("1701", QUESTION).await;
    one.drained().await;
    assert_eq!(one.turns("1701").await[0]["revision"], json!(first));
    // A start finds nothing that it could go on with: its folder stands in, and the row stays as it is.
    let one = one.restart().await;
    assert_eq!(active(&one).as_ref(), Some(&first));
    let status = chain(&one).await;
    assert!(status["folder"].as_str().is_some_and(|note| note.contains("stands in")), "{status}");
    one.until("it says why again", async || chain(&one).await["problem"].is_string()).await;
    assert_eq!(overview(&one).await["rollouts"][0]["active"], json!(second));
    // Back to what can be staged: the complaint goes.
    let (status, answer) = post(&one, "rollback", json!({"revision": first, "reason": "damaged"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(chain(&one).await["problem"], Value::Null);
}

#[tokio::test]
async fn the_gate_refuses_what_fails_its_cases_and_a_person_may_overrule_it() {
    let policies = own_policies();
    let ground = Ground::new().await;
    let host = host_on(&ground, policies.path()).await;
    let first = active(&host).unwrap();
    let verdict = overview(&host).await["revisions"][0]["gate"].clone();
    assert_eq!(verdict["passed"], json!(true), "{verdict}");
    assert!(verdict["golden"]["cases"].as_u64().unwrap() > 100, "{verdict}");

    // A case that this chain cannot meet.
    let case = "\n[[case]]\nname = \"a greeting is spam\"\ntext = \"Hello!\"\nroute = \"spam\"\n";
    let cases = policies.path().join("default/cases/classify.toml");
    let good = std::fs::read_to_string(&cases).unwrap();
    std::fs::write(&cases, format!("{good}{case}")).unwrap();
    reword(policies.path(), "You are writing to the automated assistant");
    host.until("the gate refuses it", async || {
        chain(&host).await["rejected"]["reason"].as_str().is_some_and(|it| it.contains("a greeting is spam"))
    })
    .await;
    let status = chain(&host).await;
    assert_eq!(status["revision"], json!(first));
    assert_eq!(status["rejected"]["content_sha256"].as_str().unwrap().len(), 64);
    host.until("it is stored as rejected", async || {
        host.count("select count(*) from policy_revisions where state = 'rejected'").await == 1
    })
    .await;
    let revisions = overview(&host).await["revisions"].as_array().unwrap().clone();
    let rejected = revisions.iter().find(|it| it["state"] == "rejected").unwrap();
    let second = rejected["revision"].as_str().unwrap().to_owned();
    assert_eq!((&rejected["gate"]["passed"], &rejected["gate"]["golden"]["failed"]), (&json!(false), &json!(1)));
    assert_eq!(states_of(&host, &second).await, ["staged", "rejected"]);

    // There is no going back to what never served.
    let back = json!({"revision": second, "reason": "round the gate"});
    let (status, answer) = post(&host, "rollback", back).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("state")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("never served"), "{answer}");

    // Without force it stays out; force needs a reason, and is audited.
    let (status, answer) = post(&host, "promote", json!({"revision": second, "reason": "try"})).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("gate")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("1 of "), "{answer}");
    let (status, answer) = post(&host, "promote", json!({"revision": second, "force": true})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("field")), "{answer}");
    assert_eq!(active(&host).as_ref(), Some(&first));
    let forced = json!({"revision": &second[..8], "force": true, "reason": "the case is wrong"});
    let (status, answer) = post(&host, "promote", forced).await;
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
    assert_eq!(active(&host).as_ref(), Some(&second));
    let (_, audit) = host.admin("GET", "/admin/audit?limit=200", None).await;
    let entry = audit["entries"].as_array().unwrap().iter().find(|it| it["detail"]["forced"] == json!(true)).unwrap();
    assert_eq!((&entry["actor"], &entry["detail"]["reason"]), (&json!("ada"), &json!("the case is wrong")));
}

#[tokio::test]
async fn a_tripped_revision_is_out_everywhere_and_not_loaded_again() {
    let policies = own_policies();
    let ground = Ground::new().await;
    let one = host_on(&ground, policies.path()).await;
    let other = host_on(&ground, own_policies().path()).await;
    let first = active(&one).unwrap();
    reword(policies.path(), "You are writing to the automated assistant");
    let second = next(&one, &first).await;
    next(&other, &first).await;

    let tripped = one.app.policies.trip("default", &second, "too many faults").await;
    assert_eq!(tripped, frontdesk_server::policies::Tripped::Out(frontdesk_server::policies::slots::Slot::Active));
    assert_eq!(active(&one).as_ref(), Some(&first));
    assert_eq!(next(&other, &second).await, first);
    assert_eq!(state_of(&one, &second).await, "quarantined");
    assert_eq!(states_of(&one, &second).await, ["staged", "active", "quarantined"]);

    // Neither a changed comment nor a restart brings it back.
    edit(policies.path(), "chain.toml", "version = 1", "# A comment.\nversion = 1");
    one.until("the folder is refused", async || {
        chain(&one).await["rejected"]["reason"].as_str().is_some_and(|it| it.contains("quarantined"))
    })
    .await;
    let one = one.restart().await;
    assert_eq!(active(&one).as_ref(), Some(&first));
    let (status, answer) = post(&one, "activate", json!({"revision": second, "reason": "again"})).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("quarantined")), "{answer}");

    // What was looked at before the quarantine and moves after it comes too late.
    let cause = Cause { actor: "ada", reason: "promoted meanwhile", action: "policy.activate", forced: false };
    let made = Move::Activate { revision: second.clone(), origin: "api" };
    let changed = rollouts::change(one.pool(), "default", &cause, |row, now| made.apply(row, now)).await.unwrap();
    assert!(matches!(&changed, Changed::Quarantined(revision) if *revision == second), "{changed:?}");
    assert_eq!(state_of(&one, &second).await, "quarantined");

    // A person lifts it, with a reason.
    let (status, answer) =
        post(&one, "unquarantine", json!({"revision": second, "reason": "the model was down"})).await;
    assert_eq!((status, &answer["state"]), (200, &json!("retired")), "{answer}");
    let (status, answer) = post(&one, "activate", json!({"revision": second, "reason": "again"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(active(&one).as_ref(), Some(&second));
    assert_eq!(next(&other, &first).await, second);

    // The only revision of a chain serves on, for somebody must.
    let third = own_policies();
    let alone = host_on(&Ground::new().await, third.path()).await;
    let only = active(&alone).unwrap();
    let tripped = alone.app.policies.trip("default", &only, "too many faults").await;
    assert_eq!(tripped, frontdesk_server::policies::Tripped::NothingBefore);
    assert_eq!(active(&alone), Some(only));
}

#[tokio::test]
async fn thresholds_change_without_a_new_revision_and_only_when_the_gate_lets_them() {
    let policies = own_policies();
    let ground = Ground::new().await;
    let one = host_on(&ground, policies.path()).await;
    let other = host_on(&ground, own_policies().path()).await;
    let first = active(&one).unwrap();
    let faults_min = |host: &Host| host.app.policies.current("default").unwrap().revision.spec().tripwire.faults_min;
    let chain_toml = policies.path().join("default/chain.toml");
    let text = std::fs::read_to_string(&chain_toml).unwrap();
    std::fs::write(&chain_toml, format!("{text}\n[tripwire]\nfaults_min = 7\n")).unwrap();
    for host in [&one, &other] {
        host.until("the threshold holds", async || faults_min(host) == 7).await;
        assert_eq!(active(host).as_ref(), Some(&first));
    }

    // What the gate refuses changes nothing about the revision that serves, also for who stages it again.
    let cases = policies.path().join("default/cases/classify.toml");
    let good = std::fs::read_to_string(&cases).unwrap();
    std::fs::write(&cases, format!("{good}\n[[case]]\nname = \"no\"\ntext = \"Hello!\"\nroute = \"spam\"\n")).unwrap();
    std::fs::write(&chain_toml, format!("{text}\n[tripwire]\nfaults_min = 9\n")).unwrap();
    one.until("the gate refuses it", async || chain(&one).await["rejected"].is_object()).await;
    assert_eq!((faults_min(&one), faults_min(&other)), (7, 7));
    let other = other.restart().await;
    assert_eq!(faults_min(&other), 7);
}

#[tokio::test]
async fn a_canary_serves_its_share_grows_by_the_clock_and_becomes_active() {
    let policies = own_policies();
    let ground = Ground::new().await;
    let host = host_on(&ground, policies.path()).await;
    let first = active(&host).unwrap();
    let chain_toml = policies.path().join("default/chain.toml");
    let rollout = "\n[rollout]\non_change = \"canary\"\nsteps = [{ percent = 10.0, minutes = 5 }, \
                   { percent = 50.0, minutes = 5 }]\n";
    replace(&chain_toml, std::fs::read_to_string(&chain_toml).unwrap() + rollout);
    reword(policies.path(), "You are writing to the automated assistant");
    host.until("the canary runs", async || chain(&host).await["canary"].is_object()).await;
    let status = chain(&host).await;
    let second = status["canary"]["revision"].as_str().unwrap().to_owned();
    assert_eq!((&status["revision"], &status["canary"]["percent"]), (&json!(first), &json!(10.0)), "{status}");

    let served = |psid: usize| {
        let psid = format!("24{psid:014}");
        host.app.policies.pick("default", PAGE, &psid).unwrap().id() == second
    };
    let members: Vec<bool> = (0..2_000).map(served).collect();
    let count = members.iter().filter(|is_in| **is_in).count();
    assert!((140..=260).contains(&count), "{count} of 2000");
    // A turn of a member is judged by the canary, another's by the active one.
    host.teach_answer().await;
    for (wanted, revision) in [(true, &second), (false, &first)] {
        let psid = format!("24{:014}", members.iter().position(|is_in| *is_in == wanted).unwrap());
        host.ask(&psid, QUESTION).await;
        host.drained().await;
        assert_eq!(host.turns(&psid).await[0]["revision"], json!(revision));
    }

    // The clock of the database has the word, and a restart changes nothing.
    let host = host.restart().await;
    let later = "update policy_active set canary_step_at = canary_step_at - interval '5 minutes'";
    sqlx::query(later).execute(host.pool()).await.unwrap();
    host.until("the next step", async || chain(&host).await["canary"]["percent"] == json!(50.0)).await;
    let grown = |psid: usize| {
        let psid = format!("24{psid:014}");
        host.app.policies.pick("default", PAGE, &psid).unwrap().id() == second
    };
    assert!(members.iter().enumerate().all(|(psid, was_in)| !was_in || grown(psid)), "a member was lost");
    sqlx::query(later).execute(host.pool()).await.unwrap();
    assert_eq!(next(&host, &first).await, second);
    assert_eq!(states_of(&host, &second).await, ["staged", "canary", "canary", "active"]);
    assert_eq!(chain(&host).await["canary"], Value::Null);
}

#[tokio::test]
async fn a_revision_goes_the_whole_way_by_the_api() {
    let policies = own_policies();
    let ground = Ground::new().await;
    let host = host_on(&ground, policies.path()).await;
    let first = active(&host).unwrap();
    let mut bundle = changed_bundle(&host, &first, DISCLOSURE, "You are writing to the automated assistant").await;
    // What the host has need not travel again.
    let wasm = STANDARD.decode(bundle["components"][TONE].as_str().unwrap()).unwrap();
    let digest = sha256_hex(&wasm);
    let (status, answer) = host.admin("GET", &format!("/admin/components/{digest}?bytes=none"), None).await;
    assert_eq!((status, answer), (200, json!({"digest": digest})));
    let (_, answer) = host.admin("GET", &format!("/admin/components/{digest}"), None).await;
    assert_eq!(STANDARD.decode(answer["wasm"].as_str().unwrap()).unwrap(), wasm);
    let unknown = "0".repeat(64);
    let (status, _) = host.admin("GET", &format!("/admin/components/{unknown}?bytes=none"), None).await;
    assert_eq!(status, 404);
    bundle["components"][TONE] = format!("sha256:{unknown}").into();
    let (status, answer) = post(&host, "revisions", json!({"bundle": bundle, "to": "stage", "reason": "x"})).await;
    assert!((400..500).contains(&status) && answer.to_string().contains(&unknown), "{status} {answer}");
    bundle["components"][TONE] = format!("sha256:{digest}").into();
    let publish = json!({"bundle": bundle, "to": "shadow", "reason": "new words"});
    let (status, answer) = post(&host, "revisions", publish.clone()).await;
    assert_eq!((status, &answer["state"]), (200, &json!("shadow")), "{answer}");
    assert_eq!(answer["gate"]["passed"], json!(true));
    let second = answer["revision"].as_str().unwrap().to_owned();
    assert_eq!(host.app.policies.shadow("default").unwrap().id(), second);
    assert_eq!(active(&host).as_ref(), Some(&first));

    let (status, answer) = post(&host, "canary", json!({"page_ids": [PAGE], "reason": "one Page"})).await;
    assert_eq!((status, &answer["state"]), (200, &json!("canary")), "{answer}");
    assert!(host.app.policies.shadow("default").is_none());
    assert_eq!(host.app.policies.pick("default", PAGE, "1").unwrap().id(), second);
    assert_eq!(host.app.policies.pick("default", crate::host::OTHER_PAGE, "1").unwrap().id(), first);

    let (status, answer) = post(&host, "rollback", json!({"reason": "not yet"})).await;
    assert_eq!((status, &answer["state"]), (200, &json!("retired")), "{answer}");
    assert_eq!(host.app.policies.pick("default", PAGE, "1").unwrap().id(), first);

    let (status, answer) = post(&host, "promote", json!({"revision": &second[..10], "reason": "now"})).await;
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
    let host = host.restart().await;
    assert_eq!(active(&host).as_ref(), Some(&second));
    let (status, _) = post(&host, "rollback", json!({"reason": "and back"})).await;
    assert_eq!((status, active(&host).as_ref()), (200, Some(&first)));

    for (what, body, code) in [
        ("rollback", json!({"slot": "canary", "reason": "x"}), "state"),
        ("shadow", json!({"revision": first, "reason": "x"}), "state"),
        ("canary", json!({"revision": second, "reason": "x"}), "state"),
        ("canary", json!({"revision": second, "percent": 101, "reason": "x"}), "field"),
        ("canary", json!({"revision": second, "percents": 1, "reason": "x"}), "body"),
        ("activate", json!({"revision": "0000000000", "reason": "x"}), "unknown_revision"),
        ("activate", json!({"revision": "abc", "reason": "x"}), "field"),
        ("promote", json!({}), "field"),
        ("unquarantine", json!({"revision": second, "reason": "x"}), "state"),
    ] {
        let (_, answer) = post(&host, what, body.clone()).await;
        assert_eq!(answer["error"]["code"], json!(code), "{what} {body}: {answer}");
    }
    let mut broken = publish;
    broken["bundle"]["chain_toml"] = "version = 1\n".into();
    let (status, answer) = post(&host, "revisions", broken).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("refused")), "{answer}");
    assert_eq!(answer["error"]["reason"], json!("chain-toml"), "{answer}");
    // It stands where the refusals of folders stand.
    let newest = overview(&host).await["transitions"][0].clone();
    assert_eq!((&newest["state"], &newest["actor"]), (&json!("rejected"), &json!("ada")), "{newest}");
    assert!(newest["reason"].as_str().unwrap().starts_with("chain-toml: "), "{newest}");
    let counted = "frontdesk_policy_rejections_total{chain=\"default\",reason=\"chain-toml\"} 1";
    assert!(host.app.metrics.render().contains(counted));
}
