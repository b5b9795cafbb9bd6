//! The variables that texts of a class may contain, and how they are filled in. Pure.

use std::collections::BTreeMap;

use super::Error;

/// The value of every variable, by its name. Some are secrets, so this is never shown.
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// These variables.
    pub fn new<N: Into<String>>(values: impl IntoIterator<Item = (N, String)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// Fills in a text: `${name}` becomes the variable's value, `$${` becomes `${`, and everything else stays. A value is
    /// not filled in again, so a tenant's name cannot ask for a password.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`] with the name of the field; it never shows a value.
    pub fn fill_in(&self, field: &str, text: &str) -> Result<String, Error> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                filled.push_str(&rest[..at - 1]);
                filled.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            filled.push_str(&rest[..at]);
            let name = rest[at + 2..].split('}').next().unwrap_or_default();
            let is_closed = rest.len() > at + 2 + name.len();
            let value = self.0.get(name).filter(|_| is_closed).ok_or_else(|| self.unknown(field, name))?;
            filled.push_str(value);
            rest = &rest[at + 3 + name.len()..];
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn unknown(&self, field: &str, variable: &str) -> Error {
        let known: Vec<_> = self.0.keys().map(String::as_str).collect();
        let variable = variable.chars().take(64).filter(|letter| !letter.is_control()).collect();
        Error::UnknownVariable { field: field.to_owned(), variable, known: known.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> Values {
        Values::new([("db.host", "pg".to_owned()), ("db.password", "hunter2".to_owned()), ("tenant.name", "${db.password}".to_owned())])
    }

    #[test]
    fn variables_are_filled_in_once_and_everything_else_stays() {
        let fill = |text: &str| values().fill_in("env", text).unwrap();
        assert_eq!(fill("host=${db.host}, $5, {x}, $"), "host=pg, $5, {x}, $");
        assert_eq!(fill("$${db.host} is ${db.host}"), "${db.host} is pg");
        assert_eq!(fill("${tenant.name}"), "${db.password}", "a value asks for nothing");
    }

    #[test]
    fn a_variable_that_does_not_exist_is_named_with_its_field_and_no_value_is_shown() {
        for text in ["${db.hots}", "${", "${db.host", "${}", "a ${ {b} }"] {
            let told = values().fill_in("env X", text).unwrap_err().to_string();
            assert!(told.contains("env X") && told.contains("db.host, db.password") && !told.contains("hunter2"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = values().fill_in("env", &text);
        }
    }
}
