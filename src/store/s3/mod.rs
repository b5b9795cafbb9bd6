//! The driver of Amazon S3 and what speaks its protocol.
//!
//! Paths name the bucket (`path-style`), because that works with every store. Checksums are computed here
//! (CRC-64/NVME over the whole object, which the parts' checksums combine to) and sent as plain headers: stores that
//! know them refuse damaged bytes, the others ignore them, and none has to understand trailers.

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

/// How long ordinary requests may take.
#[derive(Clone, Copy)]
struct Pace {
    /// One attempt.
    attempt: Duration,
    /// With all attempts.
    operation: Duration,
    /// So many at most.
    attempts: u32,
}

/// A mover has time, and nobody waits for it.
const PATIENT: Pace = Pace { attempt: Duration::from_secs(30), operation: Duration::from_secs(120), attempts: 4 };
/// The operator asks for what is small, and tries again by itself.
const HASTY: Pace = Pace { attempt: Duration::from_secs(10), operation: Duration::from_secs(30), attempts: 3 };
/// How long one attempt to send a part may take: 16 MiB at 256 KiB/s.
const PART_ATTEMPT: Duration = Duration::from_secs(64);
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(30);

impl S3 {
    /// A bucket at `location`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// Certificates that do not parse.
    pub fn new(location: Location, rw: &Credentials, eraser: &Credentials, ca_pem: Option<&str>) -> Result<Self, Error> {
        Self::at(PATIENT, location, rw, eraser, ca_pem)
    }

    /// The same, for whoever must not be kept waiting.
    ///
    /// # Errors
    /// Certificates that do not parse.
    pub fn hasty(location: Location, rw: &Credentials, eraser: &Credentials, ca_pem: Option<&str>) -> Result<Self, Error> {
        Self::at(HASTY, location, rw, eraser, ca_pem)
    }

    fn at(pace: Pace, location: Location, rw: &Credentials, eraser: &Credentials, ca_pem: Option<&str>) -> Result<Self, Error> {
        let clock = Arc::new(skew::Skew::default());
        let (rw, eraser) = (client(pace, &location, rw, ca_pem, &clock)?, client(pace, &location, eraser, ca_pem, &clock)?);
        Ok(Self { location, rw, eraser, clock })
    }

    /// What the bucket's clock showed in its newest answer.
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
