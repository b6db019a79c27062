//! Everything of Graph but messages.

use std::sync::Arc;

use frontdesk_messenger::proof;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::answer::Answer;
use super::messages::deliver_beside;
use super::server::Request;
use super::state::{Shared, State};
use crate::wire;

/// Pages in one answer of `me/accounts`.
const ACCOUNTS_AT_ONCE: usize = 1;

/// Checks token and proof for a Page's call and runs it with the Page's id; `me` is the token's Page.
pub(super) fn with_page(
    shared: &Arc<Shared>,
    request: &Request,
    page: &str,
    run: impl FnOnce(&str) -> Answer,
) -> Answer {
    let checked = {
        let state = shared.lock();
        page_of_token(&state, request).and_then(|page_id| check_proof(&state, request).map(|()| page_id))
    };
    match checked {
        Err(answer) => answer,
        Ok(page_id) if page == "me" || page == page_id => run(&page_id),
        Ok(_) => Answer::error(403, 10, None, false),
    }
}

fn page_of_token(state: &State, request: &Request) -> Result<String, Answer> {
    let token = request.token.as_deref().unwrap_or_default();
    let Some(page) = state.config.pages.iter().find(|page| page.token == token) else {
        return Err(Answer::error(401, 190, None, false));
    };
    match state.dead_tokens.get(&page.page_id) {
        Some(subcode) => Err(Answer::error(401, 190, Some(*subcode), false)),
        None => Ok(page.page_id.clone()),
    }
}

fn check_proof(state: &State, request: &Request) -> Result<(), Answer> {
    let refused = || Answer::error(400, 100, None, false);
    let secret = SecretString::from(state.config.app_secret.clone());
    let token = SecretString::from(request.token.clone().unwrap_or_default());
    let Some(given) = request.parameter("appsecret_proof") else {
        return if state.config.requires_proof { Err(refused()) } else { Ok(()) };
    };
    let expected = match request.parameter("appsecret_time") {
        None => proof::appsecret_proof(&secret, &token),
        Some(time) => {
            let time: i64 = time.parse().map_err(|_| refused())?;
            if (wire::now_ms() / 1000 - time).abs() > proof::TIMED_PROOF_VALID_S {
                return Err(refused());
            }
            proof::appsecret_proof_at(&secret, &token, time)
        }
    };
    if given == expected { Ok(()) } else { Err(refused()) }
}

/// `GET /me`
pub(super) fn page_node(shared: &Arc<Shared>, request: &Request, page_id: &str) -> Answer {
    let fields = request.parameter("fields").unwrap_or_default();
    if fields.contains("messaging_feature_status") {
        let status = json!({ "hop_v2": true, "msgr_multi_app": true, "ig_multi_app": false });
        return Answer::ok(json!({ "messaging_feature_status": status, "id": page_id }));
    }
    let state = shared.lock();
    let name = state.config.pages.iter().find(|page| page.page_id == page_id).map(|page| page.name.clone());
    Answer::ok(json!({ "id": page_id, "name": name }))
}

/// `GET /{psid}` or `GET /{page}`
pub(super) fn node(shared: &Arc<Shared>, request: &Request, node: &str) -> Answer {
    with_page(shared, request, "me", |page_id| {
        if node == page_id {
            return page_node(shared, request, page_id);
        }
        match shared.lock().look_up(node) {
            None => Answer::refused(100, 33),
            Some(person) => match person.first_name {
                Some(name) => Answer::ok(json!({ "first_name": name, "last_name": "Example", "id": node })),
                None => Answer::refused(100, 2_018_218),
            },
        }
    })
}

/// `/{page}/{edge}`
pub(super) fn page_edge(shared: &Arc<Shared>, request: &Request, page_id: &str, edge: &str) -> Answer {
    match (request.method.as_str(), edge) {
        ("GET", "conversations") => conversations(shared, request, page_id),
        ("GET", "thread_owner") => thread_owner(shared, request),
        ("GET", "subscribed_apps") => subscribed_apps(shared, page_id),
        ("POST", "subscribed_apps") => subscribe(shared, request, page_id),
        ("DELETE", "subscribed_apps") => {
            shared.change(|state| state.subscriptions.remove(page_id));
            Answer::success()
        }
        (
            "POST",
            "pass_thread_control"
            | "take_thread_control"
            | "release_thread_control"
            | "request_thread_control"
            | "extend_thread_control",
        ) => thread_control(shared, request, page_id, edge),
        _ => Answer::error(400, 2500, None, false),
    }
}

