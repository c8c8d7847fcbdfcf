//! Problems: readers for stored sets, generators without end, and our own samples.
//!
//! Everything that leaves this module is a `Problem` whose reference is already machine-checkable, or an `Unusable` with its place. It does not know
//! prompts, models or how a response is judged. What a recipe calls a task is [`Task`]; what it calls `verify` is [`Check`].

pub mod arithmetic;
mod check;
pub mod cold_start;
mod command;
pub mod countdown;
pub mod countdown_start;
pub mod detect;
pub mod knights;
pub mod number;
pub mod pattern;
mod read;
mod row;

pub use check::Check;
pub use command::CommandLine;
pub use read::{Fields, Layout, read};

use crate::problem::Problem;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a file gave: every line is in one of the two lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub problems: Vec<Problem>,
    pub unusable: Vec<Unusable>,
}

/// A line that was read but has no reference to check an answer against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    /// `file:line`, counted from 1.
    pub place: String,
    pub id: String,
    pub reason: String,
}

/// A task that recipes know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Task {
    Arithmetic,
    Gsm8k,
    Math,
    Math500,
    Aime24,
    Aime25,
    Countdown,
    /// Three small numbers, asked in signs alone; for models that start from nothing.
    CountdownTiny,
    Knights,
    HumanEval,
    Mbpp,
}

impl Task {
    pub const ALL: [Self; 11] = [
        Self::Arithmetic,
        Self::Gsm8k,
        Self::Math,
        Self::Math500,
        Self::Aime24,
        Self::Aime25,
        Self::Countdown,
        Self::CountdownTiny,
        Self::Knights,
        Self::HumanEval,
        Self::Mbpp,
    ];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Gsm8k => "gsm8k",
            Self::Math => "math",
            Self::Math500 => "math500",
            Self::Aime24 => "aime24",
            Self::Aime25 => "aime25",
            Self::Countdown => "countdown",
            Self::CountdownTiny => "countdown-tiny",
            Self::Knights => "knights",
            Self::HumanEval => "humaneval",
            Self::Mbpp => "mbpp",
        }
    }

    /// How its references are checked.
    pub fn check(self) -> Check {
        match self {
            Self::Arithmetic | Self::Gsm8k | Self::Aime24 | Self::Aime25 => Check::Number,
            Self::Math | Self::Math500 => Check::Math,
            Self::Countdown | Self::CountdownTiny => Check::Countdown,
            Self::Knights => Check::Knights,
            Self::HumanEval | Self::Mbpp => Check::Code,
        }
    }

    /// Name of its evaluation set in a folder of problem files; `None` for what is only generated.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::Arithmetic | Self::CountdownTiny => None,
            Self::Gsm8k => Some("gsm8k_test.jsonl"),
            Self::Math => Some("math_test.jsonl"),
            Self::Math500 => Some("math500.jsonl"),
            Self::Aime24 => Some("aime_2024.jsonl"),
            Self::Aime25 => Some("aime_2025.jsonl"),
            Self::Countdown => Some("countdown.jsonl"),
            Self::Knights => Some("knights_knaves_test.jsonl"),
            Self::HumanEval => Some("humaneval.jsonl"),
            Self::Mbpp => Some("mbpp_sanitized.jsonl"),
        }
    }

    /// Name of its training set in a folder of problem files, of which no problem is in an evaluation set; `None` for what is generated.
    pub fn training_file(self) -> Option<&'static str> {
        match self {
            Self::Gsm8k => Some("gsm8k_train.jsonl"),
            Self::Math | Self::Math500 => Some("math_train.jsonl"),
            Self::Aime24 | Self::Aime25 => Some("aime_1983_2023.jsonl"),
            Self::Arithmetic | Self::Countdown | Self::CountdownTiny | Self::Knights | Self::HumanEval | Self::Mbpp => None,
        }
    }

    /// Our own problems of this kind, embedded in the program: name and JSONL.
    fn sample_file(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Arithmetic | Self::CountdownTiny => None,
            Self::Gsm8k => Some(("data/samples/gsm8k.jsonl", include_str!("../../data/samples/gsm8k.jsonl"))),
            Self::Math | Self::Math500 => Some(("data/samples/math.jsonl", include_str!("../../data/samples/math.jsonl"))),
            Self::Aime24 | Self::Aime25 => Some(("data/samples/aime.jsonl", include_str!("../../data/samples/aime.jsonl"))),
            Self::Countdown => Some(("data/samples/countdown.jsonl", include_str!("../../data/samples/countdown.jsonl"))),
            Self::Knights => Some(("data/samples/knights.jsonl", include_str!("../../data/samples/knights.jsonl"))),
            Self::HumanEval | Self::Mbpp => Some(("data/samples/code.jsonl", include_str!("../../data/samples/code.jsonl"))),
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|t| t.name() == text).ok_or_else(|| format!("unknown task {text:?}; known are {names}"))
    }
}

