//! The controller of `DatabaseServer`.

use crate::context;

/// Looks after the DatabaseServers until the process is told to stop.
pub async fn run(_ctx: context::Shared) {}
