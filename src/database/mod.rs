//! What the rest may ask of a database server.
/// The connected servers.
pub struct Servers;
