//! Logs every few seconds how far a mover is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(5);

/// Numbers of bytes before and after compression.
#[derive(Default)]
pub(super) struct Progress {
    plain: AtomicU64,
    stored: AtomicU64,
}

impl Progress {
    pub(super) fn plain(&self, bytes: usize) {
        self.plain.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn stored(&self, bytes: usize) {
        self.stored.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Logs the numbers every few seconds while `work` runs.
    pub(super) async fn during<T>(self: &Arc<Self>, step: &'static str, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        tokio::pin!(work);
        loop {
            match tokio::time::timeout(EVERY, &mut work).await {
                Ok(done) => {
                    self.say(step, "done", begun);
                    return done;
                }
                Err(_) => self.say(step, "under way", begun),
            }
        }
    }

    fn say(&self, step: &'static str, state: &'static str, begun: Instant) {
        let (plain, stored) = (self.plain.load(Ordering::Relaxed), self.stored.load(Ordering::Relaxed));
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = (plain as f64 / seconds.max(0.001)) as u64;
        tracing::info!(step, state, plain_bytes = plain, stored_bytes = stored, bytes_per_second = rate, seconds, "progress");
    }
}
