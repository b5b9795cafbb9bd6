//! What becomes of an account while the brake holds, and after its release.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup, DatabaseServer, HelpDeskAccount, account::DropGround},
    clock,
    lifecycle::Stage,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{eventually, find_condition},
    helpdesk::person_runs,
    operator::{Servers, Shard, wait_until_after},
    tenant::databases_and_roles_left,
};

fn is_proven(backup: &ColdBackup) -> bool {
    backup.spec.reason == BackupReason::Frozen && backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
}

async fn administrator_patches_server(shard: &Shard, server: Value) {
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    servers.patch(&shard.name, &PatchParams::default(), &Patch::Merge(server)).await.unwrap();
}

#[tokio::test]
async fn an_erasure_that_waits_for_the_brake_past_its_backup_says_so_and_gets_another_one_with_its_full_window() {
    // Given a server that has destroyed an account within the hour, and whose brake allows one step an hour.
    let shard = Shard::new("brake", Servers::First).await;
    shard.administrator_applies_plan(json!({"eraseDelay": "5s", "coldBackup": "70s"})).await;
    let _operator = shard.start_operator("only", &[]);
    let first = shard.customer_signs_up("brake-first").await;
    first.receives_credentials_in(Stage::Trial).await;
    first.owner_erases_without_cold_backup().await;
    first.reaches(Stage::Expired).await;
    // One step within the hour is enough from now on, and the first account made two.
    administrator_patches_server(&shard, json!({"spec": {"brake": {"percent": 1, "atLeast": 1, "window": "1h"}}})).await;

    // When the owner of another account wants it erased, with a cold backup.
    let account = shard.customer_signs_up("brake").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(20).await;
    account.administrator_applies(json!({"closure": {"mode": "Erase"}})).await;

    // Then the account is Blocked, and its backup expires at the promised time.
    let blocked = account.reaches(Stage::Blocked).await.status.unwrap();
    let promised = blocked.data_gone_by.unwrap();
    let early = account.wait_for_backup("its Frozen backup is proven", is_proven).await;
    assert_eq!(early.spec.expires_at, promised);

    // When the promised time has passed.
    let waiting = account
        .wait_until("a promise that is not kept", |a| {
            a.status.as_ref().is_some_and(|s| s.data_gone_by.is_none())
                && find_condition(a, "Overdue").is_some_and(|c| c.message.contains("was erased"))
        })
        .await;

    // Then the account says that the brake holds it and that its backup was erased, and keeps its database.
    let overdue = find_condition(&waiting, "Overdue").unwrap();
    assert_eq!((overdue.reason.as_str(), waiting.status.as_ref().unwrap().stage), ("Brake", Some(Stage::Blocked)));
    for text in [format!("nothing was to be left by {}", promised.0), "another backup is taken and proven".to_owned()] {
        assert!(overdue.message.contains(&text), "{}", overdue.message);
    }
    assert!(databases_and_roles_left(&tenant.database).await > 0, "dropped through the brake");

    // When an administrator releases the brake. The new limit is high, because other stories destroy accounts on this
    // server too.
    let now = clock::now().to_string();
    let released = json!({"metadata": {"annotations": {"helpdesk-operator.io/release-brake": now}}, "spec": {"brake": {"atLeast": 10000}}});
    administrator_patches_server(&shard, released).await;

    // Then another backup is proven before the database is dropped, and it is kept for a full window.
    let late = account.wait_for_backup("another Frozen backup is proven", |b| is_proven(b) && b.name_any() != early.name_any()).await;
    let deleted = account.reaches(Stage::Deleted).await.status.unwrap();
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);
    let anew = deleted.data_gone_by.expect("a window that runs");
    assert_eq!(late.spec.expires_at, anew);

    // When that window ends.
    let expired = account.reaches(Stage::Expired).await.status.unwrap();

    // Then the certificate names the second backup, the first promise and the brake.
    assert!(expired.stage_since.unwrap() >= anew, "the other backup went before its window had ended");
    let certificate = expired.certificate.unwrap();
    assert_eq!(certificate.promised_by, Some(promised));
    assert!(certificate.delayed_by.contains(&"Brake".to_owned()), "{:?}", certificate.delayed_by);
    let authority = certificate.authority.unwrap();
    assert_eq!((authority.ground, authority.backup), (DropGround::VerifiedBackup, Some(late.name_any())));
}

