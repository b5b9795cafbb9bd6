//! Sorts the answers and errors of S3.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    primitives::DateTime,
};
use k8s_openapi::jiff::Timestamp;

use super::S3;
use crate::{clock::Moment, store::Error};

/// A store's answer, sorted.
pub(super) enum Refusal {
    /// The object is not there.
    Missing,
    /// Something lies there already.
    Exists,
    /// The store does not know this request.
    Unsupported,
    /// There is nothing configured of what was asked for.
    NotConfigured,
    /// A failure.
    Failed(Error),
}

impl S3 {
    /// Sorts a failed request.
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

    /// A failed request that is about no single object, as an error.
    pub(super) fn fail<E>(&self, action: &'static str, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.fail_at(action, "", error)
    }

    /// A failed request about an object, as an error.
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

/// An entity tag without its quotes.
pub(super) fn tag(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}
