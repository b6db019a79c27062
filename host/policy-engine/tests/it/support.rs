//! One engine for all tests, the guests, and turns to judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use frontdesk_policy_engine::types::{
    Author, Customer, Draft, LocalTime, Message, MessageSource, Page, Passage, Turn, Weekday,
};
use frontdesk_policy_engine::{
    ArtifactCache, Engine, EngineOptions, Grants, Hook, Limits, LoadError, LoadRequest, Policy,
};
use serde_json::{Value, json};

/// The bytes of a guest.
pub fn guest(name: &str) -> Vec<u8> {
    let path = guests_dir().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{} cannot be read ({error}); run `cargo xtask components --guests` first", path.display())
    })
}

fn guests_dir() -> PathBuf {
    match std::env::var_os("FRONTDESK_GUESTS_DIR") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"),
    }
}

/// The engine that most tests share; small, so that what is not given back is missed soon.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| fresh_engine(8))
}

/// An engine of its own. What is compiled is shared between all of them, because compiling takes most of the time.
pub fn fresh_engine(max_concurrent_calls: u32) -> Engine {
    Engine::new(options(max_concurrent_calls)).expect("an engine")
}

pub fn options(max_concurrent_calls: u32) -> EngineOptions {
    EngineOptions { max_concurrent_calls, cache: Some(Arc::new(SharedCache)), ..EngineOptions::default() }
}

static COMPILED: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());

struct SharedCache;

impl ArtifactCache for SharedCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        COMPILED.lock().expect("the cache").get(key).cloned()
    }

    fn put(&self, key: &str, artifact: &[u8]) {
        COMPILED.lock().expect("the cache").insert(key.to_owned(), artifact.to_vec());
    }
}

pub const GRANTED: Grants = Grants { knowledge: true };

pub fn load(
    engine: &Engine,
    hook: Hook,
    name: &str,
    settings: &Value,
    limits: Limits,
    grants: Grants,
) -> Result<Policy, LoadError> {
    engine.load(LoadRequest { hook, wasm: &guest(name), settings, limits, grants })
}

/// The misbehaving guest, which is on its best behaviour in the trial call.
///
/// Its engine takes no snapshots, because each of the many settings would be compiled anew; `repeat.rs` shows that this
/// makes no difference.
pub fn misbehaving(action: &str, n: u32, limits: Limits) -> Policy {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let plain = || Engine::new(EngineOptions { snapshots: false, ..options(8) }).expect("an engine");
    misbehaving_on(ENGINE.get_or_init(plain), action, n, limits)
}

pub fn misbehaving_on(engine: &Engine, action: &str, n: u32, limits: Limits) -> Policy {
    let settings = json!({"do": format!("later:{action}"), "n": n});
    load(engine, Hook::Classify, "guest-misbehaving", &settings, limits, GRANTED)
        .unwrap_or_else(|error| panic!("`{action}` is refused: {error}"))
}

pub fn obedient(hook: Hook, settings: &Value) -> Policy {
    load(engine(), hook, "guest-obedient", settings, Limits::default(), Grants::default())
        .unwrap_or_else(|error| panic!("{settings} is refused: {error}"))
}

pub fn turn(id: &str) -> Turn {
    Turn {
        id: id.to_owned(),
        now_ms: 1_768_383_000_123,
        local_time: LocalTime {
            weekday: Weekday::Wednesday,
            minute_of_day: 630,
            date: "2026-01-14".to_owned(),
            time_zone: "Europe/Vienna".to_owned(),
        },
        page: Page { id: "1".to_owned(), name: "Shop".to_owned(), language: "de".to_owned() },
        customer: Customer::default(),
        messages: vec![Message {
            id: "m_1".to_owned(),
            author: Author::Customer,
            source: MessageSource::Text,
            text: "Wann kommt mein Päckchen?".to_owned(),
            payload: None,
            attachments: Vec::new(),
            sent_at_ms: 1_768_383_000_000,
        }],
        history: Vec::new(),
        detected_language: Some(("de".to_owned(), 0.9)),
        window: None,
        automated_turns: 0,
        disclosure_due: true,
        attributes: vec![("tier".to_owned(), "gold".to_owned())],
    }
}

pub fn passage(id: &str) -> Passage {
    Passage {
        id: id.to_owned(),
        title: "Versand".to_owned(),
        source: "faq".to_owned(),
        text: "Drei bis fünf Tage.".to_owned(),
        language: Some("de".to_owned()),
        score: 0.5,
        labels: vec!["versand".to_owned()],
    }
}

pub fn draft(text: &str) -> Draft {
    Draft { text: text.to_owned(), language: None, cited: Vec::new(), instructions: Vec::new() }
}
