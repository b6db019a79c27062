//! A classifier that does what its settings say, most of it wrong: `{"do": "loop"}`, `{"do": "work", "n": 1000}`.
//!
//! It shows the host every way in which a component can misbehave that a compiler lets through. It is built on the bare
//! bindings, so that it tests the host and not the SDK.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

#[expect(unsafe_code, reason = "the generated bindings pass pointers to the host")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/policy/0.1.0", world: "classifier" });
    export!(Misbehaving);
    use super::Misbehaving;
}

use bindings::exports::frontdesk::policy::{classify_hook, lifecycle};
use bindings::frontdesk::policy::types::{Classification, Route, Turn};
use bindings::frontdesk::policy::{knowledge, log};

struct Misbehaving;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(rename = "do", default = "ok")]
    action: String,
    #[serde(default)]
    n: u32,
    /// Only turns with this word are judged wrongly.
    #[serde(default)]
    word: String,
}

fn ok() -> String {
    "ok".to_owned()
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();
/// Random number drawn while configuring, to show that it does not vary.
static DRAWN: OnceLock<u64> = OnceLock::new();
/// Counts calls of one instance: a fresh one must find zero.
static CALLS: AtomicU32 = AtomicU32::new(0);

impl lifecycle::Guest for Misbehaving {
    fn describe() -> lifecycle::Description {
        let is_another = SETTINGS.get().is_some_and(|settings| settings.action == "describe-otherwise");
        lifecycle::Description {
            name: "misbehaving".to_owned(),
            version: if is_another { "0.2.0" } else { "0.1.0" }.to_owned(),
            summary: "Does what its settings say, most of it wrong; for tests of the host.".to_owned(),
            settings_schema:
                r#"{"type": "object", "properties": {"do": {"type": "string"}, "n": {"type": "integer"}, "word": {"type": "string"}}}"#.to_owned(),
        }
    }

    fn configure(settings: String) -> Result<(), Vec<lifecycle::SettingError>> {
        let refuse =
            |path: &str, message: String| Err(vec![lifecycle::SettingError { path: path.to_owned(), message }]);
        let settings: Settings = match serde_json::from_str(&settings) {
            Ok(settings) => settings,
            Err(error) => return refuse("", format!("not settings of this policy: {error}")),
        };
        match settings.action.as_str() {
            "trap-in-configure" => explode("configuring"),
            "loop-in-configure" => spin(),
            "refuse" => return refuse("/do", "`refuse` was found; anything else is taken".to_owned()),
            "refuse-at-length" => {
                let error = |n: u32| lifecycle::SettingError {
                    path: format!("/{n}\n{}", "a".repeat(500)),
                    message: "\u{1b}[2J".repeat(100),
                };
                return Err((0..settings.n).map(error).collect());
            }
            "sleep-in-configure" => drop(sleep(settings.n)),
            "exit-in-configure" => std::process::exit(0),
            "later:print-in-configure" => drop(writeln!(std::io::stderr(), "configuring")),
            // The standard library draws its keys once, so that this decides what the hook draws, too.
            "later:random-in-configure" => {
                DRAWN.get_or_init(random);
            }
            _ => {}
        }
        SETTINGS.get_or_init(|| settings);
        Ok(())
    }
}

impl classify_hook::Guest for Misbehaving {
    fn classify(turn: Turn) -> Result<Classification, String> {
        let fallback = Settings { action: ok(), n: 0, word: String::new() };
        let settings = SETTINGS.get().unwrap_or(&fallback);
        // Whatever is wrong with it shows on real turns only, when the settings ask for that.
        let (action, on_canary) = match settings.action.strip_prefix("later:") {
            Some(action) => (action, turn.id == "turn-canary"),
            None => (settings.action.as_str(), false),
        };
        let is_meant = turn.messages.iter().any(|message| message.text.contains(&settings.word));
        if on_canary || !is_meant { Ok(verdict(Vec::new())) } else { act(action, settings.n) }
    }
}

fn act(action: &str, n: u32) -> Result<Classification, String> {
    let labels = match action {
        "ok" => vec![format!("calls:{}", CALLS.fetch_add(1, Ordering::Relaxed) + 1)],
        "loop" => spin(),
        "work" => vec![format!("work:{}", work(n))],
        "eat-memory" => eat(),
        "allocate" => vec![format!("allocated:{}", black_box(vec![1_u8; n as usize]).len())],
        "trap" => explode("classifying"),
        "exit" => std::process::exit(3),
        "recurse" => vec![format!("depth:{}", recurse(1))],
        "recurse-lightly" => vec![format!("depth:{}", recurse_lightly(n.into()))],
        "err" => return Err("I would rather not".to_owned()),
        "huge-output" => return Ok(Classification { reason: "x".repeat(n as usize), ..verdict(Vec::new()) }),
        "too-many-labels" => (0..n).map(|i| format!("label:{i}")).collect(),
        "long-label" => vec!["x".repeat(n as usize)],
        "nan-confidence" => return Ok(Classification { confidence: f32::NAN, ..verdict(Vec::new()) }),
        "big-confidence" => return Ok(Classification { confidence: 1.0 + f32::EPSILON, ..verdict(Vec::new()) }),
        "invalid-utf8" => vec![not_text()],
        "no-such-route" => return Ok(Classification { route: no_such_route(), ..verdict(Vec::new()) }),
        "text-outside" => return Ok(Classification { reason: outside(0xffff_0000, 16), ..verdict(Vec::new()) }),
        "text-of-negative-length" => {
            return Ok(Classification { reason: outside(16, usize::MAX - 15), ..verdict(Vec::new()) });
        }
        "log-outside" => {
            let message = std::mem::ManuallyDrop::new(outside(0xffff_0000, 16));
            log::write(log::Level::Info, &message);
            Vec::new()
        }
        "log-flood" => flood(n),
        "long-line" => long_line(n),
        "print-flood" => print_flood(n),
        "sleep" => sleep(n),
        "busy-host-calls" => loop {
            log::write(log::Level::Debug, "busy");
        },
        "read-file" => vec![outcome(std::fs::read("/etc/passwd").map(drop))],
        "write-file" => vec![outcome(std::fs::write("written-by-a-policy", "x"))],
        "open-socket" => vec![
            outcome(std::net::TcpStream::connect("127.0.0.1:80").map(drop)),
            outcome(std::net::UdpSocket::bind("127.0.0.1:0").map(drop)),
        ],
        "environment" => vec![format!("{}:{}", std::env::args().count(), std::env::vars().count())],
        "random" => vec![format!("random:{:x}", random())],
        "random-in-configure" => vec![format!("drawn:{:x}", DRAWN.get().copied().unwrap_or_default())],
        "print-in-configure" => print_flood(n + 1),
        "clock" => clock(),
        "lookup" => lookup(n),
        other => return Err(format!("it does not know how to do `{other}`")),
    };
    Ok(verdict(labels))
}

fn verdict(labels: Vec<String>) -> Classification {
    Classification { route: Route::Answer, confidence: 0.5, labels, reason: "as its settings say".to_owned() }
}

#[inline(never)]
#[expect(clippy::panic, reason = "it is what this component is for")]
fn explode(what: &str) -> ! {
    panic!("it exploded while {what}");
}

#[expect(unsafe_code, reason = "it is to hand over bytes that are no text")]
fn not_text() -> String {
    // SAFETY: none; nobody but the host reads it.
    unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe]) }
}

