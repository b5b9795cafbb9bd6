//! Nothing that leads to a person, and no secret, is in a report.

use std::{io::Read, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    bundle::{files, write_archive, write_folder},
    collect::Collected,
    redact::without_values,
};
use crate::cli::seen::Seen;

/// What must not be in a report.
const PLANTED: [&str; 18] = [
    "Ana Example",
    "ana@acme.example",
    "Acme Incorporated",
    "help.acme.example",
    "acme-slug.helpdesk.example",
    "203.0.113.7/32",
    "I agree to be recorded",
    "case 2026-117",
    "judge@court.example",
    "sub_1NirD82eZvKYlo2C",
    "lawyer@acme.example",
    "Carla Customer wrote",
    "hunter2-password",
    "token-of-the-class",
    "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGP",
    "bob@neighbour.example",
    "CREATE ROLE secret_role",
    "_helpdesk-challenge-value",
];

fn account() -> Value {
    json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
        "metadata": {"name": "acme", "uid": "u-1", "managedFields": [{"fieldsV1": "Ana Example"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"owner\":\"ana@acme.example\"}"}},
        "spec": {"owner": {"name": "Ana Example", "email": "ana@acme.example"}, "displayName": "Acme Incorporated", "plan": "standard",
            "region": "eu-1", "domain": {"slug": "acme-slug", "custom": ["help.acme.example"]}, "chatConsent": "I agree to be recorded",
            "security": {"agentAllow": ["203.0.113.7/32"]}, "hold": {"reason": "case 2026-117", "by": "judge@court.example"},
            "closure": {"mode": "Erase", "requestedBy": "lawyer@acme.example"}, "aFieldThatNobodyDecidedOn": "Ana Example"},
        "status": {"stage": "Blocked", "url": "https://acme-slug.helpdesk.example", "billing": {"state": "PastDue", "subscription": "sub_1NirD82eZvKYlo2C"},
            "domains": [{"host": "acme-slug.helpdesk.example", "use": "Slug", "state": "Suspended", "message": "acme-slug.helpdesk.example answers"},
                {"host": "help.acme.example", "use": "Custom", "state": "Unproven", "challenge": {"record": "x.help.acme.example", "value": "_helpdesk-challenge-value"}}],
            "mail": {"addresses": ["support@acme-slug.helpdesk.example"]},
            "conditions": [{"type": "Overdue", "status": "True", "reason": "Unprovable", "message": "row: Carla Customer wrote"},
                {"type": "Held", "status": "True", "reason": "Hold", "message": "nothing is destroyed while the hold is set: case 2026-117"}]}})
}

fn collected() -> Collected {
    let claim = json!({"kind": "DomainClaim", "metadata": {"name": "help.acme.example"}, "spec": {"account": "acme", "use": "Custom"}});
    let class = json!({"kind": "HelpDeskClass", "metadata": {"name": "desk"}, "spec": {"env": [{"name": "TOKEN", "value": "token-of-the-class"}],
        "hooks": {"bootstrap": {"sql": {"statements": "CREATE ROLE secret_role"}}}}});
    let backup = json!({"kind": "ColdBackup", "metadata": {"name": "acme-1"}, "spec": {"account": "acme", "hold": {"reason": "case 2026-117"}},
        "status": {"phase": "Failed", "failing": {"reason": "MoverFailed", "message": "row: Carla Customer wrote", "attempts": 7}}});
    let deployment = json!({"metadata": {"name": "operator"}, "spec": {"template": {"metadata": {"annotations": {"x": "bob@neighbour.example"}},
        "spec": {"containers": [{"name": "operator", "args": ["run"], "env": [{"name": "TOKEN", "value": "hunter2-password"}]}]}}}});
    let log = "{\"level\":\"WARN\",\"message\":\"failed\",\"reason\":\"MoverFailed\",\"error\":\"row: Carla Customer wrote\"}\n\
        {\"level\":\"INFO\",\"message\":\"help.acme.example is served\",\"span\":{\"account\":\"acme\"}}\n\
        plain: password=hunter2-password AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGP of bob@neighbour.example\n";
    let event = json!({"about": {"kind": "HelpDeskAccount", "name": "acme"}, "reason": "NameLost", "note": "help.acme.example went to Acme Incorporated"});
    Collected {
        at: "2026-11-23T10:00:00Z".parse().unwrap(),
        objects: vec![
            ("HelpDeskAccount".into(), Seen::There(vec![account()])),
            ("DomainClaim".into(), Seen::There(vec![claim])),
            ("HelpDeskClass".into(), Seen::There(vec![class])),
            ("ColdBackup".into(), Seen::There(vec![backup])),
            ("BackupStore".into(), Seen::Unseen("backupstores: you may not read it".into())),
        ],
        version: Seen::There(json!({"gitVersion": "v1.34.0"})),
        definitions: Seen::There(vec![]),
        deployments: Seen::There(vec![without_values(deployment)]),
        pods: Seen::There(vec![]),
        jobs: Seen::There(vec![]),
        tenants: Seen::There(vec![]),
        leases: Seen::There(vec![]),
        events: Seen::There(vec![event]),
        logs: vec![("operator-1".into(), Seen::There(log.into()))],
        metrics: vec![("operator-1".into(), Seen::There("helpdesk_operator_accounts{stage=\"Blocked\"} 1\n".into()))],
    }
}

