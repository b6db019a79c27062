//! The records of the contract `frontdesk:policy@0.1.0`, as Rust values.
//!
//! One set of types serves three readers: components (the canonical ABI, through `ComponentType`, `Lift`, `Lower`),
//! decision records (JSON, through serde) and the host's code. Field and case names follow the WIT in
//! `wit/policy/0.1.0`; when a component is loaded, wasmtime compares these types with the component's own, field by
//! field, so a drift between this file and the WIT cannot pass unnoticed.
//!
//! The JSON form is stored with decisions and must stay readable: records are objects with `snake_case` keys, enums are
//! `kebab-case` strings, variants are `{"kind": "hand-over", "value": …}` (without `value` where a case carries none),
//! an absent option is `null` or missing. Units and meanings are documented once, in the WIT.
//!
//! `Debug` prints the customer's words: do not log these values.

mod verdict;

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

pub use verdict::{
    Blocked, Classification, Description, Dossier, Draft, EscalationVerdict, Evidence, Example, FilterOutcome,
    FilterVerdict, Finding, Instruction, LogLevel, LookupError, Outcome, Plan, Priority, Rewritten, Route,
    SettingError, Ticket,
};

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Author {
    /// The person who wrote to the Page.
    #[component(name = "customer")]
    Customer,
    /// This system.
    #[component(name = "bot")]
    Bot,
    /// A person answering for the Page.
    #[component(name = "agent")]
    Agent,
}

/// What kind of thing was attached to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum AttachmentKind {
    /// A picture.
    #[component(name = "image")]
    Image,
    /// A recording.
    #[component(name = "audio")]
    Audio,
    /// A film.
    #[component(name = "video")]
    Video,
    /// Any other file.
    #[component(name = "file")]
    File,
    /// A sticker, such as the thumbs-up.
    #[component(name = "sticker")]
    Sticker,
    /// A place.
    #[component(name = "location")]
    Location,
    /// A shared post, reel, link or template.
    #[component(name = "share")]
    Share,
    /// A kind the contract has no word for.
    #[component(name = "other")]
    Other,
}

/// How the customer gave the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum MessageSource {
    /// Typed.
    #[component(name = "text")]
    Text,
    /// A tap on a quick reply.
    #[component(name = "quick-reply")]
    QuickReply,
    /// A tap on a button, a menu entry or Get Started.
    #[component(name = "postback")]
    Postback,
    /// The summary that Meta sends after a lead ad's form.
    #[component(name = "lead")]
    Lead,
}

/// One message of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Message {
    /// Meta's message id (`mid`), or one made by the host.
    pub id: String,
    /// Who wrote it.
    pub author: Author,
    /// How the text was given.
    pub source: MessageSource,
    /// The latest text; empty when only attachments were sent.
    pub text: String,
    /// The developer-defined payload of a quick reply or postback.
    pub payload: Option<String>,
    /// What was attached.
    pub attachments: Vec<AttachmentKind>,
    /// Meta's time stamp, milliseconds since the epoch.
    #[component(name = "sent-at-ms")]
    pub sent_at_ms: u64,
}

/// A day of the week in the Page's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Weekday {
    #[component(name = "monday")]
    Monday,
    #[component(name = "tuesday")]
    Tuesday,
    #[component(name = "wednesday")]
    Wednesday,
    #[component(name = "thursday")]
    Thursday,
    #[component(name = "friday")]
    Friday,
    #[component(name = "saturday")]
    Saturday,
    #[component(name = "sunday")]
    Sunday,
}

/// The turn's time on the wall clock of the Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct LocalTime {
    /// Day of the week.
    pub weekday: Weekday,
    /// Minutes since local midnight, 0 to 1439.
    #[component(name = "minute-of-day")]
    pub minute_of_day: u16,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// IANA name of the zone.
    #[component(name = "time-zone")]
    pub time_zone: String,
}

/// The Facebook Page that was written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Page {
    /// Meta's Page id.
    pub id: String,
    /// The Page's name.
    pub name: String,
    /// BCP 47 tag of the Page's main language.
    pub language: String,
}

/// The person who wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Customer {
    /// First or display name, when Meta gave it.
    pub name: Option<String>,
    /// Locale that Meta reported, such as `es_ES`.
    pub locale: Option<String>,
}

/// The standard messaging window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Window {
    /// What opened it: `message`, `postback`, `reaction`, `referral`, `ad`, `opt-in`.
    #[component(name = "opened-by")]
    pub opened_by: String,
    /// When it closes, milliseconds since the epoch.
    #[component(name = "closes-at-ms")]
    pub closes_at_ms: u64,
}

/// Everything a policy may know about the turn it judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Turn {
    /// Unique id; the seed of every random number.
    pub id: String,
    /// When the host started the turn, milliseconds since the epoch; all clocks stand there.
    #[component(name = "now-ms")]
    pub now_ms: u64,
    /// The same moment on the Page's wall clock.
    #[component(name = "local-time")]
    pub local_time: LocalTime,
    /// The Page.
    pub page: Page,
    /// The customer.
    pub customer: Customer,
    /// What the customer sent since the last turn, oldest first; never empty.
    pub messages: Vec<Message>,
    /// Earlier messages, oldest first, at most 30.
    pub history: Vec<Message>,
    /// BCP 47 tag and confidence of the language of `messages`.
    #[component(name = "detected-language")]
    pub detected_language: Option<(String, f32)>,
    /// Absent when no window is open.
    pub window: Option<Window>,
    /// Turns in a row that the machine has answered since a person last did.
    #[component(name = "automated-turns")]
    pub automated_turns: u32,
    /// Whether the customer must be told (again) that a machine answers.
    #[component(name = "disclosure-due")]
    pub disclosure_due: bool,
    /// Additions as name and value.
    pub attributes: Vec<(String, String)>,
}

/// A piece of the Page's knowledge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Passage {
    /// Stable id, to be cited.
    pub id: String,
    /// Title of the document.
    pub title: String,
    /// A file name, an address, or `faq`.
    pub source: String,
    /// The passage itself.
    pub text: String,
    /// BCP 47 tag, when known.
    pub language: Option<String>,
    /// How well it fits, 0 to 1.
    pub score: f32,
    /// Labels an editor gave to the document.
    pub labels: Vec<String>,
}
