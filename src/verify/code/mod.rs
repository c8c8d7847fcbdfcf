//! Programs as answers: the program is taken from the response, run in the sandbox, and what it gives is compared here, outside.
//!
//! What is expected never enters the process that runs the program. Tests written as asserts are taken apart into calls and values for that
//! (`prepare.py`); those that cannot be are run beside the program and counted, and the verdict then says `in_process`, since a program that is out to
//! deceive can deceive them. Where no sandbox is to be had the verifier is unavailable: that is no verdict.

mod asserts;
mod extract;
mod pairs;
mod value;

pub use pairs::{Judged, Pair};

use super::extract::Extraction;
use super::{Unavailable, Verifier, excerpt};
use crate::problem::{Answer, CodeTests, Problem, StreamCase};
use crate::response::Response;
use crate::sandbox::{Failed, Fault, Job, Limits, Options, Outcome, Sandbox, Tier};
use crate::trace::{Reason, Verdict};
use asserts::Prepared;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use value::{Same, Value, literal};

/// The verifier of programs, and the sandbox that it runs them in.
pub struct Code {
    sandbox: Sandbox,
    extraction: Extraction,
    /// Tests taken apart, by their source: each problem's once, however many attempts there are.
    prepared: Mutex<HashMap<String, Arc<Prepared>>>,
}

/// What came of a program under its tests; `Err` says why it is wrong.
struct Passed {
    /// The asserts ran beside the program.
    in_process: bool,
}
type Tested = Result<Passed, (Fault, String)>;

impl From<Failed> for Unavailable {
    fn from(failed: Failed) -> Self {
        Self(failed.0)
    }
}

static OPTIONS: OnceLock<Options> = OnceLock::new();

fn cell(extraction: Extraction) -> &'static OnceLock<Result<Code, Unavailable>> {
    static STRICT: OnceLock<Result<Code, Unavailable>> = OnceLock::new();
    static FLEXIBLE: OnceLock<Result<Code, Unavailable>> = OnceLock::new();
    if extraction == Extraction::Strict { &STRICT } else { &FLEXIBLE }
}

impl Code {
    /// Opens a sandbox.
    ///
    /// # Errors
    /// Where there is none; the message says what is missing.
    pub fn open(options: Options, extraction: Extraction) -> Result<Self, Unavailable> {
        let sandbox = Sandbox::open(options).map_err(|refused| Unavailable(refused.to_string()))?;
        Ok(Self { sandbox, extraction, prepared: Mutex::default() })
    }

    /// Says how [`Code::shared`] opens its sandbox; before the first program. `false` where that is settled already.
    pub fn configure(options: Options) -> bool {
        OPTIONS.set(options).is_ok()
    }

