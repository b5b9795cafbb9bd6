//! Computes the stages that follow, if billing and owner say nothing more and nothing delays a step.

use super::{
    Reason, Stage,
    decide::decide,
    facts::{Facts, Frozen, Next, Step},
    inputs::pass_time,
    record::{Known, Record},
    transition::{enforced, enter, go_back, refreeze},
};
use crate::{
    api::{ClockPolicy, Lifecycle},
    clock::{Moment, Trust},
};

/// More steps than any account can take without another input.
const STEPS: usize = 64;

/// The stages that follow, down to the last one that is certain to come. Each is entered when it is due and enforced in that
/// moment. A stage that is being entered is the first one. A step that is due already, and not taken, ends the list: nobody
/// knows when what delays it ends.
///
/// [`decide`] itself is asked at each deadline, with facts that permit everything, so that the forecast is what the operator
/// does. A hold is left out, because nobody knows when it ends; a notice period is not. As long as nothing is due, the result
/// is the same at every time, so it changes only when a deadline does.
pub fn forecast(record: &Record, windows: &Known<Lifecycle>, clock_policy: ClockPolicy, now: Moment) -> Vec<Next> {
    let mut record = Record { held_since: None, ..record.clone() };
    let mut found = Vec::new();
    let mut at = now;
    if record.enforced_at.is_none() {
        at = record.decided_at;
        if record.stage != Stage::Trial {
            found.push(Next { stage: record.stage, at, reason: record.reason });
        }
    }
    for _ in 0..STEPS {
        if let Known::Known(windows) = windows {
            pass_time(&mut record, windows, clock_policy, at);
        }
        let decision = decide(&record, &permitting(&record, windows), at);
        let entered = match (decision.step, windows) {
            (Step::Stay, _) => {
                // While a stage is being entered, a notice may end long before the next one is due.
                let due = [decision.next.map(|next| next.at), decision.requeue_at];
                let Some(later) = due.into_iter().flatten().filter(|later| *later > at).min() else { break };
                at = later;
                continue;
            }
            (Step::Enforce, _) => {
                record = enforced(&record, windows, &Trust::Trusted, at);
                if record.enforced_at.is_none() {
                    break;
                }
                continue;
            }
            (Step::GoBack, _) => {
                record = go_back(&record, windows, at);
                continue;
            }
            (Step::Refreeze, Known::Known(windows)) => {
                record = refreeze(&record, windows, at);
                continue;
            }
            (Step::Refreeze, Known::Unknown(_)) => break,
            (Step::Enter(stage, reason), _) => (stage, reason),
            (Step::Restore, _) => (Stage::Active, Reason::Paid),
        };
        let (stage, reason) = entered;
        if at <= now {
            found.extend(decision.next);
            break;
        }
        found.push(Next { stage, at, reason });
        record = enter(&record, stage, reason, at);
    }
    found
}

/// Facts that permit every step. A backup that cannot be proven stays so.
fn permitting(record: &Record, windows: &Known<Lifecycle>) -> Facts {
    let unprovable = record.unprovable.as_ref().filter(|found| record.frozen.is_some_and(|pin| pin.due == found.due));
    Facts {
        windows: windows.clone(),
        clock: Trust::Trusted,
        billing: Known::Known(()),
        frozen: Known::Known(unprovable.map_or(Frozen::Verified, |found| Frozen::Unprovable {
            since: found.since,
            reason: found.reason.clone(),
            why: found.why.clone(),
        })),
        backup_held: false,
        dropped: Known::Known(record.dropped_under.is_some()),
        sealed: Known::Known(true),
        brake: Known::Known(true),
        paused: false,
    }
}
