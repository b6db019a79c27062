//! The rules of the contract that types cannot express, checked on every result before anybody acts on it.
//!
//! A component that breaks one has faulted ([`FaultKind::BadOutput`]): a confidence of NaN compares with no threshold,
//! an offset inside a character cuts a text in two halves of nonsense. Messages name the field and the numbers, never
//! the text.

use crate::fault::FaultKind;
use crate::types::{
    Classification, Description, Dossier, Draft, EscalationVerdict, FilterVerdict, Finding, Outcome, Plan,
    SettingError, Ticket,
};

/// Longest text of a message to the customer in a verdict, in bytes: what fits into ten Messenger messages.
const TEXT_BYTES_MAX: usize = 20_000;
/// Longest sentence that explains something, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// Longest machine-readable word, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Longest list of words.
const WORDS_MAX: usize = 32;
const FINDINGS_MAX: usize = 200;
const FINDING_DETAIL_BYTES_MAX: usize = 500;
const SUMMARY_BYTES_MAX: usize = 2_000;
const INSTRUCTIONS_MAX: usize = 64;
const EXAMPLES_MAX: usize = 32;
const LANGUAGE_BYTES_MAX: usize = 35;
const CHARACTERS_MAX: u32 = 8_000;
const SPLIT_HINTS_MAX: usize = 1_000;
const SCHEMA_BYTES_MAX: usize = 256 << 10;
pub(crate) const SETTING_ERRORS_MAX: usize = 100;

type Checked = Result<(), FaultKind>;

fn bad(field: impl Into<String>, problem: impl Into<String>) -> FaultKind {
    FaultKind::BadOutput { field: field.into(), problem: problem.into() }
}

fn at_most_bytes(field: &str, text: &str, most: usize) -> Checked {
    if text.len() > most {
        Err(bad(field, format!("{} bytes; at most {most} are allowed", text.len())))
    } else {
        Ok(())
    }
}

fn at_most_items(field: &str, found: usize, most: usize) -> Checked {
    if found > most { Err(bad(field, format!("{found} entries; at most {most} are allowed"))) } else { Ok(()) }
}

fn not_blank(field: &str, text: &str) -> Checked {
    if text.chars().all(is_unseen) { Err(bad(field, "empty; a text is required")) } else { Ok(()) }
}

/// Whether a character leaves nothing on the screen: a text of only such is empty for its reader, and Messenger refuses it.
fn is_unseen(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

fn within(field: &str, found: f32, most: f32) -> Checked {
    if (0.0..=most).contains(&found) {
        Ok(())
    } else {
        Err(bad(field, format!("{found}; a number from 0 to {most} is required")))
    }
}

fn word(field: &str, text: &str) -> Checked {
    not_blank(field, text)?;
    at_most_bytes(field, text, WORD_BYTES_MAX)
}

fn words(field: &str, list: &[String]) -> Checked {
    at_most_items(field, list.len(), WORDS_MAX)?;
    list.iter().enumerate().try_for_each(|(i, text)| word(&format!("{field}[{i}]"), text))
}

fn message_text(field: &str, text: &str) -> Checked {
    not_blank(field, text)?;
    at_most_bytes(field, text, TEXT_BYTES_MAX)
}

/// `classify-hook.classify`.
pub(crate) fn classification(found: &Classification) -> Checked {
    within("confidence", found.confidence, 1.0)?;
    words("labels", &found.labels)?;
    at_most_bytes("reason", &found.reason, REASON_BYTES_MAX)
}

/// `tone-hook.compose`.
pub(crate) fn plan(found: &Plan) -> Checked {
    at_most_items("instructions", found.instructions.len(), INSTRUCTIONS_MAX)?;
    for (i, part) in found.instructions.iter().enumerate() {
        at_most_bytes(&format!("instructions[{i}].title"), &part.title, REASON_BYTES_MAX)?;
        message_text(&format!("instructions[{i}].text"), &part.text)?;
    }
    at_most_items("examples", found.examples.len(), EXAMPLES_MAX)?;
    for (i, example) in found.examples.iter().enumerate() {
        message_text(&format!("examples[{i}].customer"), &example.customer)?;
        message_text(&format!("examples[{i}].reply"), &example.reply)?;
    }
    if let Some(language) = &found.language {
        not_blank("language", language)?;
        at_most_bytes("language", language, LANGUAGE_BYTES_MAX)?;
    }
    if !(1..=CHARACTERS_MAX).contains(&found.max_characters) {
        let problem = format!("{}; a number from 1 to {CHARACTERS_MAX} is required", found.max_characters);
        return Err(bad("max-characters", problem));
    }
    found.temperature.map_or(Ok(()), |temperature| within("temperature", temperature, 2.0))?;
    found.preamble.as_deref().map_or(Ok(()), |text| message_text("preamble", text))?;
    found.closing.as_deref().map_or(Ok(()), |text| message_text("closing", text))
}

fn findings(found: &[Finding], judged: &str) -> Checked {
    at_most_items("findings", found.len(), FINDINGS_MAX)?;
    for (i, finding) in found.iter().enumerate() {
        word(&format!("findings[{i}].rule"), &finding.rule)?;
        at_most_bytes(&format!("findings[{i}].detail"), &finding.detail, FINDING_DETAIL_BYTES_MAX)?;
        if let Some((start, end)) = finding.at
            && judged.get(start as usize..end as usize).is_none()
        {
            let problem =
                format!("{start}..{end} is no range of characters of the text, which has {} bytes", judged.len());
            return Err(bad(format!("findings[{i}].at"), problem));
        }
    }
    Ok(())
}

fn split_hints(hints: &[u32], text: &str) -> Checked {
    at_most_items("split-hints", hints.len(), SPLIT_HINTS_MAX)?;
    let mut last = 0;
    for (i, &hint) in hints.iter().enumerate() {
        let field = || format!("split-hints[{i}]");
        if i > 0 && hint <= last {
            return Err(bad(field(), format!("{hint} follows {last}; the offsets must ascend")));
        }
        if hint as usize > text.len() {
            return Err(bad(field(), format!("{hint} lies beyond the text, which has {} bytes", text.len())));
        }
        if !text.is_char_boundary(hint as usize) {
            return Err(bad(field(), format!("{hint} lies inside a character")));
        }
        last = hint;
    }
    Ok(())
}

/// `filter-hook.apply`, for the text that was judged.
pub(crate) fn filter_verdict(found: &FilterVerdict, judged: &Draft) -> Checked {
    findings(&found.findings, &judged.text)?;
    match &found.outcome {
        Outcome::Pass => split_hints(&found.split_hints, &judged.text),
        Outcome::Rewrite(rewritten) => {
            message_text("outcome.rewrite.text", &rewritten.text)?;
            not_blank("outcome.rewrite.reason", &rewritten.reason)?;
            at_most_bytes("outcome.rewrite.reason", &rewritten.reason, REASON_BYTES_MAX)?;
            split_hints(&found.split_hints, &rewritten.text)
        }
        Outcome::Block(blocked) => {
            not_blank("outcome.block.reason", &blocked.reason)?;
            at_most_bytes("outcome.block.reason", &blocked.reason, REASON_BYTES_MAX)
        }
    }
}

fn ticket(found: &Ticket) -> Checked {
    word("ticket.reason", &found.reason)?;
    not_blank("ticket.summary", &found.summary)?;
    at_most_bytes("ticket.summary", &found.summary, SUMMARY_BYTES_MAX)?;
    words("ticket.tags", &found.tags)?;
    found.notice.as_deref().map_or(Ok(()), |text| message_text("ticket.notice", text))
}

/// Whether a dossier holds a draft that may be sent.
fn sendable(dossier: &Dossier) -> Result<(), &'static str> {
    if dossier.draft.is_none() {
        return Err("there is no draft to send");
    }
    if dossier.filters.iter().any(|filter| filter.outcome == "block") {
        return Err("a filter blocked the draft");
    }
    Ok(())
}

