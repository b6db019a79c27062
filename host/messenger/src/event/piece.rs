//! One piece to one event.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::lenient::{flag_at, id, id_at, object_at, objects_at, text_at, time, time_at, whole_at};
use super::*;
use crate::ids::{AppId, Mid, PageId, Psid, UserRef};

type Object = Map<String, Value>;

/// The most items read of any list inside a piece.
const ITEMS_MAX: usize = 200;

/// Reads one piece. Total: whatever comes in, an event comes out.
pub(super) fn read(page_id: Option<PageId>, channel: Channel, entry_time_ms: Option<i64>, raw: Value) -> Event {
    let Some(piece) = raw.as_object() else {
        let problem = format!("found {} where an event object was expected", type_name(&raw));
        return Event {
            page_id,
            channel,
            psid: None,
            user_ref: None,
            from_page: false,
            timestamp_ms: entry_time_ms,
            kind: EventKind::Malformed { problem },
            raw,
        };
    };
    let mut kind = match channel {
        Channel::Messaging | Channel::Standby => thread_kind(piece),
        Channel::Changes => change_kind(piece),
        Channel::Envelope => envelope_kind(piece),
    };
    let parties = Parties::of(piece, page_id, &kind, channel);
    // What the Page sends is its own also where the flag is missing.
    if let EventKind::Message(message) = &mut kind
        && parties.from_page
    {
        kind = echo(piece, std::mem::take(message));
    }
    let timestamp_ms = time_at(piece, "timestamp").or_else(|| change_time_ms(piece)).or(entry_time_ms);
    Event {
        page_id: parties.page_id,
        channel,
        psid: parties.psid,
        user_ref: parties.user_ref,
        from_page: parties.from_page,
        timestamp_ms,
        kind,
        raw,
    }
}

