//! What asks a host, against a host of one answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Chains, Ran, command, finish, repository};

const TOKEN: &str = "0123456789abcdef";

/// Answers `requests` requests by their path, and hands back what was asked: paths, and `POST <path> <body>`.
fn host(
    requests: usize,
    answer: impl Fn(&str) -> (u16, Value) + Send + 'static,
) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            assert!(lines.iter().any(|line| line == &format!("authorization: Bearer {TOKEN}")), "{lines:?}");
            let mut path = lines[0].split(' ').nth(1).unwrap().to_owned();
            let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let mut given = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut given).unwrap();
            let (status, body) = answer(&path);
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            let is_post = lines[0].starts_with("POST");
            if is_post {
                assert!(lines.iter().any(|line| line == "x-frontdesk-agent: ada"), "{lines:?}");
                path = format!("POST {path} {}", String::from_utf8(given).unwrap());
            }
            asked.push(path);
        }
        asked
    });
    (url, asked)
}

fn ask(arguments: &[&str], url: &str) -> Ran {
    finish(command(&repository(), arguments).args(["--url", url]).env("FRONTDESK_ADMIN_TOKEN", TOKEN))
}

fn error(status: u16, code: &str) -> (u16, Value) {
    (status, json!({ "error": { "code": code, "message": format!("it said {code}") } }))
}

#[test]
fn a_host_that_is_not_there_is_another_matter_than_a_wrong_argument() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = ask(&["status"], &format!("http://{free}")).ended(4);
    assert!(said.contains("nothing answers"), "{said}");
    ask(&["status"], "127.0.0.1:1").ended(2);
    let no_token = finish(command(&repository(), &["status"]).args(["--url", "http://127.0.0.1:1"])).ended(2);
    assert!(no_token.contains("FRONTDESK_ADMIN_TOKEN_FILE"), "{no_token}");
    for (status, code, exit) in [(401, "unauthorized", 2), (503, "database", 4), (400, "field", 2)] {
        let (url, asked) = host(1, move |_| error(status, code));
        let said = ask(&["status"], &url).ended(exit);
        assert!(said.contains(&format!("it said {code}")) && !said.contains(TOKEN), "{said}");
        asked.join().unwrap();
    }
}

#[test]
fn the_token_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (url, asked) = host(1, |_| (200, json!({ "replica": "r1", "chains": [], "transitions": [] })));
    let mut command = command(&repository(), &["status", "--url", &url]);
    finish(command.env("FRONTDESK_ADMIN_TOKEN_FILE", file)).ended(0);
    assert_eq!(asked.join().unwrap(), ["/admin/policies?limit=10"]);
}

