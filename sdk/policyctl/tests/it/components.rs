//! Single components: looked at, called, refused.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::support::{command, component, finish, guest, policyctl, repository};

#[test]
fn inspect_tells_what_a_component_is() {
    let report = policyctl(&["inspect", &component("classify-rules"), "--json"]).json();
    assert_eq!(report["description"]["name"], "classify-rules");
    assert_eq!(report["hooks"], json!(["classify"]));
    assert_eq!(report["settings_schema"]["required"], json!(["labels"]));
    assert!(report["snapshot"].as_str().unwrap().contains("depends on its settings"));
    assert!(report["imports"].as_array().unwrap().iter().any(|import| import["kind"] == "host"));
    assert_eq!(report["resources"]["memories"], 1);
    assert!(report["resources"]["memory_bytes_initial"].as_u64() >= Some(64 << 10), "{}", report["resources"]);
    let misbehaving = policyctl(&["inspect", &guest("guest-misbehaving"), "--json"]).json();
    assert!(misbehaving["imports"].as_array().unwrap().iter().any(|import| import["kind"] == "grant"));
    assert_eq!(misbehaving["snapshot"], "yes");
    let text = policyctl(&["inspect", &component("filter-safety")]).ended(0);
    for part in [
        "filter-safety",
        "sha256:",
        "markdown (\"off\" | \"note\" | \"rewrite\", default \"rewrite\")",
        "frontdesk:policy/log@0.1.0",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn what_is_no_component_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let table = [
        (file("text.wasm", b"hello"), 2, "does not begin with the magic number"),
        (file("module.wasm", b"\0asm\x01\0\0\0"), 3, "a core WebAssembly module"),
        (file("cut.wasm", b"\0asm\x0d\0\x01\0\xff\xff"), 3, "does not compile"),
        (folder.path().join("none.wasm").display().to_string(), 2, "is not there"),
    ];
    for (path, code, expected) in table {
        for action in ["inspect", "check"] {
            let said = policyctl(&[action, &path]).ended(code);
            assert!(said.contains(expected), "{said}");
        }
    }
    let document = policyctl(&["check", &guest("guest-misbehaving"), "--settings", "none.toml", "--json"]).json();
    assert_eq!(document["error"]["exit_code"], 2);
}

#[test]
fn a_schema_that_refuses_what_configure_accepts_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml").display().to_string();
    let check = |fields: usize| {
        let lines = ["append = 'x'\n", "block = 'y'\n", "verdict = 'send'\n", "panic_at = 'z'\n"];
        let settings: String = lines.into_iter().take(fields).collect();
        std::fs::write(&path, settings).unwrap();
        policyctl(&["check", &guest("guest-obedient"), "--settings", &path])
    };
    assert!(!check(3).ended(0).contains("SCHEMA"));
    let said = check(4).ended(1);
    assert!(said.contains("SCHEMA    refuses settings that configure accepted"), "{said}");
}

#[test]
fn a_run_shows_the_verdict_and_its_price() {
    let settings = repository().join("policies/default/classify-rules.toml").display().to_string();
    let classify = component("classify-rules");
    let arguments = ["run", &classify, "--settings", &settings, "--input", "-", "--json"];
    let mut command = command(&repository(), &arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = br#"{"text": "Kann ich bitte mit einem echten Menschen sprechen?", "language": "de"}"#;
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"]["route"], "human", "{report:#}");
    let call = &report["calls"][0];
    assert!(call["fuel_used"].as_u64() > Some(0) && call["memory_bytes"].as_u64() > Some(0), "{call}");
    // The same call again uses the same fuel.
    let again = policyctl(&["run", &classify, "--settings", &settings, "--text", "Hello", "--json"]).json();
    let once_more = policyctl(&["run", &classify, "--settings", &settings, "--text", "Hello", "--json"]).json();
    assert_eq!(again["calls"][0]["fuel_used"], once_more["calls"][0]["fuel_used"]);
    assert_eq!(again["verdict"], once_more["verdict"]);
}

#[test]
fn a_fault_is_told_with_all_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let misbehaving = guest("guest-misbehaving");
    let table = [
        ("loop", "out-of-fuel", "the limit is 50000000"),
        ("trap", "trap", "it exploded while classifying"),
        ("eat-memory", "memory", "33554432"),
        ("big-confidence", "bad-output", "confidence"),
    ];
    for (action, kind, expected) in table {
        let settings = folder.path().join(format!("{action}.json"));
        std::fs::write(&settings, json!({ "do": format!("later:{action}") }).to_string()).unwrap();
        let settings = settings.display().to_string();
        let ran = policyctl(&["run", &misbehaving, "--settings", &settings, "--json"]);
        ran.ended(3);
        let fault = &ran.json()["fault"];
        assert_eq!(fault["fault"], kind, "{fault:#}");
        assert_eq!((&fault["hook"], &fault["function"]), (&json!("classify"), &json!("classify")));
        let text = policyctl(&["run", &misbehaving, "--settings", &settings]).ended(3);
        assert!(text.contains("FAULT: misbehaving 0.1.0") && text.contains(expected), "{text}");
    }
    let text = policyctl(&["run", &misbehaving, "--settings", &folder.path().join("trap.json").display().to_string()]);
    assert!(text.out.contains("explode"), "the function is named: {}", text.out);
}

#[test]
fn a_component_that_fails_on_every_turn_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("s.json");
    for (action, code, expected) in [
        ("loop", 3, "fails on a sample turn"),
        ("trap-in-configure", 3, "while it took its settings"),
        ("refuse", 2, "/do: `refuse` was found"),
    ] {
        std::fs::write(&settings, json!({ "do": action }).to_string()).unwrap();
        let said = policyctl(&["check", &guest("guest-misbehaving"), "--settings", &settings.display().to_string()])
            .ended(code);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_fault_can_be_expected_of_a_case() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, cases) = (folder.path().join("s.toml"), folder.path().join("classify.json"));
    std::fs::write(&settings, "do = \"later:trap\"").unwrap();
    let document = json!({ "case": [
        { "name": "it traps", "expect": { "fault": "trap" } },
        { "name": "it does not loop", "expect": { "fault": "out-of-fuel" } },
        { "name": "it does not answer", "route": "answer" },
    ] });
    std::fs::write(&cases, document.to_string()).unwrap();
    let (settings, cases) = (settings.display().to_string(), cases.display().to_string());
    let ran = policyctl(&["test", &guest("guest-misbehaving"), &cases, "--settings", &settings, "--json"]);
    ran.ended(1);
    let passed: Vec<bool> =
        ran.json()["cases"].as_array().unwrap().iter().filter_map(|case| case["passed"].as_bool()).collect();
    assert_eq!(passed, [true, false, false]);

    let yaml = folder.path().join("classify.yaml");
    std::fs::write(&yaml, "case:\n  - name: it traps\n    expect: { fault: trap }\n").unwrap();
    let yaml = yaml.display().to_string();
    policyctl(&["test", &guest("guest-misbehaving"), &yaml, "--settings", &settings]).ended(0);
    std::fs::write(&yaml, "case:\n  - name: it traps\n    expect: { falt: trap }\n").unwrap();
    let said = policyctl(&["test", &guest("guest-misbehaving"), &yaml, "--settings", &settings]).ended(2);
    assert!(said.contains("case[0].expect") && said.contains("falt") && said.contains("line 3"), "{said}");
}

#[test]
fn a_reader_that_goes_away_changes_nothing() {
    let mut command = command(&repository(), &["inspect", &component("classify-rules")]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    finish(&mut command);
}
