//! Reading requests: ids, queries and bodies, each with a clear refusal, each bounded.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::error::AdminError;

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A UUID in the path.
#[derive(Debug)]
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        match Path::<Uuid>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(AdminError::field("id", "expected a UUID in the path")),
        }
    }
}

/// The query string.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AdminError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(AdminError::Query { problem: error.body_text() }),
        }
    }
}

/// A JSON body; an empty one stands for `{}`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| refused_bytes(&error))?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| AdminError::Body { problem: error.to_string() })
    }
}

fn refused_bytes(error: &BytesRejection) -> AdminError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return AdminError::TooLarge;
    }
    AdminError::Body { problem: error.body_text() }
}

/// How many rows a list may have.
pub fn limit(asked: Option<i64>) -> Result<i64, AdminError> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(limit) => Err(AdminError::field("limit", format!("{limit} was given, expected 1 to {LIMIT_MAX}"))),
    }
}

/// One of the words that a query may hold.
pub fn choice(
    field: &'static str,
    asked: Option<String>,
    allowed: &[&'static str],
) -> Result<Option<String>, AdminError> {
    match asked {
        Some(word) if !allowed.contains(&word.as_str()) => {
            Err(AdminError::field(field, format!("expected one of {}", allowed.join(", "))))
        }
        asked => Ok(asked),
    }
}

/// Where the next page of a list ordered by time and id begins: `<RFC 3339>,<uuid>`; a time alone is taken too.
pub fn before(asked: Option<&str>) -> Result<Option<(DateTime<Utc>, Uuid)>, AdminError> {
    let Some(asked) = asked else { return Ok(None) };
    let (at, id) = asked.split_once(',').map_or((asked, None), |(at, id)| (at, Some(id)));
    let at = DateTime::parse_from_rfc3339(at).ok().map(|at| at.to_utc());
    let id = id.map_or(Some(Uuid::nil()), |id| id.parse().ok());
    match (at, id) {
        (Some(at), Some(id)) => Ok(Some((at, id))),
        _ => Err(AdminError::field("before", "expected the next_before of an earlier page, or an RFC 3339 time")),
    }
}

/// A place in a list ordered by time and id, as [`cursor_of`] writes it.
pub fn cursor(field: &'static str, asked: &str) -> Result<(DateTime<Utc>, Uuid), AdminError> {
    let parts = asked
        .split_once(',')
        .and_then(|(at, id)| Some((DateTime::parse_from_rfc3339(at).ok()?.to_utc(), id.parse().ok()?)));
    parts.ok_or_else(|| AdminError::field(field, "expected the next_after of an earlier page"))
}

/// `<RFC 3339>,<uuid>`.
pub fn cursor_of(at: DateTime<Utc>, id: Uuid) -> String {
    format!("{},{id}", at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// `next_before` of a page whose last row is this one; none when the page was not full.
pub fn next_before(rows: usize, limit: i64, last: Option<(DateTime<Utc>, Uuid)>) -> Option<String> {
    if i64::try_from(rows).unwrap_or(i64::MAX) < limit {
        return None;
    }
    last.map(|(at, id)| cursor_of(at, id))
}

/// Text for people that Postgres can keep: trimmed, without NUL, of a bounded length in characters.
pub fn text(field: &'static str, value: &str, characters_max: usize) -> Result<String, AdminError> {
    let value = value.trim();
    let characters = value.chars().count();
    if value.contains('\0') || characters > characters_max {
        return Err(AdminError::field(
            field,
            format!("{characters} characters were given, expected at most {characters_max} and no NUL"),
        ));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_where_the_last_one_ended() {
        let at = DateTime::parse_from_rfc3339("2026-11-22T10:20:30.123456Z").unwrap().to_utc();
        let id = Uuid::from_u128(7);
        let next = next_before(50, 50, Some((at, id))).unwrap();
        assert_eq!(before(Some(&next)).unwrap(), Some((at, id)));
        assert_eq!(before(Some("2026-11-22T10:20:30.123456Z")).unwrap(), Some((at, Uuid::nil())));
        assert_eq!(next_before(49, 50, Some((at, id))), None);
        assert_eq!(before(None).unwrap(), None);
        for wrong in ["", "yesterday", "2026-11-22", "2026-11-22T10:20:30Z,7"] {
            assert!(before(Some(wrong)).is_err(), "{wrong:?}");
            assert!(cursor("after", wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(cursor("after", &cursor_of(at, id)).unwrap(), (at, id));
        assert!(cursor("after", "2026-11-22T10:20:30.123456Z").is_err(), "a time alone could skip turns");
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        assert_eq!(limit(None).unwrap(), 50);
        assert_eq!(limit(Some(1)).unwrap(), 1);
        assert_eq!(limit(Some(200)).unwrap(), 200);
        assert!(limit(Some(0)).is_err());
        assert!(limit(Some(201)).is_err());
        assert_eq!(text("reason", " äöü ", 3).unwrap(), "äöü");
        assert!(text("reason", "äöüß", 3).is_err());
        assert!(text("reason", "a\0", 3).is_err());
    }
}
