//! From a case to the arguments of the hooks.

use super::{Case, CaseMessage, CasePassage};
use crate::replay::{RecordedCitation, RecordedTurn};
use crate::types::{
    Author, Classification, Customer, Dossier, Draft, Evidence, FilterOutcome, LocalTime, Message, MessageSource, Page,
    Passage, Route, Turn, Weekday, Window,
};

/// 2026-03-02T10:30:00Z, a Monday, 11:30 in Vienna.
const NOW_MS: u64 = 1_772_447_400_000;
const QUESTION: &str = "Do you ship to Austria?";
const PASSAGE: &str = "We ship to Austria, Germany and Switzerland within three to five working days.";
const ANSWER: &str = "We ship to Austria, Germany and Switzerland within three to five working days.";
const SCORE: f32 = 0.8;
const CONFIDENCE: f32 = 0.8;

/// The turn that a case describes.
pub fn turn(case: &Case) -> Result<Turn, String> {
    let mut turn = case.turn.clone().unwrap_or_else(sample_turn);
    if let Some(messages) = &case.messages {
        if case.text.is_some() {
            return Err("`text` and `messages` are both given; give one of them".to_owned());
        }
        turn.messages = messages.iter().enumerate().map(|(i, one)| message(one, Author::Customer, i, &turn)).collect();
    } else if let Some(text) = &case.text {
        turn.messages = vec![message(&CaseMessage::Text(text.clone()), Author::Customer, 0, &turn)];
    } else if !case.attachments.is_empty() {
        turn.messages = vec![message(&CaseMessage::Text(String::new()), Author::Customer, 0, &turn)];
    }
    let Some(last) = turn.messages.last_mut() else {
        return Err("`messages` is empty; a turn has at least one message".to_owned());
    };
    if !case.attachments.is_empty() {
        last.attachments.clone_from(&case.attachments);
    }
    if let Some(payload) = &case.payload {
        last.payload = Some(payload.clone());
        last.source = MessageSource::QuickReply;
    }
    if let Some(history) = &case.history {
        turn.history =
            history.iter().enumerate().map(|(i, one)| message(one, Author::Customer, i + 100, &turn)).collect();
    }
    if let Some(language) = &case.language {
        turn.detected_language = Some((language.clone(), 1.0));
    }
    set(&mut turn.page.id, case.page.id.as_ref());
    set(&mut turn.page.name, case.page.name.as_ref());
    set(&mut turn.page.language, case.page.language.as_ref());
    turn.customer.name = case.customer.name.clone().or(turn.customer.name);
    turn.customer.locale = case.customer.locale.clone().or(turn.customer.locale);
    set(&mut turn.local_time.weekday, case.weekday.as_ref());
    set(&mut turn.local_time.date, case.date.as_ref());
    if let Some(time) = &case.time {
        turn.local_time.minute_of_day = minute_of_day(time)?;
    }
    set(&mut turn.automated_turns, case.automated_turns.as_ref());
    set(&mut turn.disclosure_due, case.disclosure_due.as_ref());
    turn.attributes.extend(case.attributes.clone());
    Ok(turn)
}

fn set<T: Clone>(place: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        place.clone_from(value);
    }
}

fn minute_of_day(time: &str) -> Result<u16, String> {
    let parts = time.split_once(':').and_then(|(h, m)| Some((h.parse::<u16>().ok()?, m.parse::<u16>().ok()?)));
    match parts {
        Some((hours @ 0..=23, minutes @ 0..=59)) => Ok(hours * 60 + minutes),
        _ => Err(format!("`time` is {time:?}, expected HH:MM such as 18:30")),
    }
}

fn sample_turn() -> Turn {
    Turn {
        id: "turn-1".to_owned(),
        now_ms: NOW_MS,
        local_time: LocalTime {
            weekday: Weekday::Monday,
            minute_of_day: 11 * 60 + 30,
            date: "2026-03-02".to_owned(),
            time_zone: "Europe/Vienna".to_owned(),
        },
        page: Page { id: "100".to_owned(), name: "Alpenrad".to_owned(), language: "en".to_owned() },
        customer: Customer::default(),
        messages: vec![Message {
            id: "m_1".to_owned(),
            author: Author::Customer,
            source: MessageSource::Text,
            text: QUESTION.to_owned(),
            payload: None,
            attachments: Vec::new(),
            sent_at_ms: NOW_MS,
        }],
        history: Vec::new(),
        detected_language: None,
        window: Some(Window { opened_by: "message".to_owned(), closes_at_ms: NOW_MS + 86_400_000 }),
        automated_turns: 0,
        disclosure_due: false,
        attributes: Vec::new(),
    }
}

