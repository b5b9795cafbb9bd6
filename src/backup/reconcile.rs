//! The controller of `ColdBackup`.

use crate::context::Shared;

/// Runs the controller until the process is told to stop.
pub async fn run(_ctx: Shared) {}
