//! Id newtypes. Meta types ids as strings and prints some as JSON numbers; both become the same text here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest id kept, in bytes. Message ids of today have about 150; anything longer counts as missing.
pub const ID_BYTES_MAX: usize = 512;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps an id as given.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id's text, owned.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id)
            }
        }
    };
}

id!(
    /// A Facebook Page's id.
    PageId
);
id!(
    /// A page-scoped id: one person as one Page sees them. The same person has another one at another Page.
    Psid
);
id!(
    /// The id a plugin gives a person who has no PSID yet.
    UserRef
);
id!(
    /// A message's id (`m_…`). An echo carries the id that the Send API returned for the same message.
    Mid
);
id!(
    /// A Meta app's id.
    AppId
);
id!(
    /// The authenticated person who writes for the Page. Ours, not Meta's; see [`crate::outbound::AgentReply`].
    AgentId
);

/// Business Suite's Page Inbox. Messages that a person writes there carry this app id, or none.
pub const PAGE_INBOX_APP_ID: &str = "263902037430900";
/// The same as Meta's page on echoes prints it, one digit short; taken for the Inbox too.
pub const PAGE_INBOX_APP_ID_MISPRINT: &str = "26390203743090";
/// The Inbox's app id for Instagram threads.
pub const INSTAGRAM_INBOX_APP_ID: &str = "1217981644879628";
/// Meta's own lead-generation app, which runs the questions of a lead ad.
pub const LEAD_GENERATION_APP_ID: &str = "413038776280800";

impl AppId {
    /// Whether this is a person's inbox (Business Suite) rather than an app that answers by itself.
    pub fn is_inbox(&self) -> bool {
        matches!(self.as_str(), PAGE_INBOX_APP_ID | PAGE_INBOX_APP_ID_MISPRINT | INSTAGRAM_INBOX_APP_ID)
    }
}
