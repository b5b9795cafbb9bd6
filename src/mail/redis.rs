//! The few words of Redis that the intake needs (RESP2).

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest text and the longest list in an answer.
const LONGEST: usize = 1 << 24;

/// A connection.
pub(super) struct Redis(BufReader<TcpStream>);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A text, or nothing.
    Text(Option<String>),
    /// A number.
    Number(i64),
    /// A list.
    List(Vec<Self>),
}

impl Reply {
    /// The texts of a list.
    pub(super) fn texts(self) -> Vec<String> {
        match self {
            Self::List(items) => items.into_iter().filter_map(|item| if let Self::Text(text) = item { text } else { None }).collect(),
            Self::Text(_) | Self::Number(_) => vec![],
        }
    }
}

impl Redis {
    /// Connects to the Redis of this pod.
    pub(super) async fn connect() -> io::Result<Self> {
        within(async { Ok(Self(BufReader::new(TcpStream::connect(("127.0.0.1", 6379)).await?))) }).await
    }

    /// Sends a command, and reads its answer.
    pub(super) async fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        within(async {
            let mut command = format!("*{}\r\n", words.len());
            for word in words {
                command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            self.0.write_all(command.as_bytes()).await?;
            self.read().await
        })
        .await
    }

    /// Every key that matches.
    pub(super) async fn keys(&mut self, pattern: &str) -> io::Result<Vec<String>> {
        let (mut found, mut cursor) = (vec![], "0".to_owned());
        loop {
            let Reply::List(mut page) = self.ask(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"]).await? else {
                return Err(invalid("SCAN answers with a list"));
            };
            let (Some(keys), Some(Reply::Text(Some(next)))) = (page.pop(), page.pop()) else {
                return Err(invalid("SCAN answers with a cursor and keys"));
            };
            found.extend(keys.texts());
            if next == "0" {
                return Ok(found);
            }
            cursor = next;
        }
    }

    async fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        (&mut self.0).take(4096).read_line(&mut line).await?;
        let line = line.strip_suffix("\r\n").ok_or_else(|| invalid("an answer without an end"))?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| invalid("an empty answer"))?;
        let number = || rest.parse::<i64>().map_err(|_| invalid("no number"));
        let length = || Ok::<_, io::Error>(usize::try_from(number()?).ok().filter(|length| *length <= LONGEST));
        match kind {
            "+" => Ok(Reply::Text(Some(rest.to_owned()))),
            ":" => Ok(Reply::Number(number()?)),
            "$" => {
                let Some(length) = length()? else { return Ok(Reply::Text(None)) };
                let mut text = vec![0; length + 2];
                self.0.read_exact(&mut text).await?;
                text.truncate(length);
                Ok(Reply::Text(Some(String::from_utf8_lossy(&text).into_owned())))
            }
            "*" => {
                let mut items = vec![];
                for _ in 0..length()?.unwrap_or_default() {
                    items.push(Box::pin(self.read()).await?);
                }
                Ok(Reply::List(items))
            }
            _ => Err(io::Error::other(format!("Redis refuses: {rest}"))),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answer: &[u8]) -> io::Result<Reply> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut redis = Redis(BufReader::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()));
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(answer).await.unwrap();
        server.shutdown().await.unwrap();
        redis.read().await
    }

    #[tokio::test]
    async fn answers_are_read_and_errors_are_errors() {
        let list = answered(b"*2\r\n$1\r\n0\r\n*2\r\n$2\r\nab\r\n$-1\r\n").await.unwrap();
        let Reply::List(items) = list else { panic!("no list") };
        assert_eq!(items[1].clone().texts(), ["ab"]);
        assert_eq!(answered(b":3\r\n").await.unwrap(), Reply::Number(3));
        for broken in [&b"-ERR no\r\n"[..], b"", b"x", b":x\r\n", b"$5\r\nab", b"\r\n", b"*1\r\n"] {
            assert!(answered(broken).await.is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
