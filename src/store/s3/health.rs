//! Reads a bucket's versioning and default retention.

use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled};

use super::{S3, answer::Refusal};
use crate::store::{Error, Lock, Versioning};

impl S3 {
    /// Whether the bucket keeps versions. A store without the versioning API counts as `Off`.
    pub(crate) async fn versioning(&self) -> Result<Versioning, Error> {
        let call = self.rw.get_bucket_versioning().bucket(&self.location.bucket).set_expected_bucket_owner(self.owner());
        match call.send().await {
            Ok(answer) => Ok(match answer.status() {
                Some(BucketVersioningStatus::Enabled) => Versioning::Enabled,
                Some(_) => Versioning::Suspended,
                None => Versioning::Off,
            }),
            Err(error) => match self.sort("ask whether the bucket keeps versions", error) {
                Refusal::Unsupported | Refusal::NotConfigured => Ok(Versioning::Off),
                Refusal::Failed(error) => Err(error),
                Refusal::Missing | Refusal::Exists => Err(Error::NoSuchBucket(self.location.bucket.clone())),
            },
        }
    }

    /// The retention that every new object gets.
    pub(crate) async fn default_lock(&self) -> Result<Option<Lock>, Error> {
        let call = self.rw.get_object_lock_configuration().bucket(&self.location.bucket).set_expected_bucket_owner(self.owner());
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match self.sort("ask whether the bucket locks objects", error) {
                    Refusal::Unsupported | Refusal::NotConfigured | Refusal::Missing => Ok(None),
                    Refusal::Failed(error) => Err(error),
                    Refusal::Exists => Err(Error::NoSuchBucket(self.location.bucket.clone())),
                };
            }
        };
        let lock = answer.object_lock_configuration().filter(|c| c.object_lock_enabled() == Some(&ObjectLockEnabled::Enabled));
        Ok(lock.and_then(|c| c.rule()).and_then(|r| r.default_retention()).map(|retention| Lock {
            mode: retention.mode().map(|m| m.as_str().to_owned()).unwrap_or_default(),
            days: i64::from(retention.days().unwrap_or(0)) + 365 * i64::from(retention.years().unwrap_or(0)),
        }))
    }
}
