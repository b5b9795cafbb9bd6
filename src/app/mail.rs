//! The mail intake, as a tenant's app knows it. Pure.

/// The Secret in the tenant's namespace with what the intake needs, and the Role that lets it read that.
pub const SECRET: &str = "app-mail";
/// The port of the intake's Service where apps send mail.
pub const SUBMISSION_PORT: u16 = 587;
/// That port in its pods.
pub const SUBMISSION_POD_PORT: u16 = 2587;
/// The port of the intake where apps teach the filter.
pub const LEARN_PORT: u16 = 8025;

/// The mail intake.
#[derive(Clone, Copy, Debug)]
pub struct MailIntake<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The name of its Service and of its ServiceAccount.
    pub name: &'a str,
    /// The token that it shares with the app.
    pub token: &'a str,
    /// The password with which the app sends mail.
    pub password: &'a str,
}
