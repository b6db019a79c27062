//! Named places between two steps, at which a test ends the process as a power cut would.
//!
//! Without the feature `fail-points` a [`reach`] is nothing at all. With it, the environment variable
//! `FRONTDESK_FAIL_POINT=<name>` or `<name>:<nth>` makes the process abort when it passes that point for the nth time: no
//! destructor, no flush, no farewell to Postgres or Meta. `cargo xtask faults` lets a host die at each of [`Point::ALL`] in turn
//! and looks at what its successor makes of it. Shipped programs are built without the feature.

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A place between two steps. The names are those of the environment variable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {
            $($(#[$doc])* $variant,)*
        }

        impl Point {
            /// Every point, in the order in which a message meets them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

points! {
    /// The signature is right and the body read; nothing is stored.
    DeliveryRead = "delivery-read",
    /// The events are durable; nobody has been told, and no wake-up is sent.
    InboxCommitted = "inbox-committed",
    /// Wake-ups are on their way; Meta has no answer yet.
    BeforeAck = "before-ack",
    /// The wake-up stands in the stream.
    WakeUpWritten = "wake-up-written",
    /// A worker has taken the wake-up.
    WakeUpTaken = "wake-up-taken",
    /// The conversation is leased.
    Leased = "leased",
    /// Echoes of settled sends are marked as read; the others have no wake-up yet.
    EchoesSettled = "echoes-settled",
    /// An echo is applied; its transaction is open.
    EchoApplied = "echo-applied",
    /// A change of owner is applied; its transaction is open.
    OwnerChanged = "owner-changed",
    /// All events are applied; the transaction is open.
    IntakeApplied = "intake-applied",
    IntakeCommitted = "intake-committed",
    Classified = "classified",
    Retrieved = "retrieved",
    Composed = "composed",
    Drafted = "drafted",
    Filtered = "filtered",
    Escalated = "escalated",
    /// Decision, rows, ticket and inbox are written; the transaction is open. A turn without a ticket is one statement.
    TurnWritten = "turn-written",
    TurnCommitted = "turn-committed",
    LeaseReturned = "lease-returned",
    /// Rows are claimed; no request is made.
    RowsClaimed = "rows-claimed",
    /// The request to Meta is about to be made.
    BeforeSend = "before-send",
    /// Meta has answered; nothing is stored of it.
    Sent = "sent",
    /// The row is settled.
    Settled = "settled",
    /// A send in doubt is about to be looked up.
    DoubtTaken = "doubt-taken",
    /// Meta's record was read; nothing is stored of it.
    DoubtLookedUp = "doubt-looked-up",
    /// A person's takeover is written; its transaction is open.
    TakeoverWritten = "takeover-written",
    TakeoverCommitted = "takeover-committed",
    /// A person's reply is queued; its transaction is open.
    ReplyWritten = "reply-written",
    ReplyCommitted = "reply-committed",
    HandbackCommitted = "handback-committed",
    /// The CRM has the ticket; that it has is not stored.
    TicketPosted = "ticket-posted",
    TicketNoted = "ticket-noted",
}

/// Passes a point.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn reach(_point: Point) {}

/// Passes a point, or ends the process there.
#[cfg(feature = "fail-points")]
pub fn reach(point: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let wanted = WANTED.get_or_init(|| {
        let value = std::env::var("FRONTDESK_FAIL_POINT").ok()?;
        let (name, nth) =
            value.split_once(':').map_or((value.as_str(), Some(1)), |(name, nth)| (name, nth.parse().ok()));
        Some((name.to_owned(), nth.unwrap_or(1)))
    });
    let Some((name, nth)) = wanted else { return };
    if name == point.name() && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth {
        std::process::abort();
    }
}