fn conversations(shared: &Arc<Shared>, request: &Request, page_id: &str) -> Answer {
    let Some(psid) = request.parameter("user_id") else { return Answer::refused(100, 0) };
    let state = shared.lock();
    let thread = state.thread(page_id, &psid);
    if thread.is_empty() {
        return Answer::ok(json!({ "data": [] }));
    }
    let messages = thread.iter().rev().take(limit_of(&request.parameter("fields").unwrap_or_default()));
    let messages: Vec<Value> = messages
        .map(|message| {
            let (from, to) = if message.is_from_page { (page_id, psid.as_str()) } else { (psid.as_str(), page_id) };
            let created = chrono::DateTime::from_timestamp_millis(message.at_ms).unwrap_or_default();
            json!({
                "id": message.mid,
                "created_time": created.format("%Y-%m-%dT%H:%M:%S+0000").to_string(),
                "from": { "id": from },
                "to": { "data": [{ "id": to }] },
                "message": message.text,
            })
        })
        .collect();
    Answer::ok(json!({ "data": [{ "id": format!("t_{page_id}_{psid}"), "messages": { "data": messages } }] }))
}

/// The number in `messages.limit(n)`; Graph's default is 25.
fn limit_of(fields: &str) -> usize {
    fields
        .split_once("messages.limit(")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or(25)
}

fn thread_owner(shared: &Arc<Shared>, request: &Request) -> Answer {
    let Some(psid) = request.parameter("recipient") else { return Answer::refused(100, 0) };
    match shared.lock().look_up(&psid) {
        None => Answer::refused(100, 2_018_001),
        Some(person) => Answer::ok(match person.owner_app_id {
            None => json!({ "data": [] }),
            Some(app_id) => {
                let expires_s = wire::now_ms() / 1000 + 86_400;
                json!({ "data": [{ "thread_owner": { "app_id": app_id, "expiration": expires_s } }] })
            }
        }),
    }
}

fn thread_control(shared: &Arc<Shared>, request: &Request, page_id: &str, edge: &str) -> Answer {
    let Some(psid) = request.body.pointer("/recipient/id").and_then(Value::as_str).map(str::to_owned) else {
        return Answer::refused(100, 0);
    };
    let (person, ours) = {
        let state = shared.lock();
        (state.look_up(&psid), state.config.app_id.clone())
    };
    let Some(person) = person else { return Answer::refused(100, 2_018_001) };
    let previous = person.owner_app_id;
    let is_others = previous.as_ref().is_some_and(|owner| *owner != ours);
    let target = request.parameter("target_app_id");
    let (owner, event) = match edge {
        "pass_thread_control" if is_others => return Answer::refused(100, 2_534_037),
        "pass_thread_control" => match target {
            None => return Answer::refused(100, 0),
            Some(target) => {
                let event = wire::pass_thread_control(previous.as_deref(), Some(&target));
                (Some(target), Some(event))
            }
        },
        "take_thread_control" => {
            let event = wire::take_thread_control(previous.as_deref(), &ours);
            (Some(ours), Some(event))
        }
        // Release sends no webhook.
        "release_thread_control" if is_others => return Answer::refused(100, 2_534_037),
        "release_thread_control" => (None, None),
        _ => (previous, None),
    };
    shared.change(|state| state.person(&psid).owner_app_id = owner);
    if let Some(event) = event {
        let now_ms = wire::now_ms();
        let piece = wire::from_person(page_id, &psid, now_ms, event);
        deliver_beside(shared, page_id, wire::body(page_id, now_ms, vec![piece]));
    }
    Answer::success()
}

fn subscribed_apps(shared: &Arc<Shared>, page_id: &str) -> Answer {
    let state = shared.lock();
    let data = state
        .subscriptions
        .get(page_id)
        .map(|fields| json!({ "id": state.config.app_id, "name": "Frontdesk", "subscribed_fields": fields }));
    Answer::ok(json!({ "data": data.into_iter().collect::<Vec<_>>() }))
}

fn subscribe(shared: &Arc<Shared>, request: &Request, page_id: &str) -> Answer {
    let fields = request.parameter("subscribed_fields").unwrap_or_default();
    let fields: Vec<String> = fields.split(',').map(str::trim).filter(|f| !f.is_empty()).map(str::to_owned).collect();
    if fields.is_empty() {
        return Answer::refused(100, 0);
    }
    shared.change(|state| state.subscriptions.insert(page_id.to_owned(), fields));
    Answer::success()
}

