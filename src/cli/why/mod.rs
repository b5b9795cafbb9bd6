//! `why`: from an account down to the first cause of what is wrong with it.
//!
//! 1. [`look`] reads the account and everything that it refers to into a [`scene`].
//! 2. [`causes`] follows each complaint, by the [`rules`], to what is behind it. Pure.
//! 3. [`advice`] says what to do, in the words of the documents. Pure.

mod advice;
mod backups;
mod causes;
mod chain;
mod look;
mod objects;
mod operator;
mod pods;
mod rules;
mod scene;
#[cfg(test)]
mod tests;

use clap::Args;
use serde::Serialize;

use super::{
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{OutputArgs, when, wrapped},
};
use crate::clock::Moment;
use advice::{Advice, advice};
use causes::causes;
use chain::{Cause, Link};
use scene::Scene;

/// The arguments of `why`.
#[derive(Args, Debug)]
pub(super) struct WhyArgs {
    /// The account.
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `why`.
pub(super) async fn run(connection: &Connection, args: WhyArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let scene = look::scene(connection, account, now).await;
    let answer = answer(&scene, &args.name);
    args.output.print(&answer, || text(&answer, now))?;
    Ok(if answer.causes.iter().any(|told| !told.cause.passes) { Ended::NotSo } else { Ended::Fine })
}

/// Why an account is not as it should be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    account: String,
    causes: Vec<Told>,
    /// What could not be looked at.
    not_seen: Vec<String>,
}

/// A cause, and what to do about it.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    cause: Cause,
    #[serde(rename = "do")]
    advice: Vec<Advice>,
}

fn answer(scene: &Scene, name: &str) -> Answer {
    let told = causes(scene).into_iter().map(|cause| Told { advice: advice(&cause.chain), cause });
    Answer { account: name.to_owned(), causes: told.collect(), not_seen: scene.unseen() }
}

fn text(answer: &Answer, now: Moment) -> String {
    let mut text = String::new();
    if answer.causes.is_empty() {
        let limit = if answer.not_seen.is_empty() { "" } else { " in what could be looked at" };
        text.push_str(&format!("Nothing is wrong with {}{limit}.\n", answer.account));
    }
    for (number, told) in answer.causes.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        if told.cause.passes {
            text.push_str("Waited for:\n");
        }
        for (depth, link) in told.cause.chain.iter().enumerate() {
            text.push_str(&line(link, depth, now));
        }
        for advice in &told.advice {
            let see = advice.see.as_ref().map(|see| format!(" ({see})")).unwrap_or_default();
            text.push_str(&wrapped(&format!("→ {}{see}", advice.text), 2));
        }
    }
    if !answer.not_seen.is_empty() {
        text.push_str("\nNot looked at:\n");
        for why in &answer.not_seen {
            text.push_str(&wrapped(why, 2));
        }
    }
    text
}

fn line(link: &Link, depth: usize, now: Moment) -> String {
    let since = link.since.as_ref().map(|at| format!(", since {}", when(at.0, now))).unwrap_or_default();
    let head = match (&link.condition, &link.status, &link.reason) {
        (Some(condition), Some(status), Some(reason)) => format!("{}: {condition}={status} ({reason}){since}", link.object),
        _ => format!("{}: {}", link.object, link.says),
    };
    let indent = depth * 2;
    if link.condition.is_none() {
        return wrapped(&head, indent);
    }
    format!("{}{}", wrapped(&head, indent), wrapped(&link.says, indent + 4))
}
