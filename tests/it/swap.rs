//! Swaps of policies while customers write: nothing is lost, nothing said twice, no turn meets two revisions, no memory
//! is kept, and every way in which people change folders is noticed.
//!
//! `FRONTDESK_SWAP_ROUNDS` (8) and `FRONTDESK_SWAP_TURNS_PER_S` (20) set the size of the swaps under load,
//! `FRONTDESK_RELOAD_ROUNDS` (40) that of the test of memory.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chains::{Folder, marked, replace};
use crate::host::{ANSWER, Host, QUESTION};
use crate::process::Installation;

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A poll so slow that only file events can be what is noticed.
const NO_POLL_MS: u64 = 3_600_000;

async fn host_on(folder: &Folder, poll_ms: u64) -> Host {
    let dir = folder.path().to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = poll_ms;
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

/// The mark of the settings that serve now.
fn serving_mark(host: &Host) -> Option<String> {
    let serving = host.app.policies.current("default")?;
    Some(mark_of(&serving.revision.manifest().policies.first()?.settings_sha256))
}

/// Settings are named by their digest; the marks of tests are few.
fn mark_of(settings_sha256: &str) -> String {
    let found = (0..100_000).map(|n| n.to_string()).find(|mark| {
        let settings = serde_json::json!({ "mark": mark });
        frontdesk_policy_engine::sha256_hex(frontdesk_policy_engine::canonical_json(&settings).as_bytes())
            == settings_sha256
    });
    found.expect("settings of these tests")
}

async fn until_mark(host: &Host, mark: &str) {
    host.until(&format!("mark {mark} serves"), async || serving_mark(host).as_deref() == Some(mark)).await;
}

/// All records, oldest first.
async fn records(host: &Host) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let cursor = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let (status, answer) = host.admin("GET", &format!("/admin/turns?limit=200{cursor}"), None).await;
        assert_eq!(status, 200, "{answer}");
        all.extend(answer["turns"].as_array().unwrap().iter().cloned());
        match answer["next_after"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return all,
        }
    }
}