fn is_clean(text: &str) {
    for planted in PLANTED {
        assert!(!text.contains(planted), "{planted:?} is in it: {text}");
        assert!(!text.contains(&BASE64_STANDARD.encode(planted)), "{planted:?} is in it as base64: {text}");
    }
}

#[test]
fn nothing_that_was_planted_is_in_a_report() {
    let files = files(&collected());
    for (path, text) in &files {
        is_clean(path);
        is_clean(text);
    }
}

#[test]
fn what_somebody_who_helps_needs_is_in_it() {
    let files = files(&collected());
    let has = |path: &str, part: &str| assert!(files[path].contains(part), "{path}: {}", files[path]);
    has("objects/helpdeskaccount.yaml", "stage: Blocked");
    has("objects/helpdeskaccount.yaml", "mode: Erase");
    has("objects/helpdeskaccount.yaml", "reason: Unprovable");
    has("objects/coldbackup.yaml", "attempts: 7");
    has("operator/deployments.yaml", "name: TOKEN");
    has("logs/operator-1.log", "\"reason\":\"MoverFailed\"");
    has("metrics/operator-1.txt", "helpdesk_operator_accounts{stage=\"Blocked\"} 1");
    has("cluster/versions.yaml", "v1.34.0");
    has("README.txt", "backupstores: you may not read it");
    // A host name is the same throughout.
    let claim = &files["objects/domainclaim.yaml"];
    let pseudonym = claim.lines().find_map(|line| line.trim().strip_prefix("name: ")).unwrap().trim_matches('\'').to_owned();
    assert!(pseudonym.starts_with("[host-"), "{claim}");
    has("objects/helpdeskaccount.yaml", &pseudonym);
    has("operator/events.yaml", &pseudonym);
    has("logs/operator-1.log", &pseudonym);
}

#[test]
fn an_archive_and_a_folder_have_the_same_files_and_nobody_else_may_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let files = files(&collected());
    let folder: PathBuf = std::env::temp_dir().join(format!("helpdesk-report-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (archive, plain) = (folder.join("report.tar.gz"), folder.join("report"));
    write_archive(&archive, &files, 1_700_000_000).unwrap();
    write_folder(&plain, &files).unwrap();
    assert!(write_folder(&plain, &files).is_err(), "an existing report was overwritten");
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&archive), mode(&plain.join("README.txt"))), (0o600, 0o600));
    let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&archive).unwrap()));
    let mut names = Vec::new();
    for entry in unpacked.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().trim_start_matches("report/").to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, std::fs::read_to_string(plain.join(&name)).unwrap(), "{name}");
        is_clean(&text);
        names.push(name);
    }
    assert_eq!(names, files.keys().cloned().collect::<Vec<_>>());
    std::fs::remove_dir_all(&folder).unwrap();
}
