//! Classifies the errors of S3.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    primitives::DateTime,
};
use k8s_openapi::jiff::Timestamp;

use super::S3;
use crate::{clock::Moment, store::Error};

/// The class of an error, for callers that expect some of them.
pub(super) enum Refusal {
    /// There is no such object, version or upload (404 Not Found).
    Missing,
    /// The key already has an object (412 Precondition Failed).
    Exists,
    /// The store does not implement this request (501 Not Implemented).
    Unsupported,
    /// The bucket has no object lock configuration.
    NotConfigured,
    /// Any other error.
    Failed(Error),
}

impl S3 {
    /// Classifies the error of a failed request.
    pub(super) fn sort<E>(&self, action: &'static str, error: SdkError<E>) -> Refusal
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let SdkError::ServiceError(context) = &error else {
            return Refusal::Failed(Error::Unreachable { endpoint: self.location.endpoint.clone(), source: Box::new(error) });
        };
        let status = context.raw().status().as_u16();
        let code = context.err().code().unwrap_or_default().to_owned();
        match (status, code.as_str()) {
            (_, "NoSuchBucket") => Refusal::Failed(Error::NoSuchBucket(self.location.bucket.clone())),
            (_, "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload" | "NotFound") => Refusal::Missing,
            (_, "ObjectLockConfigurationNotFoundError" | "NoSuchObjectLockConfiguration") => Refusal::NotConfigured,
            (412, _) | (_, "PreconditionFailed" | "ConditionalRequestConflict") => Refusal::Exists,
            (501, _) | (_, "NotImplemented") => Refusal::Unsupported,
            (404, _) => Refusal::Missing,
            (401 | 403, _) => {
                Refusal::Failed(Error::AccessDenied { action, code: if code.is_empty() { status.to_string() } else { code } })
            }
            (500..=599 | 429, _) => {
                Refusal::Failed(Error::Unreachable { endpoint: self.location.endpoint.clone(), source: Box::new(error) })
            }
            _ => Refusal::Failed(Error::Refused {
                action,
                code: if code.is_empty() { status.to_string() } else { code },
                source: Box::new(error),
            }),
        }
    }

    /// The [`Error`] for a failed request that is not about one object.
    pub(super) fn fail<E>(&self, action: &'static str, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.fail_at(action, "", error)
    }

    /// The [`Error`] for a failed request about the object `key`.
    pub(super) fn fail_at<E>(&self, action: &'static str, key: &str, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match self.sort(action, error) {
            Refusal::Failed(error) => error,
            Refusal::Missing => Error::Missing(key.to_owned()),
            Refusal::Exists => Error::Altered { key: key.to_owned(), why: "another object lies there".into() },
            Refusal::Unsupported | Refusal::NotConfigured => {
                Error::Refused { action, code: "NotImplemented".into(), source: "the store does not know this request".into() }
            }
        }
    }
}

/// A store's time in whole seconds.
pub(super) fn moment(time: &DateTime) -> Option<Moment> {
    Timestamp::from_second(time.secs()).ok()
}

/// The id of a version. An object that was written while the bucket kept none has the id `null`.
pub(super) fn version(id: Option<&str>) -> Option<String> {
    id.filter(|id| !id.is_empty() && *id != "null").map(str::to_owned)
}

/// An entity tag without its quotes.
pub(super) fn tag(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}
