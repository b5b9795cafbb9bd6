//! Which extensions a tenant's database needs, and which of them the server does not offer. Pure.

use std::cmp::Ordering;

use crate::api::plan::Extension;

/// The schema in every tenant's database in which the operator makes extensions. It is the operator's own, and it is
/// made before a tenant could make one of this name.
pub const SCHEMA: &str = "ext";

/// A database that a superuser may make: with extensions in its schema [`SCHEMA`] that the operator may not make
/// itself. Databases of tenants that need such a one are made from it.
pub const TEMPLATE: &str = "helpdesk_template";

/// An extension that a database should have and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its name.
    pub name: String,
    /// Why, and what to do.
    pub why: String,
}

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "extension {}: {}", self.name, self.why)
    }
}

/// How a server offers an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// The version that is installed by default; `None`: the server has no files of it.
    pub version: Option<String>,
    /// Whether the operator may make it.
    pub makeable: bool,
    /// Whether the server has a template in which a superuser may have made it.
    pub has_template: bool,
}

/// Both lists as one, each extension once and by name; of two versions the higher is needed.
pub fn union(one: &[Extension], other: &[Extension]) -> Vec<Extension> {
    let mut all: Vec<Extension> = Vec::new();
    for wanted in one.iter().chain(other) {
        match all.iter_mut().find(|found| found.name == wanted.name) {
            None => all.push(wanted.clone()),
            Some(found) => {
                if let Some(least) = &wanted.version
                    && !found.version.as_ref().is_some_and(|other| at_least(other, least))
                {
                    found.version = Some(least.clone());
                }
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Whether a version is as high as the lowest that will do. Numbers are compared as numbers; what follows the last
/// number, such as `-dev`, does not count.
pub fn at_least(version: &str, least: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> { text.split(['.', '-', '_', '+']).map_while(|part| part.parse().ok()).collect() };
    let (mut have, mut want) = (numbers(version), numbers(least));
    let longer = have.len().max(want.len());
    have.resize(longer, 0);
    want.resize(longer, 0);
    have.cmp(&want) != Ordering::Less
}

/// What of the wanted extensions a server does not offer so that the operator could make it. What the template has is
/// seen once a database was made from it.
pub fn not_offered(wanted: &[Extension], offers: &[Offer]) -> Vec<Lacking> {
    wanted
        .iter()
        .filter_map(|wanted| {
            let offer = offers.iter().find(|offer| offer.name == wanted.name);
            let version = offer.and_then(|offer| offer.version.as_ref());
            let why = match (version, &wanted.version) {
                (None, _) => no_files(),
                (Some(has), Some(least)) if !at_least(has, least) => too_old(has, least),
                _ if !offer.is_some_and(|offer| offer.makeable || offer.has_template) => needs_superuser(&wanted.name),
                _ => return None,
            };
            Some(Lacking { name: wanted.name.clone(), why })
        })
        .collect()
}

/// Nothing of it is on the server.
pub fn no_files() -> String {
    "the server has no files of it; install the package that brings them".into()
}

/// The server would make an older one.
pub fn too_old(has: &str, least: &str) -> String {
    format!("the server offers version {has} and {least} is wanted; install a newer package on it")
}

/// The server does not trust it.
pub fn needs_superuser(name: &str) -> String {
    format!(
        "the server does not hold it to be trusted; write trusted = true into its {name}.control, or make it as a superuser. In databases \
         that exist: CREATE EXTENSION \"{name}\" SCHEMA {SCHEMA}; and for new ones, once: CREATE DATABASE {TEMPLATE} TEMPLATE template0 \
         ENCODING 'UTF8'; in it: CREATE SCHEMA {SCHEMA} AUTHORIZATION the admin role; CREATE EXTENSION \"{name}\" SCHEMA {SCHEMA}; \
         and at last: ALTER DATABASE {TEMPLATE} IS_TEMPLATE true ALLOW_CONNECTIONS false;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, version: Option<&str>) -> Extension {
        Extension { name: name.into(), version: version.map(Into::into) }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, least) in [("1.10", "1.9"), ("1.6", "1.6"), ("2", "1.9.9"), ("3.5.2-dev", "3.5.2"), ("1.0", "1"), ("1", "1.0")] {
            assert!(at_least(version, least), "{version} is not as high as {least}");
        }
        for (version, least) in [("1.9", "1.10"), ("0.8.0", "0.8.1"), ("unpackaged", "1")] {
            assert!(!at_least(version, least), "{version} is as high as {least}");
        }
    }

    #[test]
    fn the_plan_and_the_class_are_both_heard_and_the_higher_version_wins() {
        let plan = [wanted("vector", Some("0.7")), wanted("citext", None)];
        let class = [wanted("pg_trgm", None), wanted("vector", Some("0.10")), wanted("citext", Some("1.6"))];
        let all = union(&plan, &class);
        assert_eq!(all, [wanted("citext", Some("1.6")), wanted("pg_trgm", None), wanted("vector", Some("0.10"))]);
        assert_eq!(union(&class, &plan), all);
    }

    #[test]
    fn what_a_server_does_not_offer_says_what_to_do() {
        let offer =
            |name: &str, version: &str, makeable| Offer { name: name.into(), version: Some(version.into()), makeable, has_template: false };
        let offers = [offer("pg_trgm", "1.6", true), offer("vector", "0.8.0", false), offer("citext", "1.6", true)];
        let plan = [wanted("pg_trgm", Some("1.5")), wanted("vector", None), wanted("citext", Some("1.7")), wanted("rum", None)];
        let lacking = not_offered(&plan, &offers);
        let of = |name: &str| lacking.iter().find(|l| l.name == name).map(|l| l.why.as_str()).unwrap_or_default();
        assert_eq!(lacking.len(), 3, "{lacking:?}");
        assert!(of("vector").contains("trusted = true") && of("vector").contains("CREATE EXTENSION \"vector\" SCHEMA ext"));
        assert!(of("citext").contains("1.7") && of("rum").contains("package"), "{lacking:?}");
    }
}
