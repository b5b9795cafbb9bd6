//! The driver of Amazon S3 and what speaks its protocol.
//!
//! Requests are path-style (the bucket's name is in the path), because that works with every store. The operator
//! computes checksums (CRC-64/NVME over the whole object, into which the parts' checksums combine) and sends them as
//! plain headers. Stores that know them reject damaged bytes; the others ignore them. No store has to support trailers.

mod answer;
mod erase;
mod health;
mod objects;
mod skew;
mod upload;

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

pub use objects::Download;
pub use skew::ClockReading;
pub use upload::Upload;

use super::{Credentials, Error, Location};

/// A bucket, with one client that reads and writes and one that erases.
pub struct S3 {
    location: Location,
    /// Reads and writes.
    rw: Client,
    /// Lists versions and deletes.
    eraser: Client,
    clock: Arc<skew::Skew>,
}

/// Timeouts and attempts of requests other than the upload of a part.
#[derive(Clone, Copy)]
struct Pace {
    /// The timeout of one attempt.
    attempt: Duration,
    /// The timeout of all attempts together.
    operation: Duration,
    /// The highest number of attempts.
    attempts: u32,
}

/// For movers: no reconcile waits for them, so they may wait long.
const PATIENT: Pace = Pace { attempt: Duration::from_secs(30), operation: Duration::from_secs(120), attempts: 4 };
/// For the operator: its requests are small, and the next reconcile tries again.
const HASTY: Pace = Pace { attempt: Duration::from_secs(10), operation: Duration::from_secs(30), attempts: 3 };
/// How long one attempt to send a part may take: 16 MiB at 256 KiB/s.
const PART_ATTEMPT: Duration = Duration::from_secs(64);
/// How long a transfer may make no progress.
const STALL: Duration = Duration::from_secs(30);

impl S3 {
    /// A bucket at `location`, with a mover's long timeouts. Sends no request.
    ///
    /// # Errors
    /// `ca_pem` cannot be parsed.
    pub fn new(location: Location, rw: &Credentials, eraser: &Credentials, ca_pem: Option<&str>) -> Result<Self, Error> {
        Self::at(PATIENT, location, rw, eraser, ca_pem)
    }

    /// The same, with the operator's short timeouts.
    ///
    /// # Errors
    /// `ca_pem` cannot be parsed.
    pub fn hasty(location: Location, rw: &Credentials, eraser: &Credentials, ca_pem: Option<&str>) -> Result<Self, Error> {
        Self::at(HASTY, location, rw, eraser, ca_pem)
    }

    fn at(pace: Pace, location: Location, rw: &Credentials, eraser: &Credentials, ca_pem: Option<&str>) -> Result<Self, Error> {
        let clock = Arc::new(skew::Skew::default());
        let (rw, eraser) = (client(pace, &location, rw, ca_pem, &clock)?, client(pace, &location, eraser, ca_pem, &clock)?);
        Ok(Self { location, rw, eraser, clock })
    }

    /// The reading of both clocks at the bucket's newest answer.
    pub fn clock(&self) -> Option<ClockReading> {
        self.clock.newest()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.location.prefix)
    }

    fn below<'k>(&self, full: &'k str) -> &'k str {
        full.strip_prefix(&self.location.prefix).unwrap_or(full)
    }

    fn owner(&self) -> Option<String> {
        self.location.expected_bucket_owner.clone()
    }
}

fn client(
    pace: Pace,
    location: &Location,
    credentials: &Credentials,
    ca_pem: Option<&str>,
    clock: &Arc<skew::Skew>,
) -> Result<Client, Error> {
    let trust = match ca_pem {
        Some(pem) => TrustStore::empty().with_pem_certificate(pem.as_bytes()),
        None => TrustStore::default(),
    };
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|source| Error::Configuration {
        store: location.name.clone(),
        why: format!("its ca.crt holds no certificates in PEM: {source}"),
    })?;
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
    let keys = aws_sdk_s3::config::Credentials::new(
        credentials.access_key_id.clone(),
        credentials.secret_access_key.as_str(),
        None,
        None,
        "BackupStore",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(&location.endpoint)
        .region(Region::new(location.signing_region.clone()))
        .credentials_provider(keys)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::standard().with_max_attempts(pace.attempts))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(pace.attempt)
                .operation_timeout(pace.operation)
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL).build())
        .interceptor(skew::Watch(Arc::clone(clock)))
        .build();
    Ok(Client::from_conf(config))
}
