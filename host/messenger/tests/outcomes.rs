//! Meta's error table, row by row, and what comes without a body.

use frontdesk_messenger::classify::{
    AmbiguousReason, Failure, GraphError, LimitScope, PermanentReason, StopReason, classify,
};
use frontdesk_messenger::outbound::{AgentReply, OutboundMessage, QuickReply, SenderAction};
use frontdesk_messenger::split::{split_text, split_text_at, text_units};
use frontdesk_messenger::usage::UsageReport;
use frontdesk_messenger::{AgentId, GraphClient, GraphConfig, Mid, PageCredentials, PageId, Psid, Recipient};
use http::{HeaderMap, HeaderValue};
use serde_json::json;

fn body(code: i64, subcode: i64) -> Vec<u8> {
    // In a language that is not English: texts must not matter.
    let mut error = json!({"message":"参数无效","type":"OAuthException","code":code,"fbtrace_id":"AbC"});
    if subcode != 0 {
        error["error_subcode"] = json!(subcode);
    }
    json!({ "error": error }).to_string().into_bytes()
}

fn outcome(status: u16, body: &[u8]) -> Failure {
    classify(status, GraphError::from_body(body).as_ref(), &UsageReport::default())
}

#[test]
fn every_row_of_metas_table_has_its_action() {
    let retry = |attempts_max| Failure::Retry { after_ms: None, attempts_max };
    let limited = |scope| Failure::RateLimited { resume_after_ms: None, scope };
    let dead = |subcode| Failure::TokenDead { subcode };
    let stop = |reason| Failure::StopPage { reason };
    let never = |reason| Failure::Permanent { reason };
    use Failure::{HoldPerson, NotOurs, OutsideWindow, PersonUnreachable};
    let rows = [
        ((1, 0), retry(Some(2))),
        ((1, 99), retry(Some(2))),
        ((1, 1357046), Failure::Ambiguous { reason: AmbiguousReason::Reported }),
        ((2, 0), retry(None)),
        ((4, 0), limited(LimitScope::App)),
        ((17, 0), limited(LimitScope::App)),
        ((341, 0), limited(LimitScope::App)),
        ((32, 0), limited(LimitScope::Page)),
        ((613, 0), limited(LimitScope::Page)),
        ((613, 2534040), limited(LimitScope::Page)),
        ((80001, 0), limited(LimitScope::Page)),
        ((80006, 0), limited(LimitScope::Page)),
        ((613, 2018338), HoldPerson),
        ((10, 2018278), OutsideWindow),
        ((10, 2534022), OutsideWindow),
        ((10, 2018065), OutsideWindow),
        ((10, 2018108), PersonUnreachable),
        // The long numbers mean the same beside another code.
        ((200, 2018278), OutsideWindow),
        ((100, 2534022), OutsideWindow),
        ((200, 2018001), PersonUnreachable),
        ((100, 2018108), PersonUnreachable),
        ((4, 2018338), HoldPerson),
        ((2, 1357046), Failure::Ambiguous { reason: AmbiguousReason::Reported }),
        ((200, 1893063), stop(StopReason::Restricted)),
        ((10, 1893063), stop(StopReason::Restricted)),
        ((10, 0), stop(StopReason::Permission)),
        ((200, 0), stop(StopReason::Permission)),
        ((200, 2018028), stop(StopReason::Permission)),
        ((200, 2018027), stop(StopReason::Permission)),
        ((230, 0), stop(StopReason::Permission)),
        ((100, 2018001), PersonUnreachable),
        ((100, 33), PersonUnreachable),
        ((100, 2018014), never(PermanentReason::BadRequest)),
        ((100, 2018008), retry(Some(1))),
        ((100, 2018294), retry(Some(1))),
        ((100, 2018047), never(PermanentReason::Attachment)),
        ((100, 2018074), never(PermanentReason::Attachment)),
        ((100, 2018109), never(PermanentReason::Attachment)),
        ((100, 1893061), never(PermanentReason::BadRequest)),
        ((100, 0), never(PermanentReason::BadRequest)),
        ((100, 2534037), NotOurs),
        ((100, 2018300), NotOurs),
        ((2018300, 0), NotOurs),
        ((10, 2018300), NotOurs),
        ((100, 2018321), Failure::Retry { after_ms: Some(600_000), attempts_max: None }),
        ((2018321, 0), Failure::Retry { after_ms: Some(600_000), attempts_max: None }),
        ((190, 0), dead(None)),
        ((190, 458), dead(Some(458))),
        ((190, 459), dead(Some(459))),
        ((190, 460), dead(Some(460))),
        ((190, 463), dead(Some(463))),
        ((190, 464), dead(Some(464))),
        ((190, 467), dead(Some(467))),
        ((200, 1545041), PersonUnreachable),
        ((551, 0), PersonUnreachable),
        ((551, 1545041), PersonUnreachable),
        ((368, 0), stop(StopReason::PolicyBlock)),
        ((2022, 0), never(PermanentReason::Refused)),
        ((10900, 0), never(PermanentReason::Refused)),
        ((10903, 0), never(PermanentReason::Refused)),
        ((506, 0), never(PermanentReason::Refused)),
        ((100, 2018218), never(PermanentReason::ProfileUnavailable)),
        ((100, 2018247), never(PermanentReason::ProfileUnavailable)),
        ((9000001, 0), never(PermanentReason::Gone)),
        ((1200, 0), retry(None)),
        ((987654, 0), never(PermanentReason::Unknown)),
    ];
    for ((code, subcode), expected) in rows {
        for status in [200, 400, 403, 500] {
            assert_eq!(outcome(status, &body(code, subcode)), expected, "{code}-{subcode} with HTTP {status}");
        }
    }
}