/// `escalation-hook.decide`, for the dossier that was judged.
pub(crate) fn escalation_verdict(found: &EscalationVerdict, dossier: &Dossier) -> Checked {
    let send = |verdict: &str| sendable(dossier).map_err(|problem| bad(verdict, problem));
    match found {
        EscalationVerdict::Send => send("send"),
        EscalationVerdict::AskBack(question) => message_text("ask-back", question),
        EscalationVerdict::HandOver(found) => ticket(found),
        EscalationVerdict::SendAndTicket(found) => {
            send("send-and-ticket")?;
            ticket(found)
        }
    }
}

/// `lifecycle.describe`. Returns the settings' schema, parsed.
pub(crate) fn description(found: &Description) -> Result<serde_json::Value, FaultKind> {
    let name_fits = found.name.starts_with(|c: char| c.is_ascii_lowercase())
        && found.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !name_fits || found.name.len() > WORD_BYTES_MAX {
        return Err(bad(
            "name",
            format!("1 to {WORD_BYTES_MAX} lower-case letters, digits and dashes are required, a letter first"),
        ));
    }
    if !is_semantic_version(&found.version) {
        return Err(bad("version", "a semantic version such as `1.4.2` is required"));
    }
    not_blank("summary", &found.summary)?;
    at_most_bytes("summary", &found.summary, SUMMARY_BYTES_MAX)?;
    at_most_bytes("settings-schema", &found.settings_schema, SCHEMA_BYTES_MAX)?;
    let schema: serde_json::Value = serde_json::from_str(&found.settings_schema)
        .map_err(|error| bad("settings-schema", format!("not JSON: {error}")))?;
    if !schema.is_object() {
        return Err(bad("settings-schema", "a JSON object is required"));
    }
    crate::schema::check(&schema).map_err(|problem| bad("settings-schema", problem))?;
    Ok(schema)
}

fn is_semantic_version(text: &str) -> bool {
    let core_end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, suffix) = text.split_at(core_end);
    let numbers: Vec<&str> = core.split('.').collect();
    let number_fits = |n: &&str| {
        !n.is_empty() && n.len() <= 9 && n.bytes().all(|b| b.is_ascii_digit()) && (n.len() == 1 || !n.starts_with('0'))
    };
    let suffix_fits = suffix.len() != 1 && suffix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+.".contains(&b));
    text.len() <= WORD_BYTES_MAX && numbers.len() == 3 && numbers.iter().all(number_fits) && suffix_fits
}

/// `lifecycle.configure`, when it refuses.
pub(crate) fn setting_errors(found: &mut Vec<SettingError>) {
    found.truncate(SETTING_ERRORS_MAX);
    for error in found {
        for text in [&mut error.path, &mut error.message] {
            text.truncate(text.floor_char_boundary(SUMMARY_BYTES_MAX));
        }
    }
}
