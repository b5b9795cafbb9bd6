//! Whether what was found in the cluster, at the server and at the gateway is what a stage demands. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;

use crate::{
    api::{BackupPhase, BackupReason, ColdBackup, stage::Stage},
    cli::seen::Seen,
    clock::Moment,
    database::postgres::Attempt,
};

/// What was found.
pub(super) struct Evidence {
    pub now: Moment,
    /// The tenant's namespace, by the account's uid.
    pub namespace: Seen<()>,
    /// The pods in it.
    pub pods: Seen<Vec<Pod>>,
    /// Whether the class of the plan has an app that the operator runs.
    pub runs_app: Seen<bool>,
    /// What became of the tenant's credentials.
    pub login: Login,
    /// The account's backups.
    pub backups: Seen<Vec<ColdBackup>>,
    /// The keys of the backups that are there, by the backup's name.
    pub keys: Seen<Vec<String>>,
    /// Whether the owner waived the cold backup.
    pub waives_backup: bool,
    /// The answers of the host names that are claimed for the account, at the Gateway's address. `Err`: why there is nothing
    /// to ask.
    pub hosts: Result<Vec<(String, Answer)>, String>,
}

/// What became of the tenant's credentials.
pub(super) enum Login {
    /// They were tried at the server.
    Tried(Attempt),
    /// The Secret with them is not there.
    NoSecret,
    /// They could not be tried from here; the text says why.
    Untried(String),
}

/// What a host name answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// With this status code.
    Status(u16),
    /// The connection was refused by TLS: nobody serves the name.
    NoTls(String),
    /// It could not be reached from here.
    Unreachable(String),
}

/// What was checked, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    /// What.
    pub what: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What was seen.
    pub says: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Outcome {
    /// It is as the stage demands.
    Holds,
    /// It is not.
    Fails,
    /// It could not be checked from here.
    NotChecked,
}

use Outcome::{Fails, Holds, NotChecked};

fn check(what: &'static str, outcome: Outcome, says: impl Into<String>) -> Check {
    Check { what, outcome, says: says.into() }
}

/// Checks everything that the stage demands.
pub(super) fn checks(stage: Stage, seen: &Evidence) -> Vec<Check> {
    let mut all = vec![login(stage, &seen.login), namespace(stage, &seen.namespace), pods(stage, seen)];
    all.extend(hosts(stage, &seen.hosts));
    all.extend(backups(stage, seen));
    all
}

const LOGIN: &str = "the tenant's login";

fn login(stage: Stage, login: &Login) -> Check {
    let open = stage.is_open();
    match login {
        Login::Tried(Attempt::LetIn) => check(LOGIN, if open { Holds } else { Fails }, "the server lets the tenant's credentials in"),
        Login::Tried(Attempt::Shut(why)) => {
            check(LOGIN, if open { Fails } else { Holds }, format!("the server refuses the tenant's credentials: {why}"))
        }
        Login::Tried(Attempt::NoDatabase) => {
            let outcome = if stage.has_database() { Fails } else { Holds };
            check(LOGIN, outcome, "the server has no such database")
        }
        // A password that was changed says nothing of the login.
        Login::Tried(Attempt::WrongPassword) if open => check(LOGIN, Fails, "the server refuses the password in the Secret"),
        Login::Tried(Attempt::WrongPassword) => {
            check(LOGIN, NotChecked, "the server refuses the password in the Secret, which does not say whether the login is shut")
        }
        Login::NoSecret if open => check(LOGIN, Fails, "the Secret with the tenant's credentials is not there"),
        Login::NoSecret if stage == Stage::Blocked => {
            check(LOGIN, NotChecked, "the Secret with the tenant's credentials is not there, so they could not be tried")
        }
        Login::NoSecret => check(LOGIN, Holds, "the tenant's credentials are gone"),
        Login::Untried(why) => check(LOGIN, NotChecked, why.clone()),
    }
}

