//! What people's answers and customers' thumbs teach.
//!
//! - **An agent's reply** ([`propose`]) becomes a proposed entry of the FAQ, when it answers a question that the knowledge does
//!   not answer well already and that nobody has proposed yet. Personal data is taken out before anything is stored. A person
//!   approves ([`approve`]), perhaps in other words; only then it is embedded, as a document of its own that says where it came
//!   from (source `learned/…`, label `learned`), and only if the golden questions allow it.
//! - **A customer's thumb** (`response_feedback`) is noted beside the message. Judged answers become suggested golden questions
//!   ([`suggested_goldens`]), for a person to take into the file: a good answer is one to keep, a bad one is one to mend.
//!
//! A proposal goes with its conversation when a person is erased; an approved document stays, and holds no personal data.

use std::fmt::Write;

use futures::FutureExt;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::app::App;
use crate::db::learning::{self as db, NewProposal, Proposal};
use crate::golden::KnowledgeChange;
use crate::knowledge::terms::{Stems, question_key};
use crate::knowledge::{Format, IngestError, KnowledgeError, NewDocument, SearchRequest, detect_language, focus};
use crate::words::{EachText, HasWords};

/// Messages before the reply that are looked at for the question.
const MESSAGES_MAX: i64 = 10;
const QUESTION_CHARACTERS_MAX: usize = 400;
/// Shorter answers ("Yes.", "Done!") teach nothing by themselves.
const ANSWER_CHARACTERS_MIN: usize = 25;
const ANSWER_CHARACTERS_MAX: usize = 4_000;
/// A passage that fits the question so well answers it already.
const KNOWN_SCORE: f32 = 0.85;
/// Messages of a judged conversation that are looked at.
const TRANSCRIPT_MAX: i64 = 200;
/// The columns that are sealed.
const QUESTION: &str = "faq_proposals.question";
const ANSWER: &str = "faq_proposals.answer";
/// Questions that are suggested at a time.
const SUGGESTED_MAX: i64 = 100;