fn change_time_ms(piece: &Object) -> Option<i64> {
    time_at(object_at(piece, "value")?, "created_time")
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

// ---- who ----

struct Parties {
    page_id: Option<PageId>,
    psid: Option<Psid>,
    user_ref: Option<UserRef>,
    from_page: bool,
}

impl Parties {
    /// Which of sender and recipient is the Page. The entry names it; else an echo's sender and anything else's
    /// recipient is the Page.
    fn of(piece: &Object, entry_page: Option<PageId>, kind: &EventKind, channel: Channel) -> Self {
        if !matches!(channel, Channel::Messaging | Channel::Standby) {
            return Self { page_id: entry_page, psid: None, user_ref: None, from_page: change_is_by_page(piece) };
        }
        let sender = party(piece, "sender", "id");
        let recipient = party(piece, "recipient", "id");
        let is_echo =
            matches!(kind, EventKind::Echo(_)) || object_at(piece, "message").is_some_and(|m| flag_at(m, "is_echo"));
        let page_id = entry_page.or_else(|| if is_echo { sender.clone() } else { recipient.clone() }.map(PageId::new));
        let is_page = |id: &Option<String>| id.is_some() && id.as_deref() == page_id.as_ref().map(|page| page.as_str());
        let from_page = is_echo || is_page(&sender);
        let person = if from_page { recipient } else { sender };
        let person = if is_page(&person) { None } else { person };
        let side = if from_page { "recipient" } else { "sender" };
        let user_ref = party(piece, side, "user_ref")
            .or_else(|| object_at(piece, "optin").and_then(|optin| id_at(optin, "user_ref")));
        Self { page_id, psid: person.map(Psid::new), user_ref: user_ref.map(UserRef::new), from_page }
    }
}

/// A side's id; Meta writes `{"id":…}`, some tools the bare id.
fn party(piece: &Object, side: &str, field: &str) -> Option<String> {
    match piece.get(side)? {
        Value::Object(side) => id_at(side, field),
        bare if field == "id" => id(bare),
        _ => None,
    }
}

fn change_is_by_page(piece: &Object) -> bool {
    // Without the entry's id one cannot tell; feed changes are not answered either way.
    object_at(piece, "value").is_some_and(|value| flag_at(value, "is_page"))
}

// ---- messaging and standby ----

type Reader = fn(&Object, &Object) -> EventKind;

/// The keys that name a kind, in the order in which they are looked for: first what a person said or did, then what is
/// about it. `lead` stands before `referral`, which it comes with.
const THREAD_KINDS: [(&str, Reader); 21] = [
    ("message", message_kind),
    ("message_edit", |_, body| edit(body)),
    ("reaction", |_, body| reaction(body)),
    ("postback", postback),
    ("lead", |piece, body| lead(piece, Some(body))),
    ("referral", |piece, body| referral_kind(piece, body)),
    ("optin", |_, body| optin(body)),
    ("order", |_, body| EventKind::Order(order(body))),
    ("messaging_customer_information", |_, body| EventKind::CustomerInformation {
        screens: body.get("screens").and_then(Value::as_array).map_or(0, Vec::len),
    }),
    ("delivery", |_, body| delivery(body)),
    ("read", |_, body| EventKind::Read {
        mid: id_at(body, "mid").map(Mid::new),
        watermark_ms: time_at(body, "watermark"),
    }),
    ("pass_thread_control", |_, body| EventKind::PassThreadControl {
        previous_owner: app_at(body, "previous_owner_app_id"),
        new_owner: app_at(body, "new_owner_app_id"),
        metadata: text_at(body, "metadata"),
    }),
    ("take_thread_control", |_, body| EventKind::TakeThreadControl {
        previous_owner: app_at(body, "previous_owner_app_id"),
        new_owner: app_at(body, "new_owner_app_id"),
        metadata: text_at(body, "metadata"),
    }),
    ("request_thread_control", |_, body| EventKind::RequestThreadControl {
        requested_owner: app_at(body, "requested_owner_app_id"),
        metadata: text_at(body, "metadata"),
    }),
    ("app_roles", |_, body| app_roles(body)),
    ("policy_enforcement", |_, body| policy_enforcement(body)),
    ("account_linking", |_, body| EventKind::AccountLinking {
        status: text_at(body, "status"),
        authorization_code: text_at(body, "authorization_code"),
    }),
    ("response_feedback", |_, body| feedback(body)),
    ("messaging_feedback", |_, body| EventKind::CustomerFeedback { answers: feedback_answers(body) }),
    ("game_play", |_, body| EventKind::GamePlay {
        game_id: id_at(body, "game_id"),
        player_id: id_at(body, "player_id"),
        payload: text_at(body, "payload"),
    }),
    ("messenger_template_status_update", |_, body| template_status(body)),
];

fn thread_kind(piece: &Object) -> EventKind {
    for (key, reader) in THREAD_KINDS {
        match piece.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(body)) => return reader(piece, body),
            // Meta's quick-start test: {"message":"TEST_MESSAGE"}, from nobody to nobody.
            Some(Value::String(_)) if key == "message" && party(piece, "sender", "id").is_none() => {
                return EventKind::DashboardTest;
            }
            Some(Value::Array(_)) if key == "lead" => return lead(piece, None),
            Some(other) => {
                return EventKind::Malformed {
                    problem: format!("`{key}` is {}, expected an object", type_name(other)),
                };
            }
        }
    }
    let known = ["sender", "recipient", "timestamp"];
    let keys = piece.keys().filter(|key| !known.contains(&key.as_str())).take(16);
    EventKind::Unknown { keys: keys.map(|key| key.chars().take(64).collect()).collect() }
}

fn mid_at(body: &Object) -> Option<Mid> {
    id_at(body, "mid").map(Mid::new)
}

fn app_at(body: &Object, key: &str) -> Option<AppId> {
    id_at(body, key).filter(|id| id != "null" && id != "0").map(AppId::new)
}

fn message_kind(piece: &Object, body: &Object) -> EventKind {
    if flag_at(body, "is_deleted") {
        return EventKind::Unsend { mid: mid_at(body) };
    }
    let message = message(piece, body);
    if flag_at(body, "is_echo") { echo(piece, message) } else { EventKind::Message(message) }
}

fn echo(piece: &Object, message: Message) -> EventKind {
    let body = object_at(piece, "message");
    EventKind::Echo(Echo {
        app_id: body.and_then(|body| app_at(body, "app_id")),
        metadata: body.and_then(|body| text_at(body, "metadata")),
        message,
    })
}

