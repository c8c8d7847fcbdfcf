//! HumanEval and MBPP: every reference solution passes, and none that was broken on purpose does.

use crate::{code, options};
use distill::problem::{Answer, CodeTests, Problem};
use distill::response::Response;
use distill::sandbox::{Limits, Options};
use distill::tasks::{Layout, Task, read};
use distill::trace::Verdict;
use distill::verify::Verifier;
use distill::verify::code::Code;
use std::path::PathBuf;

/// The problems of a file with their reference solutions, or `None` with a line that says so.
fn solved(file: &str, task: Task) -> Option<Vec<(Problem, String)>> {
    let Some(folder) = std::env::var_os("DISTILL_DATA").map(PathBuf::from) else {
        eprintln!("skipped: DISTILL_DATA is unset ({file})");
        return None;
    };
    Some(solved_in(&folder.join(file), task))
}

fn solved_in(path: &std::path::Path, task: Task) -> Vec<(Problem, String)> {
    let loaded = read(path, Layout::Named(task)).unwrap_or_else(|e| panic!("{e:#}"));
    let text = std::fs::read_to_string(path).expect("readable");
    let answer = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["answer"].as_str().expect("text").to_owned();
    loaded.problems.into_iter().zip(text.lines().map(answer)).collect()
}

/// Judges on two threads: the problems, in order, with the response that `of` makes of each solution.
fn verdicts(code: &Code, solved: &[(Problem, String)], of: impl Fn(&Problem, &str) -> String + Sync) -> Vec<Verdict> {
    let half = solved.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        let judge = |part: &[(Problem, String)]| {
            let one = |(problem, answer): &(Problem, String)| {
                let text = of(problem, answer);
                code.verify(problem, &Response::parse(&text)).unwrap_or_else(|e| panic!("{}: {e}", problem.id))
            };
            part.iter().map(one).collect::<Vec<_>>()
        };
        let threads: Vec<_> = solved.chunks(half).map(|part| scope.spawn(move || judge(part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn whole(problem: &Problem, answer: &str) -> String {
    match &problem.answer {
        Answer::Code { tests: CodeTests::Asserts { prompt: Some(prompt), .. } } => {
            format!("<think>so</think>\n```python\n{prompt}{answer}\n```")
        }
        _ => format!("Here it is:\n```python\n{answer}\n```\nDone."),
    }
}

fn all_pass(name: &str, verdicts: &[Verdict], solved: &[(Problem, String)]) {
    let failed: Vec<String> =
        verdicts.iter().zip(solved).filter(|(v, _)| !v.is_correct()).map(|(v, (p, _))| format!("{}: {v:?}", p.id)).collect();
    let in_process = verdicts.iter().filter(|v| v.answer().is_some_and(|a| a.ends_with("[in_process]"))).count();
    eprintln!("{name}: {} of {} pass, {in_process} with their asserts in the process", verdicts.len() - failed.len(), verdicts.len());
    assert!(failed.is_empty(), "{name}:\n{}", failed.join("\n"));
}

fn check(file: &str, task: Task, at_most_in_process: usize) {
    // Some references take seconds; on a busy machine, many.
    let limits = Limits { cpu_seconds: 60.0, wall_seconds: 120.0, ..Limits::default() };
    let (Some(solved), Some(code)) = (solved(file, task), code(Options { limits, ..options() })) else { return };
    let right = verdicts(&code, &solved, whole);
    all_pass(file, &right, &solved);
    let in_process = right.iter().filter(|v| v.answer().is_some_and(|a| a.ends_with("[in_process]"))).count();
    assert!(in_process <= at_most_in_process, "{in_process} of {} are judged in the process", right.len());
    if task == Task::HumanEval {
        all_pass("continued", &verdicts(&code, &solved, |_, answer| answer.to_owned()), &solved);
    }
    // Every function gives something of a kind that no test asks for; then, nothing at all.
    let broken = |problem: &Problem, answer: &str| {
        let wrapped = "\nimport types as _t\nfor _n, _f in list(globals().items()):\n    if isinstance(_f, _t.FunctionType):\n        globals()[_n] = lambda *a, **k: 'broken'\n";
        whole(problem, answer).replacen("\n```", &format!("{wrapped}\n```"), 2).replacen(&format!("{wrapped}\n```python"), "\n```python", 1)
    };
    for (what, verdicts) in
        [("broken", verdicts(&code, &solved, broken)), ("empty", verdicts(&code, &solved, |_, _| "```python\npass\n```".into()))]
    {
        let passed: Vec<&str> = verdicts.iter().zip(&solved).filter(|(v, _)| v.is_correct()).map(|(_, (p, _))| p.id.0.as_str()).collect();
        assert!(passed.is_empty(), "{file}, {what}, and yet right: {passed:?}");
    }
}

#[test]
fn humaneval_references_pass_and_broken_ones_fail() {
    check("humaneval.jsonl", Task::HumanEval, 5);
}

#[test]
fn mbpp_references_pass_and_broken_ones_fail() {
    check("mbpp_sanitized.jsonl", Task::Mbpp, 2);
}

#[test]
fn solutions_of_our_own_samples_pass() {
    let Some(code) = code(options()) else { return };
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/samples/code.jsonl");
    for task in [Task::HumanEval, Task::Mbpp] {
        let solved = solved_in(&path, task);
        assert_eq!(solved.len(), 20);
        all_pass(task.name(), &verdicts(&code, &solved, whole), &solved);
        let empty = verdicts(&code, &solved, |_, _| "```python\nx = 1\n```".into());
        assert!(empty.iter().all(|verdict| !verdict.is_correct()), "{task}");
    }
}
