//! Drives one future on the calling thread, without a runtime.
//!
//! Loading is blocking work that the caller puts on a thread of its own; the few calls it makes into the component
//! (`describe`, `configure`, a canary) pend only when the epoch asks them to yield, or for good when the component
//! sleeps. A runtime would be one more thing to be in the way: a runtime's `block_on` panics inside another runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Longest pause between two looks at a future. On a thread that belongs to a runtime, the waker of a future that yields is called
/// by the runtime once this thread is its own again, which it never is while it waits here.
const LOOK_EVERY: Duration = Duration::from_millis(5);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` to its end, or drops it at `deadline` and returns `None`.
pub(crate) fn block_on_until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left.min(LOOK_EVERY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_future_gives_its_output_and_a_pending_one_is_dropped_at_the_deadline() {
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(block_on_until(soon, async { 7 }), Some(7));
        assert_eq!(block_on_until(soon, std::future::pending::<u8>()), None);
        assert!(Instant::now() >= soon);
    }

    #[tokio::test]
    async fn a_future_that_yields_goes_on_also_on_a_runtimes_own_thread() {
        let late = Instant::now() + Duration::from_secs(600);
        let yields = async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            7
        };
        assert_eq!(block_on_until(late, yields), Some(7));
        assert!(Instant::now() + Duration::from_secs(500) < late);
    }
}
