//! The three rate-limit headers: how much of the budget is used, and when a limited caller may go on.
//!
//! `X-App-Usage` and `X-Page-Usage` are `{"call_count","total_time","total_cputime"}` in percent of the rolling hour;
//! `X-Business-Use-Case-Usage` maps ids to lists of the same with `type` and `estimated_time_to_regain_access` in minutes
//! (at most 32 objects). Calls with a Page token count against the business one. Source: Graph API rate limiting.

use chrono::DateTime;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::event::lenient::{text_at, whole_at};

const HEADER_BYTES_MAX: usize = 32 * 1024;
const ENTRIES_MAX: usize = 32;
const MINUTE_MS: u64 = 60_000;
/// No limit of Meta's lasts longer than a day; a longer estimate is cut.
const REGAIN_AFTER_MS_MAX: u64 = 24 * 60 * MINUTE_MS;

/// Percentages of one budget. 100 means that calls are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsagePercent {
    pub call_count: u32,
    pub total_time: u32,
    pub total_cputime: u32,
}

impl UsagePercent {
    /// The fullest of the three.
    pub fn max(&self) -> u32 {
        self.call_count.max(self.total_time).max(self.total_cputime)
    }
}

/// One entry of the business header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusinessUsage {
    /// The business object, for Messenger the Page's id.
    pub id: String,
    /// `messenger`, `pages`, …
    pub r#type: Option<String>,
    pub percent: UsagePercent,
    pub regain_after_ms: Option<u64>,
}

/// What a response says about the caller's budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    pub app: Option<UsagePercent>,
    pub page: Option<UsagePercent>,
    pub business: Vec<BusinessUsage>,
    /// The fullest of all budgets; 0 when no header came.
    pub max_percent: u32,
    /// The longest estimate of when access returns.
    pub regain_after_ms: Option<u64>,
    /// See [`retry_after_ms`].
    pub retry_after_ms: Option<u64>,
}

impl UsageReport {
    /// Reads the headers; unreadable ones count as absent.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let app = object(headers, "x-app-usage").map(|object| percent(&object));
        let page = object(headers, "x-page-usage").map(|object| percent(&object));
        let business = object(headers, "x-business-use-case-usage").map(|object| business(&object)).unwrap_or_default();
        Self::of(app, page, business, retry_after_ms(headers))
    }

    fn of(
        app: Option<UsagePercent>,
        page: Option<UsagePercent>,
        business: Vec<BusinessUsage>,
        retry_after_ms: Option<u64>,
    ) -> Self {
        let percents = app.iter().chain(&page).chain(business.iter().map(|usage| &usage.percent));
        Self {
            max_percent: percents.map(UsagePercent::max).max().unwrap_or(0),
            regain_after_ms: business.iter().filter_map(|usage| usage.regain_after_ms).max(),
            retry_after_ms,
            app,
            page,
            business,
        }
    }

    /// The part that concerns a Page's messages. The business header may name other Pages and other products of the same
    /// business, whose limits are no reason to pause this one; where it does not name the Page, all of it counts.
    pub fn for_page(&self, page_id: &str) -> Self {
        let named = || self.business.iter().filter(|usage| usage.id == page_id);
        if named().next().is_none() {
            return self.clone();
        }
        let is_messaging =
            |usage: &&BusinessUsage| matches!(usage.r#type.as_deref(), None | Some("messenger" | "pages"));
        Self::of(self.app, self.page, named().filter(is_messaging).cloned().collect(), self.retry_after_ms)
    }

    /// How long to stay away after a rate limit, by the headers alone.
    pub fn resume_after_ms(&self) -> Option<u64> {
        self.regain_after_ms.max(self.retry_after_ms)
    }
}

/// `Retry-After` (RFC 9110): a number of seconds, or a date, which counts from the `Date` of the same answer, so that our clock and
/// the server's need not agree. At most a day.
pub fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text: &str| DateTime::parse_from_rfc2822(text).ok();
    let after = text(http::header::RETRY_AFTER)?;
    let after_ms = match after.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => {
            let wait = date(after)? - date(text(http::header::DATE)?)?;
            u64::try_from(wait.num_milliseconds()).unwrap_or(0)
        }
    };
    Some(after_ms.min(REGAIN_AFTER_MS_MAX))
}

fn object(headers: &HeaderMap, name: &str) -> Option<Map<String, Value>> {
    let bytes = headers.get(name)?.as_bytes();
    if bytes.len() > HEADER_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

fn percent(object: &Map<String, Value>) -> UsagePercent {
    let field = |key| {
        let value = whole_at(object, key).unwrap_or(0);
        u32::try_from(value.clamp(0, i64::from(u32::MAX))).unwrap_or(0)
    };
    UsagePercent {
        call_count: field("call_count"),
        total_time: field("total_time"),
        total_cputime: field("total_cputime"),
    }
}

fn business(object: &Map<String, Value>) -> Vec<BusinessUsage> {
    object
        .iter()
        .flat_map(|(id, entries)| {
            let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
            entries.iter().filter_map(Value::as_object).map(move |entry| (id, entry))
        })
        .take(ENTRIES_MAX)
        .map(|(id, entry)| BusinessUsage {
            id: id.clone(),
            r#type: text_at(entry, "type"),
            percent: percent(entry),
            regain_after_ms: whole_at(entry, "estimated_time_to_regain_access")
                .and_then(|minutes| u64::try_from(minutes).ok())
                .filter(|minutes| *minutes > 0)
                .map(|minutes| minutes.saturating_mul(MINUTE_MS).min(REGAIN_AFTER_MS_MAX)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_or_a_date_by_the_servers_clock() {
        let sent = Some("Wed, 21 Oct 2026 07:28:00 GMT");
        let cases = [
            (Some("120"), None, Some(120_000)),
            (Some(" 0 "), sent, Some(0)),
            (Some("Wed, 21 Oct 2026 07:30:30 GMT"), sent, Some(150_000)),
            (Some("Wed, 21 Oct 2026 07:27:00 GMT"), sent, Some(0)),
            (Some("Fri, 23 Oct 2026 07:28:00 GMT"), sent, Some(86_400_000)),
            (Some("99999999999999999999"), sent, None),
            (Some("Wed, 21 Oct 2026 07:30:30 GMT"), None, None),
            (Some("soon"), sent, None),
            (Some("-5"), sent, None),
            (None, sent, None),
        ];
        for (after, date, expected) in cases {
            let mut headers = HeaderMap::new();
            after.map(|after| headers.insert(http::header::RETRY_AFTER, after.parse().unwrap()));
            date.map(|date| headers.insert(http::header::DATE, date.parse().unwrap()));
            assert_eq!(retry_after_ms(&headers), expected, "{after:?} {date:?}");
            assert_eq!(UsageReport::from_headers(&headers).resume_after_ms(), expected);
        }
    }
}
