//! The operator's commands, run as they are typed, against a host that runs: `frontdesk keys`, `page`, `knowledge`, `search`, `person`.

use serde_json::Value;

use crate::host::{KEYS, OTHER_PAGE, OTHER_PAGE_TOKEN, PAGE, QUESTION};
use crate::process::{Installation, Process};

/// A key of the same form, of another day.
const NEXT_KEY: &str = "test-2:YW5vdGhlciB0aGlydHktdHdvIGJ5dGVzIG9mIGtleSE=";

async fn run(installation: &Installation, args: &[&str], envs: &[(&str, &str)]) -> (i32, String) {
    let output = installation.command(args).envs(envs.iter().copied()).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn at(process: &Process) -> String {
    format!("http://{}", process.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_rotated_and_shown_and_what_they_seal_stays_readable() {
    let installation = Installation::new().await;
    let (code, made) = run(&installation, &["keys", "new"], &[]).await;
    assert!(
        code == 0 && made.trim().split_once(':').is_some_and(|(id, key)| id.starts_with('k') && key.len() == 44),
        "{made}"
    );
    let (_, again) = run(&installation, &["keys", "new"], &[]).await;
    assert_ne!(made, again);

    let old = [("FRONTDESK_KEYS", KEYS)];
    let process = installation.start_with_env(&old).await;
    process.teach_answer().await;
    let (mid, status) = process.meta.text("9501", QUESTION).await.unwrap();
    assert_eq!(status, 200);
    installation.graph.record_inbound(PAGE, "9501", &mid, QUESTION);
    installation.drained().await;
    let config = installation.config();
    let (code, shown) = run(&installation, &["keys", "status", "--config", config], &old).await;
    assert!(code == 0 && shown.contains("test-1  wraps"), "{shown}");

    // The new key first, the old one behind; the host that runs is not stopped.
    let both = format!("{NEXT_KEY},{KEYS}");
    let both = [("FRONTDESK_KEYS", both.as_str())];
    let (code, rotated) = run(&installation, &["keys", "rotate", "--config", config], &both).await;
    assert!(code == 0 && rotated.contains("all are under test-2"), "{rotated}");
    assert!(rotated.contains("test-1  unwraps  0"), "nothing is left under the old key: {rotated}");
    let under_old = "select (select count(*) from person_keys where key_id = 'test-1')
                          + (select count(*) from inbox_keys where key_id = 'test-1')";
    assert_eq!(installation.count(under_old).await, 0);
    process.kill_9().await;

    // With the new key alone, everything of before is readable; without it no host starts and no command works.
    let new = [("FRONTDESK_KEYS", NEXT_KEY)];
    let process = installation.start_with_env(&new).await;
    let turns = process.ask_admin(&format!("/admin/conversations/by-psid/{PAGE}/9501/turns")).await;
    let id = turns["conversation_id"].as_str().unwrap().to_owned();
    let shown = process.ask_admin(&format!("/admin/conversations/{id}")).await;
    assert_eq!(shown["transcript"][0]["text"], QUESTION, "{shown}");
    let (code, refused) = run(&installation, &["keys", "status", "--config", config], &old).await;
    assert!(code != 0 && refused.contains("test-2"), "{code}: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_listed_connected_checked_and_disconnected_from_the_command_line() {
    let installation = Installation::with(|settings| settings.pages.retain(|page| page.id == PAGE)).await;
    let process = installation.start().await;
    let url = at(&process);
    let page = async |args: &[&str], envs: &[(&str, &str)]| {
        let args: Vec<&str> = ["page"].iter().chain(args).chain(&["--url", url.as_str()]).copied().collect();
        run(&installation, &args, envs).await
    };
    let (code, listed) = page(&["list"], &[]).await;
    assert!(code == 0 && listed.contains(PAGE) && !listed.contains(OTHER_PAGE), "{listed}");
    let (code, refused) = page(&["connect", "--page", OTHER_PAGE], &[]).await;
    assert!(code != 0 && refused.contains("FRONTDESK_USER_TOKEN"), "{code}: {refused}");

    let user = [("FRONTDESK_USER_TOKEN", "sim-user-4711")];
    let (code, connected) = page(&["connect", "--page", OTHER_PAGE, "--time-zone", "Europe/Vienna"], &user).await;
    assert!(code == 0 && connected.contains(OTHER_PAGE) && connected.contains("active"), "{connected}");
    assert!(!connected.contains(OTHER_PAGE_TOKEN), "{connected}");
    let (code, checked) = page(&["check", OTHER_PAGE], &[]).await;
    assert!(code == 0 && checked.contains("healthy"), "{checked}");

    installation.graph.kill_token(OTHER_PAGE, 460);
    let (code, checked) = page(&["check", OTHER_PAGE], &[]).await;
    assert!(code != 0 && checked.contains(OTHER_PAGE), "a dead token is a failure for scripts: {code}: {checked}");
    let (_, listed) = page(&["list"], &[]).await;
    assert!(listed.contains("parked"), "{listed}");
    installation.graph.revive_token(OTHER_PAGE);
    let (code, resumed) = page(&["resume", OTHER_PAGE], &[]).await;
    assert!(code == 0 && resumed.contains("resumed"), "{resumed}");
    let (code, gone) = page(&["disconnect", OTHER_PAGE], &[]).await;
    assert!(code == 0 && gone.contains("disconnected"), "{gone}");
    let (code, unknown) = page(&["check", "404404404"], &[]).await;
    assert!(code != 0, "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn knowledge_is_added_searched_and_deleted_from_the_command_line() {
    let installation = Installation::new().await;
    let process = installation.start().await;
    let url = at(&process);
    let file = installation.ground.dir.path().join("shipping.csv");
    let rows = "question,answer\nDo you ship to Austria?,\"Yes, we ship to Austria within 3 days.\"\nHow do I care for a saddle?,Keep it dry.\n";
    std::fs::write(&file, rows).unwrap();
    let ask = async |args: &[&str]| {
        let args: Vec<&str> = args.iter().chain(&["--url", url.as_str()]).copied().collect();
        run(&installation, &args, &[]).await
    };
    let (code, added) = ask(&["knowledge", "add", file.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{added}");

    let question = "ship austria quickly";
    let (code, found) = ask(&["search", question]).await;
    let first: Vec<&str> = found.lines().take(3).collect();
    let [place, why, text] = first[..] else { panic!("{found}") };
    assert!(code == 0 && place.contains("shipping.csv"), "{found}");
    assert!(why.contains("nearness") && why.contains("words"), "it says what put the passage there: {found}");
    assert!(text.contains("ship to Austria"), "{found}");
    assert_eq!(ask(&["knowledge", "search", question]).await, (0, found), "one command by two names");
    let (code, curated) = ask(&["search", "do you ship to austria"]).await;
    assert!(code == 0 && curated.lines().next().is_some_and(|line| line.contains("curated")), "{curated}");

    let (_, listed) = ask(&["knowledge", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let id = listed["documents"][0]["document_id"].as_str().unwrap_or_else(|| panic!("{listed}"));
    let (code, gone) = ask(&["knowledge", "delete", id]).await;
    assert_eq!(code, 0, "{gone}");
    let (code, found) = ask(&["search", question]).await;
    assert!(code == 0 && found.contains("nothing fits"), "{found}");
    let (code, refused) = ask(&["search"]).await;
    assert!(code == 2 && refused.contains("QUESTION"), "{code}: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_erased_from_the_command_line() {
    let installation = Installation::new().await;
    let process = installation.start().await;
    process.teach_answer().await;
    let (mid, status) = process.meta.text("9601", QUESTION).await.unwrap();
    assert_eq!(status, 200);
    installation.graph.record_inbound(PAGE, "9601", &mid, QUESTION);
    installation.drained().await;
    let url = at(&process);
    let erase = ["person", "erase", "--page", PAGE, "--psid", "9601", "--url", url.as_str()];
    let (code, erased) = run(&installation, &erase, &[]).await;
    assert!(code == 0 && erased.contains("rows erased"), "{erased}");
    assert_eq!(installation.count("select count(*) from conversations where psid = '9601'").await, 0);
    let answer: Value = process.ask_admin(&format!("/admin/conversations/by-psid/{PAGE}/9601/turns")).await;
    assert_eq!(answer["conversation_id"], Value::Null, "{answer}");
    let (code, nobody) = run(&installation, &erase, &[]).await;
    assert!(code == 0 && nobody.contains("nobody with this id"), "{nobody}");
}