    /// The program's one sandbox, opened when it is first needed.
    ///
    /// # Errors
    /// As [`Code::open`]; the answer stays the same.
    pub fn shared(extraction: Extraction) -> Result<&'static Self, Unavailable> {
        let open = || Self::open(OPTIONS.get().cloned().unwrap_or_default(), extraction);
        cell(extraction).get_or_init(open).as_ref().map_err(Clone::clone)
    }

    /// The tier of [`Code::shared`], where it was opened.
    pub fn tier_in_use(extraction: Extraction) -> Option<Tier> {
        Some(cell(extraction).get()?.as_ref().ok()?.tier())
    }

    /// How programs are confined, for manifests.
    pub fn tier(&self) -> Tier {
        self.sandbox.tier()
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Judges a program that may use so much; `None` is what the sandbox gives.
    ///
    /// # Errors
    /// As of [`Verifier::verify`].
    pub fn judge(&self, tests: &CodeTests, response: &Response, limits: Option<Limits>) -> Result<Verdict, Unavailable> {
        let program = match extract::program(response, tests, self.extraction) {
            Ok(program) => program,
            Err(reason) => return Ok(Verdict::NoAnswer { reason }),
        };
        let answer = excerpt(&response.text[program.span.0..program.span.1]);
        Ok(match self.test(tests, &program.source, limits)? {
            Ok(passed) => Verdict::Correct { answer: answer + self.marks(passed.in_process) },
            Err((fault, detail)) => {
                let reason = Reason { value: Some(excerpt(&detail)), span: Some(program.span), ..Reason::rule(fault.name()) };
                Verdict::Wrong { answer: answer + self.marks(false), reason }
            }
        })
    }

    /// What a record says besides the verdict: that something is missing which its word usually stands for.
    fn marks(&self, in_process: bool) -> &'static str {
        match (self.tier(), in_process) {
            (Tier::Unsandboxed, true) => " [in_process, unsandboxed]",
            (Tier::Unsandboxed, false) => " [unsandboxed]",
            (_, true) => " [in_process]",
            (_, false) => "",
        }
    }

    fn test(&self, tests: &CodeTests, program: &str, limits: Option<Limits>) -> Result<Tested, Unavailable> {
        match tests {
            CodeTests::Asserts { entry, test, .. } => self.asserts(program, entry.as_deref(), test, limits),
            CodeTests::Calls { entry, calls, expected } => self.calls(program, entry, calls, expected, limits),
            CodeTests::Streams { cases } => self.streams(program, cases, limits),
        }
    }

    /// Calls and what they must give, both in JSON.
    fn calls(
        &self,
        program: &str,
        entry: &str,
        calls: &[String],
        expected: &[String],
        limits: Option<Limits>,
    ) -> Result<Tested, Unavailable> {
        let unreadable = |error: String| Unavailable(format!("the tests are unreadable: {error}"));
        let calls: Vec<String> = calls.iter().map(|call| literal(call)).collect::<Result<_, _>>().map_err(unreadable)?;
        let expected: Vec<Value> = expected.iter().map(|value| Value::of_json(value)).collect::<Result<_, _>>().map_err(unreadable)?;
        let job = Job::Calls { program: program.to_owned(), entry: entry.to_owned(), calls };
        let outcome = self.sandbox.run(&job, "", limits)?;
        Ok(values(outcome, expected.len()).and_then(|given| {
            let wrong = given.iter().zip(&expected).position(|(given, expected)| !given.is(expected, Same::Json));
            wrong.map_or(Ok(Passed { in_process: false }), |i| Err(differs(i, expected.len())))
        }))
    }

    fn streams(&self, program: &str, cases: &[StreamCase], limits: Option<Limits>) -> Result<Tested, Unavailable> {
        let job = Job::Main { program: program.to_owned() };
        for (i, case) in cases.iter().enumerate() {
            let outcome = self.sandbox.run(&job, &case.stdin, limits)?;
            let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
            match outcome.result {
                Err(why) => return Ok(Err(why)),
                Ok(_) if lines(&outcome.stdout) != lines(&case.stdout) => return Ok(Err(differs(i, cases.len()))),
                Ok(_) => {}
            }
        }
        Ok(Ok(Passed { in_process: false }))
    }
}

impl Verifier for Code {
    /// Judges a program; a problem with another kind of answer is none of this verifier's business, and so unavailable here.
    fn verify(&self, problem: &Problem, response: &Response) -> Result<Verdict, Unavailable> {
        match &problem.answer {
            Answer::Code { tests } => self.judge(tests, response, None),
            _ => Err(Unavailable(format!("problem {} does not ask for a program", problem.id))),
        }
    }
}

/// The values that a program gave, if there are as many as were asked for.
fn values(outcome: Outcome, n: usize) -> Result<Vec<Value>, (Fault, String)> {
    let given = outcome.result?;
    if given.len() != n {
        return Err((Fault::RuntimeError, format!("{} values, {n} calls", given.len())));
    }
    Ok(given.iter().map(Value::read).collect())
}

fn differs(i: usize, n: usize) -> (Fault, String) {
    (Fault::WrongAnswer, format!("case {} of {n}", i + 1))
}
