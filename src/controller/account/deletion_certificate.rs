//! The end of an account: checks that nothing is left, removes personal data, signs the certificate of deletion.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::jiff::SignedDuration;
use kube::Api;
use serde_json::json;

use super::{context::AccountContext, error::Error, mail_filter, owner, work::Work};
use crate::controller::tenant_secret::TenantSecret;
use crate::{
    api::{
        BackupPhase, BackupStore, Time, Window,
        account::{Certificate, OtherCopies, OtherCopy},
    },
    backup,
    clock::Moment,
    cluster::During,
    ledger::BackupEntry,
    lifecycle::Record,
};

impl Work<'_> {
    /// Checks one last time that the stores hold nothing of the account, removes personal data, and signs the certificate.
    pub(super) async fn issue_certificate(&mut self) -> Result<(), Error> {
        if !self.entering {
            // Somebody applied the manifest of before once more, while the account expired.
            return if owner::is_named(self.account) { owner::scrub(self.ctx, self.account).await } else { Ok(()) };
        }
        let uid = self.placement.entry.uid.clone();
        // From the ledger: ColdBackup objects of backups that were erased earlier do not exist any more.
        let backups = self.placement.server.ledger.backups_of(&uid).await?;
        let count = i64::try_from(backups.len()).unwrap_or(i64::MAX);
        let databases = i64::from(self.record().dropped_under.is_some());
        let destroyed = BTreeMap::from([("databases".to_owned(), databases), ("backups".to_owned(), count)]);
        let mut stores: Vec<_> = self.observed.backups.iter().map(|b| b.spec.store.clone()).collect();
        // Also a store of which only the ledger knows, because the ColdBackup was lost and the plan names another store.
        stores.extend(backups.iter().map(|backup| backup.store.clone()));
        // Where a backup's key went, whatever its store names by now.
        stores.extend(self.observed.backups.iter().filter_map(|b| b.status.as_ref()?.key_escrow.clone()));
        stores.extend(backups.iter().filter_map(|backup| backup.key_escrow.clone()));
        stores.extend(self.record().plan.as_ref().and_then(|plan| plan.store.clone()));
        stores.sort();
        stores.dedup();
        for store in stores {
            // A BackupStore that was deleted is skipped, if every backup that was ever in it was erased before.
            let uses = |backup: &BackupEntry| backup.store == store || backup.key_escrow.as_ref() == Some(&store);
            let erased = |backup: &BackupEntry| !uses(backup) || backup.phase == format!("{:?}", BackupPhase::Erased);
            if backups.iter().all(erased) && !self.store_exists(&store).await? {
                continue;
            }
            let remaining = backup::remaining(&self.ctx.stores, &self.ctx.key_ring(), &uid, &store).await?;
            if !remaining.is_empty() {
                self.waiting_on.push(format!(
                    "store {store} still lists {} objects, {} versions, {} uploads and {} keys",
                    remaining.objects, remaining.versions, remaining.uploads, remaining.keys
                ));
                self.requeue_at(self.now + SignedDuration::from_secs(5));
                return Ok(());
            }
        }
        if let Some(why) = mail_filter::remembers(self.ctx.settings.mail.as_ref(), &uid).await {
            self.waiting_on.push(why);
            self.requeue_at(self.now + SignedDuration::from_secs(5));
            return Ok(());
        }
        let gone = std::collections::BTreeSet::from([uid.clone()]);
        let shells = self.placement.server.driver.remove_shells(&gone).await?.len();
        // A restore that did not come to its end may have left some again.
        TenantSecret::of(self.ctx, &self.placement.tenant).delete().await?;
        self.placement.entry.record.app_secrets.clear();
        owner::scrub(self.ctx, self.account).await?;
        if let Some(unprovable) = &mut self.placement.entry.record.unprovable {
            // The text may quote the tenant's data.
            unprovable.why.clear();
        }
        self.placement.entry.record.forget_subscription();
        let certificate = certificate(self.ctx, &uid, self.record(), (destroyed, shells), self.now);
        self.placement.entry.certificate = Some(certificate);
        self.placement.entry.owner_hash = None;
        self.placement.entry.tombstone = Some(json!({"expiredAt": self.now.to_string()}));
        self.store().await
    }

    /// Whether there is a `BackupStore` of this name.
    async fn store_exists(&self, store: &str) -> Result<bool, Error> {
        let api: Api<BackupStore> = Api::all(self.ctx.client.clone());
        Ok(api.get_metadata_opt(store).await.during("read the store of the account's backups")?.is_some())
    }
}

