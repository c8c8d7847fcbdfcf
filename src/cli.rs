//! The command line: parse, dispatch, exit code; no arithmetic.

mod standalone;

use crate::hub;
use crate::model::Precision;
use crate::publish::Busy;
use crate::recipe::{Draft, Recipe, TINY, check_pair};
use crate::report;
use crate::sampler::Refused;
use crate::stage::{self, ConfigError, Interrupted, Run, Ui, config};
use crate::verify::{Extraction, Unavailable};
use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// From a teacher and checkable problems to a verified trace corpus and a student, and a report of how close it comes.
///
/// Without a command: `distill run` on the embedded tiny recipe.
#[derive(Parser)]
#[command(name = "distill", version, propagate_version = true, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    shared: Shared,
}

/// Flags that every command knows.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Options of every command")]
struct Shared {
    /// Run directory [default: runs/<name of the recipe>]
    #[arg(long, visible_alias = "out", global = true, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Set a key of the recipe, such as sample.n=8 or student.phase[0].steps=100 (repeatable)
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    overrides: Vec<String>,
    /// Threads of computation [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    threads: Option<u16>,
    /// Say what would be done and what it needs, and do nothing
    #[arg(long, global = true)]
    plan: bool,
    /// Where the recipe has changed its meaning: move what was made with the old one to superseded/ and go on
    #[arg(long, global = true)]
    force: bool,
    /// Results on stdout as JSON, no progress
    #[arg(long, global = true)]
    json: bool,
    /// Say more on stderr
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// The whole pipeline, skipping what is done [default recipe: the embedded tiny one]
    Run {
        /// A recipe (.toml); without one, the embedded tiny recipe
        recipe: Option<PathBuf>,
    },
    /// Look at a file of problems, and write a recipe for it to --out [default: <name of the file>.toml]; --force writes over one that is there
    Init(standalone::Init),
    /// The teacher's phases
    TrainTeacher(standalone::TrainTeacher),
    /// Attempts of the teacher at the problems, verified, into DIR/traces
    Sample(standalone::Sample),
    /// Keep what is worth learning from in DIR/corpus, and the rest with its reasons in DIR/corpus/dropped
    Filter(standalone::Filter),
    /// A model's opinions on traces, beside what the rules say, into DIR/judged
    Judge(standalone::Judge),
    /// The student's phases
    TrainStudent(standalone::TrainStudent),
    /// Measure student and teacher on the same problems
    #[command(visible_alias = "eval")]
    Evaluate(standalone::Evaluate),
    /// Look at a run, a folder of shards, a problem's attempts, or what was dropped and why
    Show {
        /// A run directory, a folder of shards, a .jsonl or .jsonl.zst file, or the id of a trace of a run in runs/
        path: PathBuf,
        /// All attempts at one problem, and a held-out one at several training steps
        #[arg(long, value_name = "ID")]
        problem: Option<String>,
        /// Traces that a filter rule dropped
        #[arg(long, value_name = "RULE")]
        dropped: Option<String>,
        /// One trace: what every rule of the filter said about it, and the place in its text
        #[arg(long, value_name = "ID")]
        trace: Option<String>,
        /// How many traces to print
        #[arg(short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..), allow_negative_numbers = true)]
        n: u32,
    },
    /// Judge pairs of reference and answer, or the traces of shards again, and list what changed
    Verify {
        /// A run directory, a folder of shards, or a .jsonl or .jsonl.zst file
        #[arg(required_unless_present = "pairs", conflicts_with = "pairs")]
        path: Option<PathBuf>,
        /// JSON lines {gold, pred, pred_kind: "response" or "expr"} or {task: "code", program, entry, calls, expected, limits?}; - reads stdin.
        /// Each comes back with correct, answer and reason, in its order
        #[arg(long, value_name = "FILE")]
        pairs: Option<PathBuf>,
        /// Only an answer that is marked as one counts: a box, an answer tag, a line with ####. Without this flag a run is judged as its recipe says, and
        /// anything else with flexible extraction
        #[arg(long)]
        strict: bool,
        /// Ask a second, simpler rule as well, and list where the two disagree and which references cannot be read
        #[arg(long)]
        audit: bool,
        /// How many traces to print
        #[arg(short, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..), allow_negative_numbers = true)]
        n: u32,
    },
    /// Write an adapter and the model that it was trained on as one model, into --out DIR
    Merge {
        /// A folder with adapter_config.json, a Hub id, or a run directory (its student's last phase)
        adapter: String,
        /// What the weights are written as
        #[arg(long, value_enum, default_value_t = Dtype::F32)]
        dtype: Dtype,
    },
    /// What this machine has and lacks, and what to do about it, with a dozen escapes that are tried in the sandbox; with a recipe, what would go wrong in a run of it
    Doctor {
        /// A recipe (.toml) to look at, with its problems and models; nothing is written, fetched or trained
        recipe: Option<PathBuf>,
    },
}

/// What weights are written as.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

fn pair(text: &str) -> Result<String, String> {
    check_pair(text).map(|()| text.to_owned())
}