#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    #[error("there is no proposal {id}")]
    NoProposal { id: Uuid },
    #[error("proposal {id} is {state} already")]
    Decided { id: Uuid, state: String },
    #[error("{field} has {found} characters, expected 1 to {most}")]
    Text { field: &'static str, found: usize, most: usize },
    #[error("golden questions went better before, so nothing was learned: {}", .problems.join("; "))]
    Regressed { problems: Vec<String> },
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    #[error("the proposals cannot be read or kept: {source}; check the database")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

/// Looks whether an agent's reply answers something new, and proposes it. Gives the proposal's id, if one was made.
pub async fn propose(
    app: &App,
    conversation_id: Uuid,
    agent: &str,
    reply: &str,
) -> Result<Option<Uuid>, LearningError> {
    let characters = reply.chars().count();
    if !(ANSWER_CHARACTERS_MIN..=ANSWER_CHARACTERS_MAX).contains(&characters) {
        return Ok(None);
    }
    let Some(conversation) = crate::db::conversations::get(&app.pool, conversation_id).await? else { return Ok(None) };
    let mut messages = crate::db::messages::transcript(&app.pool, conversation_id, MESSAGES_MAX).await?;
    app.words.open(&app.pool, &mut messages).await?;
    let asked = messages.iter().filter(|message| message.author == "customer" && message.deleted_at.is_none());
    // The transcript is in order of time, whichever end it begins with.
    let Some(asked) = asked.max_by_key(|message| (message.sent_at, message.id)) else { return Ok(None) };
    let question: String = focus(&asked.text).chars().take(QUESTION_CHARACTERS_MAX).collect();
    let language = detect_language(&question);
    let cleaned = |text: &str| app.knowledge.without_personal_data(&conversation.page_id, text);
    let (question, answer) = (cleaned(question.trim()), cleaned(reply.trim()));
    if Stems::new(language).content(&question).is_empty() {
        return Ok(None);
    }
    let found = app.knowledge.search(SearchRequest {
        page_id: Some(conversation.page_id.clone()),
        query: question.clone(),
        language: language.map(str::to_owned),
        labels: Vec::new(),
        passage_languages: Vec::new(),
        limit: 1,
        now: app.clock.now(),
    });
    let nearest = found.await?.hits.into_iter().next();
    if nearest.as_ref().is_some_and(|hit| hit.exact || hit.score >= KNOWN_SCORE) {
        return Ok(None);
    }
    let mut transaction = app.pool.begin().await?;
    // An erasure takes this lock first: nothing is sealed under a key that is being deleted.
    if crate::db::conversations::lock(&mut transaction, conversation_id).await?.is_none() {
        return Ok(None);
    }
    let sealer = app.words.of(&mut transaction, conversation_id).await?;
    let proposal = NewProposal {
        id: Uuid::now_v7(),
        page_id: &conversation.page_id,
        conversation_id,
        agent,
        question: &sealer.seal(QUESTION, &question)?,
        question_key: &hex::encode(Sha256::digest(question_key(&question).as_bytes())),
        answer: &sealer.seal(ANSWER, &answer)?,
        language,
        nearest_source: nearest.as_ref().map(|hit| hit.source.as_str()),
        nearest_score: nearest.as_ref().map_or(0.0, |hit| hit.score),
    };
    let is_new = db::propose(&mut *transaction, &proposal).await?;
    transaction.commit().await?;
    if is_new {
        metrics::counter!("frontdesk_faq_proposals_total").increment(1);
    }
    Ok(is_new.then_some(proposal.id))
}

/// Makes a proposal part of the knowledge, in the words given or its own.
pub async fn approve(
    app: &App,
    id: Uuid,
    actor: &str,
    question: Option<&str>,
    answer: Option<&str>,
) -> Result<Proposal, LearningError> {
    let proposal = waiting(app, id).await?;
    let edited = question.is_some_and(|text| text.trim() != proposal.question)
        || answer.is_some_and(|text| text.trim() != proposal.answer);
    let question = checked("question", question.unwrap_or(&proposal.question), QUESTION_CHARACTERS_MAX)?;
    let answer = checked("answer", answer.unwrap_or(&proposal.answer), ANSWER_CHARACTERS_MAX)?;
    let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let document = NewDocument {
        page_id: Some(proposal.page_id.clone()),
        source: format!("learned/{id}.csv"),
        title: Some("Learned from answers of people".to_owned()),
        format: Some(Format::CsvFaq),
        bytes: format!("question,answer\n{},{}\n", cell(&question), cell(&answer)).into_bytes(),
        language: proposal.language.clone(),
        labels: vec!["learned".to_owned()],
        ..NewDocument::default()
    };
    let source = document.source.clone();
    let change = app
        .goldens
        .admit(Some(&proposal.page_id), &source, actor, |knowledge| {
            async move { knowledge.add(document).await }.boxed()
        })
        .await?;
    let added = match change {
        KnowledgeChange::Made { value, .. } => value,
        KnowledgeChange::Refused { problems, .. } => return Err(LearningError::Regressed { problems }),
    };
    let mut transaction = app.pool.begin().await?;
    let document_id = Some(added.document_id);
    if !db::decide(&mut *transaction, id, "approved", actor, document_id, edited).await? {
        return Err(LearningError::Decided { id, state: "decided".to_owned() });
    }
    let detail = serde_json::json!({ "source": source, "document_id": document_id, "edited": edited });
    crate::db::audit::write(&mut *transaction, actor, "learning.approve", &id.to_string(), detail).await?;
    transaction.commit().await?;
    get(app, id).await
}

pub async fn reject(app: &App, id: Uuid, actor: &str) -> Result<Proposal, LearningError> {
    waiting(app, id).await?;
    let mut transaction = app.pool.begin().await?;
    if !db::decide(&mut *transaction, id, "rejected", actor, None, false).await? {
        return Err(LearningError::Decided { id, state: "decided".to_owned() });
    }
    let detail = serde_json::json!({});
    crate::db::audit::write(&mut *transaction, actor, "learning.reject", &id.to_string(), detail).await?;
    transaction.commit().await?;
    get(app, id).await
}

/// Proposals as people read them, newest first.
pub async fn list(app: &App, state: Option<&str>, limit: i64) -> Result<Vec<Proposal>, LearningError> {
    let mut proposals = db::list(&app.pool, state, limit).await?;
    app.words.open(&app.pool, &mut proposals).await?;
    Ok(proposals)
}

async fn get(app: &App, id: Uuid) -> Result<Proposal, LearningError> {
    let mut proposal = db::get(&app.pool, id).await?.ok_or(LearningError::NoProposal { id })?;
    app.words.open(&app.pool, std::slice::from_mut(&mut proposal)).await?;
    Ok(proposal)
}

impl HasWords for Proposal {
    fn conversation_id(&self) -> Uuid {
        self.conversation_id
    }

    fn each(&mut self, visit: &mut EachText<'_>) -> sqlx::Result<()> {
        visit(QUESTION, &mut self.question)?;
        visit(ANSWER, &mut self.answer)
    }
}

async fn waiting(app: &App, id: Uuid) -> Result<Proposal, LearningError> {
    let proposal = get(app, id).await?;
    match proposal.state.as_str() {
        "proposed" => Ok(proposal),
        state => Err(LearningError::Decided { id, state: state.to_owned() }),
    }
}

fn checked(field: &'static str, text: &str, most: usize) -> Result<String, LearningError> {
    let text = text.trim();
    let found = text.chars().count();
    if found == 0 || found > most || text.contains('\0') {
        return Err(LearningError::Text { field, found, most });
    }
    Ok(text.to_owned())
}

/// Golden questions out of what customers judged and people corrected, as TOML for a person to look through.
pub async fn suggested_goldens(app: &App, page_id: &str) -> Result<String, LearningError> {
    let mut text = String::from(
        "# Suggested by customers' thumbs and people's corrections; look them through before you keep them.\nversion = 1\n",
    );
    for judged in db::judged_answers(&app.pool, page_id, SUGGESTED_MAX).await? {
        let mut messages = crate::db::messages::transcript(&app.pool, judged.conversation_id, TRANSCRIPT_MAX).await?;
        app.words.open(&app.pool, &mut messages).await?;
        let said = messages.iter().find(|message| message.mid == judged.mid);
        let asked = messages.iter().filter(|message| {
            message.author == "customer" && message.turn_id == Some(judged.turn_id) && message.deleted_at.is_none()
        });
        let question = asked.map(|message| message.text.as_str()).collect::<Vec<_>>().join(" ");
        let cleaned = |text: &str| app.knowledge.without_personal_data(page_id, text);
        let question = cleaned(question.trim());
        let answer = cleaned(said.map_or("", |message| message.text.as_str()));
        if question.is_empty() || answer.is_empty() {
            continue;
        }
        match judged.verdict.as_str() {
            "good" => {
                let kept = answer.lines().next_back().unwrap_or_default();
                let _ = write!(
                    text,
                    "\n# A customer liked this answer.\n[[golden]]\nquestion = {}\nroute = \"answer\"\nmust = [{}]\n",
                    quoted(&question),
                    quoted(kept)
                );
            }
            _ => {
                let _ = write!(
                    text,
                    "\n# A customer was not helped by: {}\n[[golden]]\nquestion = {}\nroute = \"no-answer\"\n",
                    answer.replace('\n', " "),
                    quoted(&question)
                );
            }
        }
    }
    let approved = list(app, Some("approved"), SUGGESTED_MAX).await?;
    for proposal in approved.iter().filter(|proposal| proposal.page_id == page_id) {
        let _ = write!(
            text,
            "\n# Answered by a person{}.\n[[golden]]\nquestion = {}\nroute = \"answer\"\ncites = [\"learned/{}.csv\"]\n",
            if proposal.edited { ", and edited" } else { "" },
            quoted(&proposal.question),
            proposal.id
        );
    }
    Ok(text)
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}
