//! Limits how many movers run: one for each tenant, and `spec.movers` for each server.
//!
//! Running movers are counted by listing their Jobs. A mover that is being started has no Job yet. So a reconcile that
//! wants to start one first takes a slot in a queue, then lists the Jobs, and also counts the slots taken before its own.
//! It holds no lock while it calls the cluster, the server and the store, so that a call that hangs delays no other backup.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// The slots of movers that are being started, in the order in which they were taken.
#[derive(Default)]
pub(super) struct MoverSlots(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    claims: BTreeMap<u64, Claim>,
}

/// A mover that runs, or that is being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The name of its backup.
    pub backup: String,
    /// The uid of its account.
    pub account_uid: String,
    /// The name of its server.
    pub server: String,
}

/// A slot in the queue, until it is dropped.
pub(super) struct MoverSlot<'p> {
    slots: &'p MoverSlots,
    number: u64,
    before: Vec<Claim>,
}

impl MoverSlots {
    /// Takes a slot. The running movers must be listed after this.
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
    /// Why no mover for this account can be started now, given the movers that run at the server.
    pub fn refusal(&self, running: &[Claim], account_uid: &str, server: &str, limit: usize) -> Option<String> {
        let all = || running.iter().chain(&self.before);
        if all().any(|claim| claim.account_uid == account_uid) {
            return Some("another mover works for this account".into());
        }
        // The Job of a slot's mover may be in the list already; it must not be counted twice.
        let listed: HashSet<&str> = running.iter().map(|claim| claim.backup.as_str()).collect();
        let starting = self.before.iter().filter(|claim| !listed.contains(claim.backup.as_str())).count();
        (running.len() + starting >= limit).then(|| format!("{limit} movers work at server {server}, as many as spec.movers allows"))
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