/// Runs the program. To be called before any other thread is started.
pub fn main() -> ExitCode {
    // candle's own pool waits for work by spinning, on the very cores that ours compute on: it gets no threads.
    // SAFETY: no other thread runs yet that could read the environment.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    crate::memory::keep_freed();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::BrokenPipe
            {
                return ExitCode::SUCCESS;
            }
            stage::complain(&format!("error: {error:#}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 0 done, 1 failed, 2 wrong command line (clap's own), 75 locked, or for now without network or server, 78 recipe or environment, 143 stopped on request.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() || error.is::<hub::Stopped>() {
        stage::complain(&std::env::args().map(|argument| quoted(&argument)).collect::<Vec<_>>().join(" "));
        143
    } else if matches!(error.downcast_ref::<Busy>(), Some(Busy::Locked { .. })) || error.is::<hub::Temporary>() {
        75
    } else if error.is::<ConfigError>() || error.is::<Refused>() || error.is::<Busy>() || error.is::<Unavailable>() {
        78
    } else {
        1
    }
}

/// An argument as a shell reads it back.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@+%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) { argument.to_owned() } else { format!("'{}'", argument.replace('\'', "'\\''")) }
}

/// Threads that `--threads` may ask for per core of this machine.
const THREADS_PER_CORE: usize = 16;

fn run(cli: Cli) -> Result<()> {
    // 0 is all cores. The stack is that of a main thread, since one of these is what everything runs on.
    let threads = cli.shared.threads.map_or(0, usize::from);
    let most = THREADS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from);
    config(if threads <= most {
        Ok(())
    } else {
        Err(anyhow!("--threads must be at most {most} here, got {threads}: more only wait for each other"))
    })?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(8 << 20);
    config(pool.build_global().context("cannot start the threads; give fewer with --threads"))?;
    // From inside the pool a parallel loop begins at once; from outside, each one waits for a worker to wake.
    rayon::scope(|_| dispatch(cli))
}

fn dispatch(cli: Cli) -> Result<()> {
    let shared = cli.shared;
    match cli.command.unwrap_or(Command::Run { recipe: None }) {
        Command::Run { recipe } => {
            let recipe = match recipe {
                Some(path) => read(&path)?,
                None => Draft { text: TINY.to_owned(), ..Draft::default() },
            };
            Job { recipe, needs: Needs::Model, stages: &[""], show: Show::Report }.go(&shared, stage::run_all)
        }
        Command::Init(args) => print(&stage::init::init(&args.ask(&shared, columns())?)?),
        Command::TrainTeacher(args) => {
            let job = Job { recipe: args.recipe()?, needs: Needs::Teacher, stages: &["teacher/"], show: Show::Folder("teacher") };
            job.go(&shared, stage::phase::teacher)
        }
        Command::Sample(args) => {
            let show = Show::Folder(stage::sample::FOLDER);
            let job = Job { recipe: args.recipe()?, needs: Needs::Teacher, stages: &[stage::sample::FOLDER], show };
            job.go(&shared, stage::sample::stage)
        }
        Command::Filter(args) if args.measure_only => {
            let path = args.input().unwrap_or_else(|| shared.run.clone().unwrap_or_default());
            print(&stage::show::census(&stage::filter::census(&path)?, &path, shared.json, columns())?)
        }
        Command::Filter(args) if !args.what_if.is_empty() => {
            let now = config(args.recipe()?.parse(&shared.overrides))?;
            let then = config(
                args.what_if(&shared.overrides).map_err(|error| anyhow!(format!("{error:#}").replace("--set filter.", "--what-if "))),
            )?;
            let folder = shared.run.clone().unwrap_or_else(|| stage::default_folder(&now.name));
            let funnels = stage::filter::what_if(&folder, args.input().as_deref(), &now, &then)?;
            print(&stage::show::what_if(&args.what_if, &funnels, shared.json, columns())?)
        }
        Command::Filter(args) => {
            let input = args.input();
            let job = Job { recipe: args.recipe()?, needs: Needs::Nothing, stages: &[stage::filter::FOLDER], show: Show::Funnel };
            job.go(&shared, |run| stage::filter::stage(run, input.as_deref()))
        }
        Command::Judge(args) => {
            let show = Show::Folder(stage::judge::FOLDER);
            let job = Job { recipe: args.recipe()?, needs: Needs::Nothing, stages: &[stage::judge::FOLDER], show };
            job.go(&shared, |run| stage::judge::stage(run, &args.traces))
        }
        Command::TrainStudent(args) => {
            let train = |run: &Run| {
                stage::phase::student(run)?;
                stage::phase::controls(run)
            };
            let stages = &["student/", "controls/"];
            Job { recipe: args.recipe()?, needs: Needs::Student, stages, show: Show::Folder("student") }.go(&shared, train)
        }
        Command::Evaluate(args) => {
            let stored = args.stored_evaluations();
            let measure = |run: &Run| {
                stored.iter().try_for_each(|folder| stage::evaluate::adopt(run, folder))?;
                stage::evaluate::stage(run)?;
                report::write(&run.dir).map(|_| ())
            };
            let needs = if stored.is_empty() { Needs::ModelAndTasks } else { Needs::Nothing };
            Job { recipe: args.recipe()?, needs, stages: &["evaluation/"], show: Show::Report }.go(&shared, measure)
        }
        Command::Show { path, problem, dropped, trace, n } => {
            let look = stage::show::Look { problem, dropped, trace, n: n as usize, json: shared.json, run: shared.run, columns: columns() };
            print(&stage::show::show(&path, &look)?)
        }
        Command::Verify { path, pairs, strict, audit, n } => {
            if let Some(path) = path {
                let look = stage::verify::Look { strict, audit, n: n as usize, json: shared.json, columns: columns() };
                return print(&stage::verify::shards(&path, &look)?);
            }
            let judging = stage::verify::Judging { extraction: if strict { Extraction::Strict } else { Extraction::Flexible }, audit };
            let pairs = pairs.context("give shards, or --pairs FILE")?;
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let tally = stage::verify::pairs(&pairs, judging, &mut out)?;
            if !shared.json {
                stage::complain(&tally.to_string());
            }
            if tally.bad > 0 { Err(anyhow!("{} of {} lines could not be read", tally.bad, tally.lines)) } else { Ok(()) }
        }
        Command::Merge { adapter, dtype } => {
            stage::watch_for_interrupts()?;
            let adapter = standalone::model_id(&adapter, "student")?;
            let ask = stage::merge::Ask { adapter, out: shared.run, precision: dtype.into(), force: shared.force, json: shared.json };
            print(&stage::merge::merge(&ask)?)
        }
        Command::Doctor { recipe } => {
            let parsed = recipe.map(|path| read(&path)).transpose()?.map(|draft| draft.parse(&shared.overrides));
            let colour = stage::colours(std::io::stdout());
            let ask = stage::doctor::Ask { run: shared.run.as_deref(), json: shared.json, columns: columns(), colour };
            let report = match parsed {
                Some(parsed) => stage::doctor::recipe(parsed, &ask),
                None => stage::doctor::machine(&ask),
            };
            print(&report.text)?;
            report.verdict
        }
    }
}

