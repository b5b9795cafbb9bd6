//! A message with what the mail server said about it.

/// A message with its envelope. The client's address and name are those of who connected to the mail server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The sender of the envelope; empty: it is a bounce.
    pub sender: String,
    /// The recipient, as the sender wrote it.
    pub recipient: String,
    /// The address of the client; empty: unknown.
    pub client: String,
    /// The name by which the client introduced itself; empty: unknown.
    pub helo: String,
}

/// The outcome of one delivery, which the mail server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app has the message.
    Delivered,
    /// The mail server keeps the message and tries again.
    Later {
        /// The enhanced status code (RFC 3463).
        code: &'static str,
        /// Why.
        why: String,
    },
    /// The message goes back to its sender.
    Refused {
        /// The enhanced status code (RFC 3463).
        code: &'static str,
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// The reply of LMTP.
    pub fn reply(&self) -> String {
        match self {
            Self::Delivered => "250 2.0.0 delivered".to_owned(),
            Self::Later { code, why } => format!("450 {code} {}", plain(why)),
            Self::Refused { code, why } => format!("550 {code} {}", plain(why)),
        }
    }
}

/// A text as one short line of ASCII, as replies have to be.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line_whatever_the_reason_contains() {
        let reply = Outcome::Later { code: "4.3.0", why: format!("nö\r\n250 2.0.0 ok{}", "x".repeat(900)) }.reply();
        assert!(reply.starts_with("450 4.3.0 n   250 2.0.0 ok") && reply.len() < 400 && !reply.contains(['\r', '\n']), "{reply}");
    }
}
