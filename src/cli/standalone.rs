//! Stages without a recipe file: flags become a recipe, so that there is one way to run a stage.

use crate::recipe::{Draft, Recipe};
use crate::stage::{config, init, show};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::builder::RangedI64ValueParser;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Keys of the recipe that flags give, for messages.
const FLAGS: [(&str, &str); 22] = [
    ("problems.file", "--problems"),
    ("problems.task", "--task"),
    ("problems.fields", "--fields"),
    ("problems.verify", "--verify"),
    ("teacher.model", "--teacher"),
    ("teacher.name", "--teacher-model"),
    ("student.model", "--student"),
    ("judge.model", "--judge"),
    ("judge.name", "--judge-model"),
    ("judge.votes", "--votes"),
    ("judge.traces", "--limit"),
    ("evaluate.tasks", "--tasks"),
    ("sample.n", "-n"),
    ("sample.temperature", "--temperature"),
    ("sample.top_p", "--top-p"),
    ("sample.max_tokens", "--max-tokens"),
    ("sample.prompt", "--prompt"),
    ("evaluate.n", "-n"),
    ("evaluate.temperature", "--temperature"),
    ("evaluate.top_p", "--top-p"),
    ("evaluate.max_tokens", "--max-tokens"),
    ("evaluate.prompt", "--prompt"),
];

/// At least one, in words that also fit a negative number.
fn at_least_1() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// `question=prompt,answer=target`.
fn fields(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| match pair.split_once('=').map(|(key, name)| (key.trim(), name.trim())) {
        Some((key @ ("question" | "answer" | "id"), name)) if !name.is_empty() => Ok((key.to_owned(), name.to_owned())),
        _ => Err(format!("{pair:?} is none of question=NAME, answer=NAME, id=NAME")),
    };
    text.split(',').map(pair).collect()
}

/// Problems on the command line.
#[derive(Args, Clone, Default)]
struct ProblemFlags {
    /// JSONL of your own problems, or of a task that --task names (problems.file)
    #[arg(long, value_name = "FILE")]
    problems: Option<PathBuf>,
    /// A task known by name: gsm8k, math500, aime24, arithmetic, countdown, knights, … (problems.task). Without --problems, arithmetic, countdown and knights
    /// are generated; of the others the training file in the folder DISTILL_DATA is taken (gsm8k_train.jsonl, math_train.jsonl, aime_1983_2023.jsonl), or,
    /// where that variable is not set, 20 problems of our own. What was taken is said on stderr
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Fields of your JSONL: question=prompt,answer=target, and id=key if it has ids (problems.fields); a known task has its own
    #[arg(long, value_name = "question=…,answer=…", value_parser = fields, conflicts_with = "task")]
    fields: Option<std::vec::Vec<(String, String)>>,
    /// How the answers of your problems are checked: number, math, exact, choice, regex, regex:PATTERN, countdown, knights, code, or a program of your own,
    /// '{ command = ["python", "check.py"] }' (problems.verify); a known task has its own
    #[arg(long, value_name = "CHECK", conflicts_with = "task")]
    verify: Option<String>,
}

