//! Rules for an account object without an entry in any ledger that answers: whether it may be placed while a server does
//! not answer, and whether it may take over the data of a deleted object. Pure.

use crate::{
    clock::{Moment, TOLERANCE},
    database::Holds,
    ledger::Entry,
    lifecycle::Stage,
};

/// The value of the annotation `adopt` with which a person lets an account start without data.
const NOTHING: &str = "none";

/// An account object without an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer<'a> {
    /// Its name.
    pub name: &'a str,
    /// `spec.accountID`.
    pub account_id: Option<&'a str>,
    /// The value of the annotation `adopt`: the uid whose data the account takes over, or [`NOTHING`].
    pub adopts: Option<&'a str>,
    /// When its object was created.
    pub created_at: Moment,
    /// Whether the cluster has a host name or a backup of an account with this name and another uid.
    pub has_forerunner: bool,
}

/// A server that does not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silent<'a> {
    /// The accounts in its ledger when that was read last; `None`: it was not read since this process leads.
    pub holds: Option<&'a Holds>,
    /// Whether this process started to create an entry of this uid, name or accountID there.
    pub tried: bool,
}

/// Why a server that does not answer may hold data of the account; `None`: it certainly holds none. Only the leading
/// process creates entries. So it knows every entry that was created for an account younger than its lead. Entries of
/// other objects with the same name or accountID are in the list that it read from the ledger before.
pub(super) fn may_hold(newcomer: &Newcomer<'_>, silent: &Silent<'_>, led_since: Moment) -> Option<&'static str> {
    if silent.tried {
        return Some("its entry may have been written there a moment ago");
    }
    if newcomer.created_at <= led_since + TOLERANCE {
        return Some("the account is older than this operator's lead, and another operator may have placed it there");
    }
    match (silent.holds, newcomer.account_id) {
        (Some(holds), Some(id)) if holds.account_ids.contains(id) => Some("its accountID is known there"),
        (Some(holds), _) if holds.names.contains(newcomer.name) => Some("an account of its name has data there"),
        (Some(_), _) => None,
        (None, Some(_)) => Some("nobody could read yet which accountIDs are known there"),
        (None, None) if newcomer.has_forerunner => Some("an account of its name left something behind, and its data may be there"),
        (None, None) => None,
    }
}

