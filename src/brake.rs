//! The brake: limits how many destructive steps a server may see in one window; the next one waits for a person.
//!
//! A clock that jumped, billing that went silent or a CRD that was installed again could each destroy many accounts at
//! once, every one of them for a valid reason. So the ledger of each server counts the destructive steps of the last
//! window. Once they reach a share of the server's tenants, the next step waits. The count and the decision are one
//! transaction of the ledger, so that accounts which are due at the same moment cannot all pass. A person who checked
//! and agrees sets the annotation `helpdesk-operator.io/release-brake` on the `DatabaseServer` to the present time.
//! Steps from before that time are not counted any more.

use crate::{api::database_server::Brake, clock::Moment};

/// The start of the counted time: the window's start, or the last release if that is later.
pub fn counted_since(brake: &Brake, released_at: Option<Moment>, now: Moment) -> Moment {
    let window_began = now - brake.window.duration();
    // A release in the future is ignored: until that time, no step would be counted.
    released_at.filter(|at| *at <= now).map_or(window_began, |at| at.max(window_began))
}

/// How many destructive steps are allowed in one window.
pub fn limit(brake: &Brake, tenants: i64) -> i64 {
    i64::from(brake.at_least).max(tenants.saturating_mul(i64::from(brake.percent)) / 100)
}

/// Whether one more destructive step is let through.
pub fn lets_through(brake: &Brake, tenants: i64, steps: i64) -> bool {
    steps < limit(brake, tenants)
}

/// The brake of a server at one moment. It is asked before a decision, and once more by the ledger that stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    brake: Brake,
    since: Moment,
}

impl Allowance {
    /// The brake as it is now. `released_at` is when a person released it last.
    pub fn at(brake: &Brake, released_at: Option<Moment>, now: Moment) -> Self {
        Self { brake: *brake, since: counted_since(brake, released_at, now) }
    }

    /// The start of the counted time.
    pub const fn since(&self) -> Moment {
        self.since
    }

    /// Whether one more destructive step is let through.
    pub fn lets_through(&self, tenants: i64, steps: i64) -> bool {
        lets_through(&self.brake, tenants, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Window;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    #[test]
    fn five_accounts_are_always_let_through_and_a_tenth_of_many() {
        let brake = Brake::default();
        assert!(lets_through(&brake, 3, 4) && !lets_through(&brake, 3, 5));
        assert!(lets_through(&brake, 1000, 99) && !lets_through(&brake, 1000, 100));
    }

    #[test]
    fn a_release_forgets_the_steps_before_it_and_one_in_the_future_does_nothing() {
        let brake = Brake { window: Window::hours(1), ..Brake::default() };
        let now = at("2026-11-23T10:00:00Z");
        assert_eq!(counted_since(&brake, None, now), at("2026-11-23T09:00:00Z"));
        assert_eq!(counted_since(&brake, Some(at("2026-11-23T09:45:00Z")), now), at("2026-11-23T09:45:00Z"));
        assert_eq!(counted_since(&brake, Some(at("2026-11-24T09:45:00Z")), now), at("2026-11-23T09:00:00Z"));
    }
}
