//! The shape of the source: folders import downwards only, no two files know each other, by an import or by a whole path,
//! over however many others, and no file is too long to be read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// How many lines a file may have.
const LONGEST: usize = 500;

type Module = Vec<String>;

/// The source of the library, without its tests.
struct Source {
    /// By the module that each file is.
    files: BTreeMap<Module, File>,
}

struct File {
    path: String,
    lines: usize,
    /// What it imports, as whole paths.
    imports: Vec<Import>,
}

struct Import {
    path: Module,
    /// The name under which it is known in the file.
    name: String,
    /// Whether others find it there too.
    exported: bool,
}

impl Source {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = Vec::new();
        walk(&root, &mut paths);
        let module = |path: &Path| -> Module {
            let mut parts: Vec<String> =
                path.strip_prefix(&root).unwrap().with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if ["mod", "lib"].contains(&parts.last().unwrap().as_str()) {
                parts.pop();
            }
            parts
        };
        let is_test = |path: &Path| path.iter().any(|part| part.to_str().unwrap().contains("tests")) || path.ends_with("main.rs");
        let paths: Vec<_> = paths.into_iter().filter(|path| !is_test(path.strip_prefix(&root).unwrap())).collect();
        let modules: BTreeSet<Module> = paths.iter().map(|path| module(path)).collect();
        let file = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap();
            let module = module(path);
            let mut imports = imports(without_tests(&text), &module, &modules);
            imports.extend(inline(without_tests(&text), &module, &modules));
            let path = format!("src/{}", path.strip_prefix(&root).unwrap().display());
            (module, File { path, lines: text.lines().count(), imports })
        };
        Self { files: paths.iter().map(file).collect() }
    }

    /// The file that a path leads to, over whatever exports it again.
    fn file_of(&self, path: &[String]) -> Option<&Module> {
        let known = (1..=path.len()).rev().find_map(|length| self.files.get_key_value(&path[..length]));
        let (module, file) = known?;
        let Some(item) = path.get(module.len()) else { return Some(module) };
        let exported = file.imports.iter().find(|import| import.exported && import.name == *item && import.path != path);
        exported.map_or(Some(module), |import| self.file_of(&import.path))
    }

    /// Which files each file imports from. What a file only exports again is not its own.
    fn graph(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let edges = |file: &File| {
            let targets = file.imports.iter().filter(|import| !import.exported).filter_map(|import| self.file_of(&import.path));
            targets.map(|module| self.files[module].path.as_str()).filter(|target| *target != file.path).collect::<BTreeSet<_>>()
        };
        self.files
            .values()
            .map(|file| {
                let own: BTreeSet<&str> =
                    edges(file).into_iter().map(|target| self.files.values().find(|f| f.path == target).unwrap().path.as_str()).collect();
                (file.path.as_str(), own)
            })
            .collect()
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

/// Every import of a file, from its `use` lines.
fn imports(text: &str, module: &Module, modules: &BTreeSet<Module>) -> Vec<Import> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let line = &rest[rest[..at].rfind('\n').map_or(0, |line| line + 1)..at];
        rest = &rest[at + 4..];
        if !(line.trim().is_empty() || line.trim() == "pub" || (line.trim().starts_with("pub(") && line.trim().ends_with(')'))) {
            continue;
        }
        let Some(end) = rest.find(';') else { break };
        let tree: String = rest[..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut paths = Vec::new();
        expand("", &tree, &mut paths);
        for path in paths {
            let (path, name) = path.split_once(" as ").map_or((path.as_str(), None), |(path, name)| (path, Some(name)));
            let mut parts: Module = path.split("::").map(str::to_owned).collect();
            if parts.last().is_some_and(|last| last == "self") {
                parts.pop();
            }
            let name = name.unwrap_or_else(|| parts.last().unwrap()).to_owned();
            if let Some(path) = absolute(parts, module, modules) {
                found.push(Import { path, name, exported: line.contains("pub") });
            }
        }
        rest = &rest[end..];
    }
    found
}

/// What a file names by a whole path, without importing it: `super::web::Memory`, `crate::hex`, `child::run`.
fn inline(text: &str, module: &Module, modules: &BTreeSet<Module>) -> Vec<Import> {
    // What only exports again is read with the imports.
    let code = text.lines().filter(|line| !["//", "pub use", "pub(crate) use"].iter().any(|start| line.trim_start().starts_with(start)));
    // How far an item can be seen is no import.
    let code = code.map(|line| match line.split_once("pub(in ") {
        Some((_, rest)) => rest.split_once(')').map_or("", |(_, rest)| rest),
        None => line,
    });
    let words = code.flat_map(|line| line.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':'));
    let paths = words.filter(|word| word.contains("::") && !word.starts_with(':') && !word.ends_with(':'));
    paths
        .filter_map(|path| absolute(path.split("::").map(str::to_owned).collect(), module, modules))
        .filter_map(|path| Some(Import { name: path.last()?.clone(), path, exported: false }))
        .collect()
}

