//! `distill init`: from a file of problems to a recipe that runs as it is, and to a page that says what was found.
//!
//! What a file is like, `tasks/detect.rs` says; here it becomes text. It writes one file, the recipe, and starts no run.

use super::run::config;
use crate::model::Config;
use crate::model::text::Text;
use crate::problem::{Answer, Problem};
use crate::recipe::Draft;
use crate::report::text::{fit, harmless, thousands, wrap};
use crate::rollout::{PromptStyle, render};
use crate::tasks::Check;
use crate::tasks::detect::{Census, Proposal, count, propose};
use crate::verify::Extraction;
use crate::verify::math::Reference;
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What is asked for.
pub struct Ask {
    pub problems: PathBuf,
    pub teacher: String,
    pub student: String,
    /// Fields that need not be looked for: `question`, `answer` or `id`, and the name.
    pub fields: Vec<(String, String)>,
    /// Where the recipe goes; beside the working folder's other files, under the problems' name, by default.
    pub out: Option<PathBuf>,
    /// Whether a file that is there may be written over.
    pub force: bool,
    pub json: bool,
    pub columns: usize,
}

/// Prompts that are shown.
const PROMPTS: usize = 3;
/// Lines of a prompt that are shown.
const PROMPT_LINES: usize = 14;
/// Tokens of an answer, where the teacher's positions leave room for a prompt as well.
const MAX_TOKENS: usize = 2048;
/// Tokens of a sequence that is trained on, where the student has as many positions.
const MAX_LENGTH: usize = 4096;

/// Looks at the problems, writes the recipe, and says what was found.
///
/// # Errors
/// Where the file cannot be read or told, no problem in it can be used, or the recipe is there already.
pub fn init(ask: &Ask) -> Result<String> {
    let proposal = config(propose(&ask.problems, &ask.fields))?;
    let name = name_of(&ask.problems);
    let census = config(count(&ask.problems, &proposal, &name, unreadable))?;
    if census.usable == 0 {
        let why = census.unusable.first().map(|u| format!("line {}: {}", u.place, u.reason));
        let why = why.or_else(|| census.broken.first().map(|(line, why)| format!("line {line}: {why}"))).unwrap_or_default();
        return config(Err(anyhow!("no problem of {} can be used; {why}", ask.problems.display())));
    }
    let out = ask.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let max_tokens = positions(&ask.teacher)?.map_or(MAX_TOKENS, |positions| MAX_TOKENS.min(positions / 2));
    let max_length = positions(&ask.student)?.map_or(MAX_LENGTH, |positions| MAX_LENGTH.min(positions));
    let found = Found { ask, proposal: &proposal, census: &census, name: &name, out: &out, max_tokens, max_length };
    let text = found.recipe();
    Draft { text: text.clone(), ..Draft::default() }.parse(&[]).context("the recipe that was made is not valid")?;
    if out.exists() && !ask.force {
        return config(Err(anyhow!("{} is there already; --force writes over it, --out names another file", out.display())));
    }
    crate::publish::file(&out, text.as_bytes())?;
    if ask.json { found.json() } else { found.page() }
}

/// Why a reference that was read cannot be judged by the rules after all.
fn unreadable(problem: &Problem) -> Option<String> {
    let Answer::Math { text } = &problem.answer else { return None };
    let why = Reference::read(text).unreadable()?;
    Some(format!("the reference {:?} is no mathematics that can be compared ({why})", fit(text, 40)))
}

/// The problems' file as the name of a run.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "mine".to_owned() } else { name.to_owned() }
}

/// Positions of a model in a folder; those of one on the Hub or a server are not asked for.
fn positions(model: &str) -> Result<Option<usize>> {
    let folder = Path::new(model);
    Ok(if folder.join("config.json").is_file() { Some(config(Config::load(folder))?.max_positions) } else { None })
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

struct Found<'a> {
    ask: &'a Ask,
    proposal: &'a Proposal,
    census: &'a Census,
    name: &'a str,
    out: &'a Path,
    max_tokens: usize,
    max_length: usize,
}