#[test]
fn status_shows_what_was_refused() {
    let chain = json!({
        "chain": "default", "revision": "ab".repeat(32), "since": "2026-11-22T10:00:00Z", "origin": "folder",
        "policies": [{ "hook": "filter", "name": "filter-safety", "version": "0.1.0", "component_sha256": "cd".repeat(32),
                       "snapshot": "snapshotted", "unused_grants": ["knowledge"] }],
        "rejected": { "at": "2026-11-22T11:00:00Z", "code": "settings-refused", "reason": "policy 3: the component refuses its settings:\n  /markdown: no" },
    });
    let change = json!({ "at": "2026-11-22T11:00:00Z", "chain": "default", "revision": null, "state": "rejected",
                         "actor": "folder", "reason": "policy 3" });
    let (url, asked) = host(1, move |_| (200, json!({ "replica": "r1", "chains": [chain], "transitions": [change] })));
    let said = ask(&["status"], &url).ended(1);
    for part in [
        "serves revision abab",
        "T11:00:00Z (settings-refused):",
        "/markdown: no",
        "does not use: knowledge",
        "rejected",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    asked.join().unwrap();
}

fn turn() -> Value {
    json!({
        "turn": { "turn_id": "0199c3a0-0000-7000-8000-0123456789ab", "outcome": "sent", "reason": "a question",
                  "revision": "ab".repeat(32), "reply": "Yes, we do.", "created_at": "2026-11-22T10:00:00Z",
                  "citations": [{ "sentence": "Yes, we do.", "passages": ["p1"] }], "ticket": null },
        "page_id": "42", "conversation_id": "c", "duration_us": 1500, "record_version": 1,
        "outbox": [{ "state": "sent", "message_id": "m_out", "error": null }],
        "record": {
            "turn": { "messages": [{ "text": "Do you ship?", "attachments": [] }], "detected_language": ["en", 1.0] },
            "passages": [{ "id": "p1", "title": "Shipping", "source": "faq.csv", "score": 0.87, "text": "We ship." }],
            "classify": { "result": { "Ok": { "route": "answer", "confidence": 0.9, "labels": ["question"], "reason": "r" } } },
            "filter": { "steps": [{ "called": { "result": { "Ok": { "outcome": { "kind": "pass" }, "findings": [] } } } }] },
            "escalate": { "result": { "Ok": { "kind": "send" } } },
            "manifest": { "policies": [{ "hook": "classify", "name": "classify-rules", "version": "0.1.0",
                                         "component_sha256": "cd", "settings_sha256": "ef" }] },
        },
    })
}

#[test]
fn a_message_is_looked_for_on_every_page() {
    let answer = |path: &str| match path {
        "/admin/pages" => (200, json!({ "pages": [{ "page_id": "41" }, { "page_id": "42" }] })),
        "/admin/turns/by-mid/42/m_a%2Fb=" => (200, turn()),
        _ => error(404, "not_found"),
    };
    let (url, asked) = host(3, answer);
    let said = ask(&["explain", "m_a/b="], &url).ended(0);
    for part in [
        "Do you ship?",
        "[0.87] Shipping (faq.csv)",
        "answer (0.90) [question]",
        "Yes, we do.",
        "rests on Shipping",
        "message m_out",
        "classify-rules 0.1.0",
        "sha256:cd",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert_eq!(asked.join().unwrap()[1], "/admin/turns/by-mid/41/m_a%2Fb=");

    let (url, asked) = host(2, answer);
    let said = ask(&["explain", "m_none", "--page", "42"], &url);
    assert_eq!(said.code, 2, "{said:?}");
    drop(ask(&["explain", "m_none", "--page", "42"], &url));
    assert_eq!(asked.join().unwrap()[0], "/admin/turns/by-mid/42/m_none");
}

#[test]
fn export_follows_the_pages_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("r.jsonl");
    let output = output.display().to_string();
    let answer = |path: &str| {
        let row = |n: u32| json!({ "turn_id": n, "record": { "n": n } });
        if path.contains("after=next%2C1") {
            (200, json!({ "turns": [row(3)], "next_after": null }))
        } else {
            (200, json!({ "turns": [row(1), row(2)], "next_after": "next,1" }))
        }
    };
    let (url, asked) = host(2, answer);
    ask(&["export", "--output", &output, "--after-ms", "7", "--chain", "default"], &url).ended(0);
    let asked = asked.join().unwrap();
    assert!(asked[0].contains("after_ms=7") && asked[0].contains("chain=default"), "{asked:?}");
    let mut text = String::new();
    std::fs::File::open(&output).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 3);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (url, _asked) = host(1, answer);
    ask(&["export", "--output", &output], &url).ended(2);
}

fn body_of(asked: &str, path: &str) -> Value {
    serde_json::from_str(asked.strip_prefix(&format!("POST {path} ")).unwrap_or_else(|| panic!("{asked}"))).unwrap()
}

fn moved(state: &str) -> Value {
    json!({
        "chain": "default", "revision": "ab".repeat(32), "state": state,
        "rollout": { "active": "cd".repeat(32), "canary": "ab".repeat(32), "canary_share_bp": 10, "canary_step": 0,
                     "canary_page_ids": ["42"], "canary_steps": [{ "share_bp": 10, "minutes": 30 }] },
        "gate": { "passed": true, "failures": [], "warnings": ["26 % more fuel"],
                  "golden": { "cases": 200, "failed": 0 }, "replays": { "records": 100, "routes_changed": 1 } },
    })
}

