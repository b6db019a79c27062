//! What was fetched and is not knowledge yet, and how it becomes some.
//!
//! Without golden questions each page is taken in at once. With them pages wait until there are several, so that the
//! questions are asked once for all of them: they are changed in one transaction that only the questions see. When a
//! question went better before, the pages are halved until those are found that make it worse; these are refused, the others
//! are taken in. No address is noted as visited before its page is stored, so a successor fetches again what waited.

use futures::FutureExt;
use uuid::Uuid;

use crate::golden::{Goldens, KnowledgeChange};
use crate::knowledge::{Added, IngestError, Knowledge, NewDocument, Upload};

/// Pages that wait for the golden questions, and their bytes.
const PAGES_MAX: usize = 16;
const BYTES_MAX: u64 = 16 << 20;
/// Warnings that a job's result holds.
const WARNINGS_MAX: usize = 20;

/// What is to be done with one document.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Take(Box<NewDocument>),
    Delete(Uuid),
}

/// What came of a change.
#[derive(Debug)]
pub(super) enum Changed {
    Added(Added),
    /// False: it was not there any more.
    Deleted(bool),
    /// The page cannot be read; why.
    Unusable(String),
    /// Golden questions went better before; which.
    Refused(String),
}

/// A page that was fetched, with what its server said of it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub address: String,
    pub change: Change,
    pub bytes: u64,
    pub body_sha256: String,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Basket {
    waiting: Vec<Fetched>,
    pages_max: usize,
    /// What the golden questions had to say of changes that were made all the same.
    pub warnings: Vec<String>,
}

impl Basket {
    /// Holds several pages when they are to be tried on golden questions.
    pub fn new(goldens: &Goldens) -> Self {
        let pages_max = if goldens.guard_knowledge() { PAGES_MAX } else { 1 };
        Self { waiting: Vec::new(), pages_max, warnings: Vec::new() }
    }

    pub fn put(&mut self, fetched: Fetched) {
        self.waiting.push(fetched);
    }

    pub fn addresses(&self) -> Vec<String> {
        self.waiting.iter().map(|fetched| fetched.address.clone()).collect()
    }

    pub fn pages(&self) -> usize {
        self.waiting.len()
    }

    pub fn bytes(&self) -> u64 {
        self.waiting.iter().map(|fetched| fetched.bytes).sum()
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.pages_max || self.bytes() >= BYTES_MAX
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<Fetched> {
        std::mem::take(&mut self.waiting)
    }

    pub fn warn(&mut self, warnings: Vec<String>) {
        self.warnings.extend(warnings);
        self.warnings.truncate(WARNINGS_MAX);
    }
}

/// Whose knowledge is changed, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub page_id: Option<&'a str>,
    /// For the stored golden runs.
    pub subject: &'a str,
    pub actor: &'a str,
}

/// Makes the changes that the golden questions allow, in order. Gives what came of each, and warnings.
pub(super) async fn change(
    goldens: &Goldens,
    scope: Scope<'_>,
    changes: &[Change],
) -> Result<(Vec<Changed>, Vec<String>), IngestError> {
    let (mut all, mut warnings) = (Vec::with_capacity(changes.len()), Vec::new());
    // A stack of parts, the first on top: so `all` grows in order.
    let mut parts = vec![changes];
    while let Some(part) = parts.pop() {
        let (own, by) = (part.to_vec(), scope.actor.to_owned());
        let made = goldens
            .admit(scope.page_id, scope.subject, scope.actor, move |knowledge| make(knowledge, own, by).boxed())
            .await?;
        match made {
            KnowledgeChange::Made { value, warnings: more } => {
                all.extend(value);
                warnings.extend(more);
            }
            KnowledgeChange::Refused { were_asked: true, .. } if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            KnowledgeChange::Refused { problems, .. } => {
                all.extend(part.iter().map(|_| Changed::Refused(problems.join("; "))));
            }
        }
    }
    Ok((all, warnings))
}

async fn make(knowledge: &Knowledge, changes: Vec<Change>, by: String) -> Result<Vec<Changed>, IngestError> {
    let mut made = Vec::with_capacity(changes.len());
    for change in changes {
        made.push(match change {
            Change::Delete(document_id) => Changed::Deleted(knowledge.delete(document_id).await?),
            Change::Take(document) => {
                let upload = Upload { by: by.clone(), ..Upload::default() };
                match knowledge.ingest(*document, upload).await {
                    Ok(added) => Changed::Added(added),
                    Err(error) if error.is_callers_fault() => Changed::Unusable(error.to_string()),
                    Err(error) => return Err(error),
                }
            }
        });
    }
    Ok(made)
}