/// A discriminant that the enum does not have.
#[expect(unsafe_code, reason = "it is to hand over a number that is no route")]
fn no_such_route() -> Route {
    // SAFETY: none; nobody but the host reads it.
    unsafe { std::ptr::read_volatile(std::ptr::from_ref(black_box(&200_u8)).cast()) }
}

/// A text where no memory is, or longer than any memory.
#[expect(unsafe_code, reason = "it is to hand over a place that is not there")]
fn outside(place: usize, bytes: usize) -> String {
    // SAFETY: none; nobody but the host reads it.
    unsafe { String::from_raw_parts(std::ptr::without_provenance_mut(black_box(place)), bytes, bytes) }
}

#[inline(never)]
fn spin() -> ! {
    loop {
        black_box(0);
    }
}

fn work(n: u32) -> u32 {
    (0..n).fold(1, |sum, i| black_box(sum).wrapping_mul(31).wrapping_add(i))
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "it is meant to overflow the stack")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    // Not a tail call: the frame is needed afterwards.
    recurse(depth + 1) + frame[7]
}

/// Keeps nothing in linear memory, so that WebAssembly's own stack overflows first.
#[inline(never)]
fn recurse_lightly(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { recurse_lightly(depth + 1).rotate_left(3) ^ depth }
}

fn flood(n: u32) -> Vec<String> {
    for i in 0..n {
        log::write(log::Level::Info, &format!("line {i}\nwith a break"));
    }
    Vec::new()
}

fn long_line(n: u32) -> Vec<String> {
    log::write(log::Level::Warn, &"é".repeat(n as usize / 2));
    Vec::new()
}

fn print_flood(n: u32) -> Vec<String> {
    for i in 0..n {
        drop(writeln!(std::io::stdout(), "line {i} on standard output"));
    }
    explode("printing")
}

fn sleep(n: u32) -> Vec<String> {
    std::thread::sleep(Duration::from_millis(n.into()));
    vec!["slept".to_owned()]
}

fn outcome(result: std::io::Result<()>) -> String {
    match result {
        Ok(()) => "granted".to_owned(),
        Err(_) => "denied".to_owned(),
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn clock() -> Vec<String> {
    let started = Instant::now();
    work(10_000);
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map(|it| it.as_millis()).unwrap_or_default();
    vec![format!("wall:{wall_ms}"), format!("elapsed:{}", started.elapsed().as_nanos())]
}

fn lookup(n: u32) -> Vec<String> {
    let answer = |i: u32| match knowledge::search(&format!("query {i}"), 5) {
        Ok(passages) => format!("found:{}", passages.len()),
        Err(knowledge::LookupError::LimitReached) => "limit-reached".to_owned(),
        Err(knowledge::LookupError::Unavailable(_)) => "unavailable".to_owned(),
    };
    (0..n).map(answer).collect()
}