/// Where a person came from and which apps had the thread before stand in the message, or beside it.
fn message(piece: &Object, body: &Object) -> Message {
    let hops = if body.contains_key("hop_context") { body } else { piece };
    Message {
        mid: mid_at(body),
        text: text_at(body, "text"),
        quick_reply_payload: object_at(body, "quick_reply").and_then(|reply| text_at(reply, "payload")),
        reply_to: object_at(body, "reply_to")
            .map(|reply| ReplyTo { mid: mid_at(reply), is_self_reply: flag_at(reply, "is_self_reply") }),
        attachments: attachments(body),
        referral: referral_of(piece, body),
        commands: objects_at(body, "commands").into_iter().take(ITEMS_MAX).filter_map(|c| text_at(c, "name")).collect(),
        order: object_at(body, "order").map(order),
        hop_context: objects_at(hops, "hop_context")
            .into_iter()
            .take(ITEMS_MAX)
            .map(|hop| HopContext { app_id: app_at(hop, "app_id"), metadata: text_at(hop, "metadata") })
            .collect(),
        is_unsupported: flag_at(body, "is_unsupported"),
    }
}

fn attachments(body: &Object) -> Vec<Attachment> {
    let mut read: Vec<Attachment> = Vec::new();
    for item in objects_at(body, "attachments").into_iter().take(ITEMS_MAX) {
        let attachment = attachment(item);
        // While Meta changes over, one sticker comes twice: as an image and as a sticker. Keep the latter.
        let twin = attachment.sticker_id.as_ref().and_then(|id| {
            read.iter().position(|other| other.sticker_id.as_ref() == Some(id) && other.kind != attachment.kind)
        });
        match twin {
            Some(at) if attachment.kind == AttachmentKind::Sticker => read[at] = attachment,
            Some(_) => {}
            None => read.push(attachment),
        }
    }
    read
}

fn attachment(item: &Object) -> Attachment {
    let empty = Object::new();
    let payload = object_at(item, "payload").unwrap_or(&empty);
    let kind = match text_at(item, "type").unwrap_or_default().to_ascii_lowercase().as_str() {
        "image" => AttachmentKind::Image,
        "audio" => AttachmentKind::Audio,
        "video" => AttachmentKind::Video,
        "file" => AttachmentKind::File,
        "sticker" => AttachmentKind::Sticker,
        "reel" | "ig_reel" => AttachmentKind::Reel,
        "post" | "ig_post" => AttachmentKind::Post,
        "appointment_booking" => AttachmentKind::AppointmentBooking,
        "template" => AttachmentKind::Template,
        "location" => AttachmentKind::Location,
        "fallback" => AttachmentKind::Fallback,
        other => AttachmentKind::Other(other.chars().take(64).collect()),
    };
    // A fallback without a payload has title and url beside the type.
    let either = |key: &str| text_at(payload, key).or_else(|| text_at(item, key));
    let sticker_id = id_at(payload, "sticker_id").or_else(|| id_at(item, "sticker_id"));
    let product = object_at(payload, "product")
        .and_then(|product| objects_at(product, "elements").first().and_then(|element| id_at(element, "id")));
    Attachment {
        url: either("url"),
        title: either("title"),
        id: ["reel_video_id", "attachment_id", "id", "post_id", "booking_id"]
            .iter()
            .find_map(|key| id_at(payload, key))
            .or(product)
            .or_else(|| id_at(item, "id")),
        coordinates: object_at(payload, "coordinates").and_then(|at| {
            let lat = at.get("lat").and_then(Value::as_f64)?;
            let long = at.get("long").or_else(|| at.get("lng")).and_then(Value::as_f64)?;
            Some(Coordinates { lat, long })
        }),
        sticker_id: sticker_id.or_else(|| if kind == AttachmentKind::Sticker { id_at(payload, "id") } else { None }),
        kind,
    }
}

/// The referral inside a message or postback, or the one that stands beside it in the piece.
fn referral_of(piece: &Object, body: &Object) -> Option<Referral> {
    object_at(body, "referral").or_else(|| object_at(piece, "referral")).map(referral)
}

