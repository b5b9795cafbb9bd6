//! Answers the mail server's questions about addresses: the `socketmap` protocol of Postfix (socketmap_table(5)), which
//! sends each question and each answer as a netstring.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    address::Address,
    directory::Directory,
    recipient::{Verdict, decide},
    sender::{Sender, may_send},
};

/// The longest question.
const LONGEST: usize = 2048;

/// Answers until the process ends.
pub(super) async fn serve(listener: TcpListener, directory: Arc<Directory>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let directory = directory.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &directory).await {
                tracing::warn!(%error, "the mail server's questions broke off");
            }
        });
    }
}

async fn converse(stream: TcpStream, directory: &Directory) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(question) = read(&mut stream).await? {
        let answer = answer(&question, directory);
        stream.write_all(format!("{}:{answer},", answer.len()).as_bytes()).await?;
    }
    Ok(())
}

/// Reads a netstring; `None`: the connection was closed between two.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut length = vec![];
    if (&mut *stream).take(8).read_until(b':', &mut length).await? == 0 {
        return Ok(None);
    }
    let digits = length.strip_suffix(b":").and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let length = digits.filter(|length| *length <= LONGEST).ok_or_else(|| invalid("no length of a netstring"))?;
    let mut text = vec![0; length + 1];
    stream.read_exact(&mut text).await?;
    if text.pop() != Some(b',') {
        return Err(invalid("a netstring that does not end"));
    }
    String::from_utf8(text).map(Some).map_err(|_| invalid("a question that is no text"))
}

/// The answer to `MAP KEY`.
fn answer(question: &str, directory: &Directory) -> String {
    match question.split_once(' ') {
        Some(("domain", domain)) => about_domain(domain, directory),
        Some(("recipient", address)) => match Address::parse(address) {
            Some(address) => access(&decide(&address, &directory.facts(&address.domain))),
            None => "NOTFOUND ".to_owned(),
        },
        Some(("sender", address)) => match Address::parse(address) {
            Some(address) => owner(&may_send(&directory.facts(&address.domain))),
            None => "NOTFOUND ".to_owned(),
        },
        _ => "PERM there is no such table".to_owned(),
    }
}

/// Who may send under addresses of a host name: the account, which is the name that its app logs in with.
fn owner(sender: &Sender) -> String {
    match sender {
        Sender::Account(account) => format!("OK {account}"),
        Sender::Unknown => "TEMP the mail intake cannot tell whose address this is; try again".to_owned(),
        Sender::Nobody => "NOTFOUND ".to_owned(),
    }
}

/// Whether mail for a host name is taken at all.
fn about_domain(domain: &str, directory: &Directory) -> String {
    let address = Address { mailbox: "postmaster".to_owned(), domain: domain.to_ascii_lowercase() };
    let facts = directory.facts(&address.domain);
    match decide(&address, &facts) {
        Verdict::NotOurs => "NOTFOUND ".to_owned(),
        Verdict::Later(_, why) if facts.claim.is_none() => format!("TEMP {why}"),
        _ => "OK ours".to_owned(),
    }
}

/// A verdict as an action of access(5).
fn access(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Deliver(_) => "OK OK".to_owned(),
        Verdict::Later(code, why) => format!("OK 450 {code} {why}"),
        Verdict::Never(code, why) => format!("OK 550 {code} {why}"),
        Verdict::NotOurs => "NOTFOUND ".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(sent: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move { converse(stream, &Directory::unread()).await });
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answered = vec![];
        client.read_to_end(&mut answered).await.unwrap();
        answered
    }

    #[tokio::test]
    async fn before_anything_was_read_every_address_is_put_off() {
        let answered =
            String::from_utf8(ask(b"39:recipient support@acme.helpdesk.example,28:domain acme.helpdesk.example,").await).unwrap();
        assert!(answered.contains("OK 450 4.3.0") && answered.contains("TEMP the mail intake has just started"), "{answered}");
    }

    #[tokio::test]
    async fn what_is_no_netstring_ends_the_conversation() {
        for sent in [&b"x"[..], b"99999999:", b"-1:a,", b"3:abcd", b"4:a\xff\xff\xff,"] {
            assert!(ask(sent).await.is_empty());
        }
    }
}
