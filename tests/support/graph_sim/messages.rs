//! `POST /{page}/messages`: Meta's checks in Meta's order, then the message, then its echo.

use std::sync::Arc;

use serde_json::{Value, json};

use super::SentMessage;
use super::answer::Answer;
use super::server::Request;
use super::state::Shared;
use crate::webhook::WebhookSender;
use crate::wire;

/// Meta tries a failed delivery a few more times at once.
const DELIVERY_ATTEMPTS: u32 = 6;
const RETIRED_TAGS: [&str; 3] = ["CONFIRMED_EVENT_UPDATE", "ACCOUNT_UPDATE", "POST_PURCHASE_UPDATE"];
const MESSAGING_TYPES: [&str; 4] = ["RESPONSE", "UPDATE", "MESSAGE_TAG", "UTILITY"];
const SENDER_ACTIONS: [&str; 5] = ["MARK_SEEN", "TYPING_ON", "TYPING_OFF", "REACT", "UNREACT"];

pub(super) fn send(shared: &Arc<Shared>, request: &Request, page_id: &str) -> Answer {
    let body = &request.body;
    let Some(psid) = recipient(body) else {
        return Answer::refused(100, 0);
    };
    let psid = psid.as_str();
    let Some(person) = shared.lock().look_up(psid) else {
        return Answer::refused(100, 2_018_001);
    };
    let our_app_id = shared.lock().config.app_id.clone();
    let owner = person.owner_app_id.as_ref();

    let action = body.get("sender_action").and_then(Value::as_str);
    let Some(message) = body.get("message") else {
        return match action {
            Some(action) if SENDER_ACTIONS.contains(&action.to_ascii_uppercase().as_str()) => {
                Answer::ok(json!({ "recipient_id": psid }))
            }
            _ => Answer::refused(100, 0),
        };
    };
    if action.is_some() {
        return Answer::refused(100, 2_018_014);
    }
    if let Err(answer) = check_message(body, message) {
        return answer;
    }
    if owner.is_some_and(|owner| *owner != our_app_id) {
        return Answer::refused(100, 2_534_037);
    }
    let tag = body.get("tag").and_then(Value::as_str);
    if !person.is_window_open && tag != Some("HUMAN_AGENT") {
        return Answer::refused(10, 2_018_278);
    }

    let sent = SentMessage {
        seq: 0,
        page_id: page_id.to_owned(),
        psid: psid.to_owned(),
        message_id: wire::new_mid(),
        text: message.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        metadata: message.get("metadata").and_then(Value::as_str).map(str::to_owned),
        messaging_type: body.get("messaging_type").and_then(Value::as_str).map(str::to_owned),
        tag: tag.map(str::to_owned),
        body: body.clone(),
        at_ms: shared.now_ms(),
    };
    let sent = shared.change(|state| state.take(sent));
    echo(shared, &sent, &our_app_id);
    if sent.psid.starts_with(wire::USER_REF) {
        return Answer::ok(json!({ "message_id": sent.message_id }));
    }
    Answer::ok(json!({ "recipient_id": sent.psid, "message_id": sent.message_id }))
}

/// Whom a call names; a plugin's `user_ref` with [`wire::USER_REF`] before it.
fn recipient(body: &Value) -> Option<String> {
    let field = |name: &str| body.pointer(name).and_then(Value::as_str);
    let user_ref = || field("/recipient/user_ref").map(|user_ref| format!("{}{user_ref}", wire::USER_REF));
    field("/recipient/id").map(str::to_owned).or_else(user_ref)
}

fn check_message(body: &Value, message: &Value) -> Result<(), Answer> {
    let invalid = || Err(Answer::refused(100, 0));
    let characters = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, |text| text.chars().count());
    let text = characters(message.get("text"));
    if text >= 2000 || characters(message.get("metadata")) >= 1000 {
        return invalid();
    }
    if text == 0 && message.get("attachment").is_none() {
        return invalid();
    }
    let replies = message.get("quick_replies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_bad_reply = |reply: &Value| characters(reply.get("title")) > 20 || characters(reply.get("payload")) > 1000;
    if replies.len() > 13 || replies.iter().any(is_bad_reply) {
        return invalid();
    }
    let kind = body.get("messaging_type").and_then(Value::as_str).unwrap_or("RESPONSE");
    let tag = body.get("tag").and_then(Value::as_str);
    match (kind, tag) {
        (_, Some(tag)) if RETIRED_TAGS.contains(&tag) => Err(Answer::refused(100, 1_893_061)),
        ("MESSAGE_TAG", Some("HUMAN_AGENT" | "CUSTOMER_FEEDBACK")) => Ok(()),
        ("MESSAGE_TAG", _) => invalid(),
        (kind, _) if MESSAGING_TYPES.contains(&kind) => Ok(()),
        _ => invalid(),
    }
}

/// Delivers the echo as planned, beside the answer: either may come first, as with Meta.
fn echo(shared: &Arc<Shared>, sent: &SentMessage, our_app_id: &str) {
    let (sender, plan) = {
        let mut state = shared.lock();
        let plan = state.config.echoes;
        if plan.copies > 0 && state.echoes_to_drop > 0 {
            state.echoes_to_drop -= 1;
            return;
        }
        (state.senders.get(&sent.page_id).cloned(), plan)
    };
    let Some(sender) = sender else { return };
    let app_id = our_app_id.parse().unwrap_or_default();
    let fields = wire::echo(&sent.message_id, &sent.text, app_id, sent.metadata.as_deref());
    let piece = wire::from_page(&sent.page_id, &sent.psid, sent.at_ms, fields);
    let body = wire::body(&sent.page_id, sent.at_ms, vec![piece]);
    for _ in 0..plan.copies {
        let (shared, sender, body) = (Arc::clone(shared), sender.clone(), body.clone());
        tokio::spawn(async move {
            tokio::time::sleep(plan.delay).await;
            deliver(&shared, &sender, &body).await;
        });
    }
}

async fn deliver(shared: &Shared, sender: &WebhookSender, body: &Value) {
    match sender.deliver(body, DELIVERY_ATTEMPTS).await {
        Some(200) => shared.change(|state| state.echoes_delivered += 1),
        status => tracing::warn!(?status, "an echo was not acknowledged with 200"),
    }
}

/// Delivers an event beside an answer, without waiting for it.
pub(super) fn deliver_beside(shared: &Arc<Shared>, page_id: &str, body: Value) {
    let Some(sender) = shared.lock().senders.get(page_id).cloned() else { return };
    tokio::spawn(async move {
        if sender.deliver(&body, DELIVERY_ATTEMPTS).await != Some(200) {
            tracing::warn!("an event was not acknowledged with 200");
        }
    });
}
