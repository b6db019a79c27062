//! One HTTP call: what came back, and if nothing did, whether the request can have left.

use bytes::BytesMut;
use serde_json::Value;

use super::{CallTrace, GraphError, Reply};
use crate::classify::{AmbiguousReason, Failure, PermanentReason, classify};
use crate::usage::UsageReport;

/// The most of an answer that is read, in bytes. A page of a conversation has some ten thousand.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How often a refusal whose reason was cut off is asked for again.
const REASONS_ASKED_MAX: u32 = 2;

/// Sends a request once and gives the JSON object of a success.
pub(super) async fn run(request: reqwest::RequestBuilder) -> Reply<Value> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return broken(error),
    };
    let http_status = response.status().as_u16();
    let usage = UsageReport::from_headers(response.headers());
    let fbtrace_id = response
        .headers()
        .get("x-fb-trace-id")
        .and_then(|value| value.to_str().ok())
        .map(|id| id.chars().take(64).collect::<String>());
    let mut trace = CallTrace { http_status: Some(http_status), fbtrace_id, ..CallTrace::default() };

    let body = match read(response).await {
        Ok(body) => body,
        Err(error) => {
            trace.transport_error = Some(error.clone());
            let result = match http_status {
                // A success without a body names no message.
                200..=299 => Failure::Ambiguous { reason: AmbiguousReason::ConnectionLost },
                // Refused, only the numbers that say why were lost: asked again, Graph says them again.
                400..=428 | 430..=499 => {
                    Failure::Retry { after_ms: usage.retry_after_ms, attempts_max: Some(REASONS_ASKED_MAX) }
                }
                _ => classify(http_status, None, &usage),
            };
            return Reply { result: Err(result), usage, trace };
        }
    };
    let error = GraphError::from_body(&body);
    if let Some(error) = &error {
        trace.code = error.code;
        trace.subcode = error.subcode;
        trace.fbtrace_id = error.fbtrace_id.clone().or(trace.fbtrace_id);
    }
    let result = match error {
        None if (200..300).contains(&http_status) => serde_json::from_slice::<Value>(&body)
            .ok()
            .filter(|body| body.is_object() && body.get("error").is_none())
            .ok_or_else(|| classify(http_status, None, &usage)),
        error => Err(classify(http_status, error.as_ref(), &usage)),
    };
    Reply { result, usage, trace }
}

async fn read(mut response: reqwest::Response) -> Result<BytesMut, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// No answer came. A failure to connect (name, address, TLS) is the only one that surely sent nothing.
fn broken(error: reqwest::Error) -> Reply<Value> {
    let result = if error.is_connect() {
        Failure::Retry { after_ms: None, attempts_max: None }
    } else if error.is_builder() {
        Failure::Permanent { reason: PermanentReason::BadRequest }
    } else if error.is_timeout() {
        Failure::Ambiguous { reason: AmbiguousReason::TimedOut }
    } else {
        Failure::Ambiguous { reason: AmbiguousReason::ConnectionLost }
    };
    let trace = CallTrace { transport_error: Some(describe(&error)), ..CallTrace::default() };
    Reply { result: Err(result), usage: UsageReport::default(), trace }
}

/// The chain of causes without the address, whose query can hold a token.
fn describe(error: &reqwest::Error) -> String {
    let kind = match error {
        error if error.is_connect() => "no connection",
        error if error.is_timeout() => "timed out",
        error if error.is_builder() => "the request cannot be built",
        error if error.is_body() || error.is_decode() => "the answer broke off",
        _ => "the connection broke",
    };
    let mut text = kind.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.chars().take(300).collect()
}