/// Every mark that a turn's calls logged.
fn marks(record: &Value) -> Vec<String> {
    let calls = [&record["classify"], &record["tone"], &record["escalate"]];
    let steps = record["filter"]["steps"].as_array().into_iter().flatten().map(|step| &step["called"]);
    let logs = calls.into_iter().chain(steps).flat_map(|call| call["logs"].as_array().into_iter().flatten());
    let texts = logs.filter_map(|line| line["message"].as_str()?.strip_prefix("mark:").map(str::to_owned));
    texts.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_nothing_and_no_turn_meets_two_revisions() {
    let rounds = number("FRONTDESK_SWAP_ROUNDS", 8);
    let pause = Duration::from_secs(1) / u32::try_from(number("FRONTDESK_SWAP_TURNS_PER_S", 20)).unwrap();
    let folder = Folder::new(&marked("0"));
    let host = Arc::new(host_on(&folder, NO_POLL_MS).await);
    until_mark(&host, "0").await;

    let (goes_on, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let customers = tokio::spawn({
        let (host, goes_on, asked) = (Arc::clone(&host), Arc::clone(&goes_on), Arc::clone(&asked));
        async move {
            let mut posts = Vec::new();
            let mut every = tokio::time::interval(pause);
            while goes_on.load(Ordering::Relaxed) {
                every.tick().await;
                let psid = format!("7{:06}", asked.fetch_add(1, Ordering::Relaxed));
                let host = Arc::clone(&host);
                posts.push(tokio::spawn(async move { (host.ask(&psid, QUESTION).await, psid) }));
            }
            let mut mids = Vec::new();
            for post in posts {
                mids.push(post.await.unwrap());
            }
            mids
        }
    });
    let mut times = Vec::new();
    for round in 1..=rounds {
        let saved = Instant::now();
        folder.save(&marked(&round.to_string()));
        until_mark(&host, &round.to_string()).await;
        times.push(saved.elapsed());
    }
    goes_on.store(false, Ordering::Relaxed);
    let inquiries = customers.await.unwrap();
    host.drained().await;

    let records = records(&host).await;
    let mut decided: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for turn in &records {
        for mid in turn["mids"].as_array().unwrap() {
            *decided.entry(mid.as_str().unwrap().to_owned()).or_default() += 1;
        }
        let marks = marks(&turn["record"]);
        assert_eq!(marks.len(), 4, "all four policies were asked: {turn}");
        let first = turn["record"]["manifest"]["policies"][0]["settings_sha256"].as_str().unwrap();
        let mark = mark_of(first);
        assert!(marks.iter().all(|found| *found == mark), "one turn, several revisions: {marks:?}, not only {mark}");
        seen.insert(mark);
    }
    for (mid, psid) in &inquiries {
        assert_eq!(decided.get(mid), Some(&1), "{psid}");
        let got = host.got(psid);
        assert!(got.len() == 1 && got[0].contains(ANSWER), "{psid} got {got:?}");
    }
    assert_eq!(host.count("select count(*) from tickets").await, 0);
    assert!(seen.len() > rounds / 2, "{} revisions of {} judged turns: the load shows little", seen.len(), rounds + 1);
    times.sort();
    println!(
        "{rounds} swaps, {} inquiries, {} revisions judged; saved to active: median {:?}, longest {:?}",
        inquiries.len(),
        seen.len(),
        times[times.len() / 2],
        times.last().unwrap()
    );
}

/// A way to bring new content into a folder of policies.
type Shape = (&'static str, fn(&Folder, &str));

fn in_place(folder: &Folder, text: &str) {
    std::fs::write(folder.chain_toml(), text).unwrap();
}

fn rename_save(folder: &Folder, text: &str) {
    folder.save(text);
}

/// A swap file beside it, the old one moved away, a new one written, both removed.
fn editor(folder: &Folder, text: &str) {
    let (file, swap) = (folder.chain_toml(), folder.chain().join(".chain.toml.swp"));
    let backup = folder.chain().join("chain.toml~");
    std::fs::write(&swap, "b0VIM").unwrap();
    std::fs::write(folder.chain().join("4913"), "").unwrap();
    std::fs::remove_file(folder.chain().join("4913")).unwrap();
    std::fs::rename(&file, &backup).unwrap();
    std::fs::write(&file, text).unwrap();
    std::fs::remove_file(&backup).unwrap();
    std::fs::remove_file(&swap).unwrap();
}

/// As Kubernetes brings in a ConfigMap: files are links through `..data`, a link that is swapped.
fn config_map(folder: &Folder, text: &str) {
    let chain = folder.chain();
    let data = chain.join("..data");
    let old = std::fs::read_link(&data).ok();
    let fresh = format!("..{}", uuid::Uuid::new_v4().simple());
    std::fs::create_dir(chain.join(&fresh)).unwrap();
    std::fs::write(chain.join(&fresh).join("chain.toml"), text).unwrap();
    symlink(&fresh, chain.join("..data_tmp")).unwrap();
    std::fs::rename(chain.join("..data_tmp"), &data).unwrap();
    if let Some(old) = old {
        std::fs::remove_dir_all(chain.join(old)).unwrap();
    } else {
        symlink("..data/chain.toml", chain.join("chain.toml.link")).unwrap();
        std::fs::rename(chain.join("chain.toml.link"), folder.chain_toml()).unwrap();
    }
}

/// As git does: each changed file is removed and made anew.
fn checkout(folder: &Folder, text: &str) {
    std::fs::remove_file(folder.chain_toml()).unwrap();
    std::fs::write(folder.chain_toml(), text).unwrap();
    let component = folder.path().join("components/guest-obedient.wasm");
    let wasm = std::fs::read(&component).unwrap();
    std::fs::remove_file(&component).unwrap();
    std::fs::write(&component, wasm).unwrap();
}

/// As rsync does with `--delete`: hidden files beside, renamed over; what is not in the source goes.
fn rsync(folder: &Folder, text: &str) {
    std::fs::write(folder.chain().join("extraneous.toml"), "x = 1").unwrap();
    let hidden = folder.chain().join(".chain.toml.Xq3aZ1");
    std::fs::write(&hidden, text).unwrap();
    std::fs::rename(&hidden, folder.chain_toml()).unwrap();
    std::fs::remove_file(folder.chain().join("extraneous.toml")).unwrap();
}

/// The chain's folder as a whole is moved away and another put in its place.
fn move_over(folder: &Folder, text: &str) {
    let (chain, fresh, old) = (folder.chain(), folder.path().join("default.new"), folder.path().join("default.old"));
    std::fs::create_dir(&fresh).unwrap();
    std::fs::write(fresh.join("chain.toml"), text).unwrap();
    std::fs::rename(&chain, &old).unwrap();
    std::fs::rename(&fresh, &chain).unwrap();
    std::fs::remove_dir_all(&old).unwrap();
}

/// The chain's folder is a link to a release, and the link is swapped.
fn release_link(folder: &Folder, text: &str) {
    let chain = folder.chain();
    // The components stay where chain.toml looks for them: beside the chain.
    let release = folder.path().join(format!("release-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&release).unwrap();
    std::fs::write(release.join("chain.toml"), text).unwrap();
    symlink(&release, folder.path().join("default.link")).unwrap();
    if !chain.symlink_metadata().unwrap().is_symlink() {
        std::fs::remove_dir_all(&chain).unwrap();
    }
    std::fs::rename(folder.path().join("default.link"), &chain).unwrap();
}

#[tokio::test]
async fn every_way_to_change_a_folder_is_noticed_by_its_events() {
    let shapes: [Shape; 8] = [
        ("in place", in_place),
        ("rename", rename_save),
        ("editor", editor),
        ("config map", config_map),
        ("checkout", checkout),
        ("rsync", rsync),
        ("move over", move_over),
        ("release link", release_link),
    ];
    let mut mark = 0;
    for (name, change) in shapes {
        // A folder of its own for each shape: the first change makes it, the others meet it.
        let folder = Folder::new(&marked(&mark.to_string()));
        let host = host_on(&folder, NO_POLL_MS).await;
        until_mark(&host, &mark.to_string()).await;
        for _ in 0..3 {
            mark += 1;
            change(&folder, &marked(&mark.to_string()));
            host.until(&format!("{name}: mark {mark} serves"), async || serving_mark(&host) == Some(mark.to_string()))
                .await;
        }
        let status = chain(&host).await;
        assert!(status["rejected"].is_null(), "{name}: {status}");
    }
}

#[tokio::test]
async fn a_replaced_root_folder_is_found_by_the_poll() {
    let folder = Folder::new(&marked("0"));
    // The watched folder lies below one that the test may change.
    let root = tempfile::tempdir().unwrap();
    let (dir, aside) = (root.path().join("policies"), root.path().join("aside"));
    copy(folder.path(), &dir);
    let watched = dir.clone();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&watched);
        plan.settings.policies.poll_ms = 200;
    })
    .await;
    until_mark(&host, "0").await;
    for round in 1..=2 {
        copy(folder.path(), &aside);
        replace(&aside.join("default/chain.toml"), marked(&round.to_string()).as_bytes());
        std::fs::rename(&dir, root.path().join(format!("old-{round}"))).unwrap();
        std::fs::rename(&aside, &dir).unwrap();
        until_mark(&host, &round.to_string()).await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every prefix that ends with a table is a chain of its own: what is read too early would serve.
#[tokio::test]
async fn what_is_half_written_waits_until_nobody_writes() {
    let folder = Folder::new(&marked("0"));
    let dir = folder.path().to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 100;
        // Writing pauses for much less than this, also on a busy machine.
        plan.settings.policies.settle_ms = 1_500;
    })
    .await;
    until_mark(&host, "0").await;
    let before = host.app.policies.current("default").unwrap().revision.id().to_string();
    // Twelve chains, each good, written over each other with pauses longer than a reading takes.
    for mark in 1..=12 {
        in_place(&folder, &marked(&mark.to_string()));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = host.app.policies.current("default").unwrap().revision.id().to_string();
        assert_eq!(now, before, "a chain that was still being written serves");
    }
    until_mark(&host, "12").await;
    let states: Vec<(String,)> =
        sqlx::query_as("select distinct revision from policy_transitions where state in ('active', 'rejected')")
            .fetch_all(host.pool())
            .await
            .unwrap();
    assert_eq!(states.len(), 2, "the first and the last: {states:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloading_gives_back_the_memory_it_took() {
    let rounds = number("FRONTDESK_RELOAD_ROUNDS", 40);
    // Until the allocator's arenas, the engine's pool and the connections have their size.
    let warm_up = (rounds / 2).clamp(40, 100);
    let folder = Folder::new(&marked("0"));
    let installation = Installation::with(|settings| settings.policies.dir = folder.path().to_owned()).await;
    let process = installation.start().await;
    let mut serving = process.ask_admin("/admin/policies").await["chains"][0]["revision"].clone();
    let mut sizes = Vec::new();
    let began = Instant::now();
    for round in 0..warm_up + rounds {
        if round == warm_up || round % 100 == 0 {
            println!("{round} reloads, {:?}: {} KiB", began.elapsed(), process.resident_bytes() >> 10);
        }
        folder.save(&marked(&(round + 1).to_string()));
        let saved = Instant::now();
        loop {
            let now = process.ask_admin("/admin/policies").await["chains"][0].clone();
            if now["revision"] != serving {
                serving = now["revision"].clone();
                break;
            }
            assert!(saved.elapsed() < Duration::from_secs(60), "reload {round}: {now}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sizes.push(process.resident_bytes());
    }
    // The last turn of the last revisions has ended; what is freed off the threads of turns has had its time.
    let before = median(&sizes[warm_up / 2..warm_up]);
    let after = median(&sizes[sizes.len() - warm_up / 2..]);
    println!("{rounds} reloads in {:?}: {} KiB, then {} KiB", began.elapsed(), before >> 10, after >> 10);
    // A revision that is kept costs more than a MiB, so forty that were kept would be twice past this.
    let limit = before + before / 10 + (16 << 20);
    assert!(after <= limit, "{} KiB became {} KiB in {rounds} reloads", before >> 10, after >> 10);
    process.kill_9().await;
}

fn median(sizes: &[u64]) -> u64 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes[sizes.len() / 2]
}