fn certificate(ctx: &AccountContext, uid: &str, record: &Record, counted: (BTreeMap<String, i64>, usize), now: Moment) -> Certificate {
    let unsigned = Certificate { not_counted: not_counted(&ctx.settings.copies_kept, now), ..unsigned(record, counted, now) };
    let facts = facts(&unsigned, &ctx.installation.id, uid);
    let digest = ring::digest::digest(&ring::digest::SHA256, facts.as_bytes());
    Certificate {
        sha256: crate::digest::hex(digest.as_ref()),
        signature: BASE64_STANDARD.encode(ctx.installation.sign(facts.as_bytes())),
        note: "What is in notCounted was neither made nor seen here. Copies of a backup cannot be read without their destroyed keys."
            .into(),
        ..unsigned
    }
}

/// The certificate without digest and signature, from the record.
fn unsigned(record: &Record, (destroyed, roles_left): (BTreeMap<String, i64>, usize), now: Moment) -> Certificate {
    Certificate {
        issued_at: Time(now),
        destroyed,
        roles_left: i64::try_from(roles_left).ok().filter(|left| *left > 0),
        authority: record.dropped_under.clone(),
        promised_by: record.promised.or(record.data_gone_by).map(Time),
        not_counted: Vec::new(),
        delayed_by: record.delayed_by.clone(),
        sha256: String::new(),
        signature: String::new(),
        note: String::new(),
    }
}

/// The copies that the operator cannot see, with the time when the last of them is gone, where the installation says it.
fn not_counted(kept: &[(OtherCopy, Window)], now: Moment) -> Vec<OtherCopies> {
    let gone_by = |kind| kept.iter().find(|(known, _)| *known == kind).map(|(_, window)| Time(now + window.duration()));
    OtherCopy::ALL.into_iter().map(|kind| OtherCopies { kind, gone_by: gone_by(kind) }).collect()
}

/// The text that is signed: the certificate without digest, signature and note, with the ids of the installation and of
/// the account. It is JSON without spaces, with sorted keys.
fn facts(certificate: &Certificate, installation: &str, uid: &str) -> String {
    let mut facts = json!(certificate);
    if let Some(fields) = facts.as_object_mut() {
        for unsigned in ["sha256", "signature", "note"] {
            fields.remove(unsigned);
        }
        fields.insert("installation".into(), installation.into());
        fields.insert("accountUID".into(), uid.into());
    }
    facts.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::account::{DropGround, DroppedUnder},
        lifecycle::Stage,
    };

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    #[test]
    fn copies_that_nobody_counted_are_listed_with_their_end_where_it_is_known() {
        let listed = json!(not_counted(&[(OtherCopy::EtcdSnapshots, Window::days(30))], at("2026-06-01T00:00:00Z")));
        assert_eq!(
            listed,
            json!([{"kind": "ServerBackups"}, {"kind": "ServerReplicas"}, {"kind": "BucketReplicas"},
                {"kind": "EtcdSnapshots", "goneBy": "2026-07-01T00:00:00Z"}])
        );
    }

    #[test]
    fn what_is_signed_says_under_which_authority_the_database_went_and_what_delayed_it() {
        let mut record = Record::created(at("2026-01-01T00:00:00Z"));
        record.stage = Stage::Expired;
        record.data_gone_by = Some(at("2026-06-01T00:00:00Z"));
        record.promised = Some(at("2026-05-01T00:00:00Z"));
        record.delayed_by = vec!["Brake".into()];
        record.dropped_under = Some(DroppedUnder { backup: Some("acme-1".into()), ..DroppedUnder::by(DropGround::PromiseElapsed) });
        let destroyed = BTreeMap::from([("databases".to_owned(), 1)]);
        assert_eq!(
            facts(&unsigned(&record, (destroyed.clone(), 2), at("2026-06-01T00:00:09Z")), "inst", "u-1"),
            r#"{"accountUID":"u-1","authority":{"backup":"acme-1","ground":"PromiseElapsed"},"delayedBy":["Brake"],"destroyed":{"databases":1},"installation":"inst","issuedAt":"2026-06-01T00:00:09Z","promisedBy":"2026-05-01T00:00:00Z","rolesLeft":2}"#
        );
        let nothing = Record::created(at("2026-01-01T00:00:00Z"));
        assert_eq!(
            facts(&unsigned(&nothing, (destroyed, 0), at("2026-06-01T00:00:09Z")), "inst", "u-1"),
            r#"{"accountUID":"u-1","destroyed":{"databases":1},"installation":"inst","issuedAt":"2026-06-01T00:00:09Z"}"#
        );
    }
}