/// The paths of a tree such as `a::{b, c::{self, d}}`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        if !tree.is_empty() {
            found.push(format!("{prefix}{tree}"));
        }
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let inner = &tree[open + 1..tree.rfind('}').unwrap()];
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[from..at], found);
                from = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, &inner[from..], found);
}

/// The path from the root of the crate; `None`: it leads to another crate.
fn absolute(parts: Module, module: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut base = match parts[0].as_str() {
        "crate" => return Some(parts[1..].to_vec()),
        "self" | "super" => module.clone(),
        first => {
            let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
            return modules.contains(&child).then(|| module.iter().cloned().chain(parts).collect());
        }
    };
    let ups = parts.iter().take_while(|part| *part == "super").count();
    base.truncate(base.len().checked_sub(ups)?);
    let skipped = ups + usize::from(parts[0] == "self");
    Some(base.into_iter().chain(parts.into_iter().skip(skipped)).collect())
}

/// Groups of files of which each reaches each.
fn circles<'g>(graph: &BTreeMap<&'g str, BTreeSet<&'g str>>) -> BTreeSet<Vec<&'g str>> {
    let reach = |from: &'g str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(graph[file].iter().copied().filter(|next| seen.insert(*next)));
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|file| (*file, reach(file))).collect();
    let group = |file: &&'g str| -> Vec<&'g str> { reached[*file].iter().copied().filter(|other| reached[other].contains(file)).collect() };
    graph.keys().map(group).filter(|group| group.len() > 1).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let source = Source::read();
    let graph = source.graph();
    let found = circles(&graph);
    for circle in &found {
        for file in circle {
            println!("{file} imports {:?}", graph[file].iter().filter(|other| circle.contains(other)).collect::<Vec<_>>());
        }
    }
    assert!(found.is_empty(), "files that know each other: {found:#?}");
}

/// The folders and files of `src` from the bottom up. What stands in one line knows nothing else of that line.
const LAYERS: &[&[&str]] = &[
    &["clock", "cluster", "crash", "digest", "error_chain", "http_client", "keyed_semaphore", "lib", "object_diff", "outages", "retry"],
    &["api", "installation", "leader", "prober"],
    &["telemetry"],
    &["readiness"],
    &["app", "brake", "edge", "http", "lifecycle", "rights", "store"],
    &["backup", "ledger", "notices"],
    &["database"],
    &["mail", "mover"],
    &["context"],
    &["controller"],
    &["cli", "run"],
];

#[test]
fn imports_lead_down() {
    let part = |path: &str| path.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs").to_owned();
    let layer = |part: &str| LAYERS.iter().position(|layer| layer.contains(&part)).unwrap_or_else(|| panic!("{part} is in no layer"));
    let source = Source::read();
    let mut up = Vec::new();
    for (file, targets) in source.graph() {
        let from = part(file);
        let others = targets.into_iter().filter(|target| part(target) != from);
        up.extend(others.filter(|target| layer(&part(target)) >= layer(&from)).map(|target| format!("{file} -> {target}")));
    }
    assert!(up.is_empty(), "imports that lead up or to the side: {up:#?}");
}

#[test]
fn every_file_can_be_read_in_one_go() {
    let source = Source::read();
    let long: Vec<&str> = source.files.values().filter(|file| file.lines > LONGEST).map(|file| file.path.as_str()).collect();
    assert!(long.is_empty(), "files with more than {LONGEST} lines: {long:#?}");
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let module: Module = ["a", "b"].map(str::to_owned).to_vec();
    let modules: BTreeSet<Module> =
        [vec!["a"], vec!["a", "b"], vec!["a", "b", "c"], vec!["d"]].map(|module| module.into_iter().map(str::to_owned).collect()).into();
    let text = "use std::fmt;\npub use c::{Thing, Other as Name};\nuse super::{self, x::{y, self}};\nuse crate::d::Z;\nfn f() { let _ = \"use me\"; }\n";
    let found: Vec<(String, String, bool)> =
        imports(text, &module, &modules).into_iter().map(|i| (i.path.join("::"), i.name, i.exported)).collect();
    let expected = [
        ("a::b::c::Thing", "Thing", true),
        ("a::b::c::Other", "Name", true),
        ("a", "super", false),
        ("a::x::y", "y", false),
        ("a::x", "x", false),
        ("d::Z", "Z", false),
    ];
    assert_eq!(found, expected.map(|(path, name, exported)| (path.to_owned(), name.to_owned(), exported)));
    let text = "/// See crate::d::No.\nstruct S { one: super::x::One }\nfn f() { crate::d::go(); c::child(&std::io::stdin()); }\n";
    let found: Vec<String> = inline(text, &module, &modules).into_iter().map(|i| i.path.join("::")).collect();
    assert_eq!(found, ["a::x::One", "d::go", "a::b::c::child"]);
}