fn namespace(stage: Stage, namespace: &Seen<()>) -> Check {
    let what = "the tenant's namespace";
    let wanted = stage < Stage::Terminated;
    match namespace {
        Seen::There(()) => check(what, if wanted { Holds } else { Fails }, "it is there"),
        Seen::Missing => check(what, if wanted { Fails } else { Holds }, "it is not there"),
        Seen::Unseen(why) => check(what, NotChecked, why.clone()),
    }
}

fn pods(stage: Stage, seen: &Evidence) -> Check {
    let what = "the pods of the app";
    if seen.namespace.is_missing() {
        return check(what, if stage.is_open() { Fails } else { Holds }, "there are none, because the namespace is not there");
    }
    let pods = match &seen.pods {
        Seen::There(pods) => pods,
        Seen::Missing => return check(what, NotChecked, "pods cannot be listed"),
        Seen::Unseen(why) => return check(what, NotChecked, why.clone()),
    };
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let running: Vec<String> = pods.iter().filter(|pod| phase(pod) == "Running" && is_kept(pod)).map(ResourceExt::name_any).collect();
    match (stage.is_open(), &seen.runs_app) {
        (false, _) if running.is_empty() => check(what, Holds, "none runs"),
        (false, _) => check(what, Fails, format!("they run: {}", running.join(", "))),
        (true, Seen::There(true)) if running.is_empty() => check(what, Fails, "none runs"),
        (true, Seen::There(true)) => check(what, Holds, format!("{} run", running.len())),
        (true, Seen::There(false)) => check(what, Holds, "the class has no pods that the operator runs"),
        (true, Seen::Missing) => check(what, NotChecked, "the plan or its class is not there"),
        (true, Seen::Unseen(why)) => check(what, NotChecked, why.clone()),
    }
}

/// Whether nobody ends the pod.
fn is_kept(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
}

fn hosts(stage: Stage, hosts: &Result<Vec<(String, Answer)>, String>) -> Vec<Check> {
    let what = "the addresses";
    match hosts {
        Err(why) => vec![check(what, NotChecked, why.clone())],
        Ok(all) => all.iter().map(|(host, answer)| of_host(stage, host, answer)).collect(),
    }
}

fn of_host(stage: Stage, host: &str, answer: &Answer) -> Check {
    let what = "the addresses";
    match (stage, answer) {
        (_, Answer::Unreachable(why)) => check(what, NotChecked, format!("{host} {why}")),
        (Stage::Trial | Stage::Active, Answer::Status(status)) if *status < 500 => check(what, Holds, format!("{host} answers {status}")),
        (Stage::Blocked, Answer::Status(status)) if *status >= 500 => check(what, Holds, format!("{host} answers {status}: suspended")),
        (Stage::Terminated | Stage::Deleted | Stage::Expired, Answer::Status(404) | Answer::NoTls(_)) => {
            check(what, Holds, format!("{host} is not served"))
        }
        (_, Answer::Status(status)) => check(what, Fails, format!("{host} answers {status}")),
        (_, Answer::NoTls(why)) => check(what, Fails, format!("{host} {why}")),
    }
}

