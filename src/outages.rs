//! Failures with one cause are logged together: the first at once, and then one line a minute that counts the others.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// How often what was counted is logged.
pub const INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);

/// The failures since the last line, by what they have in common, such as `server pg-eu-1`.
#[derive(Default)]
pub struct Outages(Mutex<HashMap<String, Counted>>);

#[derive(Default)]
struct Counted {
    failures: u64,
    last: String,
}

/// What is to be logged of one cause.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the failures have in common.
    pub cause: String,
    /// How many there were since the last line.
    pub failures: u64,
    /// The last of them.
    pub last: String,
}

impl Outages {
    /// Whether the failure is to be logged now, because nothing was heard of this cause for a while. Otherwise it is counted.
    pub fn is_first(&self, cause: &str, failure: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counted) = all.get_mut(cause) else {
            all.insert(cause.to_owned(), Counted::default());
            return true;
        };
        counted.failures += 1;
        failure.clone_into(&mut counted.last);
        false
    }

    /// What was counted since the last call. A cause of which nothing was heard is forgotten.
    pub fn take(&self) -> Vec<Summary> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, counted| counted.failures > 0);
        let summary = |(cause, counted): (&String, &mut Counted)| {
            let Counted { failures, last } = std::mem::take(counted);
            Summary { cause: cause.clone(), failures, last }
        };
        let mut summaries: Vec<_> = all.iter_mut().map(summary).collect();
        summaries.sort_by(|a, b| a.cause.cmp(&b.cause));
        summaries
    }

    /// Logs what was counted, once a minute, without end.
    pub async fn log(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            for Summary { cause, failures, last } in self.take() {
                tracing::warn!(cause, failures, last, "failures with one cause go on");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_failures_of_one_cause_are_one_line_and_one_a_minute() {
        let outages = Outages::default();
        assert!(outages.is_first("server pg", "silence"));
        assert!(outages.is_first("store s3", "silence"), "another cause has a line of its own");
        for _ in 0..1000 {
            assert!(!outages.is_first("server pg", "silence of acme"));
        }
        let told = outages.take();
        assert_eq!(told, [Summary { cause: "server pg".into(), failures: 1000, last: "silence of acme".into() }]);
        // While it goes on, it is still one line a minute.
        assert!(!outages.is_first("server pg", "silence"));
        assert_eq!(outages.take().len(), 1);
        // Once a minute was quiet, the next failure is logged at once.
        assert_eq!(outages.take(), []);
        assert!(outages.is_first("server pg", "silence"));
    }
}
