//! The definitions on disk, which the chart installs, are generated from the types in `src/api`.
//!
//! `UPDATE_GOLDEN=1 cargo test --test crds` rewrites them.

use std::{env, fs, path::Path};

use helpdesk_operator::api;

const HEADER: &str = "# Generated from src/api. `UPDATE_GOLDEN=1 cargo test --test crds` writes it anew.\n";

#[test]
fn the_definitions_on_disk_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let update = env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut names = Vec::new();
    for (name, definition) in api::definitions() {
        let wanted = format!("{HEADER}{}", api::yaml(&definition).expect("a definition is plain data"));
        let path = folder.join(name);
        if update {
            fs::write(&path, &wanted).expect("crds/ can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "crds/{name} is not what src/api says: run UPDATE_GOLDEN=1 cargo test --test crds");
        names.push(name.to_owned());
    }
    let mut found: Vec<_> = fs::read_dir(&folder)
        .expect("crds/ can be read")
        .map(|entry| entry.expect("crds/ can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    found.sort();
    assert_eq!(found, names, "crds/ holds a file that belongs to no kind");
}
