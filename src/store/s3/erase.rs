//! Erases everything below a prefix: every version, every delete marker, every open upload.

use aws_sdk_s3::types::{Delete, ObjectIdentifier, ObjectLockLegalHoldStatus};

use super::{
    S3,
    answer::{Refusal, moment},
};
use crate::{
    clock::Moment,
    store::{Contents, Erased, Error},
};

/// How often one call lists and deletes before it returns [`Error::NotEmpty`].
const PASSES: u32 = 3;

/// A version or a delete marker.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: String,
    version: Option<String>,
    marker: bool,
}

impl S3 {
    /// Erases everything below `prefix` and returns only when a listing afterwards was empty. Safe to repeat.
    pub(crate) async fn erase_prefix(&self, prefix: &str) -> Result<Erased, Error> {
        let mut erased = Erased::default();
        for _ in 0..PASSES {
            let (entries, uploads) = (self.entries(prefix).await?, self.open_uploads(prefix).await?);
            if entries.is_empty() && uploads.is_empty() {
                return Ok(erased);
            }
            for batch in entries.chunks(500) {
                self.delete(batch).await?;
                let markers = batch.iter().filter(|e| e.marker).count() as u64;
                erased.markers += markers;
                erased.versions += batch.len() as u64 - markers;
            }
            for (key, upload) in &uploads {
                self.abort(&self.eraser, key, upload).await?;
                erased.uploads += 1;
            }
        }
        let left = self.contents(prefix).await?;
        if left.is_empty() { Ok(erased) } else { Err(Error::NotEmpty { prefix: prefix.to_owned(), left: left.versions + left.uploads }) }
    }

    /// Counts what lies below `prefix`.
    pub(crate) async fn contents(&self, prefix: &str) -> Result<Contents, Error> {
        let (entries, uploads) = (self.entries(prefix).await?, self.open_uploads(prefix).await?);
        let mut pages = self
            .eraser
            .list_objects_v2()
            .bucket(&self.location.bucket)
            .prefix(self.full(prefix))
            .set_expected_bucket_owner(self.owner())
            .into_paginator()
            .send();
        let mut objects = 0;
        while let Some(page) = pages.next().await {
            objects += page.map_err(|e| self.fail("list objects", e))?.contents().len() as u64;
        }
        Ok(Contents { objects, versions: entries.len() as u64, uploads: uploads.len() as u64 })
    }

    /// Aborts every upload below `prefix` that was never completed.
    pub(crate) async fn abort_uploads(&self, prefix: &str) -> Result<u64, Error> {
        let uploads = self.open_uploads(prefix).await?;
        for (key, upload) in &uploads {
            self.abort(&self.rw, key, upload).await?;
        }
        Ok(uploads.len() as u64)
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let (mut key_marker, mut version_marker) = (None, None);
        let mut entries = Vec::new();
        loop {
            let call = self.eraser.list_object_versions().bucket(&self.location.bucket).prefix(self.full(prefix));
            let call = call.set_expected_bucket_owner(self.owner()).set_key_marker(key_marker).set_version_id_marker(version_marker);
            let page = match call.send().await {
                Ok(page) => page,
                Err(error) => {
                    return match self.sort("list versions", error) {
                        // The store has no versions: its objects are all entries.
                        Refusal::Unsupported => self.plain_entries(prefix).await,
                        Refusal::Failed(error) => Err(error),
                        Refusal::Missing | Refusal::Exists | Refusal::NotConfigured => {
                            Err(Error::NoSuchBucket(self.location.bucket.clone()))
                        }
                    };
                }
            };
            let versions = page.versions().iter().map(|v| (v.key(), v.version_id(), false));
            let markers = page.delete_markers().iter().map(|m| (m.key(), m.version_id(), true));
            entries.extend(versions.chain(markers).filter_map(|(key, version, marker)| {
                Some(Entry { key: key?.to_owned(), version: version.filter(|v| !v.is_empty()).map(str::to_owned), marker })
            }));
            if page.is_truncated() != Some(true) {
                // Some stores repeat the last entry of a page on the next page.
                entries.sort();
                entries.dedup();
                return Ok(entries);
            }
            let next = (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
            if next.0.is_none() {
                // The page is truncated, but has no marker for the next one. An incomplete listing never proves that a
                // prefix is empty.
                return Err(Error::Refused { action: "list versions", code: "truncated".into(), source: "no marker to go on from".into() });
            }
            (key_marker, version_marker) = next;
        }
    }

    async fn plain_entries(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let call = self.eraser.list_objects_v2().bucket(&self.location.bucket).prefix(self.full(prefix));
        let mut pages = call.set_expected_bucket_owner(self.owner()).into_paginator().send();
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.fail("list objects", e))?;
            entries.extend(page.contents().iter().filter_map(|o| o.key()).map(|k| Entry {
                key: k.to_owned(),
                version: None,
                marker: false,
            }));
        }
        Ok(entries)
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<(String, String)>, Error> {
        let (mut key_marker, mut upload_marker) = (None, None);
        let mut uploads = Vec::new();
        loop {
            let call = self.eraser.list_multipart_uploads().bucket(&self.location.bucket).prefix(self.full(prefix));
            let call = call.set_expected_bucket_owner(self.owner()).set_key_marker(key_marker).set_upload_id_marker(upload_marker);
            let page = call.send().await.map_err(|e| self.fail("list open uploads", e))?;
            uploads.extend(page.uploads().iter().filter_map(|u| Some((u.key()?.to_owned(), u.upload_id()?.to_owned()))));
            if page.is_truncated() != Some(true) {
                return Ok(uploads);
            }
            (key_marker, upload_marker) = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if key_marker.is_none() {
                return Err(Error::Refused {
                    action: "list open uploads",
                    code: "truncated".into(),
                    source: "no marker to go on from".into(),
                });
            }
        }
    }