#[tokio::test]
async fn of_accounts_that_are_due_at_once_no_more_go_than_the_brake_allows_and_the_release_lets_the_others_go() {
    // Given eight accounts whose owners want everything erased.
    let shard = Shard::new("brake-mass", Servers::First).await;
    shard.administrator_applies_plan(json!({"eraseDelay": "45s"})).await;
    let operator = shard.start_operator("only", &[]);
    let mut accounts = Vec::new();
    for number in 0..8 {
        accounts.push(shard.customer_signs_up(&format!("brake-mass-{number}")).await);
    }
    let mut databases = Vec::new();
    for account in &accounts {
        databases.push(account.receives_credentials_in(Stage::Trial).await.database);
    }
    for account in &accounts {
        account.owner_erases_without_cold_backup().await;
    }
    let mut due = Vec::new();
    for account in &accounts {
        due.push(account.reaches(Stage::Blocked).await.status.unwrap().next_transition_time.unwrap());
    }

    // When the operator is away until all of them are due, and then finds them at one moment, with a brake that allows
    // three steps an hour.
    operator.kill();
    wait_until_after(due.iter().max_by_key(|at| at.0).unwrap()).await;
    let release_with = |at_least: i32| {
        let now = clock::now().to_string();
        json!({"metadata": {"annotations": {"helpdesk-operator.io/release-brake": now}},
            "spec": {"brake": {"percent": 1, "atLeast": at_least, "window": "1h"}}})
    };
    administrator_patches_server(&shard, release_with(3)).await;
    let _operator = shard.start_operator("again", &[]);

    // Then at least five accounts wait for the brake and keep their databases.
    let waits_for_brake = |a: &HelpDeskAccount| find_condition(a, "Overdue").is_some_and(|c| c.reason == "Brake");
    eventually("the brake holds the others", || async {
        let mut waiting = 0;
        for account in &accounts {
            waiting += usize::from(waits_for_brake(&account.get().await));
        }
        (waiting >= 5).then_some(())
    })
    .await;
    let accounts_with_data = async || {
        let mut left = 0;
        for database in &databases {
            left += usize::from(databases_and_roles_left(database).await > 0);
        }
        left
    };
    let before = accounts_with_data().await;
    assert!(before >= 5, "{} of 8 were dropped where the brake allows 3", 8 - before);

    // When an administrator looks at the brake, then they see who waits; a release that nobody confirms is none.
    let told = eventually("a server that says so", async || {
        let told = person_runs(&["brake", "status", "brake-mass", "-o", "json"]).await;
        (told.code == 3).then_some(told)
    })
    .await;
    assert!(told.json()["waiting"].as_array().unwrap().len() >= 5, "{}", told.out);
    let unconfirmed = person_runs(&["brake", "release", "brake-mass"]).await;
    assert!(unconfirmed.code == 2 && accounts_with_data().await == before, "{}{}", unconfirmed.out, unconfirmed.err);

    // When they release it, then as many more go as it allows.
    let released = person_runs(&["brake", "release", "brake-mass", "--yes"]).await;
    assert_eq!(released.code, 0, "{}{}", released.out, released.err);
    eventually("some of them go after the release", async || (accounts_with_data().await < before).then_some(())).await;

    // When an administrator raises the limit.
    administrator_patches_server(&shard, release_with(10_000)).await;

    // Then every account expires with a certificate, and no database is left.
    for account in &accounts {
        let expired = account.reaches(Stage::Expired).await.status.unwrap();
        assert!(expired.certificate.is_some());
    }
    assert_eq!(accounts_with_data().await, 0);
}
