//! Which PostgreSQL servers movers can serve. A client serves its own major version and older ones, never a newer one.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    path::Path,
};

/// The oldest supported major version of a server.
const OLDEST: u32 = 16;

/// The major versions of the clients in the movers' image; empty if unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients(BTreeSet<u32>);

impl Clients {
    /// The clients of these major versions. An empty list means that they are unknown.
    pub fn from_majors(majors: &[u32]) -> Self {
        Self(majors.iter().copied().collect())
    }

    /// The clients in a folder with one folder for each major version, such as `/usr/lib/postgresql`.
    pub fn in_folder(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let majors = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(majors.filter(|major: &u32| folder.join(major.to_string()).join("bin/pg_dump").exists()).collect())
    }

    /// Whether the clients are unknown.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The client for a server: the one of its major version, or else of the next newer one.
    pub fn for_server(&self, major: u32) -> Option<u32> {
        self.0.range(major..).next().copied()
    }

    /// Why no mover can back up or restore such a server. `None` if the clients are unknown: then the mover itself
    /// fails if its client is missing.
    pub fn refusal(&self, major: u32) -> Option<String> {
        (!self.is_unknown() && self.for_server(major).is_none()).then(|| {
            format!("PostgreSQL {major} is not among the majors that this image serves ({self}): use an image with the client of {major}")
        })
    }
}

/// Prints the major versions that are served, and those of the clients.
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
        let only = Clients::from_majors(&[17]);
        assert_eq!([15, 16, 17, 18].map(|major| only.for_server(major)), [Some(17), Some(17), Some(17), None]);
        assert_eq!(only.refusal(17), None);
        assert_eq!(
            only.refusal(18).unwrap(),
            "PostgreSQL 18 is not among the majors that this image serves (16, 17 with client 17): use an image with the client of 18"
        );
        let two = Clients::from_majors(&[18, 17]);
        assert_eq!([16, 17, 18].map(|major| two.for_server(major)), [Some(17), Some(17), Some(18)]);
        assert_eq!(two.to_string(), "16, 17, 18 with clients 17, 18");
        assert_eq!(Clients::from_majors(&[15]).to_string(), "none with client 15");
    }

    #[test]
    fn what_is_not_known_refuses_nothing() {
        let unknown = Clients::in_folder(Path::new("/nonexistent"));
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
        let found = Clients::in_folder(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, Clients::from_majors(&[17]));
    }
}
