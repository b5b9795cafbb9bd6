//! One semaphore for each server and each store, because work there waits on the network. A server that accepts
//! connections and never answers takes the permits of its own semaphore and of no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Semaphores by name: the server, store or Gateway that the work waits for.
pub struct KeyedSemaphore {
    permits: usize,
    semaphores: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_name: HashMap<String, Arc<Semaphore>>,
    closed: bool,
}

/// A permit, until it is dropped.
pub struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// A permit for work that no semaphore limits.
    pub const fn unlimited() -> Self {
        Self { _permit: None }
    }
}

impl KeyedSemaphore {
    /// Creates semaphores with `permits` permits each, at least one.
    pub fn new(permits: usize) -> Self {
        Self { permits: permits.max(1), semaphores: Mutex::default() }
    }

    /// Waits for a permit of the semaphore `name`; `None`: the semaphores were closed.
    pub async fn acquire(&self, name: &str) -> Option<Permit> {
        let semaphore = {
            let mut all = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
            if all.closed {
                return None;
            }
            Arc::clone(all.by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.permits))))
        };
        semaphore.acquire_owned().await.ok().map(|permit| Permit { _permit: Some(permit) })
    }

    /// Closes all semaphores: every waiting and later [`Self::acquire`] returns `None`. Permits in use stay valid.
    pub fn close(&self) {
        let mut all = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        all.closed = true;
        all.by_name.values().for_each(|semaphore| semaphore.close());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_semaphore_that_is_taken_keeps_no_other_waiting() {
        let semaphores = KeyedSemaphore::new(2);
        let (first, _second) = (semaphores.acquire("hangs").await, semaphores.acquire("hangs").await);
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, semaphores.acquire("hangs")).await.is_err());
        let other = tokio::time::timeout(soon, semaphores.acquire("answers")).await;
        assert!(other.is_ok(), "another semaphore kept waiting");
        drop(first);
        assert!(tokio::time::timeout(soon, semaphores.acquire("hangs")).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_waits_when_they_are_closed_gets_no_permit() {
        let semaphores = KeyedSemaphore::new(1);
        let at_work = semaphores.acquire("a").await;
        assert!(at_work.is_some());
        let waits = semaphores.acquire("a");
        let (waited, ()) = tokio::join!(waits, async { semaphores.close() });
        assert!(waited.is_none());
        assert!(semaphores.acquire("b").await.is_none(), "a new semaphore gave a permit");
    }
}
