//! The user's own program as verifier: long-lived processes that answer one line of JSON with another.
//!
//! What goes in: `{"request", "problem": {"id", "task", "question", "answer"}, "response"}`. What comes back: `{"correct", "answer"?, "reward"?,
//! "reason"?, "request"?}`, exactly one line for each. A process that ends, is late or answers with anything else leaves the response undecided and is
//! started again; where that happens again and again, or it cannot be started, the verifier is unavailable. The program runs with the rights of
//! whoever started us, outside of any sandbox; what it does with a response is its own business.

mod child;

use super::{Judgement, Unavailable, excerpt, extract};
use crate::problem::Problem;
use crate::publish;
use crate::response::Response;
use crate::tasks::CommandLine;
use crate::trace::{Reason, Verdict};
use child::{Broken, Child, ENDED, NONSENSE};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime};

/// Failures in a row after which the verifier is unavailable; of one that has never answered.
const IN_A_ROW: u32 = 20;
const IN_A_ROW_AT_FIRST: u32 = 3;
/// How much longer the first answer of a process may take: it has yet to start.
const STARTING: u32 = 3;
/// How long a process is watched before anything is asked of it: one that cannot run at all is gone by then.
const FIRST_LOOK: Duration = Duration::from_millis(300);

/// The user's program, and its processes that wait for work: as many as there are threads that judge at once.
pub struct Command {
    line: CommandLine,
    files: Vec<File>,
    idle: Mutex<Vec<Child>>,
    starter: Mutex<Sender<Sender<std::io::Result<Child>>>>,
    requests: AtomicU64,
    failures: AtomicU32,
    has_answered: AtomicBool,
}

/// An argument that is a file, as it was when the command was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// Its place among the words of the command.
    word: usize,
    /// Without its folders.
    name: String,
    hash: String,
    seen: (u64, Option<SystemTime>),
}

/// What the program answers.
#[derive(Deserialize)]
struct Reply {
    correct: bool,
    #[serde(default)]
    answer: Value,
    reward: Option<f64>,
    reason: Option<String>,
    request: Option<u64>,
}

impl Command {
    /// Looks at the files that the command names; starts nothing.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn open(line: &CommandLine) -> Result<Self, Unavailable> {
        let files = line.command.iter().enumerate().filter(|(_, word)| Path::new(word).is_file());
        let files = files.map(|(i, word)| File::read(i, Path::new(word))).collect::<Result<_, _>>()?;
        Ok(Self {
            files,
            idle: Mutex::default(),
            starter: Mutex::new(starter(line.clone())),
            requests: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            has_answered: AtomicBool::new(false),
            line: line.clone(),
        })
    }

    /// What a verdict of this command follows from, for a stage's inputs: its words, with files by name and content, and the deadline.
    pub fn identity(&self) -> Value {
        let files: Vec<Value> = self.files.iter().map(|file| json!([file.name, file.hash])).collect();
        json!({"command": self.words(), "files": files, "deadline": self.line.deadline})
    }

    /// The same for people: `python check.py@0123456789ab`.
    pub fn name(&self) -> String {
        let mut words = self.words();
        for file in &self.files {
            words[file.word] += &format!("@{}", &file.hash[..12]);
        }
        words.join(" ")
    }

    /// The words of the command without folders of this machine.
    fn words(&self) -> Vec<String> {
        let mut words = self.line.command.clone();
        for file in &self.files {
            words[file.word].clone_from(&file.name);
        }
        words
    }

    /// Starts a first process, which waits for work.
    ///
    /// # Errors
    /// Where it does not start, or ends before anything was asked.
    pub fn ready(&self) -> Result<(), Unavailable> {
        if !self.idle().is_empty() {
            return Ok(());
        }
        let mut child = self.start()?;
        child.stays(FIRST_LOOK).map_err(|broken| self.unavailable(&broken.what))?;
        self.idle().push(child);
        Ok(())
    }

    /// What the program says of a response.
    ///
    /// # Errors
    /// Where it cannot be started, or failed too often in a row.
    pub(super) fn judge(&self, problem: &Problem, reference: &str, response: &Response) -> Result<Judgement, Unavailable> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let asked = json!({
            "request": request,
            "problem": {"id": problem.id, "task": problem.task, "question": problem.question, "answer": reference},
            "response": response.text,
        });
        match self.ask(format!("{asked}\n").as_bytes(), request)? {
            Ok(reply) => {
                self.failures.store(0, Ordering::Relaxed);
                self.has_answered.store(true, Ordering::Relaxed);
                Ok(reply.judgement(response))
            }
            Err(Broken { rule, what }) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                let most = if self.has_answered.load(Ordering::Relaxed) { IN_A_ROW } else { IN_A_ROW_AT_FIRST };
                if failures >= most {
                    return Err(self.unavailable(&format!("{failures} failures in a row, the last one at {}: {what}", problem.id)));
                }
                Ok(Judgement { verdict: Verdict::Undecided { reason: Reason { value: Some(what), ..Reason::rule(rule) } }, reward: None })
            }
        }
    }

    /// One request to a process that waits, or to a new one. What an older one ended on is asked once more of a new one, so that a verdict does not
    /// hang on what was judged before it.
    fn ask(&self, line: &[u8], request: u64) -> Result<Result<Reply, Broken>, Unavailable> {
        let time = Duration::from_secs_f64(self.line.deadline);
        let waiting = self.idle().pop();
        if let Some(mut child) = waiting {
            match child.ask(line, time).and_then(|answer| read(&answer, request)) {
                Ok(reply) => {
                    self.idle().push(child);
                    return Ok(Ok(reply));
                }
                Err(broken) if broken.rule != ENDED => return Ok(Err(broken)),
                Err(_) => {}
            }
        }
        let mut child = self.start()?;
        let answer = child.ask(line, time * STARTING).and_then(|answer| read(&answer, request));
        if answer.is_ok() {
            self.idle().push(child);
        }
        Ok(answer)
    }

    fn start(&self) -> Result<Child, Unavailable> {
        for file in &self.files {
            let now = File::read_again(file, Path::new(&self.line.command[file.word]))?;
            if now.hash != file.hash {
                return Err(self.unavailable(&format!("{} has changed since this stage began", file.name)));
            }
        }
        let gone = |_| self.unavailable("the thread that starts it is gone");
        let (to_us, answer) = channel();
        self.starter.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).send(to_us).map_err(|_| gone(()))?;
        let started = answer.recv().map_err(|_| gone(()))?;
        started.map_err(|error| self.unavailable(&format!("it does not start: {error}")))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn unavailable(&self, why: &str) -> Unavailable {
        Unavailable(format!("the command `{}`: {why}", self.line.command.join(" ")))
    }
}

