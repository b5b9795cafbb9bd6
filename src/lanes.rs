//! Turns for work that waits on the network: as many at once as a lane is wide, and each server and each store is a
//! lane of its own. One that accepts connections and never answers keeps its own lane waiting and no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lanes by the name of what is waited for.
pub struct Lanes {
    width: usize,
    lanes: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, until it is dropped. Without one nothing was waited for.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    /// Lanes in each of which so many work at once.
    pub fn new(width: usize) -> Self {
        Self { width: width.max(1), lanes: Mutex::default() }
    }

    /// Waits for a turn in the lane of this name.
    pub async fn turn(&self, name: &str) -> Turn {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.width))))
        };
        // A lane is never closed.
        Turn { _permit: lane.acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_lane_that_is_full_keeps_no_other_waiting() {
        let lanes = Lanes::new(2);
        let (_first, _second) = (lanes.turn("hangs").await, lanes.turn("hangs").await);
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, lanes.turn("hangs")).await.is_err());
        let other = tokio::time::timeout(soon, lanes.turn("answers")).await;
        assert!(other.is_ok(), "a lane of another name was kept waiting");
        drop(_first);
        assert!(tokio::time::timeout(soon, lanes.turn("hangs")).await.is_ok());
    }
}
