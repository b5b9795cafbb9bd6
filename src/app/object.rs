//! An object of an app, and what all of them are made from. Pure.

use serde_json::Value;

use super::{
    mail::{MailIntake, SECRET as MAIL},
    values::Values,
};
use crate::{
    api::{HelpDeskClassSpec, plan::PlanApp},
    digest::sha256,
};

/// The ServiceAccount of the app's pods; it may do nothing.
pub(super) const SERVICE_ACCOUNT: &str = "app";
/// The Secret with the environment.
pub(super) const ENVIRONMENT: &str = "app-env";
/// The Secret with the files.
pub(super) const FILES: &str = "app-files";
/// The Secret with the first password of the app's administrator, for the owner.
pub(super) const ADMIN: &str = "app-admin";
/// The Secrets of an app.
pub const SECRETS: [&str; 4] = [ENVIRONMENT, FILES, ADMIN, MAIL];
/// Where the certificate authority of the database server lies in every container.
pub const DATABASE_CA: &str = "/etc/helpdesk/database-ca.crt";

/// The kinds of objects of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who the pods are.
    ServiceAccount,
    /// Environment and files.
    Secret,
    /// What the mail intake may read.
    Role,
    /// That it may.
    RoleBinding,
    /// Who may connect to the pods, and to whom they may.
    NetworkPolicy,
    /// A hook.
    Job,
    /// The pods of a component.
    Deployment,
    /// The address of a component.
    Service,
    /// How many pods of a component may be taken away at once.
    PodDisruptionBudget,
    /// What the namespace may hold.
    ResourceQuota,
}

/// An object of the app as it is wanted, without the metadata that all have.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name in the tenant's namespace.
    pub name: String,
    /// Everything but metadata.
    pub body: Value,
}

/// Whose app it is and what surrounds it.
pub struct App<'a> {
    /// The account's name.
    pub account: &'a str,
    /// The class.
    pub class: &'a HelpDeskClassSpec,
    /// The values of variables.
    pub values: &'a Values,
    /// The first password of the app's administrator.
    pub admin_password: &'a str,
    /// The host and port of the tenant's database server.
    pub database: (&'a str, u16),
    /// The certificate authority of that server, in PEM.
    pub database_ca: Option<&'a str>,
    /// Name and namespace of the Gateway that publishes the app.
    pub gateway: Option<(&'a str, &'a str)>,
    /// The mail intake, if there is one.
    pub mail: Option<MailIntake<'a>>,
    /// The name of the migration that the database needs; `None`: it needs none.
    pub migration: Option<&'a str>,
    /// The request for another password of the app's administrator that the app has not got yet.
    pub password_request: Option<&'a str>,
    /// The plan's limits.
    pub limits: &'a PlanApp,
    /// The Secret with the tenant's login.
    pub binding: &'a str,
    /// The operator's own image, which has psql.
    pub operator_image: &'a str,
    /// The operator's namespace.
    pub operator_namespace: &'a str,
}

/// A key of a Secret has no slashes; paths that differ have keys that differ.
pub(super) fn file_key(path: &str) -> String {
    sha256(path.as_bytes())[..16].to_owned()
}
