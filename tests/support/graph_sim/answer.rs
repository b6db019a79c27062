//! Graph's answers, written as Graph writes them.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Value, json};

/// What a call leads to.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body, headers: Vec::new() }
    }

    pub fn success() -> Self {
        Self::ok(json!({ "success": true }))
    }

    pub fn error(status: u16, code: i64, subcode: Option<i64>, is_transient: bool) -> Self {
        let kind = if matches!(code, 190 | 102) { "OAuthException" } else { "GraphMethodException" };
        // The text is deliberately of no use: nobody may decide by it.
        let mut error = json!({ "message": "(#sim) Anfrage abgelehnt", "type": kind, "code": code });
        if let Some(error) = error.as_object_mut() {
            if let Some(subcode) = subcode {
                error.insert("error_subcode".to_owned(), json!(subcode));
            }
            if is_transient {
                error.insert("is_transient".to_owned(), json!(true));
            }
            error.insert("fbtrace_id".to_owned(), json!("A8simTRACE0"));
        }
        Self { status, body: json!({ "error": error }), headers: Vec::new() }
    }

    /// HTTP 400 with a code and a subcode (0 is none).
    pub fn refused(code: i64, subcode: i64) -> Self {
        Self::error(400, code, (subcode != 0).then_some(subcode), false)
    }

    /// Adds the three usage headers.
    pub fn with_usage(mut self, page_id: &str, percent: u32, regain_after_minutes: u32) -> Self {
        let usage = json!({ "call_count": percent, "total_time": percent / 2, "total_cputime": percent / 2 });
        let mut business = usage.clone();
        if let Some(business) = business.as_object_mut() {
            business.insert("type".to_owned(), json!("messenger"));
            business.insert("estimated_time_to_regain_access".to_owned(), json!(regain_after_minutes));
        }
        self.headers.push(("x-app-usage", usage.to_string()));
        self.headers.push(("x-page-usage", usage.to_string()));
        self.headers.push(("x-business-use-case-usage", json!({ page_id: [business] }).to_string()));
        self
    }

    pub fn into_response(self) -> Response<Body> {
        let mut response = respond(self.status, "application/json; charset=UTF-8", self.body.to_string());
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

pub(super) fn respond(status: u16, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
