//! The rules of the house: floors, what no file may do, and that the documents name what is there.
//!
//! Sources are read as tokens, with comments, strings and test code set apart. That is enough for names and paths; types are clippy's part
//! (`clippy.toml`). Every rule reports all of its violations, and `every_rule_notices_what_it_forbids` shows it one that it must find.

use distill::recipe::Recipe;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// A module imports only from floors below its own; submodules of one module may use each other.
const FLOORS: [(u8, &[&str]); 10] = [
    (10, &["main"]),
    (9, &["cli"]),
    (8, &["stage"]),
    (7, &["recipe", "report"]),
    (6, &["train"]),
    (5, &["rollout", "judge"]),
    (4, &["reward", "filter", "metric", "sampler"]),
    (3, &["verify", "measure", "shard", "model"]),
    (2, &["trace", "tasks", "response", "sandbox"]),
    (1, &["problem", "key", "lanes", "memory", "publish", "hub"]),
];

/// Where tensors are at home.
const TENSORS: [&str; 3] = ["model/", "sampler/", "train/"];
/// Files elsewhere that name candle, and why.
const TENSOR_EXCEPTIONS: [(&str, &str); 2] =
    [("stage/models.rs", "chooses the device that a model is opened on"), ("stage/plan.rs", "times a product on this machine")];

/// Ways to make a file, and who may use them.
const WRITERS: [&[&str]; 6] = [
    &["fs", "::", "write"],
    &["fs", "::", "copy"],
    &["File", "::", "create"],
    &["File", "::", "create_new"],
    &["OpenOptions"],
    &["safetensors", "::", "save"],
];
const WRITER_EXCEPTIONS: [(&str, &str); 4] = [
    ("publish.rs", "how output appears on disk"),
    ("hub/download.rs", "partial files and locks of a cache that other tools share"),
    ("shard/journal.rs", "the writer that appends"),
    ("train/state.rs", "inside publish::folder, which flushes and renames"),
];

const LARGEST_FILE: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below `folder` that end in `.rs`, by path relative to the root.
fn rust_files(folder: &str) -> Vec<String> {
    let (mut files, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.expect("the folder can be listed").path());
        for path in entries {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path.strip_prefix(root()).expect("below the root").display().to_string());
            }
        }
    }
    files.sort();
    files
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
    /// Part of an item under `#[cfg(test)]`.
    test: bool,
}

/// Names, numbers and punctuation of Rust code; `::` is one token, comments and literals are none.
fn tokens(source: &str) -> Vec<Token> {
    let s: Vec<char> = source.chars().collect();
    let (mut found, mut i, mut line) = (Vec::new(), 0, 1);
    let at = |i: usize| s.get(i).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    while i < s.len() {
        let from = i;
        let mut word = String::new();
        match at(i) {
            '/' if at(i + 1) == '/' => i += s[i..].iter().take_while(|c| **c != '\n').count(),
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= s.len() {
                        break;
                    }
                }
            }
            '"' => i = end_of_string(&s, i),
            '\'' if at(i + 1) == '\\' => i += 3 + s[(i + 3).min(s.len())..].iter().take_while(|c| **c != '\'').count() + 1,
            '\'' if at(i + 2) == '\'' => i += 3,
            '\'' => i += 1 + s[i + 1..].iter().take_while(|c| is_name(**c)).count(),
            c if is_name(c) => {
                word = s[i..].iter().take_while(|c| is_name(**c)).collect();
                i += word.chars().count();
                let hashes = s[i..].iter().take_while(|c| **c == '#').count();
                if matches!(&*word, "r" | "br" | "cr") && at(i + hashes) == '"' {
                    let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    let rest: String = s[i + hashes + 1..].iter().collect();
                    let length = rest.find(&end).map_or(rest.len(), |n| n + end.len());
                    i += hashes + 1 + rest[..length].chars().count();
                    word.clear();
                }
            }
            ':' if at(i + 1) == ':' => (word, i) = ("::".to_owned(), i + 2),
            c => {
                i += 1;
                if !c.is_whitespace() {
                    word = c.to_string();
                }
            }
        }
        if !word.is_empty() {
            found.push(Token { text: word, line, test: false });
        }
        line += s[from..i.min(s.len())].iter().filter(|c| **c == '\n').count();
    }
    mark_tests(&mut found);
    found
}

