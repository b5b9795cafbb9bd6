//! The request of an HTTP hook, as its Job sends it: `helpdesk-operator request`.
//!
//! It goes to a component of the tenant's own app and nowhere else: a class names the component, and a redirect is not
//! followed. What is secret comes from the pod's environment and files, and is in no argument.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args as ClapArgs;
use hyper::Method;

use crate::{
    error_chain::chain,
    http_client::{self, Call},
};

/// The exit code that asks for another try (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: u8 = 75;

/// One request to a component of an app.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The component's Service.
    #[arg(long)]
    host: String,
    /// Its port.
    #[arg(long)]
    port: u16,
    /// The method.
    #[arg(long)]
    method: Method,
    /// The path.
    #[arg(long)]
    path: String,
    /// A header, as NAME=VARIABLE; its value is that of the environment variable. May be given several times.
    #[arg(long, value_parser = header)]
    header: Vec<(String, String)>,
    /// The file with the body.
    #[arg(long)]
    body: Option<PathBuf>,
    /// An expected status code; may be given several times. Without it each from 200 to 299 is.
    #[arg(long)]
    status: Vec<u16>,
    /// How long it may take, in seconds.
    #[arg(long)]
    seconds: u64,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, variable) = text.split_once('=').ok_or("write NAME=VARIABLE")?;
    Ok((name.to_owned(), variable.to_owned()))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read the body")]
    Body(#[source] std::io::Error),
    #[error("failed to find the environment variable {0}")]
    Variable(String),
    #[error(transparent)]
    Http(#[from] http_client::Error),
}

/// Sends the request. Exit codes are those of an exec hook: 0 if the answer has an expected status, 75 if the component did
/// not answer or is busy, 1 otherwise. The answer's words are printed nowhere: they may be the tenant's.
pub async fn run(args: Args) -> ExitCode {
    match send(&args).await {
        Ok(status) => {
            println!("{} {} answered {status}", args.method, args.path);
            ExitCode::from(code(status, &args.status))
        }
        Err(error) => {
            eprintln!("{}", chain(&error));
            let may_pass = matches!(&error, Error::Http(error) if !matches!(error, http_client::Error::Request(_)));
            if may_pass { ExitCode::from(TRY_AGAIN) } else { ExitCode::FAILURE }
        }
    }
}

async fn send(args: &Args) -> Result<u16, Error> {
    let headers = args.header.iter().map(|(name, variable)| {
        let value = std::env::var(variable).map_err(|_| Error::Variable(variable.clone()))?;
        Ok((name.as_str(), value))
    });
    let headers = headers.collect::<Result<_, Error>>()?;
    let body = args.body.as_ref().map(std::fs::read).transpose().map_err(Error::Body)?.unwrap_or_default().into();
    let (host, port, path, patience) = (args.host.as_str(), args.port, args.path.as_str(), Duration::from_secs(args.seconds));
    let call = Call { method: args.method.clone(), host, port, authority: host, path, headers, body, patience };
    Ok(http_client::call(call).await?.status)
}

/// The exit code for a status. A component that is busy, or whose proxy does not reach it, is asked again (RFC 9110,
/// section 15; RFC 6585, section 4).
fn code(status: u16, expected: &[u16]) -> u8 {
    let is_expected = if expected.is_empty() { (200..300).contains(&status) } else { expected.contains(&status) };
    match status {
        _ if is_expected => 0,
        408 | 425 | 429 | 500..600 => TRY_AGAIN,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_may_pass_is_asked_for_again_and_one_that_will_not_fails() {
        assert_eq!([200, 204, 302, 404, 429, 503].map(|status| code(status, &[])), [0, 0, 1, 1, 75, 75]);
        assert_eq!([200, 404, 503].map(|status| code(status, &[404])), [1, 0, 75]);
    }
}
