//! Which PostgreSQL servers movers can serve. A client serves its own major version and older ones, never a later one.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    path::Path,
};

/// The oldest major version that is served at all.
const OLDEST: u32 = 16;

/// The major versions of the clients that movers have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients(BTreeSet<u32>);

impl Clients {
    /// Those that were told. None told: it is not known what movers have.
    pub fn told(majors: &[u32]) -> Self {
        Self(majors.iter().copied().collect())
    }

    /// Those in a folder that has one folder a major version, as below `/usr/lib/postgresql`.
    pub fn found(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let majors = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(majors.filter(|major: &u32| folder.join(major.to_string()).join("bin/pg_dump").exists()).collect())
    }

    /// Whether nothing is known of them.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The client for a server: of its own major version, or else the next later one.
    pub fn for_server(&self, major: u32) -> Option<u32> {
        self.0.range(major..).next().copied()
    }

    /// Why no backup of such a server can be taken or restored. What is not known refuses nothing: a mover that lacks
    /// its client says so itself.
    pub fn refusal(&self, major: u32) -> Option<String> {
        (!self.is_unknown() && self.for_server(major).is_none()).then(|| {
            format!("PostgreSQL {major} is not among the majors that this image serves ({self}): use an image with the client of {major}")
        })
    }
}

/// The majors that are served, and by which clients.
impl Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |majors: &mut dyn Iterator<Item = u32>| majors.map(|major| major.to_string()).collect::<Vec<_>>().join(", ");
        let Some(newest) = self.0.last() else { return write!(f, "unknown") };
        let served = if *newest < OLDEST { "none".to_owned() } else { list(&mut (OLDEST..=*newest)) };
        let word = if self.0.len() == 1 { "client" } else { "clients" };
        write!(f, "{served} with {word} {}", list(&mut self.0.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_serves_its_own_major_and_older_ones() {
        let only = Clients::told(&[17]);
        assert_eq!([15, 16, 17, 18].map(|major| only.for_server(major)), [Some(17), Some(17), Some(17), None]);
        assert_eq!(only.refusal(17), None);
        assert_eq!(
            only.refusal(18).unwrap(),
            "PostgreSQL 18 is not among the majors that this image serves (16, 17 with client 17): use an image with the client of 18"
        );
        let two = Clients::told(&[18, 17]);
        assert_eq!([16, 17, 18].map(|major| two.for_server(major)), [Some(17), Some(17), Some(18)]);
        assert_eq!(two.to_string(), "16, 17, 18 with clients 17, 18");
        assert_eq!(Clients::told(&[15]).to_string(), "none with client 15");
    }

    #[test]
    fn what_is_not_known_refuses_nothing() {
        let unknown = Clients::found(Path::new("/nonexistent"));
        assert!(unknown.is_unknown());
        assert_eq!(unknown.refusal(99), None);
    }

    #[test]
    fn only_a_folder_with_a_dump_program_is_a_client() {
        let folder = std::env::temp_dir().join(format!("clients-{}", std::process::id()));
        for major in ["17", "18", "common"] {
            std::fs::create_dir_all(folder.join(major).join("bin")).unwrap();
        }
        for major in ["17", "common"] {
            std::fs::write(folder.join(major).join("bin/pg_dump"), "").unwrap();
        }
        let found = Clients::found(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, Clients::told(&[17]));
    }
}
