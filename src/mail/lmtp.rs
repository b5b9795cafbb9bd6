//! Takes messages from the mail server: LMTP (RFC 2033), with XFORWARD so that the filter learns who the client was.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    deliver::Delivery,
    envelope::{Envelope, Outcome},
};

/// The longest line of a command.
const LONGEST_COMMAND: u64 = 4096;
/// The largest message. The mail server refuses smaller ones already.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;
/// How long the mail server may be silent.
const SILENCE: Duration = Duration::from_secs(300);

/// Takes messages until the process ends.
pub(super) async fn serve(listener: TcpListener, delivery: Arc<Delivery>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let delivery = delivery.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &delivery).await {
                tracing::warn!(%error, "a connection of the mail server broke off");
            }
        });
    }
}

/// The transaction that is under way.
#[derive(Default)]
struct Transaction {
    sender: Option<String>,
    recipients: Vec<String>,
    client: String,
    helo: String,
}

/// What a command asks for.
enum Next {
    Reply(String),
    Data,
    Quit,
}

async fn converse(stream: TcpStream, delivery: &Delivery) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    write(&mut stream, "220 helpdesk-operator LMTP").await?;
    let mut transaction = Transaction::default();
    while let Some(line) = read_line(&mut stream).await? {
        match command(&line, &mut transaction, delivery) {
            Next::Reply(reply) => write(&mut stream, &reply).await?,
            Next::Quit => return write(&mut stream, "221 2.0.0 bye").await,
            Next::Data => {
                write(&mut stream, "354 go on").await?;
                let message = read_message(&mut stream).await?;
                let Transaction { sender, recipients, client, helo } = std::mem::take(&mut transaction);
                for recipient in recipients {
                    let envelope =
                        Envelope { sender: sender.clone().unwrap_or_default(), recipient, client: client.clone(), helo: helo.clone() };
                    let outcome = match &message {
                        Some(message) => delivery.deliver(&envelope, message.clone()).await,
                        None => Outcome::Refused { code: "5.3.4", why: "the message is too large".to_owned() },
                    };
                    write(&mut stream, &outcome.reply()).await?;
                }
            }
        }
    }
    Ok(())
}

fn command(line: &str, transaction: &mut Transaction, delivery: &Delivery) -> Next {
    let reply = |text: &str| Next::Reply(text.to_owned());
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb.to_ascii_uppercase().as_str() {
        "LHLO" => reply(
            "250-helpdesk-operator\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 XFORWARD ADDR HELO",
        ),
        "XFORWARD" => {
            for attribute in rest.split(' ') {
                let (name, value) = attribute.split_once('=').unwrap_or_default();
                let value = if value == "[UNAVAILABLE]" { String::new() } else { xtext(value) };
                match name.to_ascii_uppercase().as_str() {
                    "ADDR" => transaction.client = value.trim_start_matches("IPV6:").trim_start_matches("IPv6:").to_owned(),
                    "HELO" => transaction.helo = value,
                    _ => {}
                }
            }
            reply("250 2.0.0 ok")
        }
        "MAIL" => match path(rest, "FROM:") {
            Some(sender) => {
                transaction.sender = Some(sender);
                reply("250 2.1.0 ok")
            }
            None => reply("501 5.5.4 MAIL FROM:<address>"),
        },
        "RCPT" => match path(rest, "TO:") {
            Some(recipient) if transaction.sender.is_some() => match delivery.may_deliver(&recipient) {
                Ok(_) => {
                    transaction.recipients.push(recipient);
                    reply("250 2.1.5 ok")
                }
                Err(refused) => Next::Reply(refused.reply()),
            },
            Some(_) => reply("503 5.5.1 MAIL first"),
            None => reply("501 5.5.4 RCPT TO:<address>"),
        },
        "DATA" if transaction.recipients.is_empty() => reply("503 5.5.1 no valid recipients"),
        "DATA" => Next::Data,
        "RSET" => {
            *transaction = Transaction::default();
            reply("250 2.0.0 ok")
        }
        "NOOP" => reply("250 2.0.0 ok"),
        "QUIT" => Next::Quit,
        _ => reply("500 5.5.2 unknown command"),
    }
}