impl ProblemFlags {
    fn add(&self, recipe: &mut Table) -> Result<()> {
        let mut table = Table::new();
        if let Some(file) = &self.problems {
            table.insert("file".into(), text(file)?);
        }
        put(&mut table, "task", &self.task);
        if let Some(check) = &self.verify {
            table.insert("verify".into(), check_value(check));
        }
        if let Some(fields) = &self.fields {
            let named: Table = fields.iter().map(|(key, name)| (key.clone(), name.as_str().into())).collect();
            table.insert("fields".into(), named.into());
        }
        if !table.is_empty() {
            recipe.insert("problems".into(), table.into());
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Init {
    /// JSONL of your own problems, one object on each line
    problems: PathBuf,
    /// Folder or Hub id of the teacher (teacher.model); of a folder, the chat template is used to show prompts
    #[arg(long, value_name = "MODEL")]
    teacher: String,
    /// Folder or Hub id of the student (student.model)
    #[arg(long, value_name = "MODEL")]
    student: String,
    /// Fields that are not to be guessed: question=prompt,answer=target,id=key, or some of these (problems.fields)
    #[arg(long, value_name = "question=…,answer=…", value_parser = fields)]
    fields: Option<std::vec::Vec<(String, String)>>,
}

impl Init {
    /// What is asked for; the recipe goes where `--out` says.
    pub fn ask(self, shared: &super::Shared, columns: usize) -> Result<init::Ask> {
        Ok(init::Ask {
            problems: self.problems,
            teacher: model_id(&self.teacher, "teacher")?,
            student: model_id(&self.student, "student")?,
            fields: self.fields.unwrap_or_default(),
            out: shared.run.clone(),
            force: shared.force,
            json: shared.json,
            columns,
        })
    }
}

/// Sampling settings on the command line.
#[derive(Args, Clone, Default)]
struct SamplingFlags {
    /// Attempts at each problem (sample.n, evaluate.n) [default: 4 to sample, 1 to evaluate]
    #[arg(short, value_name = "N", value_parser = at_least_1(), allow_negative_numbers = true)]
    n: Option<u32>,
    /// Sampling temperature; 0 takes the likeliest token (sample.temperature, evaluate.temperature) [default: 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Sample from the likeliest tokens that hold this share, in (0, 1] (sample.top_p, evaluate.top_p) [default: 1, all tokens]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// New tokens at most (sample.max_tokens, evaluate.max_tokens) [default: 2048]
    #[arg(long, value_name = "N", value_parser = at_least_1(), allow_negative_numbers = true)]
    max_tokens: Option<u32>,
    /// How the question is put: plain, r1, r1-zero, logic-rl (sample.prompt, evaluate.prompt) [default: plain]
    #[arg(long, value_name = "STYLE")]
    prompt: Option<String>,
    /// Problems at most, the first ones (sample.problems, evaluate.problems) [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_1(), allow_negative_numbers = true)]
    limit: Option<u32>,
}

impl SamplingFlags {
    fn table(&self) -> Table {
        let mut table = Table::new();
        put(&mut table, "n", &self.n.map(i64::from));
        put(&mut table, "temperature", &self.temperature);
        put(&mut table, "top_p", &self.top_p);
        put(&mut table, "max_tokens", &self.max_tokens.map(i64::from));
        put(&mut table, "prompt", &self.prompt);
        put(&mut table, "problems", &self.limit.map(i64::from));
        table
    }
}

#[derive(Args)]
pub struct TrainTeacher {
    /// A recipe (.toml); or give the flags below
    #[arg(conflicts_with_all = ["teacher", "ProblemFlags"])]
    recipe: Option<PathBuf>,
    /// Folder or Hub id of the teacher, to be trained with GRPO (teacher.model)
    #[arg(long, value_name = "MODEL", required_unless_present = "recipe")]
    teacher: Option<String>,
    #[command(flatten)]
    problems: ProblemFlags,
}

impl TrainTeacher {
    pub fn recipe(&self) -> Result<Draft> {
        recipe_or(&self.recipe, "train-teacher", |recipe| {
            let teacher = self.teacher.as_ref().context("train-teacher needs a RECIPE or --teacher MODEL")?;
            let mut table = model(teacher, "teacher")?;
            table.insert("phase".into(), vec![phase("grpo", None)].into());
            recipe.insert("teacher".into(), table.into());
            self.problems.add(recipe)
        })
    }
}

#[derive(Args)]
pub struct Sample {
    /// A recipe (.toml); or give the flags below
    #[arg(conflicts_with_all = ["teacher", "ProblemFlags", "SamplingFlags"])]
    recipe: Option<PathBuf>,
    /// Folder or Hub id of the teacher, or the address of an OpenAI-compatible server such as http://host:8000/v1 (teacher.model); its key is taken from
    /// DISTILL_API_KEY, else OPENAI_API_KEY
    #[arg(long, value_name = "MODEL", required_unless_present = "recipe")]
    teacher: Option<String>,
    /// Which of the server's models (teacher.name)
    #[arg(long, value_name = "NAME", requires = "teacher")]
    teacher_model: Option<String>,
    #[command(flatten)]
    problems: ProblemFlags,
    #[command(flatten)]
    sampling: SamplingFlags,
}

impl Sample {
    pub fn recipe(&self) -> Result<Draft> {
        recipe_or(&self.recipe, "sample", |recipe| {
            let teacher = self.teacher.as_ref().context("sample needs a RECIPE or --teacher MODEL")?;
            let mut table = model(teacher, "teacher")?;
            put(&mut table, "name", &self.teacher_model);
            recipe.insert("teacher".into(), table.into());
            recipe.insert("sample".into(), self.sampling.table().into());
            self.problems.add(recipe)
        })
    }
}

#[derive(Args)]
pub struct Filter {
    /// A recipe (.toml), or traces: a run directory, a folder of shards, a .jsonl or .jsonl.zst file
    input: PathBuf,
    /// Print the funnel as it is, and as it would be with this key of [filter], such as language.min=0.98 (repeatable); writes nothing
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::pair)]
    pub what_if: Vec<String>,
    /// Print what the traces are like: language, readability, repetition, behaviours; filters and writes nothing
    #[arg(long, conflicts_with = "what_if")]
    pub measure_only: bool,
}

impl Filter {
    /// The traces, where not a recipe was given.
    pub fn input(&self) -> Option<PathBuf> {
        (!is_recipe(&self.input)).then(|| self.input.clone())
    }