/// The thread that starts processes, until nobody can ask any more: they end with the thread that started them.
fn starter(line: CommandLine) -> Sender<Sender<std::io::Result<Child>>> {
    let (ask, asked) = channel::<Sender<std::io::Result<Child>>>();
    std::thread::spawn(move || {
        for to in asked {
            let _ = to.send(Child::start(&line));
        }
    });
    ask
}

impl File {
    fn read(word: usize, path: &Path) -> Result<Self, Unavailable> {
        let cannot = |error: anyhow::Error| Unavailable(format!("{error:#}"));
        let hash = publish::sha256_file(path).map_err(cannot)?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Ok(Self { word, name, hash, seen: Self::seen(path).map_err(|error| cannot(error.into()))? })
    }

    fn seen(path: &Path) -> std::io::Result<(u64, Option<SystemTime>)> {
        let metadata = std::fs::metadata(path)?;
        Ok((metadata.len(), metadata.modified().ok()))
    }

    /// As it is now; not read where size and time are those of before.
    fn read_again(&self, path: &Path) -> Result<Self, Unavailable> {
        if Self::seen(path).is_ok_and(|seen| seen == self.seen && seen.1.is_some()) {
            Ok(self.clone())
        } else {
            Self::read(self.word, path)
        }
    }
}

/// An answer, if it is one, and one to this request.
fn read(line: &[u8], request: u64) -> Result<Reply, Broken> {
    let nonsense = |what: String| Broken { rule: NONSENSE, what };
    let shown = || excerpt(&String::from_utf8_lossy(line));
    let text =
        std::str::from_utf8(line).map_err(|error| nonsense(format!("not UTF-8 from byte {} of the line on", error.valid_up_to())))?;
    let reply: Reply = serde_json::from_str(text).map_err(|error| nonsense(format!("no answer ({error}): {}", shown())))?;
    match reply.request {
        Some(answered) if answered != request => Err(nonsense(format!("an answer to request {answered}, where {request} was asked"))),
        _ => Ok(reply),
    }
}

impl Reply {
    fn judgement(self, response: &Response) -> Judgement {
        let answer = match self.answer {
            // What the program does not say is what stands at the mark, if anything does.
            Value::Null => extract::explicit(response).map(|found| found.excerpt()).unwrap_or_default(),
            Value::String(text) => excerpt(&text),
            other => excerpt(&other.to_string()),
        };
        let verdict = if self.correct {
            Verdict::Correct { answer }
        } else {
            let value = self.reason.map(|reason| reason.chars().take(300).collect());
            Verdict::Wrong { answer, reason: Reason { value, ..Reason::rule("command") } }
        };
        Judgement { verdict, reward: self.reward }
    }
}

#[cfg(test)]
mod tests;
