//! Keeps vectors of the current model: after a change of model, passages are embedded again in the background, while the
//! old model's vectors serve (see [`super::models`]).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Knowledge;
use crate::queue::pause;

/// Passages embedded in one step.
const BATCH: u32 = 64;
/// Pause when nothing is to be done, and after a failure.
const IDLE: Duration = Duration::from_secs(60);

/// Starts the background task.
pub fn start_reembedding(knowledge: Arc<Knowledge>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(reembed(knowledge, stop.clone()));
}

async fn reembed(knowledge: Arc<Knowledge>, stop: CancellationToken) {
    let mut made = 0;
    loop {
        let step = tokio::select! {
            step = knowledge.reembed(BATCH) => step,
            () = stop.cancelled() => return,
        };
        match step {
            Ok(0) => {
                if made > 0 {
                    tracing::info!(passages = made, "all passages have vectors of the current model");
                }
                made = 0;
                if !pause(IDLE, &stop).await {
                    return;
                }
            }
            Ok(count) => made += count,
            Err(error) => {
                tracing::error!(%error, "passages could not be embedded again; full text still finds them");
                if !pause(IDLE, &stop).await {
                    return;
                }
            }
        }
    }
}
