//! Reads the bucket's clock from the `Date` header of every answer.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef},
    error::BoxError,
};
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

use crate::clock::{self, Moment};

/// Two clocks, read at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The bucket's.
    pub theirs: Moment,
    /// This machine's.
    pub ours: Timestamp,
}

/// The newest reading.
#[derive(Debug, Default)]
pub(super) struct Skew(Mutex<Option<ClockReading>>);

impl Skew {
    pub(super) fn newest(&self) -> Option<ClockReading> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The interceptor that reads the `Date` header of every answer.
#[derive(Debug)]
pub(super) struct Watch(pub Arc<Skew>);

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "Watch"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date")
            && let Ok(theirs) = DateTimeParser::new().parse_timestamp(date)
        {
            *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ClockReading { theirs, ours: clock::precise_now() });
        }
        Ok(())
    }
}