fn referral(body: &Object) -> Referral {
    Referral {
        r#ref: text_at(body, "ref"),
        source: text_at(body, "source"),
        r#type: text_at(body, "type"),
        ad_id: id_at(body, "ad_id"),
        referer_uri: text_at(body, "referer_uri"),
        product_id: object_at(body, "product").and_then(|product| id_at(product, "id")),
        ads_context_data: body.get("ads_context_data").filter(|value| value.is_object()).cloned(),
    }
}

fn referral_kind(piece: &Object, body: &Object) -> EventKind {
    let is_lead = text_at(body, "type").is_some_and(|kind| kind.to_ascii_uppercase().starts_with("LEAD_"));
    if is_lead { lead(piece, object_at(piece, "lead")) } else { EventKind::Referral(referral(body)) }
}

/// A lead form. `lead` is an object with a `data` list in real traffic and a bare list in old documents.
fn lead(piece: &Object, body: Option<&Object>) -> EventKind {
    let referral = object_at(piece, "referral").or_else(|| body.and_then(|b| object_at(b, "referral"))).map(referral);
    let referral = referral.unwrap_or_default();
    let items = match body {
        Some(body) => objects_at(body, "data"),
        None => objects_at(piece, "lead"),
    };
    let answers = items
        .into_iter()
        .take(ITEMS_MAX)
        .map(|item| LeadAnswer { question: text_at(item, "question"), answer: text_at(item, "answer") })
        .collect();
    let is_incomplete = referral.r#type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("LEAD_INCOMPLETE"));
    EventKind::Lead(Lead { is_complete: !is_incomplete, referral, answers })
}

fn edit(body: &Object) -> EventKind {
    EventKind::Edit {
        mid: mid_at(body),
        text: text_at(body, "text"),
        num_edit: whole_at(body, "num_edit").and_then(|number| u32::try_from(number).ok()),
    }
}

fn reaction(body: &Object) -> EventKind {
    EventKind::Reaction(Reaction {
        mid: mid_at(body),
        action: match text_at(body, "action").unwrap_or_default().to_ascii_lowercase().as_str() {
            "react" => ReactionAction::React,
            "unreact" => ReactionAction::Unreact,
            other => ReactionAction::Other(other.to_owned()),
        },
        reaction: text_at(body, "reaction"),
        emoji: text_at(body, "emoji"),
    })
}

fn postback(piece: &Object, body: &Object) -> EventKind {
    EventKind::Postback(Postback {
        mid: mid_at(body),
        title: text_at(body, "title"),
        payload: text_at(body, "payload"),
        referral: referral_of(piece, body),
    })
}

fn optin(body: &Object) -> EventKind {
    EventKind::Optin(Optin {
        r#type: text_at(body, "type"),
        r#ref: text_at(body, "ref"),
        user_ref: id_at(body, "user_ref").map(UserRef::new),
        payload: text_at(body, "payload"),
        notification_messages_token: text_at(body, "notification_messages_token"),
        notification_messages_status: text_at(body, "notification_messages_status"),
    })
}

fn order(body: &Object) -> Order {
    Order {
        products: objects_at(body, "products")
            .into_iter()
            .take(ITEMS_MAX)
            .map(|product| OrderProduct {
                id: id_at(product, "id").or_else(|| id_at(product, "retailer_id")),
                name: text_at(product, "name"),
                quantity: whole_at(product, "quantity").and_then(|count| u32::try_from(count).ok()),
            })
            .collect(),
        note: text_at(body, "note"),
    }
}

