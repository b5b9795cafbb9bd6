//! How many movers may run: one for a tenant, and as many at a server as it allows.
//!
//! The movers at work are counted by listing their Jobs, and the Job of one that is being started is not there yet. So
//! whoever wants to start one first takes a place in a queue, then lists, and counts those that came before. It holds no
//! lock while it asks the cluster, the server and the store: one of them that hangs delays nobody else.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// Those that are starting a mover, in the order in which they came.
#[derive(Default)]
pub(super) struct MoverSlots(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    claims: BTreeMap<u64, Claim>,
}

/// A mover at work, or one that is being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The name of its backup.
    pub backup: String,
    /// The uid of its account.
    pub account_uid: String,
    /// The name of its server.
    pub server: String,
}

/// A place in the queue, until it is dropped.
pub(super) struct MoverSlot<'p> {
    slots: &'p MoverSlots,
    number: u64,
    before: Vec<Claim>,
}

impl MoverSlots {
    /// Takes a place. What is at work has to be listed after this.
    pub fn take(&self, claim: Claim) -> MoverSlot<'_> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = queue.next;
        queue.next += 1;
        let before = queue.claims.values().filter(|c| c.server == claim.server && c.backup != claim.backup).cloned().collect();
        queue.claims.insert(number, claim);
        MoverSlot { slots: self, number, before }
    }
}

impl Drop for MoverSlot<'_> {
    fn drop(&mut self) {
        self.slots.0.lock().unwrap_or_else(PoisonError::into_inner).claims.remove(&self.number);
    }
}

impl MoverSlot<'_> {
    /// Why a mover for this account cannot be started now, given those that are at work at the server.
    pub fn refusal(&self, at_work: &[Claim], account_uid: &str, server: &str, most: usize) -> Option<String> {
        let all = || at_work.iter().chain(&self.before);
        if all().any(|claim| claim.account_uid == account_uid) {
            return Some("another mover works for this account".into());
        }
        // One that was starting may have been listed too; a restore's mover and a backup's share no name.
        let started: HashSet<&str> = at_work.iter().map(|claim| claim.backup.as_str()).collect();
        let starting = self.before.iter().filter(|claim| !started.contains(claim.backup.as_str())).count();
        (at_work.len() + starting >= most).then(|| format!("{most} movers work at server {server}, as many as spec.movers allows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(backup: &str, account: &str, server: &str) -> Claim {
        Claim { backup: backup.into(), account_uid: account.into(), server: server.into() }
    }

    #[test]
    fn of_two_that_start_at_once_the_last_free_place_is_the_firsts() {
        let slots = MoverSlots::default();
        let first = slots.take(claim("a-1", "a", "pg"));
        let second = slots.take(claim("b-1", "b", "pg"));
        assert_eq!(first.refusal(&[], "a", "pg", 1), None);
        assert!(second.refusal(&[], "b", "pg", 1).is_some(), "both took the last place");
        // Its Job was made and listed: it counts once.
        assert!(second.refusal(&[claim("a-1", "a", "pg")], "b", "pg", 1).is_some());
        assert_eq!(second.refusal(&[claim("a-1", "a", "pg")], "b", "pg", 2), None);
        drop((first, second));
        assert_eq!(slots.take(claim("c-1", "c", "pg")).refusal(&[], "c", "pg", 1), None);
    }

    #[test]
    fn one_that_hangs_while_it_starts_takes_a_place_at_its_own_server_only() {
        let slots = MoverSlots::default();
        let _hangs = slots.take(claim("a-1", "a", "pg-silent"));
        assert_eq!(slots.take(claim("b-1", "b", "pg")).refusal(&[], "b", "pg", 1), None);
    }

    #[test]
    fn a_tenant_has_one_mover_at_a_time() {
        let slots = MoverSlots::default();
        let _first = slots.take(claim("a-1", "a", "pg"));
        assert!(slots.take(claim("a-2", "a", "pg")).refusal(&[], "a", "pg", 9).is_some());
        assert!(slots.take(claim("b-1", "b", "pg")).refusal(&[claim("b-0", "b", "pg")], "b", "pg", 9).is_some());
    }
}
