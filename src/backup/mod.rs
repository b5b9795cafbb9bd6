//! Cold backups.
pub mod proof;