fn end_of_string(s: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < s.len() && s[i] != '"' {
        i += if s[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn matches_at(tokens: &[Token], i: usize, pattern: &[&str]) -> bool {
    tokens.len() >= i + pattern.len() && tokens[i..].iter().zip(pattern).all(|(token, text)| token.text == *text)
}

/// Marks each item under `#[cfg(test)]`, to its `;` or closing brace.
fn mark_tests(tokens: &mut [Token]) {
    let mut i = 0;
    while i < tokens.len() {
        if !matches_at(tokens, i, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            i += 1;
            continue;
        }
        let (mut depth, start) = (0i32, i);
        i += 7;
        while i < tokens.len() {
            let text = tokens[i].text.clone();
            depth += i32::from(matches!(&*text, "(" | "[" | "{")) - i32::from(matches!(&*text, ")" | "]" | "}"));
            i += 1;
            if depth == 0 && matches!(&*text, ";" | "}") {
                break;
            }
        }
        tokens[start..i].iter_mut().for_each(|token| token.test = true);
    }
}

/// One file of `src`.
struct Source {
    /// Relative to `src`.
    path: String,
    /// Its place in the crate: `model/text/mod.rs` is `[model, text]`.
    module: Vec<String>,
    text: String,
    tokens: Vec<Token>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let module = path.trim_end_matches(".rs").split('/').filter(|part| !matches!(*part, "mod" | "lib")).map(str::to_owned).collect();
        Self { path: path.to_owned(), module, text: text.to_owned(), tokens: tokens(text) }
    }

    /// All of `src`; a file whose module is declared under `#[cfg(test)]` is test code from end to end.
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> = rust_files("src").iter().map(|path| Self::new(&path["src/".len()..], &read(path))).collect();
        let test_modules: BTreeSet<Vec<String>> = all
            .iter()
            .flat_map(|source| {
                let declared = source.tokens.windows(3).filter(|w| w[0].test && w[0].text == "mod" && w[2].text == ";");
                declared.map(|w| [&source.module[..], &[w[1].text.clone()]].concat())
            })
            .collect();
        for source in all.iter_mut().filter(|s| test_modules.contains(&s.module)) {
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
        assert!(all.len() > 50 && !test_modules.is_empty(), "src was not found whole");
        all
    }

    fn is_test(&self) -> bool {
        self.tokens.iter().all(|token| token.test)
    }

    fn place(&self, i: usize) -> String {
        format!("src/{}:{}", self.path, self.tokens[i].line)
    }

    /// Places where one of `patterns` stands in code that is not test code.
    fn finds(&self, patterns: &[&[&str]]) -> Vec<String> {
        let hits = (0..self.tokens.len()).filter(|i| !self.tokens[*i].test);
        let hits = hits.flat_map(|i| patterns.iter().filter(move |p| matches_at(&self.tokens, i, p)).map(move |p| (i, p)));
        hits.map(|(i, pattern)| format!("{}: {}", self.place(i), pattern.concat())).collect()
    }

    /// Modules at the top of the crate that this file names by `crate::`, by `super::` or by the crate's name, and where.
    fn imports(&self) -> Vec<(String, usize)> {
        let (mut found, mut inline, mut depth) = (Vec::new(), Vec::<(String, usize)>::new(), 0);
        for i in 0..self.tokens.len() {
            match &*self.tokens[i].text {
                "{" => {
                    if i >= 2 && self.tokens[i - 2].text == "mod" {
                        inline.push((self.tokens[i - 1].text.clone(), depth));
                    }
                    depth += 1;
                }
                "}" => {
                    depth -= 1;
                    if inline.last().is_some_and(|(_, at)| *at == depth) {
                        inline.pop();
                    }
                }
                "crate" | "super" | "distill"
                    if matches_at(&self.tokens, i + 1, &["::"]) && (i == 0 || self.tokens[i - 1].text != "::") =>
                {
                    let mut paths = Vec::new();
                    expand(&self.tokens, i, &[], &mut paths);
                    let here: Vec<&str> = self.module.iter().map(String::as_str).chain(inline.iter().map(|(name, _)| &**name)).collect();
                    for path in paths {
                        let full = resolve(&here, &path);
                        let top = full.first().map(|top| ((*top).to_owned(), i));
                        found.extend(top.filter(|top| !found.contains(top)));
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// Writes out the tree of paths that starts at token `i`, after `prefix`; returns the token behind it.
fn expand<'a>(tokens: &'a [Token], mut i: usize, prefix: &[&'a str], out: &mut Vec<Vec<&'a str>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(i).map(|t| &*t.text) {
            Some("{") => {
                i += 1;
                while i < tokens.len() && tokens[i].text != "}" {
                    i = expand(tokens, i, &path, out);
                    i += tokens[i..].iter().take_while(|t| !matches!(&*t.text, "," | "}")).count();
                    i += usize::from(matches_at(tokens, i, &[","]));
                }
                return i + 1;
            }
            Some(name) if name != "*" && name != "<" => path.push(name),
            _ => {}
        }
        if !matches_at(tokens, i + 1, &["::"]) {
            out.push(path);
            return i + 1;
        }
        i += 2;
    }
}

/// The path from the crate's root.
fn resolve<'a>(here: &[&'a str], path: &[&'a str]) -> Vec<&'a str> {
    let mut full = here.to_vec();
    for segment in path {
        match *segment {
            "crate" | "distill" => full.clear(),
            "super" => _ = full.pop(),
            "self" => {}
            name => full.push(name),
        }
    }
    full
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, modules)| modules.contains(&module)).map(|(floor, _)| *floor)
}

/// Imports that go up or sideways.
fn floor_violations(source: &Source) -> Vec<String> {
    let Some(own) = source.module.first() else { return Vec::new() };
    let floor = |module: &str| floor_of(module).map_or("no floor".to_owned(), |n| format!("floor {n}"));
    let bad = source
        .imports()
        .into_iter()
        .filter(|(top, _)| top != own && floor_of(top).is_none_or(|n| floor_of(own).is_none_or(|own| n >= own)));
    bad.map(|(top, i)| format!("{}: {own} ({}) uses {top} ({})", source.place(i), floor(own), floor(&top))).collect()
}

fn tensor_violations(source: &Source) -> Vec<String> {
    if TENSORS.iter().any(|home| source.path.starts_with(home)) { Vec::new() } else { source.finds(&[&["candle_core"]]) }
}

fn writer_violations(source: &Source) -> Vec<String> {
    source.finds(&WRITERS)
}

fn convenience_violations(source: &Source) -> Vec<String> {
    source.finds(&[&[".", "unwrap", "("], &["todo", "!"], &["unimplemented", "!"], &["dbg", "!"]])
}

/// Generators that are not keyed, in test code too.
fn generator_violations(source: &Source) -> Vec<String> {
    let is_generator = |name: &str| name.starts_with("rand_") || name.starts_with("randn") || name == "set_seed" || name == "thread_rng";
    let hits = (1..source.tokens.len()).filter(|i| {
        let (before, name) = (&source.tokens[*i - 1].text, &*source.tokens[*i].text);
        matches!(&**before, "." | "::") && (is_generator(name) || name == "rand" && before == "::")
    });
    hits.map(|i| format!("{}: {}", source.place(i), source.tokens[i].text)).collect()
}

fn assert_none(what: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{what}:\n  {}", violations.join("\n  "));
}

/// Runs a rule over all files but the exceptions, each of which must be needed.
fn assert_rule(what: &str, rule: fn(&Source) -> Vec<String>, exceptions: &[(&str, &str)]) {
    let mut found = Vec::new();
    let mut needless: BTreeMap<&str, &str> = exceptions.iter().copied().collect();
    for source in Source::all() {
        let violations = rule(&source);
        if exceptions.iter().any(|(path, _)| *path == source.path) {
            if !violations.is_empty() {
                needless.remove(&*source.path);
            }
        } else {
            found.extend(violations);
        }
    }
    assert_none(what, found);
    assert!(needless.is_empty(), "{what}: these exceptions are not needed any more: {needless:?}");
}

#[test]
fn every_rule_notices_what_it_forbids() {
    let check = |rule: fn(&Source) -> Vec<String>, path: &str, text: &str, expected: &[&str]| {
        assert_eq!(rule(&Source::new(path, text)), expected, "{path}: {text}");
    };
    let floors = floor_violations as fn(&Source) -> Vec<String>;
    check(floors, "metric.rs", "use crate::key::Key;\nuse crate::trace::{self, Trace};", &[]);
    check(
        floors,
        "metric.rs",
        "\nuse crate::{key::Key, train::{Sft, State as S}};",
        &["src/metric.rs:2: metric (floor 4) uses train (floor 6)"],
    );
    check(floors, "key.rs", "fn f() { crate::publish::file() }", &["src/key.rs:1: key (floor 1) uses publish (floor 1)"]);
    check(
        floors,
        "verify/number.rs",
        "use super::extract; use super::super::report::x;",
        &["src/verify/number.rs:1: verify (floor 3) uses report (floor 7)"],
    );
    check(
        floors,
        "verify/mod.rs",
        "mod a { mod b { use super::super::number; } use super::super::rollout; }",
        &["src/verify/mod.rs:1: verify (floor 3) uses rollout (floor 5)"],
    );
    check(
        floors,
        "verify/mod.rs",
        "mod a {} mod b { use super::number; } use super::nowhere;",
        &["src/verify/mod.rs:1: verify (floor 3) uses nowhere (no floor)"],
    );
    check(floors, "main.rs", "fn main() { distill::cli::main() }", &[]);
    check(
        floors,
        "trace.rs",
        "// crate::train\n/* crate::train /* */ */ const A: &str = \"crate::train\"; const B: &str = r#\"\"crate::train\"#;",
        &[],
    );
    check(
        floors,
        "trace.rs",
        "const A: char = '\"'; use crate::stage; fn f<'a>(x: &'a str) {}",
        &["src/trace.rs:1: trace (floor 2) uses stage (floor 8)"],
    );
    check(tensor_violations, "rollout.rs", "use candle_core::Device;", &["src/rollout.rs:1: candle_core"]);
    check(tensor_violations, "train/sft.rs", "use candle_core::Device;", &[]);
    check(
        writer_violations,
        "report/mod.rs",
        "std::fs::write(a, b); File::create(a);",
        &["src/report/mod.rs:1: fs::write", "src/report/mod.rs:1: File::create"],
    );
    check(
        convenience_violations,
        "hub.rs",
        "x.unwrap(); x.unwrap_or(1); todo!(); dbg!(x)",
        &["src/hub.rs:1: .unwrap(", "src/hub.rs:1: todo!", "src/hub.rs:1: dbg!"],
    );
    check(
        convenience_violations,
        "hub.rs",
        "#[cfg(test)]\n#[a(b)]\nmod tests { fn f() { x.unwrap() } }\nfn g() { x.unwrap() }",
        &["src/hub.rs:4: .unwrap("],
    );
    check(convenience_violations, "hub.rs", "#[cfg(test)] fn f(x: [u8; 2]) { x.unwrap() }", &[]);
    check(
        generator_violations,
        "hub.rs",
        "Tensor::randn(0., 1.); x.rand_like(0., 1.); device.set_seed(1); Var::rand(0., 1.)",
        &["src/hub.rs:1: randn", "src/hub.rs:1: rand_like", "src/hub.rs:1: set_seed", "src/hub.rs:1: rand"],
    );
}

#[test]
fn modules_import_only_from_floors_below() {
    assert_none("imports that go up or sideways", Source::all().iter().flat_map(floor_violations).collect());
}

#[test]
fn every_module_has_one_floor_and_architecture_shows_it() {
    let there: BTreeSet<String> = Source::all().iter().filter_map(|s| s.module.first().cloned()).collect();
    let placed: Vec<&str> = FLOORS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    assert_eq!(placed.len(), there.len(), "modules and places: {there:?}");
    assert_eq!(placed.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), there);
    let page = read("ARCHITECTURE.md");
    for (floor, modules) in FLOORS {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("floor {floor} ")))
            .unwrap_or_else(|| panic!("ARCHITECTURE.md: no floor {floor}"));
        let shown = line.trim_start().split("  ").next().unwrap_or("");
        let shown: Vec<&str> = shown.split(' ').map(|name| name.trim_end_matches(".rs").trim_end_matches('/')).collect();
        assert_eq!(shown, modules, "floor {floor} in ARCHITECTURE.md");
    }
}

#[test]
fn tensors_appear_on_their_floors_only() {
    assert_rule("candle outside model/, sampler/ and train/", tensor_violations, &TENSOR_EXCEPTIONS);
}

#[test]
fn files_are_made_by_publish_and_the_journal_only() {
    assert_rule("files made without publish.rs", writer_violations, &WRITER_EXCEPTIONS);
}

#[test]
fn no_code_panics_for_convenience() {
    assert_rule("unwrap, todo, unimplemented or dbg outside tests", convenience_violations, &[]);
}

#[test]
fn all_randomness_is_keyed() {
    assert_rule("a generator that is not of key.rs", generator_violations, &[]);
    let elsewhere = rust_files("tests").into_iter().chain(rust_files("benches"));
    assert_none(
        "a generator that is not of key.rs",
        elsewhere.flat_map(|path| generator_violations(&Source::new(&path, &read(&path)))).collect(),
    );
}

#[test]
fn every_module_says_what_it_is() {
    let silent = Source::all().into_iter().filter(|s| !s.is_test() && !s.text.starts_with("//! "));
    assert_none("files that do not open with `//!`", silent.map(|s| s.path).collect());
}

#[test]
fn a_file_can_be_read_in_one_go() {
    let long = Source::all().into_iter().map(|s| (s.text.lines().count(), s.path)).filter(|(lines, _)| *lines > LARGEST_FILE);
    assert_none(&format!("files over {LARGEST_FILE} lines"), long.map(|(lines, path)| format!("{path}: {lines}")).collect());
}

/// Texts between single backticks, with their lines.
fn quoted(page: &str) -> Vec<(usize, &str)> {
    let lines = page.lines().enumerate().filter(|(_, line)| !line.starts_with("```"));
    lines.flat_map(|(n, line)| line.split('`').skip(1).step_by(2).map(move |text| (n + 1, text))).collect()
}

#[test]
fn architecture_names_tests_and_files_that_exist() {
    let page = read("ARCHITECTURE.md");
    let files: Vec<String> = ["src", "tests", "benches"].iter().flat_map(|folder| rust_files(folder)).collect();
    let code: String = files.iter().map(|path| read(path)).collect();
    let is_test =
        |text: &str| text.matches('_').count() >= 3 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let (mut missing, mut tests) = (Vec::new(), 0);
    for (line, text) in quoted(&page) {
        if is_test(text) {
            tests += 1;
            if !code.contains(&format!("fn {text}(")) {
                missing.push(format!("ARCHITECTURE.md:{line}: no test {text}"));
            }
        } else if text.ends_with(".rs")
            && !text.contains(['*', ' '])
            && !files.iter().any(|f| f == text || f.ends_with(&format!("/{text}")))
        {
            missing.push(format!("ARCHITECTURE.md:{line}: no file {text}"));
        }
    }
    assert!(tests >= 15, "{tests} tests named");
    assert_none("what ARCHITECTURE.md names", missing);
}

/// Top-level entries of the file tree in a page: of the fenced block in which a line begins with `src/`. Two spaces end a line's names.
fn tree_entries(page: &str) -> Vec<String> {
    let names = |line: &str| {
        let line = line.trim_start_matches(['├', '└', '─', ' ']);
        line.split("  ").next().unwrap_or("").split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let entries = |block: &str| block.lines().skip(1).filter(|line| !line.starts_with([' ', '│'])).flat_map(names).collect::<Vec<_>>();
    let mut trees = page.split("\n```").skip(1).step_by(2).map(entries).filter(|entries| entries.iter().any(|entry| entry == "src/"));
    trees.next().unwrap_or_default()
}

#[test]
fn the_tree_in_the_readme_is_there() {
    let nested = "a\n```text\n├── src/   code\n│   └── x.rs\n└── Cargo.toml deny.toml\n```\n";
    assert_eq!(tree_entries(nested), ["src/", "Cargo.toml", "deny.toml"]);
    let Ok(page) = read_to_string(root().join("README.md")) else {
        eprintln!("skipped: README.md is missing (its file tree)");
        return;
    };
    let entries = tree_entries(&page);
    assert!(entries.len() > 5, "README.md has no file tree: a fenced block in which a line begins with src/");
    assert_none("README.md names what is not there", entries.into_iter().filter(|entry| !root().join(entry).exists()).collect());
}

#[test]
fn every_recipe_is_valid_and_its_resolved_form_means_the_same() {
    let folder: PathBuf = root().join("recipes");
    let index = read("recipes/README.md");
    let mut recipes = 0;
    for path in std::fs::read_dir(folder).expect("recipes/ is there").map(|entry| entry.expect("it can be listed").path()) {
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        let recipe = Recipe::parse(&read(&format!("recipes/{name}")), &[]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let again =
            Recipe::parse(&recipe.to_toml(), &[]).unwrap_or_else(|error| panic!("{name}, resolved: {error:#}\n{}", recipe.to_toml()));
        assert_eq!(recipe.resolved, again.resolved, "{name}");
        assert!(index.contains(&format!("`{name}`")), "recipes/README.md does not name {name}");
        recipes += 1;
    }
    assert!(recipes > 1, "only {recipes} recipes");
}
