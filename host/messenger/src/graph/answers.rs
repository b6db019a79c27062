//! Reading Graph's successes, tolerantly: a field that is missing or odd costs that field.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Sent;
use crate::classify::{AmbiguousReason, Failure, PermanentReason};
use crate::event::lenient::{flag_at, id_at, object_at, objects_at, text_at, time_at, whole_at};
use crate::ids::{AppId, Mid, Psid};

/// Who may answer in a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadOwner {
    pub app_id: AppId,
    /// When control lapses, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// An app subscribed to a Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedApp {
    pub app_id: AppId,
    pub name: Option<String>,
    pub subscribed_fields: Vec<String>,
}

/// What `debug_token` says. Times are seconds since 1970; 0 means never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugToken {
    pub is_valid: bool,
    pub app_id: Option<AppId>,
    pub r#type: Option<String>,
    pub expires_at_s: Option<i64>,
    pub data_access_expires_at_s: Option<i64>,
    pub issued_at_s: Option<i64>,
    pub profile_id: Option<String>,
    /// App-scoped id of the person whose token it is, or who connected the Page.
    #[serde(default)]
    pub user_id: Option<String>,
    pub scopes: Vec<String>,
    pub granular_scopes: Vec<GranularScope>,
    /// Why it is not valid: the numbers of error 190.
    pub error_code: Option<i64>,
    pub error_subcode: Option<i64>,
}

/// A permission given for some Pages only; no targets means all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GranularScope {
    pub scope: String,
    pub target_ids: Vec<String>,
}

/// A conversation's newest messages, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    pub id: Option<String>,
    pub messages: Vec<ConversationMessage>,
}

/// One message as the Conversations API shows it. It has no `metadata`: compare sender, text and time.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationMessage {
    pub id: Mid,
    pub created_ms: Option<i64>,
    pub from_id: Option<String>,
    pub text: Option<String>,
}

/// A person's public profile; empty when Meta does not give it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    /// Expires: do not store.
    pub profile_pic: Option<String>,
}

/// `messaging_feature_status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureStatus {
    pub hop_v2: bool,
    pub msgr_multi_app: bool,
    pub ig_multi_app: bool,
}

pub(super) const UNREADABLE: Failure = Failure::Ambiguous { reason: AmbiguousReason::UnreadableSuccess };

pub(super) fn sent(body: &Value) -> Result<Sent, Failure> {
    let body = body.as_object().ok_or(UNREADABLE)?;
    let message_id = id_at(body, "message_id").map(Mid::new).ok_or(UNREADABLE)?;
    Ok(Sent { message_id, recipient_id: id_at(body, "recipient_id").map(Psid::new) })
}

/// `{"success":true}`; a sample of Meta's shows the string "true".
pub(super) fn success(body: &Value) -> Result<(), Failure> {
    match body.as_object() {
        Some(body) if flag_at(body, "success") => Ok(()),
        Some(body) if body.contains_key("success") => Err(Failure::Permanent { reason: PermanentReason::Unknown }),
        _ => Err(UNREADABLE),
    }
}

pub(super) fn data(body: &Value) -> Result<Vec<&Map<String, Value>>, Failure> {
    let body = body.as_object().filter(|body| body.contains_key("data")).ok_or(UNREADABLE)?;
    Ok(objects_at(body, "data"))
}

pub(super) fn thread_owner(body: &Value) -> Result<Option<ThreadOwner>, Failure> {
    let data = data(body)?;
    let owner = data.first().and_then(|first| object_at(first, "thread_owner"));
    Ok(owner.and_then(|owner| {
        let app_id = id_at(owner, "app_id").map(AppId::new)?;
        Some(ThreadOwner { app_id, expires_ms: time_at(owner, "expiration") })
    }))
}

pub(super) fn subscribed_apps(body: &Value) -> Result<Vec<ConnectedApp>, Failure> {
    let apps = data(body)?.into_iter().filter_map(|app| {
        Some(ConnectedApp {
            app_id: id_at(app, "id").map(AppId::new)?,
            name: text_at(app, "name"),
            subscribed_fields: strings_at(app, "subscribed_fields"),
        })
    });
    Ok(apps.collect())
}

pub(super) fn debug_token(body: &Value) -> Result<DebugToken, Failure> {
    let data = body.as_object().and_then(|body| object_at(body, "data")).ok_or(UNREADABLE)?;
    let error = object_at(data, "error");
    let scopes = objects_at(data, "granular_scopes").into_iter().filter_map(|scope| {
        Some(GranularScope { scope: text_at(scope, "scope")?, target_ids: strings_at(scope, "target_ids") })
    });
    Ok(DebugToken {
        is_valid: flag_at(data, "is_valid"),
        app_id: id_at(data, "app_id").map(AppId::new),
        r#type: text_at(data, "type"),
        expires_at_s: whole_at(data, "expires_at"),
        data_access_expires_at_s: whole_at(data, "data_access_expires_at"),
        issued_at_s: whole_at(data, "issued_at"),
        profile_id: id_at(data, "profile_id"),
        user_id: id_at(data, "user_id"),
        scopes: strings_at(data, "scopes"),
        granular_scopes: scopes.collect(),
        error_code: error.and_then(|error| whole_at(error, "code")),
        error_subcode: error.and_then(|error| whole_at(error, "subcode").or_else(|| whole_at(error, "error_subcode"))),
    })
}

pub(super) fn conversation(body: &Value) -> Result<Option<Conversation>, Failure> {
    let data = data(body)?;
    Ok(data.first().map(|found| {
        let messages = object_at(found, "messages").map(|messages| objects_at(messages, "data")).unwrap_or_default();
        let messages = messages.into_iter().filter_map(|message| {
            Some(ConversationMessage {
                id: id_at(message, "id").map(Mid::new)?,
                created_ms: time_at(message, "created_time"),
                from_id: object_at(message, "from").and_then(|from| id_at(from, "id")),
                text: text_at(message, "message"),
            })
        });
        Conversation { id: id_at(found, "id"), messages: messages.collect() }
    }))
}

pub(super) fn profile(body: &Value) -> Profile {
    let field = |key| body.as_object().and_then(|body| text_at(body, key));
    Profile { first_name: field("first_name"), last_name: field("last_name"), profile_pic: field("profile_pic") }
}

/// Meta prints the status as a list of objects or as an object; take what says true.
pub(super) fn feature_status(body: &Value) -> FeatureStatus {
    let objects = body.as_object().map(|body| objects_at(body, "messaging_feature_status")).unwrap_or_default();
    let objects: Vec<_> = objects
        .into_iter()
        .flat_map(|object| if object.contains_key("data") { objects_at(object, "data") } else { vec![object] })
        .collect();
    let is_on = |key| objects.iter().any(|object| flag_at(object, key));
    FeatureStatus {
        hop_v2: is_on("hop_v2"),
        msgr_multi_app: is_on("msgr_multi_app"),
        ig_multi_app: is_on("ig_multi_app"),
    }
}

pub(super) fn strings_at(object: &Map<String, Value>, key: &str) -> Vec<String> {
    let items = object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(crate::event::lenient::id).collect()
}
