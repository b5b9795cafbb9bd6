//! Truth about accounts, on the database server.
