//! The controllers: one folder or file for each kind that is reconciled. Everything below is a library that knows none of
//! them.

pub mod account;
pub mod backup_store;
pub mod cold_backup;
pub mod database_server;