    /// The recipe with the keys of `--what-if` over those of `--set`.
    pub fn what_if(&self, overrides: &[String]) -> Result<Recipe> {
        let key = |pair: &String| if pair.starts_with("filter.") { pair.clone() } else { format!("filter.{pair}") };
        let overrides: Vec<String> = overrides.iter().cloned().chain(self.what_if.iter().map(key)).collect();
        self.recipe()?.parse(&overrides)
    }

    pub fn recipe(&self) -> Result<Draft> {
        let path = is_recipe(&self.input).then(|| self.input.clone());
        recipe_or(&path, "filter", |recipe| {
            let rules = ["correct", "finished", "exact_duplicate"];
            let table: Table = rules.into_iter().map(|rule| (rule.to_owned(), Value::Boolean(true))).collect();
            recipe.insert("filter".into(), table.into());
            Ok(())
        })
    }
}

#[derive(Args)]
pub struct Judge {
    /// Traces: a run directory, a folder of shards, a .jsonl or .jsonl.zst file
    #[arg(value_name = "SHARDS")]
    pub traces: PathBuf,
    /// Folder or Hub id of the judge, or the address of an OpenAI-compatible server (judge.model)
    #[arg(long, value_name = "MODEL")]
    judge: String,
    /// Which of the server's models (judge.name)
    #[arg(long, value_name = "NAME")]
    judge_model: Option<String>,
    /// Opinions on each trace; more than half of them decide (judge.votes) [default: 3]
    #[arg(long, value_name = "N", value_parser = at_least_1(), allow_negative_numbers = true)]
    votes: Option<u32>,
    /// Traces at most, a random part of them (judge.traces) [default: 200]
    #[arg(long, value_name = "N", value_parser = at_least_1(), allow_negative_numbers = true)]
    limit: Option<u32>,
}

impl Judge {
    pub fn recipe(&self) -> Result<Draft> {
        recipe_or(&None, "judge", |recipe| {
            let mut table = model(&self.judge, "student")?;
            put(&mut table, "name", &self.judge_model);
            put(&mut table, "votes", &self.votes.map(i64::from));
            put(&mut table, "traces", &self.limit.map(i64::from));
            recipe.insert("judge".into(), table.into());
            Ok(())
        })
    }
}

#[derive(Args)]
pub struct TrainStudent {
    /// A recipe (.toml); or give the flags below
    #[arg(conflicts_with_all = ["student", "traces"])]
    recipe: Option<PathBuf>,
    /// Folder or Hub id of the student (student.model)
    #[arg(long, value_name = "MODEL", required_unless_present = "recipe")]
    student: Option<String>,
    /// Traces to learn from: a run directory, a folder of shards, a .jsonl or .jsonl.zst file (student.phase[0].data)
    #[arg(long, value_name = "SHARDS", required_unless_present = "recipe")]
    traces: Option<PathBuf>,
}

impl TrainStudent {
    pub fn recipe(&self) -> Result<Draft> {
        recipe_or(&self.recipe, "train-student", |recipe| {
            let student = self.student.as_ref().context("train-student needs a RECIPE or --student MODEL")?;
            let traces = self.traces.as_ref().context("train-student needs --traces SHARDS")?;
            let mut table = model(student, "student")?;
            table.insert("phase".into(), vec![phase("sft", Some(text(&crate::stage::training_shards(traces)?)?))].into());
            recipe.insert("student".into(), table.into());
            Ok(())
        })
    }
}

#[derive(Args)]
pub struct Evaluate {
    /// A recipe (.toml); or give the flags below
    #[arg(conflicts_with_all = ["student", "teacher", "tasks", "ProblemFlags", "SamplingFlags"])]
    recipe: Option<PathBuf>,
    /// Folder, Hub id or run directory of the student (student.model)
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["recipe", "teacher"])]
    student: Option<String>,
    /// Folder, Hub id, run directory or server's address of the teacher, or a stored evaluation of it (teacher.model)
    #[arg(long, value_name = "MODEL")]
    teacher: Option<String>,
    /// Which of the server's models (teacher.name)
    #[arg(long, value_name = "NAME", requires = "teacher")]
    teacher_model: Option<String>,
    /// Names of tasks, with commas (evaluate.tasks): gsm8k, math500, aime24, … are read from the folder DISTILL_DATA (gsm8k_test.jsonl, …), or are 20
    /// problems of our own where it is not set; arithmetic, countdown and knights are generated
    #[arg(long, value_name = "TASKS", value_delimiter = ',', required_unless_present_any = ["recipe", "problems"])]
    tasks: Vec<String>,
    #[command(flatten)]
    problems: ProblemFlags,
    #[command(flatten)]
    sampling: SamplingFlags,
}

