//! Threads that give way to the turns, for work that is long and that nobody waits for at the other end of a conversation.
//!
//! On Linux a niceness is a thread's own, and a thread that lowered its priority may not raise it again: such work gets threads of
//! its own instead of those of the runtime. Where the priority cannot be set it runs like everything else.

use std::io;

use tokio::sync::oneshot;

/// How much lower than the host's own the priority is, on the scale of `nice`.
const NICENESS: libc::c_int = 10;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    #[error("the thread panicked")]
    Panicked,
    #[error("no thread could be started: {source}")]
    NotStarted {
        #[source]
        source: io::Error,
    },
}

/// Lowers the priority of the thread that calls, for good.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        #[expect(unsafe_code, reason = "setpriority takes three integers; 0 means the thread that calls")]
        let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
        if outcome != 0 {
            tracing::debug!("the priority of a thread could not be lowered");
        }
    }
}

/// Runs what blocks on a thread of its own and gives what came of it. Whoever stops waiting leaves it running.
///
/// # Errors
/// When the thread cannot be started, or panicked.
pub async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BackgroundError> {
    let (done, result) = oneshot::channel();
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        lower_priority();
        // Nobody waits any more: what came of it is dropped.
        let _ = done.send(work());
    });
    started.map_err(|source| BackgroundError::NotStarted { source })?;
    result.await.map_err(|_| BackgroundError::Panicked)
}

/// As [`run`], for a future that only computes, and at most waits for time to pass: connections belong to the host's own runtime.
///
/// # Errors
/// See [`run`].
pub async fn run_future<T: Send + 'static>(
    name: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, BackgroundError> {
    let ran = run(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(runtime.block_on(work))
    });
    ran.await?.map_err(|source| BackgroundError::NotStarted { source })
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn what_runs_has_its_result_or_says_that_it_panicked() {
        let priority = || {
            #[expect(unsafe_code, reason = "getpriority takes two integers")]
            unsafe {
                libc::getpriority(libc::PRIO_PROCESS, 0)
            }
        };
        let before = priority();
        let ran = super::run("test", priority).await.unwrap();
        assert!(!cfg!(target_os = "linux") || ran > before || ran == 19, "{ran}, {before} before");
        assert_eq!(priority(), before, "whoever waits keeps its own");
        let panicked = super::run("test", || panic!("on purpose")).await;
        assert!(matches!(panicked, Err::<(), _>(super::BackgroundError::Panicked)));
    }
}