fn delivery(body: &Object) -> EventKind {
    let mids = match body.get("mids") {
        Some(Value::Array(mids)) => mids.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    EventKind::Delivery {
        mids: mids.iter().take(ITEMS_MAX).filter_map(id).map(Mid::new).collect(),
        watermark_ms: body.get("watermark").and_then(time),
    }
}

fn app_roles(body: &Object) -> EventKind {
    let roles = body.iter().take(ITEMS_MAX).map(|(app, roles)| {
        let roles = match roles {
            Value::Array(items) => {
                items.iter().take(ITEMS_MAX).filter_map(|role| role.as_str().map(str::to_owned)).collect()
            }
            Value::String(role) => vec![role.clone()],
            _ => Vec::new(),
        };
        (AppId::new(app.clone()), roles)
    });
    EventKind::AppRoles { roles: roles.collect::<BTreeMap<_, _>>() }
}

fn policy_enforcement(body: &Object) -> EventKind {
    let action = match text_at(body, "action").unwrap_or_default().to_ascii_lowercase().as_str() {
        "warning" => PolicyAction::Warning,
        "block" => PolicyAction::Block,
        "unblock" => PolicyAction::Unblock,
        other => PolicyAction::Other(other.to_owned()),
    };
    EventKind::PolicyEnforcement { action, reason: text_at(body, "reason") }
}

fn feedback(body: &Object) -> EventKind {
    let verdict = match text_at(body, "feedback").unwrap_or_default().to_ascii_lowercase().as_str() {
        "good response" => Feedback::Good,
        "bad response" => Feedback::Bad,
        other => Feedback::Other(other.to_owned()),
    };
    EventKind::ResponseFeedback { verdict, mid: mid_at(body) }
}

/// The answers of a feedback form, over all its screens.
fn feedback_answers(body: &Object) -> usize {
    let questions = |screen: &&Object| match screen.get("questions") {
        Some(Value::Object(questions)) => questions.len(),
        Some(Value::Array(questions)) => questions.len(),
        _ => 0,
    };
    objects_at(body, "feedback_screens").iter().take(ITEMS_MAX).map(questions).sum()
}

// ---- changes and what stands outside the lists ----

/// The fields whose events come in `messaging` or `standby`. Others that begin like them are not known, and kept.
const THREAD_FIELDS: [&str; 20] = [
    "messages",
    "message_echoes",
    "message_edits",
    "message_deliveries",
    "message_reads",
    "message_reactions",
    "messaging_postbacks",
    "messaging_optins",
    "messaging_referrals",
    "messaging_referral",
    "messaging_handovers",
    "messaging_handover",
    "standby",
    "messaging_policy_enforcement",
    "messaging_account_linking",
    "messaging_feedback",
    "messaging_customer_information",
    "messaging_game_plays",
    "response_feedback",
    "send_cart",
];

fn change_kind(piece: &Object) -> EventKind {
    let Some(field) = text_at(piece, "field") else {
        return EventKind::Malformed { problem: "a change has no `field`".to_owned() };
    };
    let Some(value) = object_at(piece, "value") else {
        return EventKind::Malformed { problem: "a change's `value` is not an object".to_owned() };
    };
    match field.as_str() {
        "feed" => EventKind::Feed(FeedChange {
            item: text_at(value, "item"),
            verb: text_at(value, "verb"),
            post_id: id_at(value, "post_id"),
            comment_id: id_at(value, "comment_id"),
            from_id: object_at(value, "from").and_then(|from| id_at(from, "id")).or_else(|| id_at(value, "sender_id")),
            message: text_at(value, "message"),
        }),
        "inbox_labels" => EventKind::InboxLabels {
            action: text_at(value, "action"),
            label_id: object_at(value, "label")
                .and_then(|label| id_at(label, "id"))
                .or_else(|| id_at(value, "label_id")),
        },
        "messenger_template_status_update" => template_status(value),
        // The dashboard tests a messaging field by a change; real ones come in `messaging`.
        field if THREAD_FIELDS.contains(&field) => EventKind::DashboardTest,
        field => EventKind::Unknown { keys: vec![field.chars().take(64).collect()] },
    }
}

fn template_status(body: &Object) -> EventKind {
    EventKind::TemplateStatus {
        template: ["message_template_name", "template_name", "name", "message_template_id", "template_id", "id"]
            .iter()
            .find_map(|key| text_at(body, key)),
        status: ["event", "status", "new_status"].iter().find_map(|key| text_at(body, key)),
        reason: text_at(body, "reason"),
    }
}

fn envelope_kind(piece: &Object) -> EventKind {
    if piece.contains_key("field") && piece.contains_key("value") {
        return EventKind::DashboardTest;
    }
    let keys = piece.keys().filter(|key| !["id", "time", "object"].contains(&key.as_str())).take(16);
    EventKind::Unknown { keys: keys.map(|key| key.chars().take(64).collect()).collect() }
}
