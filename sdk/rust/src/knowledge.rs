//! Looks something up in the Page's knowledge. Only works when the chain grants `knowledge` to the component; a
//! component that never calls [`search`] does not import it.

use crate::types::Passage;

pub use crate::bindings::host::frontdesk::policy::knowledge::LookupError;

/// The passages that fit `query` best, best first; at most `limit`, never more than 20.
///
/// Natively (in unit tests) there is no host to ask, and the answer is [`LookupError::Unavailable`].
///
/// # Errors
/// [`LookupError::LimitReached`] when the chain's limit for this call is used up, [`LookupError::Unavailable`] when the
/// host could not search.
pub fn search(query: &str, limit: u32) -> Result<Vec<Passage>, LookupError> {
    #[cfg(target_family = "wasm")]
    {
        crate::bindings::host::frontdesk::policy::knowledge::search(query, limit)
    }
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = (query, limit);
        Err(LookupError::Unavailable("there is no host outside a component".to_owned()))
    }
}