fn backups(stage: Stage, seen: &Evidence) -> Vec<Check> {
    let what = "the backups";
    let all = match &seen.backups {
        Seen::There(all) => all,
        Seen::Missing => return vec![check(what, NotChecked, "the kind ColdBackup is not installed")],
        Seen::Unseen(why) => return vec![check(what, NotChecked, why.clone())],
    };
    let phase = |backup: &ColdBackup| backup.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let left: Vec<&ColdBackup> = all.iter().filter(|backup| phase(backup) != BackupPhase::Erased).collect();
    let proven = |backup: &&&ColdBackup| phase(backup) == BackupPhase::Verified;
    let frozen = left.iter().filter(|backup| backup.spec.reason == BackupReason::Frozen).find(proven);
    let own = match stage {
        Stage::Trial | Stage::Active => {
            let newest = left.iter().filter(proven).filter_map(|backup| backup.status.as_ref()?.completed_at.as_ref()).map(|at| at.0).max();
            let says = newest.map_or_else(|| "no proven one is there".to_owned(), |at| format!("the newest proven one is of {at}"));
            check(what, if newest.is_some() { Holds } else { NotChecked }, says)
        }
        Stage::Blocked | Stage::Terminated | Stage::Deleted if frozen.is_some() => {
            let name = frozen.map(|backup| backup.name_any()).unwrap_or_default();
            check(what, Holds, format!("the Frozen one, {name}, says that it is proven"))
        }
        Stage::Blocked | Stage::Terminated => check(what, NotChecked, "the Frozen one is not proven yet"),
        Stage::Deleted if seen.waives_backup => check(what, Holds, "none is kept: the owner waived it"),
        Stage::Deleted => check(what, Fails, "no Frozen one is proven"),
        Stage::Expired if left.is_empty() => check(what, Holds, "each says that it is erased"),
        Stage::Expired => check(what, Fails, format!("they are left: {}", names(&left))),
    };
    let late = |backup: &&&ColdBackup| {
        let until = backup.status.as_ref().and_then(|status| status.retained_until.as_ref()).unwrap_or(&backup.spec.expires_at);
        until.0 <= seen.now && backup.spec.hold.is_none()
    };
    let overdue: Vec<&ColdBackup> = left.iter().filter(late).copied().collect();
    let on_time = match overdue.as_slice() {
        [] => check("the deadlines of the backups", Holds, "none has passed its own"),
        late => check("the deadlines of the backups", Fails, format!("they should be erased by now: {}", names(late))),
    };
    vec![own, on_time, keys(seen, all)]
}

fn names(backups: &[&ColdBackup]) -> String {
    backups.iter().map(|backup| backup.name_any()).collect::<Vec<_>>().join(", ")
}