/// `GET /debug_token`, called with the app's own token.
pub(super) fn debug_token(shared: &Arc<Shared>, request: &Request) -> Answer {
    let state = shared.lock();
    let app_token = format!("{}|{}", state.config.app_id, state.config.app_secret);
    if request.token.as_deref() != Some(app_token.as_str()) {
        return Answer::error(401, 190, None, false);
    }
    let input = request.parameter("input_token").unwrap_or_default();
    if let Some(user_id) = user_of_token(&input) {
        let now_s = wire::now_ms() / 1000;
        return Answer::ok(json!({ "data": {
            "app_id": state.config.app_id, "type": "USER", "is_valid": true, "expires_at": now_s + 5_184_000,
            "data_access_expires_at": now_s + 90 * 86_400, "issued_at": now_s, "user_id": user_id,
            "scopes": state.scopes,
        } }));
    }
    let Some(page) = state.config.pages.iter().find(|page| page.token == input) else {
        let error = json!({ "code": 190, "message": "Invalid OAuth access token." });
        return Answer::ok(json!({ "data": { "is_valid": false, "error": error, "scopes": [] } }));
    };
    let mut data = json!({
        "app_id": state.config.app_id, "type": "PAGE", "is_valid": true, "expires_at": 0,
        "data_access_expires_at": wire::now_ms() / 1000 + 90 * 86_400, "issued_at": wire::now_ms() / 1000 - 60,
        "profile_id": page.page_id, "user_id": state.connectors.get(&page.page_id), "scopes": state.scopes,
        "granular_scopes": [{ "scope": "pages_messaging", "target_ids": [page.page_id] }],
    });
    if let (Some(subcode), Some(data)) = (state.dead_tokens.get(&page.page_id), data.as_object_mut()) {
        data.insert("is_valid".to_owned(), json!(false));
        data.insert("error".to_owned(), json!({ "code": 190, "subcode": subcode, "message": "dead" }));
    }
    Answer::ok(json!({ "data": data }))
}

/// `GET /me/accounts` with a user's token.
pub(super) fn accounts(shared: &Arc<Shared>, request: &Request) -> Answer {
    let Some(user_id) = request.token.as_deref().and_then(user_of_token) else {
        return Answer::error(401, 190, None, false);
    };
    let refused = check_proof(&shared.lock(), request).err();
    if let Some(refused) = refused {
        return refused;
    }
    shared.change(|state| {
        let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let start = number("after").unwrap_or(0);
        // A small Graph page, so that even two Pages have to be turned over.
        let end = start + number("limit").unwrap_or(25).min(ACCOUNTS_AT_ONCE);
        let pages: Vec<_> = state.config.pages.iter().skip(start).take(end - start).cloned().collect();
        let is_last = end >= state.config.pages.len();
        let data: Vec<Value> = pages
            .into_iter()
            .map(|page| {
                state.connectors.insert(page.page_id.clone(), user_id.clone());
                json!({ "id": page.page_id, "name": page.name, "access_token": page.token,
                        "tasks": ["MODERATE", "MESSAGING"] })
            })
            .collect();
        let mut paging = json!({ "cursors": { "before": start.to_string(), "after": end.to_string() } });
        if let (false, Some(paging)) = (is_last, paging.as_object_mut()) {
            paging.insert("next".to_owned(), json!("https://graph.facebook.com/next"));
        }
        Answer::ok(json!({ "data": data, "paging": paging }))
    })
}

/// `sim-user-<id>`, with `-long` after it once exchanged.
fn user_of_token(token: &str) -> Option<String> {
    Some(token.strip_prefix("sim-user-")?.trim_end_matches("-long").to_owned())
}

/// `GET /{user}/ids_for_pages`, called with the app's own token.
pub(super) fn ids_for_pages(shared: &Arc<Shared>, request: &Request, user_id: &str) -> Answer {
    let state = shared.lock();
    let app_token = format!("{}|{}", state.config.app_id, state.config.app_secret);
    if request.token.as_deref() != Some(app_token.as_str()) {
        return Answer::error(401, 190, None, false);
    }
    if let Err(refused) = check_proof(&state, request) {
        return refused;
    }
    let data = state.page_ids.get(user_id).into_iter().flatten();
    let data: Vec<Value> =
        data.map(|(page, psid)| json!({ "id": psid, "page": { "id": page, "name": "Page" } })).collect();
    Answer::ok(json!({ "data": data }))
}

/// `GET /oauth/access_token`: a short-lived user token for a long-lived one.
pub(super) fn exchange_token(shared: &Arc<Shared>, request: &Request) -> Answer {
    let state = shared.lock();
    let is = |name: &str, expected: &str| request.parameter(name).as_deref() == Some(expected);
    if !is("client_id", &state.config.app_id) || !is("client_secret", &state.config.app_secret) {
        return Answer::error(400, 101, None, false);
    }
    let short = request.parameter("fb_exchange_token").unwrap_or_default();
    if !is("grant_type", "fb_exchange_token") || !short.starts_with("sim-user-") {
        return Answer::error(400, 190, None, false);
    }
    let token = format!("{}-long", short.trim_end_matches("-long"));
    Answer::ok(json!({ "access_token": token, "token_type": "bearer", "expires_in": 5_184_000 }))
}
