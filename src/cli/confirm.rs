//! Asks a person to confirm by typing a name.

use std::io::{self, BufRead, IsTerminal, Write};

use super::error::Error;

/// Returns once somebody has typed the name, or `yes` was given on the command line. Without a terminal nobody can be asked.
pub(super) fn confirm(name: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(
            "nothing was done: there is no terminal on which to confirm; add --yes where a script has to decide".into(),
        ));
    }
    eprint!("Type {name} to confirm: ");
    let _ = io::stderr().flush();
    is_confirmed(name, &mut io::stdin().lock())
}

fn is_confirmed(name: &str, input: &mut impl BufRead) -> Result<(), Error> {
    let mut typed = String::new();
    input.read_line(&mut typed).map_err(|source| Error::File { path: "the terminal".into(), source })?;
    if typed.trim() == name { Ok(()) } else { Err(Error::NotConfirmed(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_name_confirms() {
        assert!(is_confirmed("acme", &mut "acme\n".as_bytes()).is_ok());
        for typed in ["", "\n", "y\n", "acm\n", "Acme\n"] {
            assert!(is_confirmed("acme", &mut typed.as_bytes()).is_err(), "{typed:?} confirmed");
        }
    }
}