#[test]
fn a_revision_is_moved_in_somebodys_name_and_for_a_reason() {
    let table: [(&[&str], &str, Value); 6] = [
        (&["promote", "default"], "promote", json!({})),
        (
            &["promote", "default", "abababababab", "--force"],
            "promote",
            json!({"revision": "abababababab", "force": true}),
        ),
        (
            &["canary", "default", "--step", "0.1:30", "--step", "10:60", "--page", "42"],
            "canary",
            json!({"page_ids": ["42"], "steps": [{"percent": 0.1, "minutes": 30}, {"percent": 10.0, "minutes": 60}]}),
        ),
        (&["shadow", "default", "abababababab"], "shadow", json!({"revision": "abababababab"})),
        (&["rollback", "default", "--slot", "canary"], "rollback", json!({"slot": "canary"})),
        (&["unquarantine", "default", "abababababab"], "unquarantine", json!({"revision": "abababababab"})),
    ];
    for (arguments, what, mut expected) in table {
        let (url, asked) = host(1, |_| (200, moved("canary")));
        let arguments = [arguments, &["--reason", "try it", "--as", "ada"]].concat();
        let said = ask(&arguments, &url).ended(0);
        for part in ["revision abab", "is canary", "0.1 % of customers, all of 1 Page, step 1 of 1", "26 % more fuel"] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        expected["reason"] = "try it".into();
        let asked = asked.join().unwrap();
        assert_eq!(body_of(&asked[0], &format!("/admin/policies/default/{what}")), expected, "{arguments:?}");
    }
}

#[test]
fn what_the_host_refuses_has_its_exit_code() {
    for (status, code, exit) in [
        (409, "gate", 3),
        (422, "refused", 3),
        (409, "quarantined", 3),
        (409, "state", 2),
        (404, "unknown_revision", 2),
    ] {
        let (url, asked) = host(1, move |_| error(status, code));
        let said = ask(&["promote", "default", "--reason", "x", "--as", "ada"], &url).ended(exit);
        assert!(said.contains(&format!("it said {code}")), "{said}");
        asked.join().unwrap();
    }
    ask(&["canary", "default", "--reason", "x", "--as", "ada"], "http://127.0.0.1:1").ended(2);
}

#[test]
fn a_chain_is_published_as_it_lies_in_its_folder() {
    let chains = Chains::new();
    let folder = chains.dir().display().to_string();
    // The host has one of the four components.
    let wasm = std::fs::read(chains.dir().join("../components/classify-rules.wasm")).unwrap();
    let known = frontdesk_policy_engine::sha256_hex(&wasm);
    let has = format!("/admin/components/{known}?bytes=none");
    let (url, asked) = host(5, move |path| match path {
        path if path == has => (200, json!({})),
        path if path.starts_with("/admin/components/") => error(404, "not_found"),
        _ => (422, json!({ "error": { "code": "refused", "message": "no" } })),
    });
    ask(&["publish", &folder, "--shadow", "--reason", "new words", "--as", "ada"], &url).ended(3);
    let asked = asked.join().unwrap();
    let body = body_of(asked.last().unwrap(), "/admin/policies/default/revisions");
    assert_eq!((&body["to"], &body["reason"]), (&json!("shadow"), &json!("new words")));
    let bundle = &body["bundle"];
    assert!(bundle["settings"]["tone-brand.toml"].as_str().unwrap().contains("language"));
    assert_eq!(bundle["components"]["../components/classify-rules.wasm"], json!(format!("sha256:{known}")));
    assert!(bundle["components"]["../components/tone-brand.wasm"].as_str().unwrap().len() > 10_000);
    assert!(bundle["cases"]["cases/classify.toml"].as_str().unwrap().contains("[[case]]"));
    // A mistake is found here, and the host is not asked.
    std::fs::write(chains.dir().join("tone-brand.toml"), "tone = 5\n").unwrap();
    let said = ask(&["publish", &folder, "--reason", "x", "--as", "ada"], "http://127.0.0.1:1").ended(2);
    assert!(said.contains("tone-brand.toml"), "{said}");
    ask(&["publish", &folder, "--canary", "--reason", "x", "--as", "ada"], "http://127.0.0.1:1").ended(2);
}

