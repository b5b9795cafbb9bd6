//! What the rest may ask of a bucket.
/// The connected stores.
pub struct Stores;
