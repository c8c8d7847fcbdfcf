//! Tests that are written as Python's asserts: taken apart where their syntax is simple, counted where it is not.

use super::value::{Same, Value};
use super::{Code, Passed, Tested, differs, values};
use crate::sandbox::{Fault, Job, Limits, text};
use crate::verify::Unavailable;
use std::sync::Arc;

/// Turns the source of a test into one of the two forms below.
const PREPARE: &str = include_str!("prepare.py");

/// A test that is ready to be asked, again and again.
pub(super) enum Prepared {
    /// Expressions over the program, evaluated after `before`, in which `name` stands for the entry point.
    Simple { before: String, name: String, cases: Vec<Case> },
    /// Source with a call of a counter behind each assert, and which of them must be reached.
    Counted { source: String, calls_check: bool, must: Vec<i128> },
}

/// One assert.
pub(super) struct Case {
    expression: String,
    expect: Expect,
}

/// What the value of an expression is held against; computed without the program.
enum Expect {
    True,
    False,
    Equal(Value),
    Different(Value),
    /// abs(given - value) < bound, or <= where the bound itself will do.
    Near {
        value: f64,
        bound: f64,
        closed: bool,
    },
    /// As `math.isclose`.
    Close {
        value: f64,
        relative: f64,
        absolute: f64,
    },
}

impl Expect {
    fn holds(&self, given: &Value) -> bool {
        match self {
            Self::True => given.truth(),
            Self::False => !given.truth(),
            Self::Equal(value) => given.is(value, Same::Python),
            // What is not plain is different from everything, and yet no answer.
            Self::Different(value) => *given != Value::Other && !given.is(value, Same::Python),
            Self::Near { value, bound, closed } => given.real().is_some_and(|x| {
                let distance = (x - value).abs();
                distance < *bound || *closed && distance == *bound
            }),
            Self::Close { value, relative, absolute } => {
                given.real().is_some_and(|x| x == *value || (x - value).abs() <= (relative * x.abs().max(value.abs())).max(*absolute))
            }
        }
    }
}

/// The name of the counter while a test is prepared; each run has one of its own.
const COUNTER: &str = "__counter__";

impl Code {
    pub(super) fn asserts(&self, program: &str, entry: Option<&str>, test: &str, limits: Option<Limits>) -> Result<Tested, Unavailable> {
        let prepared = self.prepare(entry, test)?;
        let program = program.to_owned();
        match &*prepared {
            Prepared::Simple { before, name, cases } => {
                let sources = cases.iter().map(|case| case.expression.clone()).collect();
                let entry = entry.filter(|_| !name.is_empty()).map(str::to_owned);
                let job = Job::Expressions { program, before: before.clone(), name: name.clone(), entry, sources };
                let outcome = self.sandbox.run(&job, "", limits)?;
                Ok(values(outcome, cases.len()).and_then(|given| {
                    let wrong = given.iter().zip(cases).position(|(given, case)| !case.expect.holds(given));
                    wrong.map_or(Ok(Passed { in_process: false }), |i| Err(differs(i, cases.len())))
                }))
            }
            Prepared::Counted { source, calls_check, must } => {
                let nonce = nonce()?;
                let entry = entry.filter(|_| *calls_check).map(str::to_owned);
                let job = Job::Asserts { program, test: source.replace(COUNTER, &nonce), entry, counter: nonce.clone() };
                let outcome = self.sandbox.run(&job, "", limits)?;
                Ok(counted(outcome.result, &nonce, must))
            }
        }
    }

    fn prepare(&self, entry: Option<&str>, test: &str) -> Result<Arc<Prepared>, Unavailable> {
        let key = format!("{}\n{test}", entry.unwrap_or_default());
        if let Some(known) = self.prepared.lock().ok().and_then(|known| known.get(&key).cloned()) {
            return Ok(known);
        }
        let prepared = match self.take_apart(entry, test, true)? {
            Some(prepared) => prepared,
            None => self.take_apart(entry, test, false)?.ok_or_else(|| Unavailable("a test cannot be prepared".into()))?,
        };
        let prepared = Arc::new(prepared);
        if let Ok(mut known) = self.prepared.lock() {
            known.insert(key, prepared.clone());
        }
        Ok(prepared)
    }

