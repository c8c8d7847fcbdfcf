//! A temporary folder to run the program in, and what came of it.

use distill::shard::traces;
use distill::trace::Trace;
use expect_test::Expect;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The smallest form of the tiny recipe.
pub const TINY_TINY: &str = include_str!("../support/tiny-tiny.toml");
/// The trained teacher of [`Place::with_run`].
pub const TEACHER: &str = "run/teacher/grpo";

/// A working directory without network, cache or problem files.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        place.write("tiny.toml", TINY_TINY);
        place
    }

    /// With a finished run of `tiny.toml` in `run/`.
    pub fn with_run() -> Self {
        let place = Self::new();
        place.distill("run tiny.toml --run run").ok();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("inside the place")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The lines that a phase has written of its steps.
    pub fn metrics(&self, phase: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.read(&format!("{phase}/metrics.jsonl"))).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Copies the files of a model's folder.
    pub fn copy_model(&self, from: &str, to: &str) {
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            self.write(&format!("{to}/{name}"), self.read(&format!("{from}/{name}")));
        }
    }

    /// Runs the program with arguments that are separated by spaces.
    pub fn distill(&self, args: &str) -> Output {
        self.output(args, self.command().args(args.split_whitespace()))
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hf"));
        command.env_remove("DISTILL_DATA").env_remove("COLUMNS");
        command
    }

    pub fn output(&self, args: &str, command: &mut Command) -> Output {
        self.ended(args, command.output().expect("the program starts"))
    }

    fn ended(&self, args: &str, out: std::process::Output) -> Output {
        let here = self.0.path().display().to_string();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").replace(&here, "HERE");
        Output { args: args.to_owned(), code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
    }

    /// Starts the program, and stops it politely (SIGTERM) as soon as `ready` holds.
    pub fn stopped(&self, args: &str, ready: impl Fn() -> bool) -> Output {
        let mut command = self.command();
        command.args(args.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        while !ready() {
            assert!(child.try_wait().expect("a child").is_none(), "distill {args} ended before it could be stopped");
            std::thread::sleep(Duration::from_millis(2));
        }
        Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().expect("a shell");
        self.ended(args, child.wait_with_output().expect("it ends"))
    }

    /// The traces of a folder of shards.
    pub fn traces(&self, folder: &str) -> Vec<Trace> {
        traces(self.path(folder)).and_then(|rows| rows.collect()).unwrap_or_else(|e| panic!("{folder}: {e:#}"))
    }

    /// The same, as the JSON lines that are stored.
    pub fn lines(&self, folder: &str) -> Vec<String> {
        self.traces(folder).iter().map(|t| serde_json::to_string(t).expect("a trace is JSON")).collect()
    }

    /// Every file of this name below a folder, with the moment it was written.
    pub fn written(&self, folder: &str, name: &str) -> Vec<(PathBuf, std::time::SystemTime)> {
        fn walk(folder: &Path, name: &str, all: &mut Vec<(PathBuf, std::time::SystemTime)>) {
            for entry in std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
                if entry.is_dir() {
                    walk(&entry, name, all);
                } else if entry.ends_with(name) {
                    let when = entry.metadata().and_then(|m| m.modified()).expect("a time");
                    all.push((entry, when));
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.path(folder), name, &mut all);
        all.sort();
        all
    }
}

/// How the program ended.
#[derive(Debug)]
pub struct Output {
    pub args: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "distill {}\n{}\n{}", self.args, self.stdout, self.stderr);
        self
    }

    /// Exit code and stderr against a snapshot.
    #[track_caller]
    pub fn fails(&self, expect: Expect) {
        assert_ne!(self.code, Some(0), "distill {} did not fail\n{}", self.args, self.stdout);
        expect.assert_eq(&format!("{}: {}", self.code.unwrap_or(-1), self.stderr));
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("distill {}: {e}\n{}", self.args, self.stdout))
    }
}
