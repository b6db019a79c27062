//! Who has the thread at Meta (conversation routing): looking, passing, taking, releasing, requesting, keeping.
//!
//! Meta decides, so it is asked first, and what the host knows of the owner follows its answer: a thread that was passed on is not
//! ours (or a person's, when it went to the Page Inbox), one that was taken is the agent's who took it, until they hand it back. A
//! crash between the two leaves Meta's word, which the host learns from the webhook, or from the refusal of its next send.
//! Releasing and requesting change no owner here: an idle thread comes back with the customer's next message, and a request is
//! answered by whoever has it.

use std::sync::Arc;

use frontdesk_messenger::graph::{CallTrace, ThreadOwner};
use frontdesk_messenger::ids::{AppId, PAGE_INBOX_APP_ID, Psid};
use frontdesk_messenger::{Failure, PageCredentials, Recipient};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{HandoverError, announce, lock, make_human};
use crate::app::App;
use crate::db;
use crate::db::conversations::Conversation;

/// Meta keeps a thread for its owner over at most a week of silence.
pub const EXTEND_S_MAX: u32 = 7 * 24 * 3_600;
/// Longest note for the other app, in characters; Meta's limit for metadata.
const METADATA_CHARACTERS_MAX: usize = 1_000;

/// What is asked of Meta.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// To another app; without an id to the Page Inbox.
    Pass {
        app_id: Option<String>,
        metadata: Option<String>,
    },
    Take {
        metadata: Option<String>,
    },
    Release {
        metadata: Option<String>,
    },
    Request {
        metadata: Option<String>,
    },
    Extend {
        duration_s: u32,
    },
}

impl Control {
    /// Its name in the audit log.
    fn name(&self) -> &'static str {
        match self {
            Self::Pass { .. } => "conversation.thread_pass",
            Self::Take { .. } => "conversation.thread_take",
            Self::Release { .. } => "conversation.thread_release",
            Self::Request { .. } => "conversation.thread_request",
            Self::Extend { .. } => "conversation.thread_extend",
        }
    }

    fn check(&self) -> Result<(), HandoverError> {
        let (app_id, metadata) = match self {
            Self::Pass { app_id, metadata } => (app_id.as_deref(), metadata.as_deref()),
            Self::Take { metadata } | Self::Release { metadata } | Self::Request { metadata } => {
                (None, metadata.as_deref())
            }
            Self::Extend { duration_s } => {
                let fits = (1..=EXTEND_S_MAX).contains(duration_s);
                let problem = format!("duration_s is {duration_s}, expected 1 to {EXTEND_S_MAX}");
                return if fits { Ok(()) } else { Err(HandoverError::Text { problem }) };
            }
        };
        if app_id.is_some_and(|id| id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(HandoverError::Text { problem: "app_id is not made of digits".into() });
        }
        if metadata.is_some_and(|text| text.chars().count() >= METADATA_CHARACTERS_MAX) {
            let problem = format!("metadata has {METADATA_CHARACTERS_MAX} characters or more");
            return Err(HandoverError::Text { problem });
        }
        Ok(())
    }
}

/// Who has a thread.
#[derive(Debug, Clone, Serialize)]
pub struct Owner {
    /// `None`: idle, or Meta does not show it to us.
    pub owner: Option<ThreadOwner>,
    pub is_ours: bool,
}

/// Asks Meta who has the thread.
///
/// # Errors
/// See [`HandoverError`].
pub async fn owner(app: &App, id: Uuid) -> Result<Owner, HandoverError> {
    let (_, page, psid) = find(app, id).await?;
    let reply = app.outbox.graph().thread_owner(&page, &psid).await;
    let owner = reply.result.map_err(|failure| refused(&failure, &reply.trace))?;
    let is_ours = owner.as_ref().is_some_and(|owner| owner.app_id.as_str() == app.settings.graph.app_id);
    Ok(Owner { owner, is_ours })
}

/// Asks Meta for a change, and follows it. Gives the conversation as it is then.
///
/// # Errors
/// See [`HandoverError`]; after an error nothing was changed here.
pub async fn control(app: &App, id: Uuid, agent: &str, control: &Control) -> Result<Conversation, HandoverError> {
    control.check()?;
    let (_, page, psid) = find(app, id).await?;
    let graph = app.outbox.graph();
    let target = match control {
        Control::Pass { app_id, .. } => AppId::new(app_id.as_deref().unwrap_or(PAGE_INBOX_APP_ID)),
        _ => AppId::new(""),
    };
    let reply = match control {
        Control::Pass { metadata, .. } => graph.pass_thread_control(&page, &psid, &target, metadata.as_deref()).await,
        Control::Take { metadata } => graph.take_thread_control(&page, &psid, metadata.as_deref()).await,
        Control::Release { metadata } => graph.release_thread_control(&page, &psid, metadata.as_deref()).await,
        Control::Request { metadata } => graph.request_thread_control(&page, &psid, metadata.as_deref()).await,
        Control::Extend { duration_s } => graph.extend_thread_control(&page, &psid, *duration_s).await,
    };
    reply.result.map_err(|failure| refused(&failure, &reply.trace))?;

    let mut tx = app.pool.begin().await?;
    let before = lock(&mut tx, id).await?;
    match control {
        Control::Pass { .. } => {
            let (state, reason) = if target.is_inbox() {
                ("human", format!("passed to the Page Inbox by {agent}"))
            } else {
                ("not_ours", format!("passed to app {target} by {agent}"))
            };
            db::conversations::set_owner(&mut tx, id, state, &reason, None, None).await?;
        }
        Control::Take { .. } if before.state != "human" || before.agent.as_deref() != Some(agent) => {
            make_human(&mut tx, &before, agent, "took the thread").await?;
        }
        _ => {}
    }
    let target = (!target.as_str().is_empty()).then_some(&target);
    let detail = json!({ "from": before.state, "app_id": target });
    db::audit::write(&mut *tx, agent, control.name(), &id.to_string(), detail).await?;
    let conversation = lock(&mut tx, id).await?;
    tx.commit().await?;
    if conversation.epoch != before.epoch {
        announce(app, &conversation);
    }
    Ok(conversation)
}

/// What a call needs: the conversation, its Page's token, and the person as Meta names them.
async fn find(app: &App, id: Uuid) -> Result<(Conversation, Arc<PageCredentials>, Psid), HandoverError> {
    let conversation = db::conversations::get(&app.pool, id).await?.ok_or(HandoverError::NoConversation { id })?;
    let Recipient::Psid(psid) = Recipient::of_person(&conversation.psid) else {
        let problem = "the person is known to a plugin alone; Meta controls threads of people with a PSID".into();
        return Err(HandoverError::Text { problem });
    };
    let page = app.outbox.page(&conversation.page_id).ok_or_else(|| HandoverError::PageCannotSend {
        page_id: conversation.page_id.clone(),
        state: "without a token".into(),
        reason: "connect it".into(),
    })?;
    Ok((conversation, page, psid))
}

fn refused(failure: &Failure, trace: &CallTrace) -> HandoverError {
    HandoverError::Graph { found: failure.name(), code: trace.code, subcode: trace.subcode }
}
