//! Remembers that a store does not answer, so that only one caller at a time waits for it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::Error;
use crate::error_chain::chain;

/// How long reading a store's marker may take, and for how long all callers then get the same error.
const PATIENCE: Duration = Duration::from_secs(10);

/// Remembers that a store did not answer. Until it does, one caller at a time asks it; others get the error at once.
pub struct Silence {
    patience: Duration,
    last: Mutex<Option<Silent>>,
}

struct Silent {
    asked_at: Instant,
    why: String,
}

impl Default for Silence {
    fn default() -> Self {
        Self::after(PATIENCE)
    }
}

impl Silence {
    fn after(patience: Duration) -> Self {
        Self { patience, last: Mutex::default() }
    }

    /// Sends a request with a timeout. Sends none while the store does not answer and another caller is finding out
    /// whether it does again.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the error that the store answers.
    pub(super) async fn ask<T>(&self, endpoint: &str, question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let silent = |why: String| Error::Unreachable { endpoint: endpoint.to_owned(), source: why.into() };
        if let Some(why) = self.why_not_ask() {
            return Err(silent(why));
        }
        self.find_out(endpoint, question).await
    }

    /// Sends a request with the same timeout, even while another caller is waiting for the store.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn find_out<T>(&self, endpoint: &str, question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let answer = timeout(self.patience, question).await.unwrap_or_else(|_| {
            let why = format!("it did not answer within {} s", self.patience.as_secs_f32());
            Err(Error::Unreachable { endpoint: endpoint.to_owned(), source: why.into() })
        });
        *self.lock() = match &answer {
            Err(Error::Unreachable { source, .. }) => Some(Silent { asked_at: Instant::now(), why: chain(&**source) }),
            _ => None,
        };
        answer
    }

    /// Why the store was unreachable a moment ago; `None`: this caller must ask. If the store did not answer before,
    /// all later callers then rely on this one until its timeout is over.
    fn why_not_ask(&self) -> Option<String> {
        let mut last = self.lock();
        let silent = last.as_mut()?;
        if silent.asked_at.elapsed() < self.patience {
            return Some(silent.why.clone());
        }
        silent.asked_at = Instant::now();
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Silent>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn of_many_that_ask_a_store_that_never_answers_one_waits_at_a_time() {
        let (silence, asked) = (Silence::after(SOON), AtomicU32::new(0));
        let ask = || {
            silence.ask("https://hole.example", async {
                asked.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Result<(), Error>>().await
            })
        };
        let begun = Instant::now();
        assert!(matches!(ask().await, Err(Error::Unreachable { .. })));
        for _ in 0..100 {
            let error = ask().await.unwrap_err();
            assert!(chain(&error).contains("did not answer within 0.1 s"), "{}", chain(&error));
        }
        assert!(begun.elapsed() < SOON * 2, "those that came later waited too");
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        tokio::time::sleep(SOON).await;
        futures::future::join_all((0..100).map(|_| ask())).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2, "more than one found out whether it answers again");
    }

    #[tokio::test]
    async fn a_store_that_answers_again_is_asked_by_everybody_again() {
        let silence = Silence::after(SOON);
        let hangs = std::future::pending::<Result<(), Error>>();
        assert!(silence.find_out("https://a.example", hangs).await.is_err());
        assert!(silence.ask("https://a.example", async { Ok(()) }).await.is_err());
        assert!(silence.find_out("https://a.example", async { Err::<(), _>(Error::Unclaimed) }).await.is_err());
        // An error that the store answers is an answer too.
        assert!(silence.ask("https://a.example", async { Ok(()) }).await.is_ok());
    }
}