impl Found<'_> {
    /// Whether an instruction to box the answer helps.
    fn style(&self) -> PromptStyle {
        match self.proposal.check {
            Check::Code | Check::Command(_) | Check::Judge => PromptStyle::Plain,
            _ => PromptStyle::R1,
        }
    }

    fn extraction(&self) -> Extraction {
        if self.style() == PromptStyle::R1 { Extraction::Strict } else { Extraction::Flexible }
    }

    /// `[problems]` without its head.
    fn problems(&self) -> String {
        let Proposal { fields, check, task, .. } = self.proposal;
        let file = quoted(&self.ask.problems.display().to_string());
        let mut lines = match task {
            Some(task) => format!("task = \"{task}\"   # the file is written as this set is published\nfile = {file}\n"),
            None => {
                let id = fields.id.as_ref().map_or(String::new(), |id| format!(", id = {}", quoted(id)));
                let (question, answer) = (quoted(&fields.question), quoted(&fields.answer));
                format!(
                    "task = {}\nfile = {file}\nfields = {{ question = {question}, answer = {answer}{id} }}\nverify = \"{check}\"   # {}\n",
                    quoted(self.name),
                    explained(check)
                )
            }
        };
        lines += match self.extraction() {
            Extraction::Strict => {
                "extraction = \"strict\"   # only an answer in \\boxed{}, <answer> tags or after ####: one met by chance teaches nothing\n"
            }
            Extraction::Flexible => "extraction = \"flexible\"   # the answer need not be marked\n",
        };
        lines
    }

    fn recipe(&self) -> String {
        let Self { ask, census, name, max_tokens, max_length, .. } = self;
        let prompt = match self.style() {
            PromptStyle::R1 => "\"r1\"                  # \"reason step by step, and put your final answer within \\boxed{}\"",
            _ => "\"plain\"               # the question alone, in the teacher's chat template",
        };
        let languages: Vec<String> =
            census.languages.iter().map(|(language, n)| format!("{} {}", thousands(*n), language.code())).collect();
        format!(
            r#"# {usable} problems of {file} ({languages}): a teacher's verified answers to them, and a student trained on these.
#
# Written by `distill init`. `distill run {out} --plan` says what it will do and what that takes, `distill run {out}` does it, and does only
# what is left when it is called again. Every value may be changed; those below are starting points, none was tuned for these problems.
name = "{name}"
seed = 1

[problems]
{problems}
[teacher]                      # used as it is; give it a [[teacher.phase]] with method = "grpo" to train it on the problems first
model = {teacher}

[sample]
n = 4                          # attempts at each problem; more can be asked for later, the old ones stay
prompt = {prompt}
temperature = 0.7              # enough spread for several different right answers
top_p = 0.95
{answer_length}{long}

[filter]                       # what is dropped is kept with its reason in corpus/dropped
correct = true
finished = true                # ended by itself: a student must learn to stop
readable = true
repetition = true
language = {{ min = 0.95 }}      # share of words in the question's language
exact_duplicate = true
per_problem = {{ max = 2, order = "random" }}   # so that easy problems do not fill the corpus

[student]
model = {student}
{length}# longer traces are left out and counted, never cut

[[student.phase]]
method = "sft"
epochs = 2
batch_size = 32
learning_rate = 1e-5           # for a few thousand traces; with many more, up to 1e-4
schedule = "cosine"
warmup_ratio = 0.03

# To measure, keep some problems apart in a file of their own (what is trained on proves nothing), and take the marks off:
# [evaluate]
# tasks = ["{name}"]
# {name} = {{ file = "held-out.jsonl", n = 4, prompt = {style}, temperature = 0.6, top_p = 0.95, max_tokens = {max_tokens} }}
"#,
            usable = thousands(census.usable),
            file = ask.problems.display(),
            languages = languages.join(", "),
            out = self.out.display(),
            problems = self.problems(),
            teacher = quoted(&ask.teacher),
            student = quoted(&ask.student),
            answer_length = format_args!("{:31}# of an answer", format!("max_tokens = {max_tokens}")),
            long = if *max_tokens == MAX_TOKENS { "; a reasoning model wants 8192 and more" } else { "; half of the teacher's positions" },
            length = format_args!("{:31}", format!("max_length = {max_length}")),
            style = if self.style() == PromptStyle::R1 { "\"r1\"" } else { "\"plain\"" },
        )
    }

    fn json(&self) -> Result<String> {
        let Census { lines, usable, unusable, unusable_count, broken, broken_count, languages, .. } = self.census;
        let Proposal { fields, check, task, notes } = self.proposal;
        let found = json!({
            "recipe": self.out, "fields": fields, "verify": check, "task": task, "lines": lines, "usable": usable,
            "unusable": unusable_count, "first_unusable": unusable, "broken": broken_count, "first_broken": broken,
            "languages": languages, "notes": notes, "prompts": self.prompts()?.1,
        });
        Ok(format!("{found:#}\n"))
    }

    /// How prompts are shown, and some.
    fn prompts(&self) -> Result<(String, Vec<String>)> {
        let examples = &self.census.examples;
        let places = [0, examples.len() / 2, examples.len() - 1];
        let mut chosen: Vec<&Problem> = Vec::new();
        for problem in places.iter().filter_map(|place| examples.get(*place)) {
            if chosen.iter().all(|other| other.id != problem.id) {
                chosen.push(problem);
            }
        }
        chosen.truncate(PROMPTS);
        let folder = Path::new(&self.ask.teacher);
        if folder.join("tokenizer.json").is_file() {
            let text = config(Text::from_folder(folder))?;
            let said =
                if text.has_template() { "in the teacher's chat template" } else { "as they are, since the teacher has no chat template" };
            let prompts = chosen.iter().map(|p| Ok(render(&text, self.style(), &p.question)?.text)).collect::<Result<_>>()?;
            return Ok((said.to_owned(), prompts));
        }
        let prompts = chosen.iter().map(|p| self.style().content(&p.question)).collect::<Result<_>>()?;
        Ok((format!("without a chat template, since {} is no local folder", self.ask.teacher), prompts))
    }

    fn page(&self) -> Result<String> {
        let columns = self.ask.columns;
        let Census { lines, usable, unusable, unusable_count, broken, broken_count, languages, .. } = self.census;
        let Proposal { fields, check, task, notes } = self.proposal;
        let mut page = String::new();
        let mut line = |head: &str, rest: &str| -> Result<()> {
            for text in wrap(&format!("{head:<12}{}", harmless(rest)), columns, 12) {
                writeln!(page, "{text}")?;
            }
            Ok(())
        };
        line("problems", &format!("{} lines of {}", thousands(*lines), self.ask.problems.display()))?;
        match task {
            Some(task) => line("layout", &format!("that of {task}"))?,
            None => {
                let answer = match check {
                    Check::Countdown | Check::Knights | Check::Code if fields.answer == "answer" => "",
                    _ => &format!(", answer = {}", fields.answer),
                };
                let id = fields.id.as_ref().map_or(", numbered by line".to_owned(), |id| format!(", id = {id}"));
                line("fields", &format!("question = {}{answer}{id}", fields.question))?;
            }
        }
        let spoken: Vec<String> = languages.iter().map(|(language, n)| format!("{} {}", language.code(), thousands(*n))).collect();
        line("language", &spoken.join(", "))?;
        line("verify", &format!("{check}: {}", explained(check)))?;
        line("references", &format!("{} of {} can be used", thousands(*usable), thousands(*lines)))?;
        for note in notes {
            line("note", note)?;
        }
        let more = |shown: usize, all: usize| if all > shown { format!(" (and {} more)", thousands(all - shown)) } else { String::new() };
        if *unusable_count > 0 {
            // What mathematics cannot be made of is kept: it may still be met word by word.
            let fate = if *check == Check::Math {
                "not understood; only the same text would be right"
            } else {
                "without a usable reference; a run lists them and goes on"
            };
            line(if *check == Check::Math { "doubtful" } else { "left out" }, &format!("{} {fate}", thousands(*unusable_count)))?;
            for (n, u) in unusable.iter().enumerate() {
                let end = if n + 1 == unusable.len() { more(unusable.len(), *unusable_count) } else { String::new() };
                line("", &format!("line {}: {}{end}", u.place, u.reason))?;
            }
        }
        if *broken_count > 0 {
            let lines = if *broken_count == 1 {
                "1 line stops a run: mend or remove it first".to_owned()
            } else {
                format!("{} lines stop a run: mend or remove them first", thousands(*broken_count))
            };
            line("BROKEN", &lines)?;
            for (n, (place, why)) in broken.iter().enumerate() {
                let end = if n + 1 == broken.len() { more(broken.len(), *broken_count) } else { String::new() };
                line("", &format!("line {place}: {why}{end}"))?;
            }
        }
        let (how, prompts) = self.prompts()?;
        line("prompts", &how)?;
        for (n, prompt) in prompts.iter().enumerate() {
            writeln!(page, "\n--- prompt {} of {} ---", n + 1, prompts.len())?;
            let all: Vec<String> = prompt.lines().flat_map(|line| wrap(&harmless(line), columns, 0)).collect();
            for text in all.iter().take(PROMPT_LINES) {
                writeln!(page, "{text}")?;
            }
            if all.len() > PROMPT_LINES {
                writeln!(page, "… ({} more lines)", all.len() - PROMPT_LINES)?;
            }
        }
        writeln!(page, "\nwrote {0}\nnext: distill run {0} --plan", self.out.display())?;
        Ok(page)
    }
}

/// A check in a few words.
fn explained(check: &Check) -> &'static str {
    match check {
        Check::Number => "one decimal number",
        Check::Math => "a number or an expression of equal value, or the same words",
        Check::Exact => "the same text, case included",
        Check::Choice => "the letter of a choice",
        Check::Regex(_) => "a text that matches the pattern as a whole",
        Check::Countdown => "an expression that uses each number once and hits the target",
        Check::Knights => "who is a knight and who a knave",
        Check::Code => "a Python program that passes the tests, run in the sandbox",
        Check::Command(_) => "what the command says",
        Check::Judge => "no rule: a model's opinion",
    }
}