    pub(super) async fn abort(&self, client: &aws_sdk_s3::Client, full_key: &str, upload: &str) -> Result<(), Error> {
        let call = client.abort_multipart_upload().bucket(&self.location.bucket).key(full_key).upload_id(upload);
        match call.set_expected_bucket_owner(self.owner()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.sort("abort an upload", error) {
                Refusal::Missing => Ok(()),
                Refusal::Failed(error) => Err(error),
                _ => Err(Error::Refused { action: "abort an upload", code: "unexpected".into(), source: self.below(full_key).into() }),
            },
        }
    }

    /// Deletes a batch. `DeleteObjects` answers 200 even if entries failed; the body lists their errors.
    async fn delete(&self, batch: &[Entry]) -> Result<(), Error> {
        let invalid =
            |e: aws_sdk_s3::error::BuildError| Error::Refused { action: "delete versions", code: "invalid".into(), source: Box::new(e) };
        let objects = batch
            .iter()
            .map(|e| ObjectIdentifier::builder().key(&e.key).set_version_id(e.version.clone()).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        let request = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(invalid)?;
        let call = self.eraser.delete_objects().bucket(&self.location.bucket).delete(request);
        let answer = match call.set_expected_bucket_owner(self.owner()).send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match self.sort("delete versions", error) {
                    // Some stores reject the whole batch because one version is locked.
                    Refusal::Failed(Error::AccessDenied { action, code }) => {
                        Err(self.locked(batch).await.unwrap_or(Error::AccessDenied { action, code }))
                    }
                    Refusal::Failed(error) => Err(error),
                    _ => Err(Error::NoSuchBucket(self.location.bucket.clone())),
                };
            }
        };
        let Some(first) = answer.errors().iter().find(|e| !matches!(e.code(), Some("NoSuchKey" | "NoSuchVersion"))) else { return Ok(()) };
        let refused: Vec<Entry> = answer
            .errors()
            .iter()
            .filter_map(|e| Some(Entry { key: e.key()?.to_owned(), version: e.version_id().map(str::to_owned), marker: false }))
            .collect();
        if let Some(locked) = self.locked(&refused).await {
            return Err(locked);
        }
        let code = first.code().unwrap_or("unknown").to_owned();
        Err(match code.as_str() {
            "AccessDenied" => Error::AccessDenied { action: "delete versions", code },
            _ => Error::Refused { action: "delete versions", source: self.below(first.key().unwrap_or_default()).into(), code },
        })
    }

    /// [`Error::Locked`] for the first of at most 20 versions that retention or a legal hold locks. Best effort: skips
    /// a version whose metadata cannot be read.
    async fn locked(&self, entries: &[Entry]) -> Option<Error> {
        for entry in entries.iter().filter(|e| !e.marker).take(20) {
            let key = self.below(&entry.key).to_owned();
            let call = self.eraser.head_object().bucket(&self.location.bucket).key(&entry.key);
            let call = call.set_version_id(entry.version.clone()).set_expected_bucket_owner(self.owner());
            let Ok(head) = call.send().await else { continue };
            if head.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On) {
                return Some(Error::Locked { key, until: None });
            }
            let until: Option<Moment> = head.object_lock_retain_until_date().and_then(moment);
            if let Some(until) = until.filter(|until| *until > crate::clock::now()) {
                return Some(Error::Locked { key, until: Some(until) });
            }
        }
        None
    }
}