#[test]
fn numbers_may_be_strings_and_transient_decides_for_unknown_codes() {
    let text = br#"{"error":{"code":"190","error_subcode":"463"}}"#;
    assert_eq!(outcome(400, text), Failure::TokenDead { subcode: Some(463) });
    let transient = br#"{"error":{"code":98765,"is_transient":true}}"#;
    assert_eq!(outcome(500, transient), Failure::Retry { after_ms: None, attempts_max: None });
    let still_permanent = br#"{"error":{"code":10,"error_subcode":2018278,"is_transient":true}}"#;
    assert_eq!(outcome(400, still_permanent), Failure::OutsideWindow, "a known number is stronger");
}

#[test]
fn a_429_is_a_limit_unless_the_numbers_say_something_graver() {
    let limited = Failure::RateLimited { resume_after_ms: None, scope: LimitScope::Page };
    for (code, subcode) in [(98765, 0), (1, 0), (2, 0), (1200, 0), (100, 0), (613, 0), (80006, 0)] {
        assert_eq!(outcome(429, &body(code, subcode)), limited, "{code}");
    }
    assert_eq!(outcome(429, br#"{"error":{"code":98765,"is_transient":true}}"#), limited);
    assert_eq!(outcome(429, br#"{"error":{"message":"no code"}}"#), limited);
    let app = Failure::RateLimited { resume_after_ms: None, scope: LimitScope::App };
    assert_eq!(outcome(429, &body(4, 0)), app);
    assert_eq!(outcome(429, &body(190, 463)), Failure::TokenDead { subcode: Some(463) });
    assert_eq!(outcome(429, &body(368, 0)), Failure::StopPage { reason: StopReason::PolicyBlock });
    assert_eq!(outcome(429, &body(1, 1357046)), Failure::Ambiguous { reason: AmbiguousReason::Reported });
    assert_eq!(outcome(429, &body(613, 2018338)), Failure::HoldPerson);
}

#[test]
fn an_error_without_a_code_is_told_by_what_it_has() {
    let cases: [(u16, &[u8], Failure); 6] = [
        (400, br#"{"error":{"error_subcode":2018278}}"#, Failure::OutsideWindow),
        (400, br#"{"error":{"code":null,"error_subcode":"2018300"}}"#, Failure::NotOurs),
        (400, br#"{"error":{"is_transient":true}}"#, Failure::Retry { after_ms: None, attempts_max: None }),
        (400, br#"{"error":{"error_subcode":463}}"#, Failure::Permanent { reason: PermanentReason::Unknown }),
        (500, br#"{"error":{"error_subcode":77}}"#, Failure::Ambiguous { reason: AmbiguousReason::GatewayFailure }),
        (200, br#"{"error":{"error_subcode":77}}"#, Failure::Ambiguous { reason: AmbiguousReason::UnreadableSuccess }),
    ];
    for (status, body, expected) in cases {
        assert_eq!(outcome(status, body), expected, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn the_row_without_a_subcode_is_told_by_its_english_text_and_is_permanent_in_any_language() {
    let named = br#"{"error":{"message":"(#100) No matching user found","code":100}}"#;
    assert_eq!(outcome(400, named), Failure::PersonUnreachable);
    let translated = r#"{"error":{"message":"(#100) Kein passender Nutzer","code":100}}"#.as_bytes();
    assert_eq!(outcome(400, translated), Failure::Permanent { reason: PermanentReason::BadRequest });
    let with_subcode = br#"{"error":{"message":"(#100) No matching user found","code":100,"error_subcode":2018300}}"#;
    assert_eq!(outcome(400, with_subcode), Failure::NotOurs, "numbers are stronger");
}

#[test]
fn answers_without_a_graph_error() {
    let html = b"<html><h1>502 Bad Gateway</h1></html>";
    let retry = Failure::Retry { after_ms: None, attempts_max: None };
    let gateway = Failure::Ambiguous { reason: AmbiguousReason::GatewayFailure };
    let unknown = Failure::Permanent { reason: PermanentReason::Unknown };
    let cases: [(u16, &[u8], Failure); 14] = [
        (429, b"", Failure::RateLimited { resume_after_ms: None, scope: LimitScope::Page }),
        (408, b"", retry),
        // Proxies say 503 also when the connection behind them broke, after they had passed the request on.
        (503, b"", gateway.clone()),
        (503, html, gateway.clone()),
        (500, b"", gateway.clone()),
        (502, html, gateway.clone()),
        (504, html, gateway.clone()),
        (500, br#"{"error":"boom"}"#, gateway.clone()),
        (500, br#"{"error":{"message":"no code"}}"#, gateway),
        (200, b"", Failure::Ambiguous { reason: AmbiguousReason::UnreadableSuccess }),
        (200, html, Failure::Ambiguous { reason: AmbiguousReason::UnreadableSuccess }),
        (404, html, unknown.clone()),
        (403, html, unknown.clone()),
        (302, b"", unknown),
    ];
    for (status, body, expected) in cases {
        assert_eq!(outcome(status, body), expected, "HTTP {status}");
    }
    let later = UsageReport::from_headers(&headers(&[("retry-after", "7")]));
    assert_eq!(classify(503, None, &later), Failure::Retry { after_ms: Some(7_000), attempts_max: None });
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .filter_map(|(name, value)| Some((http::HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
        .collect()
}

#[test]
fn the_three_usage_headers_are_read() {
    let report = UsageReport::from_headers(&headers(&[
        ("x-app-usage", r#"{"call_count":28,"total_time":25,"total_cputime":25}"#),
        ("x-page-usage", r#"{"call_count":10,"total_time":"61","total_cputime":3.7}"#),
        (
            "x-business-use-case-usage",
            r#"{"106":[{"type":"messenger","call_count":100,"total_cputime":1,"total_time":2,"estimated_time_to_regain_access":9},
                {"type":"pages","call_count":5,"total_cputime":1,"total_time":2,"estimated_time_to_regain_access":0}]}"#.replace('\n', " ").as_str(),
        ),
        ("retry-after", "30"),
    ]));
    assert_eq!(report.app.map(|usage| usage.max()), Some(28));
    assert_eq!(report.page.map(|usage| usage.max()), Some(61));
    assert_eq!(report.business.len(), 2);
    assert_eq!((report.max_percent, report.regain_after_ms, report.retry_after_ms), (100, Some(540_000), Some(30_000)));
    let limited = classify(400, GraphError::from_body(&body(80006, 0)).as_ref(), &report);
    assert_eq!(limited, Failure::RateLimited { resume_after_ms: Some(540_000), scope: LimitScope::Page });

    let broken =
        UsageReport::from_headers(&headers(&[("x-app-usage", "{"), ("x-page-usage", "[1]"), ("retry-after", "soon")]));
    assert_eq!(broken, UsageReport::default());
    let absurd = UsageReport::from_headers(&headers(&[(
        "x-business-use-case-usage",
        r#"{"1":[{"call_count":-4,"estimated_time_to_regain_access":999999999999}],"2":"x"}"#,
    )]));
    assert_eq!((absurd.max_percent, absurd.regain_after_ms), (0, Some(86_400_000)), "cut at a day");
}

#[test]
fn of_the_business_header_only_the_pages_own_messages_count_for_it() {
    let report = UsageReport::from_headers(&headers(&[
        ("x-app-usage", r#"{"call_count":10,"total_time":0,"total_cputime":0}"#),
        (
            "x-business-use-case-usage",
            r#"{"106":[{"type":"messenger","call_count":40,"estimated_time_to_regain_access":2},
                       {"type":"ads_insights","call_count":100,"estimated_time_to_regain_access":300}],
                "107":[{"type":"messenger","call_count":100,"estimated_time_to_regain_access":60}]}"#
                .replace('\n', " ")
                .as_str(),
        ),
        ("retry-after", "30"),
    ]));
    let own = report.for_page("106");
    assert_eq!((own.max_percent, own.resume_after_ms()), (40, Some(120_000)));
    assert_eq!((own.app, own.retry_after_ms), (report.app, report.retry_after_ms));
    assert_eq!(report.for_page("107").resume_after_ms(), Some(3_600_000));
    assert_eq!(report.for_page("108"), report, "where the Page is not named, the header may mean it");
}

#[test]
fn a_machines_message_is_a_response_and_has_no_tag() {
    let message = OutboundMessage::text(Psid::from("7"), "Yes, we do.").unwrap().with_metadata("row-1").unwrap();
    assert_eq!(
        message.to_json(),
        json!({"recipient":{"id":"7"},"message":{"text":"Yes, we do.","metadata":"row-1"},"messaging_type":"RESPONSE"})
    );
    let tagged = AgentReply::new(AgentId::from("agent-1"), message.clone()).as_human_agent().to_json();
    assert_eq!((&tagged["messaging_type"], &tagged["tag"]), (&json!("MESSAGE_TAG"), &json!("HUMAN_AGENT")));
    assert_eq!(AgentReply::new(AgentId::from("agent-1"), message.clone()).within_window(), message);
    let action = SenderAction::TypingOn.to_json(&Recipient::Psid(Psid::from("7")));
    assert_eq!(action, json!({"recipient":{"id":"7"},"sender_action":"typing_on"}));
    let react = SenderAction::React { mid: Mid::from("m"), reaction: "love".to_owned() };
    assert_eq!(react.to_json(&Psid::from("7").into())["payload"], json!({"message_id":"m","reaction":"love"}));
}

#[test]
fn limits_hold_at_the_limit_and_one_past_it() {
    let text = |units: usize| OutboundMessage::text(Psid::from("7"), "a".repeat(units));
    assert!(text(1999).is_ok() && text(2000).is_err() && text(0).is_err());
    let with = |units: usize| text(1).and_then(|message| message.with_metadata("a".repeat(units)));
    assert!(with(999).is_ok() && with(1000).is_err());
    assert!(QuickReply::new("a".repeat(20), "p".repeat(1000)).is_ok());
    assert!(QuickReply::new("a".repeat(21), "p").is_err() && QuickReply::new("a", "p".repeat(1001)).is_err());
    assert!(QuickReply::new(" ", "p").is_err());
    let replies = |count| vec![QuickReply::new("a", "p").unwrap(); count];
    assert!(text(1).unwrap().with_quick_replies(replies(13)).is_ok());
    assert!(text(1).unwrap().with_quick_replies(replies(14)).is_err());
}

#[test]
fn a_split_prefers_hints_paragraphs_sentences_words_and_keeps_graphemes() {
    assert_eq!(split_text("short", &[]), ["short"]);
    assert!(split_text(" \n ", &[]).is_empty());
    assert_eq!(split_text(&"a".repeat(1999), &[]).len(), 1);
    assert_eq!(split_text(&"a".repeat(2000), &[]).len(), 2);
    assert_eq!(split_text_at("One two. Three four five.", &[], 20), ["One two.", "Three four five."]);
    assert_eq!(split_text_at("One two\n\nThree. Four five.", &[], 20), ["One two", "Three. Four five."]);
    assert_eq!(split_text_at("alpha beta gamma", &[], 12), ["alpha beta", "gamma"]);
    assert_eq!(split_text_at("alpha. beta gamma", &[11], 14), ["alpha. beta", "gamma"]);
    assert_eq!(split_text_at("abcdefghij", &[9999], 4), ["abcd", "efgh", "ij"]);
    let family = "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
    for part in split_text_at(&family.repeat(5), &[], text_units(family) * 2 + 1) {
        assert!(part.replace(family, "").is_empty(), "a family stays together: {part}");
    }
}

#[test]
fn a_client_is_refused_bad_settings_and_hides_its_secrets() {
    let config = |base_url: &str, version: &str| GraphConfig {
        base_url: base_url.to_owned(),
        version: version.to_owned(),
        app_secret: Some("hush-app".to_owned().into()),
        ..GraphConfig::default()
    };
    let client = GraphClient::new(config("http://127.0.0.1:1/", "v26.0")).unwrap();
    let page = PageCredentials { page_id: PageId::from("1"), token: "hush-token".to_owned().into() };
    let shown = format!("{client:?} {page:?}");
    assert!(!shown.contains("hush"), "{shown}");
    for (base, version) in
        [("ftp://x", "v26.0"), ("x", "v26.0"), ("http://x?a=b", "v26.0"), ("http://x", "26"), ("http://x", "v1.0/..")]
    {
        assert!(GraphClient::new(config(base, version)).is_err(), "{base} {version}");
    }
    assert!(GraphClient::new(GraphConfig { request_timeout_ms: 0, ..GraphConfig::default() }).is_err());
}