fn message(given: &CaseMessage, default_author: Author, number: usize, turn: &Turn) -> Message {
    let blank = Message {
        id: format!("m_{}", number + 1),
        author: default_author,
        source: MessageSource::Text,
        text: String::new(),
        payload: None,
        attachments: Vec::new(),
        sent_at_ms: turn.now_ms,
    };
    match given {
        CaseMessage::Text(text) => Message { text: text.clone(), ..blank },
        CaseMessage::Table(table) => Message {
            author: table.author.unwrap_or(default_author),
            source: table.source.unwrap_or(match table.payload {
                Some(_) => MessageSource::QuickReply,
                None => MessageSource::Text,
            }),
            text: table.text.clone(),
            payload: table.payload.clone(),
            attachments: table.attachments.clone(),
            ..blank
        },
    }
}

/// What retrieval found.
pub fn passages(case: &Case) -> Vec<Passage> {
    let sample = [CasePassage::Text(PASSAGE.to_owned())];
    let given = case.passages.as_deref().unwrap_or(&sample);
    let passage = |(i, given): (usize, &CasePassage)| {
        let blank = Passage {
            id: format!("p{}", i + 1),
            title: "Shipping".to_owned(),
            source: "shipping.md".to_owned(),
            text: String::new(),
            language: Some("en".to_owned()),
            score: SCORE,
            labels: Vec::new(),
        };
        match given {
            CasePassage::Text(text) => Passage { text: text.clone(), ..blank },
            CasePassage::Table(table) => Passage {
                id: table.id.clone().unwrap_or(blank.id),
                title: table.title.clone().unwrap_or(blank.title),
                source: table.source.clone().unwrap_or(blank.source),
                text: table.text.clone(),
                language: table.language.clone().or(blank.language),
                score: table.score.unwrap_or(blank.score),
                labels: table.labels.clone(),
            },
        }
    };
    given.iter().enumerate().map(passage).collect()
}

/// The classifier's verdict, for the hooks after it.
pub fn classification(case: &Case) -> Classification {
    let given = &case.classification;
    Classification {
        route: given.route.unwrap_or(Route::Answer),
        confidence: given.confidence.unwrap_or(0.9),
        labels: given.labels.clone(),
        reason: given.reason.clone().unwrap_or_else(|| "given by the case".to_owned()),
    }
}

/// The text that was drafted, if one was.
fn drafted(case: &Case) -> Option<String> {
    let is_none = case.no_draft_reason.is_some() || classification(case).route == Route::Human;
    case.draft.clone().or_else(|| (!is_none).then(|| ANSWER.to_owned()))
}

/// What a filter judges.
pub fn draft(case: &Case) -> Draft {
    Draft {
        text: drafted(case).unwrap_or_default(),
        language: case.draft_language.clone().or_else(|| case.language.clone()),
        cited: case.cited.clone(),
        instructions: case.instructions.clone(),
    }
}

fn evidence(case: &Case, passages: &[Passage], has_draft: bool) -> Evidence {
    let best_score = passages.iter().map(|passage| passage.score).fold(0.0, f32::max);
    case.evidence.clone().unwrap_or(if has_draft {
        Evidence { sentences: 1, supported: 1, best_score, confidence: CONFIDENCE }
    } else {
        Evidence { best_score, ..Evidence::default() }
    })
}

/// What the escalation hook judges.
pub fn dossier(case: &Case) -> Dossier {
    let (classification, passages, draft) = (classification(case), passages(case), drafted(case));
    let no_draft_reason = case.no_draft_reason.clone().or_else(|| match (&draft, classification.route) {
        (None, Route::Human) => Some("route".to_owned()),
        (None, _) => Some("declined".to_owned()),
        (Some(_), _) => None,
    });
    let filter = |filter: &super::CaseFilter| FilterOutcome {
        policy: filter.policy.clone().unwrap_or_else(|| "filter".to_owned()),
        outcome: filter.outcome.clone(),
        reason: filter.reason.clone(),
        findings: Vec::new(),
    };
    Dossier {
        evidence: evidence(case, &passages, draft.is_some()),
        filters: case.filters.iter().map(filter).collect(),
        classification,
        passages,
        draft,
        no_draft_reason,
    }
}

/// The case as a turn whose drafting is known, for the whole chain.
pub fn recorded(case: &Case) -> Result<RecordedTurn, String> {
    let (passages, answer) = (passages(case), drafted(case));
    Ok(RecordedTurn {
        host_version: String::new(),
        chain: String::new(),
        manifest: None,
        turn: turn(case)?,
        classify: None,
        evidence: evidence(case, &passages, answer.is_some()),
        passages,
        tone: None,
        plan: None,
        no_draft_reason: match &answer {
            Some(_) => None,
            None => Some(case.no_draft_reason.clone().unwrap_or_else(|| "declined".to_owned())),
        },
        answer,
        citations: vec![RecordedCitation { passages: case.cited.clone() }],
        filter: None,
        escalate: None,
        replies: Vec::new(),
    })
}