/// A backup that was erased has no key any more; one that was proven has one.
fn keys(seen: &Evidence, all: &[ColdBackup]) -> Check {
    let what = "the keys of the backups";
    let keys = match &seen.keys {
        Seen::There(keys) => keys,
        Seen::Missing => return check(what, NotChecked, "Secrets cannot be looked at"),
        Seen::Unseen(why) => return check(what, NotChecked, why.clone()),
    };
    let phase = |backup: &&&ColdBackup| backup.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let has_key = |backup: &&&ColdBackup| keys.contains(&backup.name_any());
    let left: Vec<&ColdBackup> = all.iter().collect();
    let kept: Vec<&ColdBackup> = left.iter().filter(|b| phase(b) == BackupPhase::Erased && has_key(b)).copied().collect();
    let lost: Vec<&ColdBackup> = left.iter().filter(|b| phase(b) == BackupPhase::Verified && !has_key(b)).copied().collect();
    match (kept.as_slice(), lost.as_slice()) {
        ([], []) => check(what, Holds, "each proven backup has one, and no erased one has"),
        ([], lost) => check(what, Fails, format!("they are lost: {}", names(lost))),
        (kept, _) => check(what, Fails, format!("they are left of erased backups: {}", names(kept))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn backup(phase: &str, expires_at: &str) -> ColdBackup {
        serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "ColdBackup", "metadata": {"name": "acme-1"},
            "spec": {"account": "acme", "accountUID": "u", "store": "cold", "expiresAt": expires_at, "reason": "Frozen"},
            "status": {"phase": phase}}))
        .unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1"}, "status": {"phase": "Running"}})).unwrap()
    }

    /// What is found of an account in a stage that is properly enforced.
    fn enforced(stage: Stage) -> Evidence {
        let later = "2027-01-01T00:00:00Z";
        let status = match stage {
            Stage::Trial | Stage::Active => 200,
            Stage::Blocked => 503,
            _ => 404,
        };
        let erased = stage == Stage::Expired;
        Evidence {
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
            namespace: if stage < Stage::Terminated { Seen::There(()) } else { Seen::Missing },
            pods: Seen::There(if stage.is_open() { vec![pod()] } else { vec![] }),
            runs_app: Seen::There(true),
            login: match stage {
                Stage::Trial | Stage::Active => Login::Tried(Attempt::LetIn),
                Stage::Blocked => Login::Tried(Attempt::Shut("role is not permitted to log in".into())),
                _ => Login::NoSecret,
            },
            backups: Seen::There(vec![backup(if erased { "Erased" } else { "Verified" }, later)]),
            keys: Seen::There(if erased { vec![] } else { vec!["acme-1".into()] }),
            waives_backup: false,
            hosts: Ok(vec![("acme.helpdesk.example".into(), Answer::Status(status))]),
        }
    }

    fn failing(stage: Stage, seen: &Evidence) -> Vec<&'static str> {
        checks(stage, seen).iter().filter(|check| check.outcome == Fails).map(|check| check.what).collect()
    }

    #[test]
    fn a_stage_that_is_enforced_passes_every_check() {
        for stage in Stage::ALL {
            assert_eq!(failing(stage, &enforced(stage)), Vec::<&str>::new(), "{stage:?}");
        }
    }

    #[test]
    fn what_another_stage_demands_does_not_pass() {
        for claimed in Stage::ALL {
            for real in Stage::ALL {
                let same = claimed == real
                    || (claimed.is_open() && real.is_open())
                    // From outside they differ in the database alone, which nobody here can look for.
                    || [claimed, real] == [Stage::Terminated, Stage::Deleted]
                    || [claimed, real] == [Stage::Deleted, Stage::Terminated]
                    // A backup that is gone may be waived, or not taken yet.
                    || [claimed, real] == [Stage::Terminated, Stage::Expired];
                assert_eq!(failing(claimed, &enforced(real)).is_empty(), same, "{claimed:?} claimed, {real:?} found");
            }
        }
    }

    #[test]
    fn a_password_that_is_wrong_is_no_proof_of_a_login_that_is_shut() {
        let outcome = |stage, attempt| login(stage, &Login::Tried(attempt)).outcome;
        assert_eq!(outcome(Stage::Blocked, Attempt::WrongPassword), NotChecked);
        assert_eq!(outcome(Stage::Active, Attempt::WrongPassword), Fails);
        assert_eq!(outcome(Stage::Blocked, Attempt::LetIn), Fails);
        assert_eq!(outcome(Stage::Blocked, Attempt::NoDatabase), Fails, "a blocked account whose database is gone");
        assert_eq!(outcome(Stage::Deleted, Attempt::NoDatabase), Holds);
    }

    #[test]
    fn what_cannot_be_reached_is_not_checked_and_does_not_pass_for_shut() {
        let mut seen = enforced(Stage::Blocked);
        seen.login = Login::Untried("pg:5432 cannot be reached from here".into());
        seen.hosts = Ok(vec![("acme.helpdesk.example".into(), Answer::Unreachable("cannot be reached".into()))]);
        seen.pods = Seen::Unseen("you may not list them".into());
        let open: Vec<&str> = checks(Stage::Blocked, &seen).iter().filter(|c| c.outcome == NotChecked).map(|c| c.what).collect();
        assert_eq!(open, ["the tenant's login", "the pods of the app", "the addresses"]);
    }

    #[test]
    fn a_key_that_outlives_its_backup_and_a_backup_that_outlives_its_deadline_are_found() {
        let mut seen = enforced(Stage::Expired);
        seen.keys = Seen::There(vec!["acme-1".into()]);
        assert_eq!(failing(Stage::Expired, &seen), ["the keys of the backups"]);
        let mut seen = enforced(Stage::Deleted);
        seen.backups = Seen::There(vec![backup("Verified", "2026-11-01T00:00:00Z")]);
        assert_eq!(failing(Stage::Deleted, &seen), ["the deadlines of the backups"]);
    }
}