    /// `None` where the simple form holds a value that is not plain.
    fn take_apart(&self, entry: Option<&str>, test: &str, simple: bool) -> Result<Option<Prepared>, Unavailable> {
        let given = |entry: Option<&str>| entry.map_or("None".to_owned(), text);
        let args = format!("({},{},{},{})", text(test), given(entry), text(COUNTER), u8::from(simple));
        let job = Job::Calls { program: PREPARE.to_owned(), entry: "prepare".to_owned(), calls: vec![args] };
        let outcome = self.sandbox.run(&job, "", None)?;
        match values(outcome, 1) {
            Ok(values) => Ok(read(values.into_iter().next())),
            Err((fault, detail)) => Err(Unavailable(format!("a test cannot be prepared: {fault}: {detail}"))),
        }
    }
}

fn counted(result: Result<Vec<serde_json::Value>, (Fault, String)>, nonce: &str, must: &[i128]) -> Tested {
    let given: Vec<Value> = match result {
        Ok(values) => values.iter().map(Value::read).collect(),
        // What a failed assert raises is a wrong answer; anything else is the program's own fault.
        Err((Fault::RuntimeError, said)) if said.starts_with("AssertionError") => return Err((Fault::WrongAnswer, said)),
        Err(why) => return Err(why),
    };
    let [Value::Text(said), Value::Dict(hits)] = &given[..] else {
        return Err((Fault::RuntimeError, "the tests did not come to their end".into()));
    };
    let reached = |i: &i128| hits.iter().any(|(key, _)| *key == Value::Int(*i));
    if said != nonce.as_bytes() || !must.iter().all(reached) {
        return Err((Fault::RuntimeError, "not every assert was reached".into()));
    }
    Ok(Passed { in_process: true })
}

/// What `prepare` gave.
fn read(value: Option<Value>) -> Option<Prepared> {
    let Value::Tuple(parts) = value? else { return None };
    match &parts[..] {
        [Value::Text(form), Value::Text(before), Value::Text(name), Value::List(cases)] if form == b"simple" => {
            let cases = cases.iter().map(case).collect::<Option<_>>()?;
            Some(Prepared::Simple { before: utf8(before)?, name: utf8(name)?, cases })
        }
        [Value::Text(form), Value::Text(source), Value::Bool(calls_check), Value::List(must)] if form == b"counted" => {
            let must = must.iter().map(|i| if let Value::Int(i) = i { Some(*i) } else { None }).collect::<Option<_>>()?;
            Some(Prepared::Counted { source: utf8(source)?, calls_check: *calls_check, must })
        }
        _ => None,
    }
}

fn case(value: &Value) -> Option<Case> {
    let Value::Tuple(parts) = value else { return None };
    let [Value::Text(expression), Value::Text(kind), value, bounds] = &parts[..] else { return None };
    let expect = match (&kind[..], bounds) {
        (b"true", _) => Expect::True,
        (b"false", _) => Expect::False,
        (b"equal", _) if value.is_plain() => Expect::Equal(value.clone()),
        (b"different", _) if value.is_plain() => Expect::Different(value.clone()),
        (b"near" | b"within", bound) => Expect::Near { value: value.real()?, bound: bound.real()?, closed: &kind[..] == b"within" },
        (b"close", Value::Tuple(bounds)) => match &bounds[..] {
            [relative, absolute] => Expect::Close { value: value.real()?, relative: relative.real()?, absolute: absolute.real()? },
            _ => return None,
        },
        _ => return None,
    };
    Some(Case { expression: utf8(expression)?, expect })
}

fn utf8(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// A name that no program can know before it runs. It is no draw that results depend on, so it comes from the system.
fn nonce() -> Result<String, Unavailable> {
    let mut bytes = [0u8; 16];
    // SAFETY: the bytes live until the call returns and their number is passed.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n != bytes.len() as isize {
        return Err(Unavailable("the system gives no random bytes".into()));
    }
    Ok(bytes.iter().fold("n".to_owned(), |name, byte| name + &format!("{byte:02x}")))
}
