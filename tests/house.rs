//! The house rules that a machine can check (the floors of `src/lib.rs`).

use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, without a test module at its end, in lines.
const LONGEST: usize = 500;

/// What may lie at the top.
const TOP: [&str; 13] = [
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "packaging",
    "src",
    "target",
    "tests",
];

/// Which floor a top module of `src` is on; files only import from lower
/// floors or their own folder. The pure floor counts as one folder, and so do
/// the edges.
const FLOORS: [(u8, &[&str]); 4] = [
    (0, &["lease", "wire", "exit"]),
    (1, &["sys", "store"]),
    (2, &["guard", "keeper"]),
    (3, &["cli", "telemetry", "http", "notify", "main", "lib"]),
];

/// A source file.
struct Source {
    /// Below the package.
    path: PathBuf,
    /// The lines of its code: no comments, no tests.
    code: Vec<(usize, String)>,
    text: String,
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![top().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source::read(&path));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(top()).unwrap().to_owned();
        let all_tests = path.components().any(|part| {
            Path::new(&part)
                .file_stem()
                .is_some_and(|stem| stem == "tests")
        }) && path.starts_with("src");
        let lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.to_owned()));
        let code = lines
            .take_while(|(_, line)| !all_tests && !line.trim_start().starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .collect();
        Self { path, code, text }
    }

    /// The top module that it belongs to.
    fn module(&self) -> String {
        let part = self.path.components().nth(1).unwrap();
        let part: &Path = part.as_ref();
        part.file_stem().unwrap().to_string_lossy().into_owned()
    }

    /// `file:line: text` of the lines of code that have this.
    fn lines_with(&self, is: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.code.iter().filter(|(_, line)| is(line));
        lines
            .map(|(number, line)| format!("{}:{number}: {}", self.path.display(), line.trim()))
            .collect()
    }
}

fn floor(module: &str) -> u8 {
    let floor = FLOORS.iter().find(|(_, modules)| modules.contains(&module));
    floor
        .unwrap_or_else(|| panic!("src/{module} is on no floor: add it to tests/house.rs"))
        .0
}

#[track_caller]
fn none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// The modules that a line names as `crate::…` (`leasewrap::…` in main).
fn named(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for root in ["crate::", "leasewrap::"] {
        for rest in line.split(root).skip(1) {
            let group = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            let parts: Vec<&str> =
                group.map_or_else(|| vec![rest], |group| group.split(',').collect());
            names.extend(parts.iter().map(|part| {
                part.trim()
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect::<String>()
            }));
        }
    }
    names.retain(|name| {
        FLOORS
            .iter()
            .any(|(_, modules)| modules.contains(&name.as_str()))
    });
    names
}

#[test]
fn imports_go_down() {
    let mut found = Vec::new();
    for source in sources("src") {
        let own = source.module();
        let down = |name: &str| {
            let (here, there) = (floor(&own), floor(name));
            there < here || name == own || (here == there && matches!(here, 0 | 3))
        };
        found.extend(source.lines_with(|line| named(line).iter().any(|name| !down(name))));
    }
    none(
        found,
        "a file imports only from lower floors or its own folder",
    );
}

#[test]
fn the_rules_are_pure() {
    let impure = [
        "tokio",
        "nix::",
        "libc::",
        "sqlx",
        "rand::",
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::env",
        "std::net",
        "std::process",
        "std::thread",
        "async ",
        ".await",
    ];
    let pure = |source: &Source| floor(&source.module()) == 0;
    let found = sources("src")
        .into_iter()
        .filter(pure)
        .flat_map(|source| source.lines_with(|line| impure.iter().any(|word| line.contains(word))));
    none(
        found.collect(),
        "the pure floor knows no clock, no I/O, no randomness, no async",
    );
}

#[test]
fn only_one_file_reads_a_clock() {
    let clocks = [
        "Instant::now",
        "SystemTime::now",
        "UNIX_EPOCH.elapsed",
        "clock_gettime",
    ];
    let found = sources("src")
        .into_iter()
        .filter(|source| !source.path.starts_with("src/sys"))
        .flat_map(|source| source.lines_with(|line| clocks.iter().any(|word| line.contains(word))));
    none(found.collect(), "only src/sys reads clocks");
}

#[test]
fn unsafe_lives_in_one_folder() {
    let word = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .any(|word| word == "unsafe")
    };
    let kernel = |source: &Source| {
        source.path.starts_with("src/sys") || source.path == Path::new("tests/support/sys.rs")
    };
    let all = [sources("src"), sources("tests/support")]
        .into_iter()
        .flatten();
    let found = all
        .filter(|source| !kernel(source))
        .flat_map(|source| source.lines_with(word));
    none(found.collect(), "unsafe is for src/sys");
}

#[test]
fn nothing_panics_in_production() {
    let panics = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "unreachable!(",
        "todo!(",
        "unimplemented!(",
    ];
    let found = sources("src")
        .into_iter()
        .flat_map(|source| source.lines_with(|line| panics.iter().any(|word| line.contains(word))))
        .collect();
    none(found, "an error that can happen is a value");
}

#[test]
fn lints_are_expected_and_never_allowed() {
    let allows = ["#[", "#!["].map(|start| format!("{start}allow("));
    let all = [sources("src"), sources("tests")].into_iter().flatten();
    let found = all.filter(|source| allows.iter().any(|allow| source.text.contains(allow)));
    none(
        found
            .map(|source| source.path.display().to_string())
            .collect(),
        "use #[expect(…, reason = …)]",
    );
}

#[test]
fn files_are_short() {
    let all = [sources("src"), sources("tests")].into_iter().flatten();
    let found = all.filter_map(|source| {
        let lines = source
            .text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines", source.path.display()))
    });
    none(found.collect(), "about 400 lines are enough for a file");
}

#[test]
fn the_top_is_tidy() {
    let all = fs::read_dir(top()).unwrap().flatten();
    let names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    none(
        names.filter(|name| !TOP.contains(&name.as_str())).collect(),
        "nothing else lies at the top",
    );
}
