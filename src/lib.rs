//! An operator for the life of a help-desk tenant.
pub mod account;
pub mod api;
pub mod backup;
pub mod billing;
pub mod brake;
pub mod clock;
pub mod cluster;
pub mod context;
pub mod crash;
pub mod database;
pub mod edge;
pub mod http;
pub mod installation;
pub mod lanes;
pub mod leader;
pub mod ledger;
pub mod lifecycle;
pub mod retry;
pub mod run;
pub mod store;
pub mod telemetry;

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
