//! Turns for work that waits on the network: as many at once as a lane is wide, and each server and each store is a
//! lane of its own. One that accepts connections and never answers keeps its own lane waiting and no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lanes by the name of what is waited for.
pub struct KeyedSemaphore {
    width: usize,
    lanes: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_name: HashMap<String, Arc<Semaphore>>,
    closed: bool,
}

/// A turn, until it is dropped.
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl KeyedSemaphore {
    /// Lanes in each of which so many work at once.
    pub fn new(width: usize) -> Self {
        Self { width: width.max(1), lanes: Mutex::default() }
    }

    /// Waits for a turn in the lane of this name; `None`: there are none any more.
    pub async fn acquire(&self, name: &str) -> Option<Permit> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.closed {
                return None;
            }
            Arc::clone(lanes.by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.width))))
        };
        lane.acquire_owned().await.ok().map(|permit| Permit { _permit: permit })
    }

    /// Gives no more turns: whoever waits for one, however many they are, is sent away. Those at work go on.
    pub fn close(&self) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.closed = true;
        lanes.by_name.values().for_each(|lane| lane.close());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_lane_that_is_full_keeps_no_other_waiting() {
        let lanes = KeyedSemaphore::new(2);
        let (first, _second) = (lanes.acquire("hangs").await, lanes.acquire("hangs").await);
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, lanes.acquire("hangs")).await.is_err());
        let other = tokio::time::timeout(soon, lanes.acquire("answers")).await;
        assert!(other.is_ok(), "a lane of another name was kept waiting");
        drop(first);
        assert!(tokio::time::timeout(soon, lanes.acquire("hangs")).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_waits_when_the_lanes_close_is_sent_away() {
        let lanes = KeyedSemaphore::new(1);
        let at_work = lanes.acquire("a").await;
        assert!(at_work.is_some());
        let waits = lanes.acquire("a");
        let (waited, ()) = tokio::join!(waits, async { lanes.close() });
        assert!(waited.is_none());
        assert!(lanes.acquire("b").await.is_none(), "a new lane gave a turn");
    }
}
