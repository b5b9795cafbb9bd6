//! Which notices of an account are due. Pure.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{Window, notices::Notices},
    clock::Moment,
    digest,
    lifecycle::{Next, Record, Stage},
};

/// For how long after a stage was entered its notice is still sent: what is older is no news, as when notices are switched on in
/// an installation that has run for years.
const NEWS: SignedDuration = SignedDuration::from_hours(7 * 24);

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Before the stage or after it.
    pub kind: Kind,
    /// The stage.
    pub stage: Stage,
    /// When it follows, or since when it is enforced.
    pub at: Moment,
}

/// Before the stage or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The stage follows, in this time or sooner.
    Upcoming(Window),
    /// The stage is enforced.
    Entered,
}

impl Notice {
    /// When the notice is due.
    pub fn time(&self) -> Moment {
        match self.kind {
            Kind::Upcoming(lead) => self.at - lead.duration(),
            Kind::Entered => self.at,
        }
    }

    /// The same for the same notice, however often it is sent; another one where the date was moved.
    pub fn id(&self, installation: &str, account_uid: &str) -> String {
        let kind = match self.kind {
            Kind::Upcoming(lead) => format!("upcoming {lead}"),
            Kind::Entered => "entered".to_owned(),
        };
        let text = format!("{installation}/{account_uid}/{kind}/{}/{}", self.stage.name(), self.at);
        digest::sha256(text.as_bytes())[..32].to_owned()
    }
}

/// The notices that are due now, whether they were sent or not, and when the next one will be due. Of several that announce the
/// same stage, as after the operator was down, only the last one is news.
pub fn due(record: &Record, next: Option<Next>, notices: &Notices, now: Moment) -> (Vec<Notice>, Option<Moment>) {
    let mut due = Vec::new();
    let mut wake = None;
    if let Some(at) = record.enforced_at
        && !record.stage.is_open()
        && now < at + NEWS
    {
        due.push(Notice { kind: Kind::Entered, stage: record.stage, at });
    }
    // A stage that is being entered follows anyway, and its successor is not known before.
    if let Some(next) = next.filter(|next| record.enforced_at.is_some() && next.at > now) {
        let leads = notices.before(next.stage);
        let upcoming = |lead: &Window| Notice { kind: Kind::Upcoming(*lead), stage: next.stage, at: next.at };
        due.extend(leads.iter().filter(|lead| upcoming(lead).time() <= now).min().map(upcoming));
        wake = leads.iter().map(|lead| upcoming(lead).time()).filter(|at| *at > now).min();
    }
    (due, wake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Reason;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn blocked() -> Record {
        Record { stage: Stage::Blocked, enforced_at: Some(at("2026-01-01T00:00:00Z")), ..Record::created(at("2025-01-01T00:00:00Z")) }
    }

    fn terminated_at(text: &str) -> Option<Next> {
        Some(Next { stage: Stage::Terminated, at: at(text), reason: Reason::WindowEnded })
    }

    fn kinds(record: &Record, next: Option<Next>, now: &str) -> (Vec<(Kind, Stage)>, Option<Moment>) {
        let (due, wake) = due(record, next, &Notices::default(), at(now));
        (due.into_iter().map(|notice| (notice.kind, notice.stage)).collect(), wake)
    }

    #[test]
    fn a_stage_is_announced_a_week_and_a_day_before_and_told_after() {
        let (record, next) = (blocked(), terminated_at("2026-03-01T00:00:00Z"));
        let week = Kind::Upcoming(Window::days(7));
        let day = Kind::Upcoming(Window::days(1));
        assert_eq!(kinds(&record, next, "2026-01-02T00:00:00Z"), (vec![(Kind::Entered, Stage::Blocked)], Some(at("2026-02-22T00:00:00Z"))));
        assert_eq!(kinds(&record, next, "2026-02-21T23:59:59Z"), (vec![], Some(at("2026-02-22T00:00:00Z"))));
        assert_eq!(kinds(&record, next, "2026-02-22T00:00:00Z"), (vec![(week, Stage::Terminated)], Some(at("2026-02-28T00:00:00Z"))));
        assert_eq!(kinds(&record, next, "2026-02-28T00:00:00Z"), (vec![(day, Stage::Terminated)], None), "an older one is no news");
        assert_eq!(kinds(&record, next, "2026-03-01T00:00:00Z"), (vec![], None), "what is due is not announced any more");
    }

    #[test]
    fn a_window_that_is_shorter_than_the_lead_is_announced_at_once() {
        let (told, wake) = kinds(&blocked(), terminated_at("2026-01-03T00:00:00Z"), "2026-01-01T00:00:01Z");
        assert_eq!(told, [(Kind::Entered, Stage::Blocked), (Kind::Upcoming(Window::days(7)), Stage::Terminated)]);
        assert_eq!(wake, Some(at("2026-01-02T00:00:00Z")));
    }

    #[test]
    fn nothing_is_announced_while_a_stage_is_entered_or_when_no_stage_follows() {
        let entering = Record { enforced_at: None, ..blocked() };
        assert_eq!(kinds(&entering, terminated_at("2026-01-03T00:00:00Z"), "2026-01-01T00:00:01Z"), (vec![], None));
        let active = Record { stage: Stage::Active, ..blocked() };
        assert_eq!(kinds(&active, None, "2026-01-01T00:00:01Z"), (vec![], None));
    }

    #[test]
    fn a_notice_keeps_its_id_and_gets_another_one_with_another_date() {
        let notice = |text: &str| Notice { kind: Kind::Upcoming(Window::days(7)), stage: Stage::Deleted, at: at(text) };
        let id = notice("2026-03-01T00:00:00Z").id("i", "u");
        assert_eq!(id, notice("2026-03-01T00:00:00Z").id("i", "u"));
        assert_eq!(id.len(), 32);
        for other in [notice("2026-03-02T00:00:00Z").id("i", "u"), notice("2026-03-01T00:00:00Z").id("i", "v")] {
            assert_ne!(id, other);
        }
        let entered = Notice { kind: Kind::Entered, ..notice("2026-03-01T00:00:00Z") };
        assert_ne!(id, entered.id("i", "u"));
    }
}
