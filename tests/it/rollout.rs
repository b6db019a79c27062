//! New revisions on real turns: a canary and its share, a shadow and its report, and what takes a bad one out by itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chains::{Folder, faulty, marked, marked_with};
use crate::host::{ANSWER, Host, QUESTION};
use crate::process::Installation;

/// The word at which a guest shows what it is.
const WORD: &str = "parcel";
const BAD_QUESTION: &str = "Do you ship a parcel to Austria?";

async fn host_on(folder: &Folder) -> Host {
    let dir = folder.path().to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 500;
        // Other tests may keep the machine busy; here nothing is to be shed.
        plan.settings.policies.shadow.load_percent_max = 100;
    })
    .await;
    host.teach_answer().await;
    host
}

async fn chain(host: &Host) -> Value {
    let (status, answer) = host.admin("GET", "/admin/policies", None).await;
    assert_eq!(status, 200, "{answer}");
    answer["chains"][0].clone()
}

async fn until_active_changes(host: &Host, before: &Value) -> Value {
    host.until("another revision is active", async || chain(host).await["revision"] != *before).await;
    chain(host).await["revision"].clone()
}

/// Each customer's only inquiry has one decision; those that a fault hit have a ticket, the others the answer.
async fn nothing_is_lost(host: &Host, psids: &[String]) -> (usize, usize) {
    let (mut answered, mut for_people) = (0, 0);
    for psid in psids {
        let (got, tickets, turns) = (host.got(psid), host.tickets(psid).await, host.turns(psid).await);
        assert_eq!(turns.len(), 1, "{psid}");
        if tickets.is_empty() {
            assert!(got.len() == 1 && got[0].contains(ANSWER), "{psid} got {got:?}");
            answered += 1;
        } else {
            assert_eq!((tickets.len(), tickets[0].as_str()), (1, "policy-fault"), "{psid}");
            assert_eq!(got, [""; 0], "{psid}");
            for_people += 1;
        }
    }
    (answered, for_people)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_faults_on_real_turns_is_taken_back_by_itself() {
    let folder = Folder::new(&marked("good"));
    let host = host_on(&folder).await;
    let good = chain(&host).await["revision"].clone();
    let mut psids = Vec::new();
    for n in 0..5 {
        psids.push(format!("310{n}"));
        host.ask(&psids[n], QUESTION).await;
    }
    host.drained().await;

    // It passes staging and the gate: what was recorded so far does not show what it is.
    folder.save(&faulty("bad", "trap", WORD, ""));
    let bad = until_active_changes(&host, &good).await;
    let began = Instant::now();
    while chain(&host).await["revision"] != good {
        assert!(began.elapsed() < Duration::from_secs(60), "it was not taken back: {}", chain(&host).await);
        let psid = format!("32{:03}", psids.len());
        host.ask(&psid, BAD_QUESTION).await;
        psids.push(psid);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("taken back {:?} after it became active, {} inquiries", began.elapsed(), psids.len());
    for n in 0..5 {
        let psid = format!("330{n}");
        host.ask(&psid, BAD_QUESTION).await;
        psids.push(psid);
    }
    host.drained().await;
    let (answered, for_people) = nothing_is_lost(&host, &psids).await;
    assert!(for_people >= 3 && answered >= 10, "{answered} answered, {for_people} for people");

    // The reason stands where people look, and the folder, which still holds it, brings it not back.
    let (_, answer) = host.admin("GET", "/admin/policies", None).await;
    let quarantined = answer["transitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|change| change["state"] == "quarantined")
        .unwrap_or_else(|| panic!("no quarantine: {answer}"));
    assert_eq!(quarantined["revision"], bad);
    let reason = quarantined["reason"].as_str().unwrap();
    assert!(reason.contains("tripwire") && reason.contains("fault"), "{reason}");
    let metrics = host.app.metrics.render();
    assert!(metrics.contains("frontdesk_policy_tripwires_total{chain=\"default\",kind=\"faults\"}"), "{metrics}");
    host.app.policies.wake();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(chain(&host).await["revision"], good);
    folder.save(&marked("better"));
    until_active_changes(&host, &good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trip_is_logged_with_its_reason() {
    let folder = Folder::new(&marked("good"));
    let installation = Installation::with(|settings| settings.policies.dir = folder.path().to_owned()).await;
    let process = installation.start().await;
    process.teach_answer().await;
    let good = process.ask_admin("/admin/policies").await["chains"][0]["revision"].clone();
    folder.save(&faulty("bad", "err", WORD, ""));
    let serving = async || process.ask_admin("/admin/policies").await["chains"][0]["revision"].clone();
    let began = Instant::now();
    while serving().await == good {
        assert!(began.elapsed() < Duration::from_secs(60), "it did not become active");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 0..3 {
        assert_eq!(process.meta.text(&format!("340{n}"), BAD_QUESTION).await.unwrap().1, 200);
    }
    while serving().await != good {
        assert!(began.elapsed() < Duration::from_secs(60), "it was not taken back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    installation.drained().await;
    let logged = process.logged("a policy revision was taken out of service");
    assert_eq!(logged.len(), 1, "{logged:?}");
    let reason = logged[0]["reason"].as_str().unwrap();
    // How often, and what: component, hook, function, kind.
    for part in ["3 of 3 turns had a fault", "the latest: ", "(classify)", "classify: trap"] {
        assert!(reason.contains(part), "{part:?} is not in {reason}");
    }
    // What the person at the command line sees.
    let shown = process.policyctl(&["status"]).await;
    assert!(shown.contains("quarantined") && shown.contains("3 of 3 turns had a fault"), "{shown}");
    assert!(shown.contains("classify: trap"), "{shown}");
    let published = process.logged("the folder was published");
    for stage in ["read_ms", "settle_ms", "stage_ms", "gate_ms", "store_ms", "activate_ms", "total_ms"] {
        assert!(published.iter().all(|entry| entry[stage].is_u64()), "{stage}: {published:?}");
    }
    assert!(process.metrics().await.contains("frontdesk_policy_trips_total"));
    process.kill_9().await;
}

/// A chain whose every answer goes to a person.
fn handing_over(mark: &str, tables: &str) -> String {
    let chain = marked_with(mark, tables);
    let verdict = format!("[policy.settings]\nverdict = \"hand-over\"\nmark = \"{mark}\"\n");
    let (before, after) = chain.split_once("hook = \"escalate\"").unwrap();
    let after = after.replacen(&format!("[policy.settings]\nmark = \"{mark}\"\n"), &verdict, 1);
    format!("{before}hook = \"escalate\"{after}")
}

/// Probation does not end with the process: neither for faults, nor for what is compared with the revision before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_does_not_end_probation() {
    let few = "[gate]\nreplay_last = 0\n[tripwire]\nturns_min = 3\n";
    for (name, bad_chain, question, kind) in [
        ("faults", faulty("bad", "trap", WORD, few), BAD_QUESTION, "had a fault"),
        ("escalations", handing_over("bad", few), QUESTION, "of its turns go to people"),
    ] {
        let folder = Folder::new(&marked_with("good", few));
        let host = host_on(&folder).await;
        let good = chain(&host).await["revision"].clone();
        for n in 0..4 {
            host.ask(&format!("35{n}"), QUESTION).await;
        }
        host.drained().await;
        folder.save(&bad_chain);
        let bad = until_active_changes(&host, &good).await;
        host.until("the numbers of the one before are stored", async || {
            host.count(
                "select count(*) from policy_turn_windows where kind = 'before' and (counts ->> 'turns')::int >= 4",
            )
            .await
                == 1
        })
        .await;
        let host = host.restart().await;
        assert_eq!(chain(&host).await["revision"], bad, "{name}");
        let began = Instant::now();
        for n in 0.. {
            if chain(&host).await["revision"] == good {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{name}: not taken back: {}", chain(&host).await);
            host.ask(&format!("36{n:03}"), question).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // It is out of memory first, and in the database a moment later.
        let quarantined = async || {
            let (_, answer) = host.admin("GET", "/admin/policies", None).await;
            answer["transitions"].as_array().unwrap().iter().find(|change| change["state"] == "quarantined").cloned()
        };
        host.until("the quarantine is stored", async || quarantined().await.is_some()).await;
        let quarantined = quarantined().await.unwrap();
        assert!(quarantined["reason"].as_str().unwrap().contains(kind), "{quarantined}");
    }
}

/// A revision that does harm where nothing stands by: it is said once, in the log, the metrics and the status, and then it is
/// quiet until something moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_back_is_said_once() {
    let few = "[gate]\nreplay_last = 0\n";
    let folder = Folder::new(&marked_with("good", few));
    let installation = Installation::with(|settings| settings.policies.dir = folder.path().to_owned()).await;
    let process = installation.start().await;
    process.teach_answer().await;
    let of_chain = async || process.ask_admin("/admin/policies").await["chains"][0].clone();
    let good = of_chain().await["revision"].clone();
    folder.save(&faulty("bad", "trap", WORD, few));
    let until = async |what: &str, condition: &dyn Fn(&Value) -> bool| {
        let began = Instant::now();
        loop {
            let now = of_chain().await;
            if condition(&now) {
                return now;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let bad = until("another one is active", &|now| now["revision"] != good).await["revision"].clone();
    // It is watched beside the one before; then that one serves a Page of nobody, and stands by no more.
    let began = Instant::now();
    while installation.count("select count(*) from policy_turn_windows where kind = 'before'").await == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not on probation");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let canary = json!({"revision": good, "page_ids": ["999"], "reason": "elsewhere"});
    let (status, answer) =
        process.admin(reqwest::Method::POST, "/admin/policies/default/canary", canary).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    for n in 0..4 {
        assert_eq!(process.meta.text(&format!("370{n}"), BAD_QUESTION).await.unwrap().1, 200);
    }
    let now = until("it says so", &|now| now["problem"].is_string()).await;
    let problem = now["problem"].as_str().unwrap();
    assert!(problem.contains("does harm") && problem.contains("had a fault"), "{problem}");
    assert_eq!(now["revision"], bad);
    let said =
        || process.logged("the active policy revision does harm, and nothing served before it; it serves on").len();
    assert_eq!(said(), 1);
    // Longer than the watch would wait before it tries again.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(said(), 1);
    assert!(process.metrics().await.contains("frontdesk_policy_tripwires_total{chain=\"default\",kind=\"faults\"} 1"));
    let shown = process.policyctl(&["status"]).await;
    assert!(shown.contains("PROBLEM:") && shown.contains("does harm"), "{shown}");
    // When something stands by again, the harm ends.
    let end = json!({"slot": "canary", "reason": "back to stand by"});
    let (status, answer) = process.admin(reqwest::Method::POST, "/admin/policies/default/rollback", end).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let back = json!({"revision": good, "reason": "the harm must end"});
    let (status, answer) =
        process.admin(reqwest::Method::POST, "/admin/policies/default/rollback", back).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(until("the harm is over", &|now| now["revision"] == good).await["problem"], Value::Null);
    process.kill_9().await;
}

const CANARY: &str = "[rollout]\non_change = \"canary\"\n[[rollout.steps]]\npercent = 50.0\nminutes = 60\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_serves_its_side_and_goes_alone_when_it_faults() {
    let folder = Folder::new(&marked("good"));
    let host = host_on(&folder).await;
    let good = chain(&host).await["revision"].clone();
    folder.save(&faulty("bad", "trap", WORD, CANARY));
    host.until("a canary serves", async || !chain(&host).await["canary"].is_null()).await;
    let canary = chain(&host).await["canary"]["revision"].clone();

    let mut psids: Vec<String> = (0..20).map(|n| format!("35{n:03}")).collect();
    for round in 0..2 {
        for psid in &psids {
            host.ask(psid, QUESTION).await;
        }
        host.drained().await;
        let sides: Vec<(String, String, String, i64)> = sqlx::query_as(
            "select c.psid, d.slot, d.revision, count(*) from decisions d join conversations c on c.id = d.conversation_id
             group by 1, 2, 3",
        )
        .fetch_all(host.pool())
        .await
        .unwrap();
        assert_eq!(sides.len(), psids.len(), "each customer stays on one side: {sides:?}");
        for (psid, slot, revision, turns) in &sides {
            let expected = if slot == "canary" { &canary } else { &good };
            assert_eq!((json!(revision), *turns), (expected.clone(), round + 1), "{psid}");
        }
        let of_canary = sides.iter().filter(|side| side.1 == "canary").count();
        assert!((4..=16).contains(&of_canary), "{of_canary} of {} at 50 %", psids.len());
    }

    let began = Instant::now();
    let mut more = Vec::new();
    while !chain(&host).await["canary"].is_null() {
        assert!(began.elapsed() < Duration::from_secs(60), "the canary was not taken out");
        let psid = format!("36{:03}", more.len());
        host.ask(&psid, BAD_QUESTION).await;
        more.push(psid);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.drained().await;
    let (_, for_people) = nothing_is_lost(&host, &more).await;
    assert!(for_people >= 3, "{for_people}");
    assert_eq!(chain(&host).await["revision"], good, "the active one serves on");
    psids.clear();
}

const SHADOW: &str = "[rollout]\non_change = \"shadow\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_judges_beside_and_its_report_holds_no_words() {
    let folder = Folder::new(&marked("good"));
    let host = host_on(&folder).await;
    let good = chain(&host).await["revision"].clone();
    // The shadow sends some to people, and one of them it cannot judge.
    let wire = "[tripwire]\nfaults_min = 50\nturns_min = 100\n";
    let shadow_chain = marked_with("other", &format!("{SHADOW}{wire}")).replacen(
        "hook = \"escalate\"\ncomponent = \"../components/guest-obedient.wasm\"\non_fault = \"human\"\n[policy.settings]\n",
        "hook = \"escalate\"\ncomponent = \"../components/guest-obedient.wasm\"\non_fault = \"human\"\n[policy.settings]\nverdict = \"hand-over\"\n",
        1,
    );
    folder.save(&shadow_chain);
    host.until("a shadow judges", async || !chain(&host).await["shadow"].is_null()).await;
    let shadow = chain(&host).await["shadow"]["revision"].clone();
    for n in 0..8 {
        host.ask(&format!("37{n:03}"), QUESTION).await;
    }
    host.drained().await;
    let report = async || host.admin("GET", "/admin/policies/default/shadow", None).await.1;
    host.until("all turns are in the report", async || report().await["totals"]["turns"] == 8).await;
    let found = report().await;
    assert_eq!((&found["shadow"], &found["active"]), (&shadow, &good), "{found}");
    assert_eq!(found["totals"]["changed"], 8, "{found}");
    assert_eq!(found["outcomes"], json!([{ "from": "sent", "to": "ticket", "turns": 8 }]));
    assert_eq!(found["reasons"], json!([{ "from": "", "to": "told-so", "turns": 8 }]));
    assert_eq!(found["faults"], json!([]));
    assert!(found["totals"]["fuel_ratio_median"].as_f64().unwrap() > 0.1, "{found}");
    assert_eq!(found["samples"].as_array().unwrap().len(), 8);
    let rows: Vec<(String,)> =
        sqlx::query_as("select to_jsonb(r)::text from policy_shadow_results r").fetch_all(host.pool()).await.unwrap();
    for text in rows.iter().map(|row| row.0.as_str()).chain([found.to_string().as_str()]) {
        for word in ["Austria", "parcel", "37000"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
    // Customers heard the active revision alone.
    for n in 0..8 {
        let psid = format!("37{n:03}");
        assert!(host.got(&psid).len() == 1 && host.tickets(&psid).await.is_empty(), "{psid}");
    }
    // Eight of eight escalate, which is more than the active one: the shadow goes once there are enough of them.
    folder.save(
        &shadow_chain.replace("turns_min = 100", "turns_min = 8").replace("mark = \"other\"", "mark = \"third\""),
    );
    host.until("the next shadow judges", async || {
        let now = chain(&host).await;
        !now["shadow"].is_null() && now["shadow"]["revision"] != shadow
    })
    .await;
    for n in 0..10 {
        host.ask(&format!("38{n:03}"), QUESTION).await;
    }
    host.until("the shadow is taken out", async || chain(&host).await["shadow"].is_null()).await;
    host.drained().await;
    assert_eq!(chain(&host).await["revision"], good);
    assert_eq!(host.count("select count(*) from tickets").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_host_leaves_the_shadow_out_and_says_so() {
    let folder = Folder::new(&marked("good"));
    let dir = folder.path().to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        // Any load is too much: an idle host is at 0 %, one turn of 16 at 6 %.
        plan.settings.policies.shadow.load_percent_max = 0;
        plan.settings.policies.shadow.queue_max = 1;
    })
    .await;
    host.teach_answer().await;
    folder.save(&marked_with("other", SHADOW));
    host.until("a shadow judges", async || !chain(&host).await["shadow"].is_null()).await;
    let psids: Vec<String> = (0..40).map(|n| format!("39{n:03}")).collect();
    let asked = psids.iter().map(|psid| host.ask(psid, QUESTION));
    futures::future::join_all(asked).await;
    host.drained().await;
    let (answered, for_people) = nothing_is_lost(&host, &psids).await;
    assert_eq!((answered, for_people), (40, 0));
    let judged = host.count("select count(*) from policy_shadow_results").await;
    let metrics = host.app.metrics.render();
    assert!(metrics.contains("frontdesk_shadow_dropped_total"), "{judged} of 40 were judged, and no drop was counted");
    assert!(judged < 40, "{judged}");
}
