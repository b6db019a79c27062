//! `policyctl explain`: one page about one turn, for whoever has to answer "why did it say that?".

use std::fmt::Write;

use serde_json::Value;

use crate::admin::AdminClient;
use crate::cli::{Failure, Outcome, RemoteOptions, Report, Verdict};
use crate::words;

const PASSAGE_CHARACTERS_MAX: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Id of a turn (a UUID), of a customer's message, or of a message that the machine sent (Meta's `mid`).
    #[arg(value_name = "MESSAGE_ID|TURN_ID")]
    pub id: String,
    /// The Page of the message; by default all Pages of the host are tried.
    #[arg(long, value_name = "PAGE_ID")]
    pub page: Option<String>,
    #[command(flatten)]
    pub remote: RemoteOptions,
}

pub async fn run(options: &Options) -> Outcome {
    let client = AdminClient::new(&options.remote)?;
    let answer = find_turn(&client, &options.id, options.page.as_deref()).await?;
    Report::new(text(&answer), &answer, Verdict::Well)
}

/// The turn with this id, or with a message of this id.
pub async fn find_turn(client: &AdminClient, id: &str, page: Option<&str>) -> Result<Value, Failure> {
    if is_uuid(id)
        && let Some(turn) = client.find(&["turns", id], &[]).await?
    {
        return Ok(turn);
    }
    let pages = match page {
        Some(page) => vec![page.to_owned()],
        None => {
            let answer = client.get(&["pages"], &[]).await?;
            let pages = answer["pages"].as_array().into_iter().flatten();
            pages.filter_map(|page| page["page_id"].as_str().map(str::to_owned)).collect()
        }
    };
    for page in &pages {
        if let Some(turn) = client.find(&["turns", "by-mid", page, id], &[]).await? {
            return Ok(turn);
        }
    }
    let places =
        if pages.is_empty() { "the host has no Page".to_owned() } else { format!("Pages {}", pages.join(", ")) };
    Err(Failure::input(format!(
        "there is no turn with the id {id:?}, and none with a message of that id ({places}); a message that is still \
         being judged has no turn yet"
    )))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// The page. It reads the record by path, so that records of every version are shown as far as they go.
fn text(answer: &Value) -> String {
    let (turn, record) = (&answer["turn"], &answer["record"]);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "Turn {} on Page {}, {}",
        said(&turn["turn_id"]),
        said(&answer["page_id"]),
        said(&turn["created_at"])
    );
    let _ = writeln!(out, "Conversation {}", said(&answer["conversation_id"]));

    let _ = writeln!(out, "\nAsked");
    for message in items(&record["turn"]["messages"]) {
        let body = message["text"].as_str().unwrap_or_default();
        let attachments: Vec<&str> = items(&message["attachments"]).filter_map(Value::as_str).collect();
        if !body.is_empty() {
            let _ = writeln!(out, "{}", words::indented(body, "  "));
        }
        if !attachments.is_empty() {
            let _ = writeln!(out, "  [{}]", attachments.join(", "));
        }
    }
    if let Some(language) = record["turn"]["detected_language"][0].as_str() {
        let _ = writeln!(out, "  (language {language})");
    }

    let _ = writeln!(out, "\nFound");
    if items(&record["passages"]).next().is_none() {
        let _ = writeln!(out, "  nothing");
    }
    for passage in items(&record["passages"]) {
        let score = passage["score"].as_f64().unwrap_or_default();
        let body = words::one_line(passage["text"].as_str().unwrap_or_default(), PASSAGE_CHARACTERS_MAX);
        let _ = writeln!(out, "  [{score:.2}] {} ({}): {body}", said(&passage["title"]), said(&passage["source"]));
    }

    let _ = writeln!(out, "\nJudged");
    judged(&mut out, record);

    let _ = writeln!(out, "\nEnded: {}, because: {}", said(&turn["outcome"]), said(&turn["reason"]));
    answered(&mut out, answer);
    made_by(&mut out, answer);
    out
}

