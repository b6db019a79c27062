//! Bad candidates in a chain's folder: each is refused, what served serves on, and the reason stands under one name in the
//! log, the metrics, the status and `policyctl status`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chains::{Folder, faulty, marked};
use crate::process::{Installation, Process};

/// What is saved as the component of the classifier.
const COMPONENT: &str = "components/candidate.wasm";

/// A chain whose classifier is the candidate, with these lines in its table.
fn candidate(lines: &str) -> String {
    let good = marked("good");
    good.replacen("../components/guest-obedient.wasm", "../components/candidate.wasm", 1).replacen(
        "[policy.settings]\nmark = \"good\"\n",
        lines,
        1,
    )
}

/// A component that imports an instance by this name and does nothing.
fn importing(import: &str) -> Vec<u8> {
    let name = [&[0, u8::try_from(import.len()).unwrap()], import.as_bytes(), &[5, 0]].concat();
    let section = |id: u8, item: &[u8]| [&[id, u8::try_from(item.len() + 1).unwrap(), 1], item].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(7, &[0x42, 0]), section(10, &name)].concat()
}

async fn chain(process: &Process) -> Value {
    process.ask_admin("/admin/policies").await["chains"][0].clone()
}

async fn is_named_everywhere(process: &Process, code: &str, says: &str, serving: &Value) {
    let began = Instant::now();
    let rejected = loop {
        let now = chain(process).await;
        assert_eq!(now["revision"], *serving, "{code}: something else serves");
        if now["rejected"]["code"] == code && now["rejected"]["reason"].as_str().unwrap().contains(says) {
            break now["rejected"].clone();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{code}, {says:?}: {now}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    };
    let logged = process.logged("a policy candidate was rejected; the old revision serves on");
    let is_it = |entry: &&Value| entry["code"] == code && entry["reason"] == rejected["reason"];
    assert_eq!(logged.iter().filter(is_it).count(), 1, "{code}: said once: {logged:?}");
    let counted = format!("frontdesk_policy_rejections_total{{chain=\"default\",reason=\"{code}\"}}");
    assert!(process.metrics().await.contains(&counted), "{counted}");
    let shown = process.policyctl(&["status"]).await;
    assert!(shown.contains(&format!("({code}):")), "{code}: {shown}");
    let first_line = rejected["reason"].as_str().unwrap().lines().next().unwrap().to_owned();
    assert!(shown.contains(&first_line), "{first_line}: {shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_candidate_changes_nothing_and_its_reason_has_one_name_everywhere() {
    let folder = Folder::new(&marked("good"));
    let guest = |name: &str| std::fs::read(folder.path().join("components").join(name)).unwrap();
    let (obedient, misbehaving) = (guest("guest-obedient.wasm"), guest("guest-misbehaving.wasm"));
    let installation = Installation::with(|settings| {
        settings.policies.dir = folder.path().to_owned();
        settings.policies.poll_ms = 500;
    })
    .await;
    let process = installation.start().await;
    let serving = chain(&process).await["revision"].clone();
    assert!(serving.is_string());

    let granted = |action: &str| format!("[policy.settings]\ndo = \"{action}\"\n[policy.grants]\nknowledge = true\n");
    let small_memory = granted("eat-memory") + "[policy.limits]\nmemory_mib = 8\n";
    let cases: Vec<(Vec<u8>, String, &str, &str)> = vec![
        (b"#!/bin/sh\n".to_vec(), String::new(), "not-wasm", "does not begin with the magic number"),
        (b"\0asm\x01\0\0\0".to_vec(), String::new(), "core-module", "wasm-tools component new"),
        (obedient[..obedient.len() / 3].to_vec(), String::new(), "does-not-compile", "does not compile"),
        (
            importing("wasi:http/outgoing-handler@0.2.3"),
            String::new(),
            "import-not-allowed",
            "wasi:http/outgoing-handler",
        ),
        (importing("frontdesk:policy/log@0.2.0"), String::new(), "other-contract", "rebuild it with the contract"),
        (b"\0asm\x0d\0\x01\0".to_vec(), String::new(), "not-a-policy", "It exports: nothing"),
        (misbehaving.clone(), String::new(), "grant-missing", "knowledge = true"),
        (obedient.clone(), "[policy.settings]\nroute = 5\n".to_owned(), "settings-refused", "expected a string"),
        (
            misbehaving.clone(),
            granted("trap-in-configure"),
            "configure-trap",
            "misbehaving 0.1.0 (classify), configure",
        ),
        (misbehaving.clone(), granted("describe-otherwise"), "bad-description", "it must always be the same"),
        (
            misbehaving.clone(),
            granted("loop"),
            "sample-turn-out-of-fuel",
            "50000000 units were used, the limit is 50000000",
        ),
        (misbehaving.clone(), small_memory, "sample-turn-memory", "the limit is 8388608"),
        (misbehaving.clone(), granted("no-such-route"), "sample-turn-bad-output", "classify: bad output: result"),
        (misbehaving, granted("err"), "sample-turn-trap", "I would rather not"),
        (obedient, "[policy.limits]\nfuel = 20\n".to_owned(), "chain-toml", "limits.fuel is 20; it must be between"),
    ];
    for (wasm, lines, code, says) in cases {
        std::fs::write(folder.path().join(COMPONENT), wasm).unwrap();
        folder.save(&candidate(&lines));
        is_named_everywhere(&process, code, says, &serving).await;
    }

    // What is no file at all: a folder of that name, and a pipe, which a reader would wait for.
    std::fs::remove_file(folder.path().join(COMPONENT)).unwrap();
    make_pipe(&folder.path().join(COMPONENT));
    folder.save(&candidate("# a pipe\n"));
    is_named_everywhere(&process, "not-a-file", "no regular file", &serving).await;

    // Whatever came before, a good one is taken, and nothing is left of the refusals.
    folder.save(&faulty("well", "ok", "", ""));
    let began = Instant::now();
    while chain(&process).await["revision"] == serving {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", chain(&process).await);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(chain(&process).await["rejected"], Value::Null);
    process.kill_9().await;
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
