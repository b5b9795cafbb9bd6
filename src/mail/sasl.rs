//! Says whether whoever submits mail is an app of an open tenant: the server side of Dovecot's authentication protocol,
//! version 1.2, as far as Postfix speaks it, with the mechanism PLAIN (RFC 4616).

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use zeroize::Zeroizing;

use super::tokens::{Proof, Tokens};
use crate::error_chain::chain;

/// The longest line.
const LONGEST: u64 = 8192;
/// How long a wrong password is answered with nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers until the process ends.
pub(super) async fn serve(listener: TcpListener, tokens: Arc<Tokens>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let tokens = tokens.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &tokens).await {
                tracing::warn!(%error, "the mail server's questions about passwords broke off");
            }
        });
    }
}

async fn converse(stream: TcpStream, tokens: &Tokens) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let hello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00000000000000000000000000000000\nDONE\n";
    stream.write_all(hello.as_bytes()).await?;
    loop {
        let mut line = Zeroizing::new(String::new());
        if (&mut stream).take(LONGEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let fields: Vec<&str> = line.trim_end().split('\t').collect();
        let answer = match fields.as_slice() {
            ["AUTH", id, "PLAIN", parameters @ ..] => match parameters.iter().find_map(|parameter| parameter.strip_prefix("resp=")) {
                Some(response) => check(id, response, tokens).await,
                None => format!("CONT\t{id}\t\n"),
            },
            ["CONT", id, response] => check(id, response, tokens).await,
            ["AUTH", id, ..] => format!("FAIL\t{id}\treason=only PLAIN\n"),
            _ => continue,
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// The answer to one attempt.
async fn check(id: &str, response: &str, tokens: &Tokens) -> String {
    let Some((account, password)) = credentials(response) else { return format!("FAIL\t{id}\n") };
    match tokens.uid_if_valid(&account, Proof::Password(&password)).await {
        Ok(Some(_)) => format!("OK\t{id}\tuser={account}\n"),
        Ok(None) => {
            tokio::time::sleep(PAUSE).await;
            format!("FAIL\t{id}\tuser={account}\n")
        }
        Err(error) => {
            tracing::warn!(account, error = chain(&error), "a password cannot be checked");
            format!("FAIL\t{id}\tuser={account}\ttemp\n")
        }
    }
}

/// The user and the password of PLAIN. Only names that an account can have are read: the answer repeats them.
fn credentials(response: &str) -> Option<(String, Zeroizing<String>)> {
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(response).ok()?);
    let mut parts = decoded.split(|byte| *byte == 0);
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let user = std::str::from_utf8(user).ok()?.to_owned();
    let is_name = !user.is_empty() && user.len() <= 63 && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let password = Zeroizing::new(String::from_utf8(password.to_vec()).ok()?);
    (is_name && parts.next().is_none()).then_some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_read_and_nothing_that_would_forge_an_answer() {
        let read = |text: &str| credentials(&BASE64_STANDARD.encode(text)).map(|(user, password)| (user, password.to_string()));
        assert_eq!(read("\0acme\0secret"), Some(("acme".into(), "secret".into())));
        for wrong in ["acme\0secret", "\0acme", "\0ac\tme\0x", "\0ac\nOK\0x", "\0\0x", "\0acme\0x\0y"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert!(credentials("***").is_none());
    }
}
