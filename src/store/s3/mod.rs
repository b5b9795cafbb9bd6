//! The driver of Amazon S3 and what speaks its protocol.

/// A bucket.
pub struct S3;
