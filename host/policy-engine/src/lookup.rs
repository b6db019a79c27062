//! The one thing a policy may ask the host for: the Page's knowledge.
//!
//! The engine does no I/O; the caller lends it a [`KnowledgeLookup`] for the length of a call. Each answer is recorded
//! in [`Called::host_answers`](crate::Called), and [`RecordedLookup`] gives recorded answers again, so that a replay
//! asks nobody.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::fault::{HostAnswer, SearchAnswer};
use crate::types::{LookupError, Passage};

/// What a look-up resolves to.
pub type LookupFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<Passage>, LookupError>> + Send + 'a>>;

/// Answers `knowledge.search`. Only called when the chain grants `knowledge`.
pub trait KnowledgeLookup: Send + Sync {
    /// The passages that fit `query` best, best first. `limit` is between 1 and 20; what exceeds it is cut off by the
    /// engine, which also bounds the time and drops the future when it is used up.
    fn search<'a>(&'a self, query: &'a str, limit: u32) -> LookupFuture<'a>;
}

/// What a call may use of its caller.
#[derive(Clone, Default)]
pub struct CallContext {
    /// Answers knowledge look-ups; without it they are answered with `unavailable`.
    pub lookup: Option<Arc<dyn KnowledgeLookup>>,
}

impl CallContext {
    /// A context that answers look-ups.
    #[must_use]
    pub fn with_lookup(lookup: Arc<dyn KnowledgeLookup>) -> Self {
        Self { lookup: Some(lookup) }
    }
}

impl std::fmt::Debug for CallContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallContext").field("lookup", &self.lookup.is_some()).finish()
    }
}

/// Gives recorded answers again: each once, to the first question with the same query and limit.
///
/// A question that is not in the record is answered with `unavailable`: a changed policy may ask other things, and the
/// replay must not ask the world of today.
#[derive(Debug)]
pub struct RecordedLookup {
    unused: Mutex<Vec<HostAnswer>>,
}

impl RecordedLookup {
    /// Takes the answers of one recorded call.
    #[must_use]
    pub fn new(answers: Vec<HostAnswer>) -> Self {
        Self { unused: Mutex::new(answers) }
    }

    fn take(&self, wanted: &str, wanted_limit: u32) -> Result<Vec<Passage>, LookupError> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let place = unused.iter().position(|answer| {
            let HostAnswer::Search { query, limit, .. } = answer;
            query == wanted && *limit == wanted_limit
        });
        match place.map(|place| unused.remove(place)) {
            Some(HostAnswer::Search { answer: SearchAnswer::Passages(passages), .. }) => Ok(passages),
            Some(HostAnswer::Search { answer: SearchAnswer::Failed(error), .. }) => Err(error),
            None => Err(LookupError::Unavailable("the record holds no answer to this query".to_owned())),
        }
    }
}

impl KnowledgeLookup for RecordedLookup {
    fn search<'a>(&'a self, query: &'a str, limit: u32) -> LookupFuture<'a> {
        Box::pin(std::future::ready(self.take(query, limit)))
    }
}
