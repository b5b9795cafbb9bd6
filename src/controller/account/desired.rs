//! The desired state of database, namespace, routes and backups in each stage. Pure.

use crate::lifecycle::Stage;

/// The desired state of the tenant's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// It exists and its tenant can log in.
    Open,
    /// It exists and its tenant cannot log in.
    Shut,
    /// It does not exist, and neither do its roles.
    Gone,
}

/// The desired state of the tenant's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// They forward to the app, under the tenant's security policy.
    Live,
    /// They answer that the account is suspended.
    Suspended,
    /// They do not exist.
    Gone {
        /// Whether the names are kept for the account; otherwise their quarantine begins.
        reserved: bool,
    },
}

/// The desired state of the tenant's app, where the class has workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Its pods run.
    Running,
    /// It has no pods; its configuration stays.
    Stopped,
    /// Nothing of it exists.
    Gone,
}

/// The desired state of the tenant's backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backups {
    /// They are taken on schedule; each is erased at its own deadline.
    Scheduled,
    /// One Frozen backup is taken while the database is sealed; the others are erased at their own deadlines.
    Frozen,
    /// Only the Frozen backup is kept.
    FrozenOnly,
    /// None is left, and no key of one.
    Gone,
}

/// The desired state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// The tenant's database.
    pub database: Database,
    /// Whether the tenant has a namespace, with its configuration and the Secret with its credentials.
    pub namespace: bool,
    /// The tenant's app.
    pub app: App,
    /// The tenant's routes.
    pub routes: Routes,
    /// The tenant's backups.
    pub backups: Backups,
    /// Whether personal data of the owner is kept.
    pub personal_data: bool,
}

const KEPT: Routes = Routes::Gone { reserved: true };

/// The desired state in each stage, one row a stage.
pub const fn state(stage: Stage) -> DesiredState {
    match stage {
        Stage::Trial | Stage::Active => DesiredState {
            database: Database::Open,
            namespace: true,
            app: App::Running,
            routes: Routes::Live,
            backups: Backups::Scheduled,
            personal_data: true,
        },
        Stage::Blocked => DesiredState {
            database: Database::Shut,
            namespace: true,
            app: App::Stopped,
            routes: Routes::Suspended,
            backups: Backups::Frozen,
            personal_data: true,
        },
        Stage::Terminated => DesiredState {
            database: Database::Shut,
            namespace: false,
            app: App::Gone,
            routes: KEPT,
            backups: Backups::Frozen,
            personal_data: true,
        },
        Stage::Deleted => DesiredState {
            database: Database::Gone,
            namespace: false,
            app: App::Gone,
            routes: KEPT,
            backups: Backups::FrozenOnly,
            personal_data: true,
        },
        Stage::Expired => DesiredState {
            database: Database::Gone,
            namespace: false,
            app: App::Gone,
            routes: Routes::Gone { reserved: false },
            backups: Backups::Gone,
            personal_data: false,
        },
    }
}