impl TryFrom<String> for Task {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Task> for String {
    fn from(task: Task) -> Self {
        task.name().to_owned()
    }
}

/// Where the evaluation set of `task` is on the Hugging Face Hub: name of the data set, as the registry has it.
pub fn hub_of(task: Task) -> Option<String> {
    let registry: toml::Table = include_str!("../../data/registry.toml").parse().ok()?;
    Some(registry.get(task.name())?.get("hub")?.as_str()?.to_owned())
}

/// The evaluation problems of `task`: its file in `folder`, or the embedded samples where no folder is given.
///
/// # Errors
/// When the folder has no such file, the file cannot be read, or the task is only generated.
pub fn load(task: Task, folder: Option<&Path>) -> anyhow::Result<Loaded> {
    load_file(task, task.file(), folder)
}

/// As [`load`], the problems to train on.
pub fn load_training(task: Task, folder: Option<&Path>) -> anyhow::Result<Loaded> {
    load_file(task, task.training_file(), folder)
}

fn load_file(task: Task, file: Option<&str>, folder: Option<&Path>) -> anyhow::Result<Loaded> {
    let Some(file) = file else { bail!("{task} has no file of such problems: it is generated, or for evaluation only") };
    let Some(folder) = folder else {
        return samples(task.name())
            .with_context(|| format!("there are no samples of our own for {task}; name the folder that holds {file} in DISTILL_DATA"));
    };
    let path = folder.join(file);
    ensure!(
        path.is_file(),
        "no {file} in {} for the task {task}; put it there, name a file of your own, or leave the folder out to use our own samples",
        folder.display()
    );
    read(&path, Layout::Named(task))
}

/// Our own problems in the manner of `task`. Their task is called `<task>-sample`, so that no result on them stands beside published figures.
///
/// `None` for an unknown task and for one that is only generated.
pub fn samples(task: &str) -> Option<Loaded> {
    let task: Task = task.parse().ok()?;
    let (file, text) = task.sample_file()?;
    let mut loaded = read::parse(text.as_bytes(), file, Layout::Named(task)).expect("a test reads every embedded sample");
    for problem in &mut loaded.problems {
        problem.task = format!("{task}-sample");
    }
    Some(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Answer, Language};

    #[test]
    fn task_names_are_those_of_recipes() {
        for task in Task::ALL {
            assert_eq!(task.name().parse(), Ok(task));
        }
        assert_eq!(
            "gsm".parse::<Task>(),
            Err(r#"unknown task "gsm"; known are arithmetic, gsm8k, math, math500, aime24, aime25, countdown, countdown-tiny, knights, humaneval, mbpp"#
                .to_owned())
        );
        assert_eq!(serde_json::to_string(&Task::Aime24).ok().as_deref(), Some("\"aime24\""));
    }

    #[test]
    fn every_sample_is_usable_and_sound() {
        for task in Task::ALL {
            let Some(loaded) = samples(task.name()) else {
                assert!(matches!(task, Task::Arithmetic | Task::CountdownTiny), "{task}");
                continue;
            };
            assert_eq!((loaded.problems.len(), loaded.unusable.len()), (20, 0), "{task}: {:?}", loaded.unusable);
            for p in &loaded.problems {
                assert_eq!(p.task, format!("{task}-sample"));
                match &p.answer {
                    Answer::Countdown { numbers, target } => assert!(countdown::solve(numbers, *target).is_some(), "{}", p.id),
                    Answer::Number { value } if task.name().starts_with("aime") => {
                        assert!(value.parse::<u32>().is_ok_and(|v| v <= 999), "{}: {value}", p.id);
                    }
                    _ => {}
                }
            }
        }
        let gsm8k = samples("gsm8k").expect("embedded").problems;
        assert_eq!(gsm8k.iter().filter(|p| p.language == Language::Zh).count(), 10);
        assert_eq!(samples("nothing"), None);
    }

    #[test]
    fn registry_names_readers_that_exist() {
        let registry: toml::Table = include_str!("../../data/registry.toml").parse().expect("valid TOML");
        for task in Task::ALL {
            assert_eq!(registry.contains_key(task.name()), task.file().is_some(), "{task}");
        }
        for (name, entry) in &registry {
            let reader = entry["reader"].as_str().expect("text");
            assert!(reader.parse::<Task>().is_ok() || reader.parse::<Check>().is_ok(), "{name}: {reader}");
            assert!(matches!(entry["use"].as_str(), Some("train" | "evaluate")), "{name}");
        }
    }

    #[test]
    fn a_folder_without_the_file_says_so() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = load(Task::Gsm8k, Some(folder.path())).expect_err("missing").to_string();
        assert!(error.starts_with("no gsm8k_test.jsonl in ") && error.contains("samples"), "{error}");
        assert!(load(Task::Arithmetic, None).is_err());
        assert_eq!(load(Task::Aime25, None).ok(), samples("aime25"));
    }