fn judged(out: &mut String, record: &Value) {
    let mut line = |step: &str, policy: String, words: String| {
        let _ = writeln!(out, "  {step:<9} {policy:<26} {words}");
    };
    let classify = &record["classify"]["result"];
    if !record["classify"].is_null() {
        let words = fault(classify).unwrap_or_else(|| {
            let verdict = &classify["Ok"];
            let labels: Vec<&str> = items(&verdict["labels"]).filter_map(Value::as_str).collect();
            let confidence = verdict["confidence"].as_f64().unwrap_or_default();
            format!(
                "{} ({confidence:.2}) [{}]: {}",
                said(&verdict["route"]),
                labels.join(", "),
                said(&verdict["reason"])
            )
        });
        line("classify", policy(record, "classify", 0), words);
    }
    if !record["tone"].is_null() {
        let result = &record["tone"]["result"];
        let words = fault(result).unwrap_or_else(|| {
            let titles: Vec<&str> =
                items(&result["Ok"]["instructions"]).filter_map(|part| part["title"].as_str()).collect();
            format!("instructions: {}", titles.join(", "))
        });
        line("tone", policy(record, "tone", 0), words);
    }
    if let Some(outcome) = record["draft"]["outcome"].as_str() {
        let reason = record["draft"]["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        line("draft", said(&record["draft"]["model"]), format!("{outcome}{}", words::one_line(&reason, 300)));
    } else if let Some(reason) = record["no_draft_reason"].as_str() {
        line("draft", String::new(), format!("none: {reason}"));
    }
    for (i, step) in items(&record["filter"]["steps"]).enumerate() {
        let result = &step["called"]["result"];
        let words = fault(result).unwrap_or_else(|| {
            let outcome = &result["Ok"]["outcome"];
            let reason = outcome["value"]["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            let rules: Vec<&str> = items(&result["Ok"]["findings"]).filter_map(|it| it["rule"].as_str()).collect();
            let found = if rules.is_empty() { String::new() } else { format!(" (found {})", rules.join(", ")) };
            format!("{}{}{found}", said(&outcome["kind"]), words::one_line(&reason, 300))
        });
        line("filter", policy(record, "filter", i), words);
    }
    if !record["escalate"].is_null() {
        let result = &record["escalate"]["result"];
        let words = fault(result).unwrap_or_else(|| {
            let verdict = &result["Ok"];
            match verdict["value"]["reason"].as_str() {
                Some(reason) => format!("{}: {}", said(&verdict["kind"]), words::one_line(reason, 100)),
                None => said(&verdict["kind"]),
            }
        });
        line("escalate", policy(record, "escalate", 0), words);
    }
    let evidence = &record["evidence"];
    if evidence["sentences"].as_u64().is_some_and(|n| n > 0) {
        let confidence = evidence["confidence"].as_f64().unwrap_or_default();
        let carried = format!("{} of {} statements carried by passages", evidence["supported"], evidence["sentences"]);
        line("evidence", String::new(), format!("{carried}, confidence {confidence:.2}"));
    }
}

fn answered(out: &mut String, answer: &Value) {
    let turn = &answer["turn"];
    let reply = turn["reply"].as_str().unwrap_or_default();
    if reply.is_empty() {
        let _ = writeln!(out, "\nThe customer was told nothing.");
    } else {
        let _ = writeln!(out, "\nThe customer was told\n{}", words::indented(reply, "  "));
    }
    let titles = |id: &Value| {
        let title = items(&answer["record"]["passages"]).find(|passage| passage["id"] == *id);
        title.map_or_else(|| said(id), |passage| said(&passage["title"]))
    };
    for citation in items(&turn["citations"]) {
        let sources: Vec<String> = items(&citation["passages"]).map(titles).collect();
        let sentence = words::one_line(citation["sentence"].as_str().unwrap_or_default(), 120);
        let sources = if sources.is_empty() { "no passage".to_owned() } else { sources.join("; ") };
        let _ = writeln!(out, "  “{sentence}” rests on {sources}");
    }
    for row in items(&answer["outbox"]) {
        let mid = row["message_id"].as_str().map(|mid| format!(", message {mid}")).unwrap_or_default();
        let error = row["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
        let _ = writeln!(out, "  delivery: {}{mid}{}", said(&row["state"]), words::one_line(&error, 200));
    }
    let ticket = &turn["ticket"];
    if !ticket.is_null() {
        let summary = words::one_line(ticket["summary"].as_str().unwrap_or_default(), 500);
        let _ = writeln!(
            out,
            "\nTicket {} ({}, {}): {summary}",
            said(&ticket["id"]),
            said(&ticket["priority"]),
            said(&ticket["reason"])
        );
    }
}

fn made_by(out: &mut String, answer: &Value) {
    let (turn, record) = (&answer["turn"], &answer["record"]);
    let _ = writeln!(out, "\nRevision {} of chain {}", said(&turn["revision"]), said(&record["chain"]));
    for policy in items(&record["manifest"]["policies"]) {
        let _ = writeln!(out, "  {:<9} {} {}", said(&policy["hook"]), said(&policy["name"]), said(&policy["version"]));
        let _ = writeln!(out, "            component sha256:{}", said(&policy["component_sha256"]));
        let _ = writeln!(out, "            settings  sha256:{}", said(&policy["settings_sha256"]));
    }
    let took = answer["duration_us"]
        .as_u64()
        .map(|us| format!(", {:.1} ms", std::time::Duration::from_micros(us).as_secs_f64() * 1e3));
    let _ = writeln!(out, "Host {}{}", said(&record["host_version"]), took.unwrap_or_default());
}

/// Name and version of the n-th policy of a hook, from the manifest.
fn policy(record: &Value, hook: &str, n: usize) -> String {
    let policy = items(&record["manifest"]["policies"]).filter(|policy| policy["hook"] == hook).nth(n);
    policy.map(|policy| format!("{} {}", said(&policy["name"]), said(&policy["version"]))).unwrap_or_default()
}

fn fault(result: &Value) -> Option<String> {
    let fault = &result["Err"];
    (!fault.is_null())
        .then(|| format!("FAULT {} in {}: {}", said(&fault["fault"]), said(&fault["function"]), said(&fault["detail"])))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn said(value: &Value) -> String {
    words::one_line(value.as_str().unwrap_or("?"), 300)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_of_other_versions_are_shown_as_far_as_they_go() {
        for answer in [json!({}), json!(null), json!({ "turn": 7, "record": { "passages": {}, "filter": [] } })] {
            assert!(text(&answer).contains("The customer was told nothing."));
        }
    }

    #[test]
    fn a_fault_is_told_with_its_function() {
        let record = json!({ "classify": { "result": { "Err": {
            "fault": "out-of-fuel", "function": "classify", "detail": "it had 10,000 units", "limit": 10000 } } } });
        let page = text(&json!({ "record": record }));
        assert!(page.contains("FAULT out-of-fuel in classify: it had 10,000 units"), "{page}");
    }

    #[test]
    fn ids_of_turns_are_told_from_ids_of_messages() {
        assert!(is_uuid("0199c3a0-0000-7000-8000-0123456789ab"));
        assert!(!is_uuid("m_0199c3a0-0000-7000-8000-0123456789"));
    }
}