/// What is printed at the end.
enum Show {
    Report,
    Funnel,
    Folder(&'static str),
}

/// What a recipe must have for a command to have anything to do.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Teacher,
    Student,
    Model,
    ModelAndTasks,
}

impl Needs {
    fn check(self, recipe: &Recipe, name: &str) -> Result<()> {
        let (teacher, student) = (recipe.teacher.is_some(), recipe.student.is_some());
        let missing = match self {
            Self::Teacher if !teacher => "[teacher] is missing: this command works with a teacher",
            Self::Student if !student => "[student] is missing: this command works with a student",
            Self::Model | Self::ModelAndTasks if !teacher && !student => {
                "neither [teacher] nor [student] is there: name a model in one of them"
            }
            Self::ModelAndTasks if recipe.evaluate.tasks.is_empty() => "[evaluate] is missing: name what to measure on in evaluate.tasks",
            _ => return Ok(()),
        };
        config(Err(if name.is_empty() { anyhow!(missing) } else { anyhow!("{name}: {missing}") }))
    }
}

/// A recipe and what a command makes of it.
struct Job<'a> {
    recipe: Draft,
    needs: Needs,
    /// What the folders of the command's stages begin with.
    stages: &'a [&'a str],
    show: Show,
}

impl Job<'_> {
    /// Parses the recipe, opens its run directory and does the work, or says what the work would be.
    fn go(self, shared: &Shared, work: impl FnOnce(&Run) -> Result<()>) -> Result<()> {
        let recipe = config(self.recipe.parse(&shared.overrides))?;
        self.needs.check(&recipe, &self.recipe.name)?;
        let folder = shared.run.clone().unwrap_or_else(|| stage::default_folder(&recipe.name));
        if shared.plan {
            let ask = stage::plan::Ask { stages: self.stages, json: shared.json, columns: columns() };
            return print(&stage::plan::plan(&recipe, &folder, &ask)?);
        }
        stage::watch_for_interrupts()?;
        let run = Run::open(folder, recipe, shared.force, Ui { json: shared.json, verbose: shared.verbose })?;
        work(&run)?;
        result(&run, shared.json, self.show)
    }
}

fn result(run: &Run, json: bool, show: Show) -> Result<()> {
    match show {
        Show::Report => {
            let report = report::Report::of(&run.dir)?;
            let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report::terminal(&report, &run.dir, columns()) };
            print(&text)?;
            report.gate()
        }
        Show::Funnel => print(&stage::show::funnel(&run.folder(stage::filter::FOLDER), json, columns())?),
        Show::Folder(stage) => print(&stage::show::finished(run, stage, json, columns())?),
    }
}

fn read(path: &Path) -> Result<Draft> {
    let text = config(std::fs::read_to_string(path).with_context(|| format!("cannot read the recipe {}", path.display())))?;
    Ok(Draft { text, name: path.display().to_string(), flags: &[] })
}

fn columns() -> usize {
    stage::columns(std::io::stdout())
}

/// Prints to stdout; a reader that has gone away is not an error of ours.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