/// The address between angle brackets, after its keyword.
fn path(rest: &str, keyword: &str) -> Option<String> {
    let start = rest.get(..keyword.len()).filter(|start| start.eq_ignore_ascii_case(keyword))?;
    let inner = rest[start.len()..].trim_start().strip_prefix('<')?;
    // A quoted local part may contain an angle bracket, which no tenant's address does.
    let end = inner.find('>')?;
    Some(inner[..end].to_owned())
}

/// Decodes xtext (RFC 3461, section 4).
fn xtext(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('+') {
        decoded.push_str(before);
        let digits = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match digits {
            Some(byte) => {
                decoded.push(char::from(byte));
                &after[2..]
            }
            None => after,
        };
    }
    decoded.push_str(rest);
    // It becomes the value of a header for the filter.
    decoded.chars().filter(|c| c.is_ascii_graphic()).take(255).collect()
}

async fn write(stream: &mut BufReader<TcpStream>, reply: &str) -> io::Result<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).await
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(SILENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads a command; `None`: the connection was closed.
async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = vec![];
    within((&mut *stream).take(LONGEST_COMMAND).read_until(b'\n', &mut line)).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a command without an end")),
    }
}

/// Reads a message up to the line with a single dot; `None`: it is too large.
async fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let (mut message, mut is_too_large) = (vec![], false);
    loop {
        let start = message.len();
        // A longer line comes in parts; only the start of a line can be the end of the message.
        let mut is_start = true;
        loop {
            let before = message.len();
            let read = within((&mut *stream).take(64 * 1024).read_until(b'\n', &mut message)).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let ends = message.last() == Some(&b'\n');
            if is_start && message[before] == b'.' {
                if matches!(&message[before..], b".\r\n" | b".\n") {
                    message.truncate(start);
                    return Ok((!is_too_large).then_some(message));
                }
                message.remove(before);
            }
            is_start = false;
            if message.len() > LARGEST_MESSAGE {
                is_too_large = true;
                message.clear();
            }
            if ends {
                break;
            }
        }
        if is_too_large {
            message.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::directory::Directory, *};

    /// Everything that the server answers to what is sent.
    async fn answers(sent: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move { converse(stream, &Delivery::new(Arc::new(Directory::unread()))).await });
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answered = String::new();
        client.read_to_string(&mut answered).await.unwrap();
        answered
    }

    #[tokio::test]
    async fn a_recipient_that_is_not_known_yet_is_put_off() {
        let answered = answers(b"LHLO mta\r\nMAIL FROM:<>\r\nRCPT TO:<support@acme.helpdesk.example>\r\nDATA\r\nQUIT\r\n").await;
        assert!(answered.contains("\r\n250 2.1.0 ok\r\n450 4.3.0 "), "{answered}");
        assert!(answered.contains("\r\n503 5.5.1 no valid recipients\r\n221 "), "{answered}");
    }

    async fn message(sent: &[u8]) -> Option<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        read_message(&mut BufReader::new(stream)).await.unwrap_or_default()
    }

    #[tokio::test]
    async fn dots_at_the_start_of_lines_are_as_the_sender_wrote_them() {
        assert_eq!(message(b"a\r\n..b\r\n...\r\nc.\r\n.\r\nQUIT\r\n").await.unwrap(), b"a\r\n.b\r\n..\r\nc.\r\n");
        assert_eq!(message(b".\r\n").await.unwrap(), b"");
        assert_eq!(message(b"a\r\n").await, None, "a message without an end");
        let long = [vec![b'x'; 200_000], b"\r\n.\r\n".to_vec()].concat();
        assert_eq!(message(&long).await.unwrap().len(), 200_002);
    }

    #[test]
    fn paths_and_xtext_are_read() {
        assert_eq!(path("FROM:<a@b.example> SIZE=3", "FROM:").as_deref(), Some("a@b.example"));
        assert_eq!(path("from: <>", "FROM:").as_deref(), Some(""));
        assert_eq!(path("TO:a@b", "TO:"), None);
        assert_eq!(
            (xtext("a+2Bb").as_str(), xtext("a+").as_str(), xtext("+zz").as_str(), xtext("a+0D+0Ab").as_str()),
            ("a+b", "a", "zz", "ab")
        );
    }
}