    /// On files that nobody here wrote.
    #[test]
    fn real_files_are_read_whole() {
        let Some(folder) = std::env::var_os("DISTILL_DATA").map(std::path::PathBuf::from) else {
            eprintln!("skipped: DISTILL_DATA is unset (reading the real problem files)");
            return;
        };
        let files = [
            ("gsm8k_train.jsonl", Task::Gsm8k, 7473),
            ("gsm8k_test.jsonl", Task::Gsm8k, 1319),
            ("math_train.jsonl", Task::Math, 7469),
            ("math_test.jsonl", Task::Math, 5000),
            ("math500.jsonl", Task::Math500, 500),
            ("aime_1983_2023.jsonl", Task::Aime24, 975),
            ("aime_2024.jsonl", Task::Aime24, 30),
            ("aime_2025.jsonl", Task::Aime25, 30),
            ("countdown.jsonl", Task::Countdown, 2000),
            ("knights_knaves_train.jsonl", Task::Knights, 1500),
            ("knights_knaves_test.jsonl", Task::Knights, 500),
            ("humaneval.jsonl", Task::HumanEval, 164),
            ("mbpp_sanitized.jsonl", Task::Mbpp, 399),
        ];
        for (file, task, rows) in files {
            let loaded = read(&folder.join(file), Layout::Named(task)).unwrap_or_else(|e| panic!("{e:#}"));
            let numeric = loaded.problems.iter().filter(|p| matches!(p.answer, Answer::Number { .. })).count();
            eprintln!("{file}: {} usable ({numeric} numeric), {} unusable", loaded.problems.len(), loaded.unusable.len());
            assert_eq!((loaded.problems.len(), loaded.unusable.len()), (rows, 0), "{file}: {:?}", loaded.unusable.first());
            assert_eq!(numeric == rows, task.check() == Check::Number, "{file}");
        }
        assert_eq!(load(Task::Knights, Some(&folder)).expect("read above").problems.len(), 500);
        assert_eq!(load_training(Task::Math500, Some(&folder)).expect("read above").problems.len(), 7469);
    }

    #[test]
    fn stored_countdown_answers_reach_their_targets() {
        let Some(folder) = std::env::var_os("DISTILL_DATA").map(std::path::PathBuf::from) else {
            eprintln!("skipped: DISTILL_DATA is unset (stored countdown answers)");
            return;
        };
        let path = folder.join("countdown.jsonl");
        let loaded = read(&path, Layout::Named(Task::Countdown)).expect("readable");
        let text = std::fs::read_to_string(&path).expect("readable");
        let rows: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("json")).collect();
        assert_eq!(rows.len(), loaded.problems.len());
        for (row, p) in rows.iter().zip(&loaded.problems) {
            let Answer::Countdown { numbers, target } = &p.answer else { panic!("{p:?}") };
            let stored = row["answer"].as_str().expect("text");
            assert!(countdown::tests::is_solution(stored, numbers, *target), "{}: {stored}", p.id);
            let found = countdown::solve(numbers, *target).unwrap_or_else(|| panic!("{}: the solver finds nothing", p.id));
            assert!(countdown::tests::is_solution(&found, numbers, *target), "{}: {found}", p.id);
        }
    }
}
