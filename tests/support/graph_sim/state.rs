//! What the platform remembers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Call, GraphSimConfig, Outcome, SentMessage, ThreadMessage};
use crate::webhook::WebhookSender;
use crate::wire;

/// The most calls and messages kept: enough for any test, and a bound for a simulator left running.
const KEPT_MAX: usize = 200_000;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// How far the platform's clock is ahead of the machine's.
    ahead_ms: AtomicI64,
    version: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub config: GraphSimConfig,
    pub script: VecDeque<(String, Outcome)>,
    pub sends: Vec<SentMessage>,
    pub calls: Vec<Call>,
    pub people: HashMap<String, Person>,
    /// By Page.
    pub subscriptions: HashMap<String, Vec<String>>,
    /// By Page: the subcode of error 190.
    pub dead_tokens: HashMap<String, i64>,
    /// By Page: the app-scoped id of whoever took its token last.
    pub connectors: HashMap<String, String>,
    /// By app-scoped id: Pages and the person's id there.
    pub page_ids: HashMap<String, Vec<(String, String)>>,
    /// What tokens are good for.
    pub scopes: Vec<String>,
    /// By Page and person.
    threads: HashMap<(String, String), Vec<ThreadMessage>>,
    pub echoes_to_drop: u32,
    pub echoes_delivered: u64,
    /// By Page.
    pub senders: HashMap<String, WebhookSender>,
    seq: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Person {
    pub first_name: Option<String>,
    pub is_window_open: bool,
    pub owner_app_id: Option<String>,
}

impl Default for Person {
    fn default() -> Self {
        Self { first_name: None, is_window_open: true, owner_app_id: None }
    }
}

impl Shared {
    pub fn new(config: GraphSimConfig) -> reqwest::Result<Self> {
        let callback = config.callback_url.clone();
        let state = State {
            config,
            script: VecDeque::new(),
            sends: Vec::new(),
            calls: Vec::new(),
            people: HashMap::new(),
            subscriptions: HashMap::new(),
            dead_tokens: HashMap::new(),
            connectors: HashMap::new(),
            page_ids: HashMap::new(),
            scopes: ["pages_messaging", "pages_manage_metadata", "pages_show_list", "pages_read_engagement"]
                .map(str::to_owned)
                .into(),
            threads: HashMap::new(),
            echoes_to_drop: 0,
            echoes_delivered: 0,
            senders: HashMap::new(),
            seq: 0,
        };
        let shared = Self { state: Mutex::new(state), ahead_ms: AtomicI64::new(0), version: watch::Sender::new(0) };
        if let Some(callback) = callback {
            shared.set_callback(&callback)?;
        }
        Ok(shared)
    }

    pub fn set_callback(&self, callback_url: &str) -> reqwest::Result<()> {
        let mut state = self.lock();
        let mut senders = HashMap::new();
        for page in &state.config.pages {
            let sender = WebhookSender::new(callback_url, state.config.app_secret.clone(), page.page_id.clone())?;
            senders.insert(page.page_id.clone(), sender);
        }
        state.senders = senders;
        state.config.callback_url = Some(callback_url.to_owned());
        Ok(())
    }

    /// The platform's clock.
    pub fn now_ms(&self) -> i64 {
        wire::now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    pub fn set_ahead_ms(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// A test that panics must not take the platform's other users with it.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.version.send_modify(|version| *version += 1);
        result
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl State {
    pub fn person(&mut self, psid: &str) -> &mut Person {
        self.people.entry(psid.to_owned()).or_default()
    }

    /// What a person is treated as without being remembered by it.
    pub fn look_up(&self, psid: &str) -> Option<Person> {
        match self.people.get(psid) {
            Some(person) => Some(person.clone()),
            None if self.config.is_strict_about_people => None,
            None => Some(Person::default()),
        }
    }

    pub fn thread(&self, page_id: &str, psid: &str) -> &[ThreadMessage] {
        let key = (page_id.to_owned(), psid.to_owned());
        self.threads.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn record_call(&mut self, call: Call) {
        if self.calls.len() < KEPT_MAX {
            self.calls.push(call);
        }
    }

    pub fn record_elsewhere(&mut self, page_id: &str, psid: &str, mid: &str, text: &str, is_inbox: bool, at_ms: i64) {
        self.seq += 1;
        let message = ThreadMessage {
            seq: self.seq,
            mid: mid.to_owned(),
            is_from_page: is_inbox,
            is_from_inbox: is_inbox,
            text: text.to_owned(),
            metadata: None,
            at_ms,
        };
        self.push(page_id, psid, message);
        if !is_inbox {
            self.person(psid).is_window_open = true;
        }
    }

    /// Takes a message: gives it an id and a place.
    pub fn take(&mut self, mut sent: SentMessage) -> SentMessage {
        self.seq += 1;
        sent.seq = self.seq;
        let message = ThreadMessage {
            seq: sent.seq,
            mid: sent.message_id.clone(),
            is_from_page: true,
            is_from_inbox: false,
            text: sent.text.clone(),
            metadata: sent.metadata.clone(),
            at_ms: sent.at_ms,
        };
        self.push(&sent.page_id, &sent.psid, message);
        if self.sends.len() < KEPT_MAX {
            self.sends.push(sent.clone());
        }
        sent
    }

    fn push(&mut self, page_id: &str, psid: &str, message: ThreadMessage) {
        let thread = self.threads.entry((page_id.to_owned(), psid.to_owned())).or_default();
        if thread.len() < KEPT_MAX {
            thread.push(message);
        }
    }
}