#[test]
fn a_shadow_report_shows_matrices_and_faults_and_ends_by_what_it_found() {
    let report = |changed: u32, fault: Option<&str>| {
        json!({
            "replica": "r1", "chain": "default", "active": "a".repeat(64), "shadow": "b".repeat(64), "is_present": true,
            "waiting": 0,
            "totals": {
                "turns": 1_200, "first_at": "2026-03-02T10:00:00Z", "last_at": "2026-03-02T11:00:00Z", "changed": changed,
                "draft_would_differ": 4, "no_draft_recorded": 2, "texts_changed": 3, "distance_median": 0.25,
                "distance_max": 0.5, "fuel_ratio_median": 1.02, "fuel_ratio_p99": 1.4,
            },
            "routes": [{ "from": "answer", "to": "answer", "turns": 1_190 }, { "from": "answer", "to": "human", "turns": 10 }],
            "outcomes": [{ "from": "sent", "to": "ticket", "turns": 10 }],
            "reasons": [{ "from": "", "to": "low-confidence", "turns": 10 }],
            "faults": fault.iter().map(|fault| json!({ "from": "none", "to": fault, "turns": 1 })).collect::<Vec<_>>(),
            "samples": [{
                "turn_id": "0198c0de-0000-7000-8000-000000000001", "level": "exact", "route_before": "answer",
                "route_after": "human", "outcome_before": "sent", "outcome_after": "ticket", "reason_before": "",
                "reason_after": "low-confidence", "fault_after": fault, "text_distance": null,
            }],
            "windows": [],
        })
    };
    for (changed, fault, exit) in [(0, None, 0), (10, None, 1), (10, Some("filter/trap"), 3)] {
        let answer = report(changed, fault);
        let (url, asked) = host(1, move |_| (200, answer.clone()));
        let said = ask(&["shadow-report", "default", "--samples", "5"], &url).ended(exit);
        for part in ["1,200 turns", "answer", "1,190", "no ticket -> low-confidence", "1.02 times", "0198c0de"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert_eq!(said.contains("no fault -> filter/trap"), fault.is_some(), "{said}");
        assert_eq!(asked.join().unwrap(), ["/admin/policies/default/shadow?limit=5"]);
    }
    let (url, asked) = host(1, |_| error(404, "not_found"));
    assert!(ask(&["shadow-report"], &url).ended(2).contains("no shadow"));
    asked.join().unwrap();
}

#[test]
fn a_decision_is_drafted_again_by_the_host_and_judged_here() {
    let file = repository().join("sdk/policyctl/tests/fixtures/records-v1.jsonl");
    let text = std::fs::read_to_string(file).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let chains = Chains::new();
    let again = |row: &Value, requests: usize, extra: &[&str]| {
        let id = row["turn_id"].as_str().unwrap().to_owned();
        let (row, place) = (row.clone(), format!("/admin/turns/{id}/redraft"));
        let (url, asked) = host(requests, move |path| {
            if path != place {
                return (200, row.clone());
            }
            let draft = json!({
                "turn_id": row["turn_id"], "model": "held", "answer": "A parcel to Austria costs 4.90 euros.",
                "citations": row["record"]["citations"], "no_draft_reason": null,
                "evidence": { "sentences": 1, "supported": 1, "best_score": 0.9, "confidence": 0.95 },
            });
            (200, draft)
        });
        let chain = chains.text();
        let arguments = [&["replay", id.as_str(), "--with", &chain, "--redraft", "--as", "ada"][..], extra].concat();
        let ran = ask(&arguments, &url);
        assert!(ran.code < 2, "the draft changes nothing of the verdict: {ran:?}");
        (ran, asked.join().unwrap())
    };
    let (ran, asked) = again(&rows[0], 2, &["--json"]);
    let redraft = ran.json()["redraft"].clone();
    assert_eq!((&redraft["exact"], &redraft["model"]), (&json!(false), &json!("held")));
    assert_eq!(redraft["conclusion"]["outcome"], "sent", "{redraft}");
    assert!(redraft["conclusion"]["text"].as_str().unwrap().contains("costs 4.90 euros."), "{redraft}");
    assert!(asked[1].starts_with("POST /admin/turns/") && asked[1].contains("\"instructions\""), "{asked:?}");
    let (ran, _) = again(&rows[0], 2, &[]);
    assert!(ran.out.contains("Drafted again by held. This is NOT exact"), "{ran:?}");

    // A turn that goes to a person needs no draft, and the host is not asked for one.
    let (ran, _) = again(&rows[1], 1, &[]);
    assert!(ran.out.contains("Not drafted again: the candidate drafts nothing: its route is human"), "{ran:?}");
}
