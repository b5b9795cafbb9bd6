//! The end: everything was seen to be gone, what is personal is scrubbed, and the proof is signed.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    desk::Desk,
    error::{During, Error},
    namespace,
    realize::Work,
};
use crate::{
    api::{HelpDeskAccount, Time, account::Certificate},
    backup,
    clock::Moment,
};

impl Work<'_> {
    /// Everything is gone: asks the store one last time, scrubs what is personal, and signs the proof.
    pub(super) async fn certify(&mut self) -> Result<(), Error> {
        if !self.entering {
            return Ok(());
        }
        let uid = self.home.entry.uid.clone();
        let mut destroyed = BTreeMap::from([("databases".to_owned(), 1), ("backups".to_owned(), 0)]);
        destroyed.insert("backups".into(), i64::try_from(self.seen.backups.len()).unwrap_or(i64::MAX));
        let mut stores: Vec<_> = self.seen.backups.iter().map(|b| b.spec.store.clone()).collect();
        if let Ok(plan) = self.plan()
            && let Ok(placement) = super::home::placement(plan, self.account)
        {
            stores.push(placement.store.clone());
        }
        stores.sort();
        stores.dedup();
        for store in stores {
            let left = backup::remaining(self.desk, &uid, &store).await?;
            if !left.is_empty() {
                self.waiting_on.push(format!(
                    "store {store} still lists {} objects, {} versions, {} uploads and {} keys",
                    left.objects, left.versions, left.uploads, left.keys
                ));
                self.wake(self.now + SignedDuration::from_secs(5));
                return Ok(());
            }
        }
        self.scrub().await?;
        let certificate = certificate(self.desk, &uid, destroyed, self.now);
        self.home.entry.certificate = Some(certificate);
        self.home.entry.owner_hash = None;
        self.home.entry.tombstone = Some(json!({"expiredAt": self.now.to_string()}));
        self.store().await
    }

    /// Removes what is personal from the object, from its last-applied copy, and from the Secret that it names.
    async fn scrub(&self) -> Result<(), Error> {
        const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
        let spec = &self.account.spec;
        let mut patch = json!({"spec": {"displayName": null}, "metadata": {"annotations": {LAST_APPLIED: null}}});
        if spec.closure.is_some() {
            patch["spec"]["closure"] = json!({"requestedBy": null});
        }
        match &spec.owner.secret_ref {
            None => patch["spec"]["owner"] = json!({"name": "erased", "email": "erased@erased.invalid"}),
            Some(reference) => {
                let api: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.desk.client.clone(), &reference.namespace);
                let personal = json!({"data": {"name": null, "email": null}, "metadata": {"annotations": {LAST_APPLIED: null}}});
                api.patch(&reference.name, &PatchParams::default(), &Patch::Merge(personal))
                    .await
                    .map(drop)
                    .or_else(namespace::gone_is_fine)
                    .during("scrub the owner's Secret")?;
            }
        }
        let api: Api<HelpDeskAccount> = Api::all(self.desk.client.clone());
        api.patch(&self.account.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).during("scrub the owner")
    }
}

fn certificate(desk: &Desk, uid: &str, destroyed: BTreeMap<String, i64>, now: Moment) -> Certificate {
    let facts =
        json!({"installation": desk.installation.id, "accountUID": uid, "issuedAt": now.to_string(), "destroyed": destroyed}).to_string();
    let digest = ring::digest::digest(&ring::digest::SHA256, facts.as_bytes());
    Certificate {
        issued_at: Time(now),
        destroyed,
        sha256: crate::hex(digest.as_ref()),
        signature: BASE64_STANDARD.encode(desk.installation.sign(facts.as_bytes())),
        note: "Snapshots of etcd and of the database server's disks may hold copies until they run out; those of the backup cannot be read without their destroyed keys.".into(),
    }
}