impl Evaluate {
    /// Folders of evaluations made before, given instead of a teacher.
    pub fn stored_evaluations(&self) -> Vec<PathBuf> {
        self.teacher.iter().map(PathBuf::from).filter(|p| p.join("results.jsonl").exists()).collect()
    }

    pub fn recipe(&self) -> Result<Draft> {
        recipe_or(&self.recipe, "evaluate", |recipe| {
            if let Some(student) = &self.student {
                recipe.insert("student".into(), model(student, "student")?.into());
            }
            if let Some(teacher) = self.teacher.as_ref().filter(|_| self.stored_evaluations().is_empty()) {
                let mut table = model(teacher, "teacher")?;
                put(&mut table, "name", &self.teacher_model);
                recipe.insert("teacher".into(), table.into());
            }
            let own = (self.tasks.is_empty() && self.problems.problems.is_some()).then(|| "own".to_owned());
            let tasks: Vec<Value> = self.tasks.iter().chain(&own).map(|t| Value::String(t.clone())).collect();
            let mut table = self.sampling.table();
            table.insert("tasks".into(), tasks.into());
            recipe.insert("evaluate".into(), table.into());
            self.problems.add(recipe)
        })
    }
}

/// A recipe file, or a recipe made from flags under the command's name.
fn recipe_or(path: &Option<PathBuf>, name: &str, build: impl FnOnce(&mut Table) -> Result<()>) -> Result<Draft> {
    if let Some(path) = path {
        return super::read(path);
    }
    let mut recipe = Table::new();
    recipe.insert("name".into(), name.into());
    let text = build(&mut recipe).and_then(|()| toml::to_string(&recipe).context("cannot write the flags as a recipe"));
    Ok(Draft { text: config(text)?, name: String::new(), flags: &FLAGS })
}

/// A folder or a Hub id as it is; of a run directory the folder of its last model of that role.
pub(super) fn model_id(id: &str, role: &str) -> Result<String> {
    let path = Path::new(id);
    if !path.join("recipe.toml").exists() {
        return Ok(id.to_owned());
    }
    let folder = show::last_model(path, role)?;
    Ok(folder.to_str().ok_or_else(|| anyhow!("{} is not valid UTF-8", folder.display()))?.to_owned())
}

/// `[teacher]` or `[student]` for what [`model_id`] takes.
fn model(id: &str, role: &str) -> Result<Table> {
    Ok([("model".to_owned(), Value::String(model_id(id, role)?))].into_iter().collect())
}

fn phase(method: &str, data: Option<Value>) -> Value {
    let mut table = Table::new();
    table.insert("method".into(), method.into());
    if let Some(data) = data {
        table.insert("data".into(), data);
    }
    table.into()
}

fn put<T: Clone + Into<Value>>(table: &mut Table, key: &str, value: &Option<T>) {
    if let Some(value) = value {
        table.insert(key.to_owned(), value.clone().into());
    }
}

fn text(path: &Path) -> Result<Value> {
    Ok(Value::String(path.to_str().ok_or_else(|| anyhow!("{} is not valid UTF-8", path.display()))?.to_owned()))
}

/// A check as a recipe writes it: a name, or a table in TOML.
fn check_value(text: &str) -> Value {
    let table = || format!("x = {text}").parse::<Table>().ok()?.remove("x");
    if text.trim_start().starts_with('{') { table().unwrap_or_else(|| text.into()) } else { text.into() }
}

fn is_recipe(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml")
}