/// Which data a new account object takes over.
#[derive(Debug, PartialEq)]
pub(super) enum Claim<'e> {
    /// None: the account starts without data.
    Nothing,
    /// The data of this entry.
    Data(&'e Entry),
    /// A person has to decide about the data of this entry.
    Undecided(&'e Entry),
    /// The account may not start; a sentence for people.
    Refused(String),
}

/// Decides which of the entries `left` the account takes over. They were found in the ledgers of its region under its
/// accountID, its name, or the uid that a person names. Without a person, only an equal accountID is enough.
pub(super) fn claim<'e>(newcomer: &Newcomer<'_>, left: &'e [Entry]) -> Claim<'e> {
    let with_id: Vec<_> =
        newcomer.account_id.map(|id| left.iter().filter(|entry| entry.account_id.as_deref() == Some(id)).collect()).unwrap_or_default();
    if let Some(uid) = newcomer.adopts.filter(|uid| *uid != NOTHING) {
        return match left.iter().find(|entry| entry.uid == uid) {
            Some(entry) => taken_over(newcomer, entry),
            None => Claim::Refused(format!("no ledger of the region knows an account of the uid {uid}; correct the annotation")),
        };
    }
    match with_id[..] {
        [] => {}
        [_] if newcomer.adopts.is_some() => {
            return Claim::Refused("its accountID is another account's; to begin with nothing, choose another one".into());
        }
        [entry] => return taken_over(newcomer, entry),
        _ => {
            let uids = with_id.iter().map(|entry| entry.uid.as_str()).collect::<Vec<_>>().join(", ");
            return Claim::Refused(format!("several accounts have its accountID, of the uids {uids}; a person has to name one of them"));
        }
    }
    let namesake = left.iter().find(|entry| entry.account == newcomer.name && entry.record.stage.has_database());
    match namesake.filter(|_| newcomer.adopts.is_none()) {
        Some(entry) => Claim::Undecided(entry),
        None => Claim::Nothing,
    }
}

fn taken_over<'e>(newcomer: &Newcomer<'_>, entry: &'e Entry) -> Claim<'e> {
    if entry.record.stage == Stage::Expired {
        let since = entry.record.enforced_at.unwrap_or(entry.record.decided_at);
        return Claim::Refused(format!(
            "the account of that accountID or uid has expired at {since} and nothing of it is left; to begin anew, choose another accountID"
        ));
    }
    // Backups and host names of the entry are found by the account's name, so it must be the same.
    if entry.account != newcomer.name {
        return Claim::Refused(format!("that data is of the account {}; apply the manifest under that name", entry.account));
    }
    Claim::Data(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Record;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    const LED: &str = "2026-11-23T10:00:00Z";

    fn newcomer() -> Newcomer<'static> {
        Newcomer { name: "acme", account_id: None, adopts: None, created_at: at("2026-11-23T11:00:00Z"), has_forerunner: false }
    }

    fn holds(names: &[&str], ids: &[&str]) -> Holds {
        let set = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
        Holds { names: set(names), account_ids: set(ids) }
    }

    #[test]
    fn a_newcomer_is_placed_beside_a_silent_server_that_cannot_hold_it() {
        let roll = holds(&["beta"], &["id-beta"]);
        let read = Silent { holds: Some(&roll), tried: false };
        assert_eq!(may_hold(&newcomer(), &read, at(LED)), None);
        assert_eq!(may_hold(&Newcomer { account_id: Some("id-acme"), ..newcomer() }, &read, at(LED)), None);
        assert_eq!(may_hold(&newcomer(), &Silent { holds: None, tried: false }, at(LED)), None);
    }

    #[test]
    fn a_newcomer_waits_for_a_silent_server_that_may_hold_it() {
        let roll = holds(&["acme"], &["id-acme"]);
        let (read, unread) = (Silent { holds: Some(&roll), tried: false }, Silent { holds: None, tried: false });
        let waits = |newcomer: Newcomer<'_>, silent: Silent<'_>| may_hold(&newcomer, &silent, at(LED)).is_some();
        assert!(waits(newcomer(), read), "its name has data there");
        assert!(waits(Newcomer { name: "other", account_id: Some("id-acme"), ..newcomer() }, read), "its accountID is known there");
        assert!(waits(Newcomer { account_id: Some("id-new"), ..newcomer() }, unread), "nobody knows the accountIDs there");
        assert!(waits(Newcomer { has_forerunner: true, ..newcomer() }, unread));
        assert!(waits(newcomer(), Silent { tried: true, ..unread }));
        assert!(waits(Newcomer { created_at: at("2026-11-23T10:00:30Z"), ..newcomer() }, unread), "another operator may have placed it");
        assert!(!waits(Newcomer { created_at: at("2026-11-23T10:00:31Z"), ..newcomer() }, unread));
    }

    fn entry(uid: &str, account: &str, account_id: Option<&str>, stage: Stage) -> Entry {
        let record = Record { stage, enforced_at: Some(at(LED)), ..Record::created(at(LED)) };
        Entry { account_id: account_id.map(str::to_owned), ..Entry::new(uid, account, record) }
    }

    #[test]
    fn data_is_taken_over_by_the_account_id_or_by_a_persons_word_and_otherwise_waits_for_one() {
        let left = [entry("u-1", "acme", Some("id"), Stage::Active)];
        let by_id = Newcomer { account_id: Some("id"), ..newcomer() };
        assert_eq!(claim(&by_id, &left), Claim::Data(&left[0]));
        assert_eq!(claim(&Newcomer { adopts: Some("u-1"), ..newcomer() }, &left), Claim::Data(&left[0]));
        assert_eq!(claim(&newcomer(), &left), Claim::Undecided(&left[0]));
        assert_eq!(claim(&Newcomer { account_id: Some("another"), ..newcomer() }, &left), Claim::Undecided(&left[0]));
        assert_eq!(claim(&Newcomer { adopts: Some(NOTHING), ..newcomer() }, &left), Claim::Nothing);
        assert!(matches!(claim(&Newcomer { adopts: Some("u-2"), ..newcomer() }, &left), Claim::Refused(why) if why.contains("u-2")));
        assert!(matches!(claim(&Newcomer { adopts: Some(NOTHING), ..by_id }, &left), Claim::Refused(_)));
        assert_eq!(claim(&newcomer(), &[]), Claim::Nothing);
    }

    #[test]
    fn a_tombstone_another_name_and_a_second_of_the_same_id_are_told_plainly() {
        let by_id = Newcomer { account_id: Some("id"), ..newcomer() };
        let told = |newcomer: &Newcomer<'_>, left: &[Entry]| match claim(newcomer, left) {
            Claim::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(told(&by_id, &[entry("u-1", "acme", Some("id"), Stage::Expired)]).contains("has expired at 2026-11-23T10:00:00Z"));
        assert!(told(&by_id, &[entry("u-1", "beta", Some("id"), Stage::Active)]).contains("of the account beta"));
        let two = [entry("u-1", "acme", Some("id"), Stage::Active), entry("u-2", "acme", Some("id"), Stage::Active)];
        assert!(told(&by_id, &two).contains("u-1, u-2"));
        // A name may be used again once nothing of it has a database.
        assert_eq!(claim(&newcomer(), &[entry("u-1", "acme", None, Stage::Deleted)]), Claim::Nothing);
        assert_eq!(claim(&newcomer(), &[entry("u-1", "acme", None, Stage::Expired)]), Claim::Nothing);
        let deleted = [entry("u-1", "acme", Some("id"), Stage::Deleted)];
        assert_eq!(claim(&by_id, &deleted), Claim::Data(&deleted[0]), "its cold backup comes back with a payment");
    }
}
