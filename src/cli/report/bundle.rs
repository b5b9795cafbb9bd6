//! The files of a report, and how they are written. Pure but for the writing.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{
    collect::Collected,
    redact::{Redactor, metadata},
};
use crate::cli::seen::Seen;

/// The files of a report by their paths, without what is to be removed.
pub(super) fn files(collected: &Collected) -> BTreeMap<String, String> {
    let of_kinds = collected.objects.iter().flat_map(|(kind, seen)| seen.all().iter().map(|object| (kind.as_str(), object)));
    let redactor = Redactor::of(of_kinds);
    let mut files = BTreeMap::new();
    let mut unread: Vec<String> = Vec::new();
    for (kind, seen) in &collected.objects {
        unread.extend(seen.unseen().map(str::to_owned));
        let objects: Vec<Value> = seen.all().iter().map(|object| redactor.object(kind, object)).collect();
        if !objects.is_empty() {
            files.insert(format!("objects/{}.yaml", kind.to_lowercase()), yaml(&objects));
        }
    }
    let lists = [
        ("cluster/definitions", &collected.definitions),
        ("operator/deployments", &collected.deployments),
        ("operator/pods", &collected.pods),
        ("operator/movers", &collected.jobs),
        ("operator/leases", &collected.leases),
        ("operator/events", &collected.events),
        ("tenants/pods", &collected.tenants),
    ];
    for (path, seen) in lists {
        unread.extend(seen.unseen().map(str::to_owned));
        let objects: Vec<Value> = seen.all().iter().map(|object| redactor.value(with_plain_metadata(object))).collect();
        if !objects.is_empty() {
            files.insert(format!("{path}.yaml"), yaml(&objects));
        }
    }
    for (folder, suffix, texts) in [("logs", "log", &collected.logs), ("metrics", "txt", &collected.metrics)] {
        for (name, seen) in texts {
            unread.extend(seen.unseen().map(str::to_owned));
            if let Seen::There(text) = seen {
                let lines: String = text.lines().map(|line| redactor.line(line) + "\n").collect();
                files.insert(format!("{folder}/{name}.{suffix}"), lines);
            }
        }
    }
    unread.extend(collected.version.unseen().map(str::to_owned));
    let versions =
        json!({"kubectl-helpdesk": env!("CARGO_PKG_VERSION"), "apiServer": collected.version.there(), "at": collected.at.to_string()});
    files.insert("cluster/versions.yaml".to_owned(), yaml(&versions));
    unread.sort();
    unread.dedup();
    files.insert("README.txt".to_owned(), front_page(collected, &unread));
    files
}

/// An object of another kind, with the metadata that a report keeps.
fn with_plain_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(found) = object.get("metadata") {
        object["metadata"] = metadata(found);
    }
    // A template has metadata of its own.
    if let Some(found) = object.pointer("/spec/template/metadata").cloned() {
        object["spec"]["template"]["metadata"] = metadata(&found);
    }
    object
}

fn yaml(value: &impl serde::Serialize) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_else(|error| format!("failed to write this as YAML: {error}\n"))
}

fn front_page(collected: &Collected, unread: &[String]) -> String {
    let mut text = format!(
        "A report of kubectl helpdesk, made at {}.\n\n\
         No Secret was read. Removed are names, mail addresses, host names and other texts of customers, what a hold or a closure says,\n\
         values of environment variables, contents of files, and what movers said, because they may quote rows of a database. A host name\n\
         is the same [host-N] throughout. Names of accounts are kept. The log of the mail intake is not in it.\n\
         Look through it before you hand it on.\n\n",
        collected.at
    );
    for (kind, seen) in &collected.objects {
        text.push_str(&format!("{:>6} {kind}\n", seen.all().len()));
    }
    if !unread.is_empty() {
        text.push_str("\nCould not be read:\n");
        for why in unread {
            text.push_str(&format!("  {why}\n"));
        }
    }
    text
}

/// Writes the files into an archive, which nobody else may read.
pub(super) fn write_archive(path: &Path, files: &BTreeMap<String, String>, at: i64) -> io::Result<()> {
    let folder = path.file_name().and_then(|name| name.to_str()).unwrap_or("report").trim_end_matches(".tar.gz").trim_end_matches(".tgz");
    let mut archive = tar::Builder::new(GzEncoder::new(own_file(path)?, Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len().try_into().unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(at.unsigned_abs());
        header.set_cksum();
        archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

/// Writes the files into a folder, which is made.
pub(super) fn write_folder(path: &Path, files: &BTreeMap<String, String>) -> io::Result<()> {
    fs::create_dir(path)?;
    for (name, text) in files {
        let file = path.join(name);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        own_file(&file)?.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// A new file that only its owner may read.
fn own_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
