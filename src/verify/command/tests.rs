use super::*;
use crate::problem::{Answer, Language, ProblemId};
use crate::verify::Rules;
use std::sync::Arc;
use std::time::Instant;

/// A problem whose reference is `gold`.
fn problem(gold: &str) -> Problem {
    Problem {
        id: ProblemId("t/0".into()),
        task: "t".into(),
        question: "q".into(),
        answer: Answer::Command { reference: gold.into() },
        language: Language::En,
        level: None,
    }
}

/// A shell script as verifier: `$line` is a request, and what it writes the answer.
fn script(text: &str, deadline: f64) -> Command {
    let line = CommandLine { deadline, ..CommandLine::new(&["sh", "-c", text]) };
    Command::open(&line).expect("no file is named")
}

/// A loop that reads a request into `$line` and does something about it.
fn each(what: &str) -> String {
    format!("while read -r line; do {what}; done")
}

/// A verdict in one line.
fn told(command: &Command, text: &str) -> String {
    match command.judge(&problem("5"), "5", &Response::parse(text)) {
        Err(unavailable) => unavailable.to_string(),
        Ok(Judgement { verdict, reward }) => {
            let reward = reward.map_or(String::new(), |paid| format!(" pays {paid}"));
            match verdict {
                Verdict::Correct { answer } => format!("correct {answer:?}{reward}"),
                Verdict::Wrong { answer, reason } => format!("wrong {answer:?} {reason}{reward}"),
                Verdict::NoAnswer { reason } => format!("none {reason}"),
                Verdict::Undecided { reason } => format!("undecided {reason}"),
            }
        }
    }
}

#[test]
fn answers_become_verdicts_and_rewards() {
    let rows = [
        (r#"{"correct": true, "answer": "5"}"#, "it is 5", r#"correct "5""#),
        (r#"{"correct": true, "answer": 5, "reward": 0.5}"#, "it is 5", r#"correct "5" pays 0.5"#),
        (r#"{"correct": true}"#, "so <answer>5</answer>", r#"correct "5""#),
        (r#"{"correct": true}"#, "it is 5", r#"correct """#),
        (r#"{"correct": false, "answer": "4", "reason": "too small", "reward": -1}"#, "4", r#"wrong "4" command (too small) pays -1"#),
        (r#"{"correct": false, "more": [1]}"#, r"\boxed{4}", r#"wrong "4" command"#),
    ];
    for (answer, response, expect) in rows {
        let command = script(&each(&format!("echo '{answer}'")), 10.0);
        for _ in 0..2 {
            assert_eq!(told(&command, response), expect, "{answer}");
        }
    }
}

#[test]
fn a_request_holds_problem_and_response_and_one_process_answers_many() {
    // It counts its requests, and passes the last one on.
    let command =
        script(&format!("n=0; {}", each(r#"n=$((n+1)); printf '%s' "$line" >&2; echo "{\"correct\": true, \"answer\": $n}""#)), 10.0);
    let response = "<think>a\n\"b\"</think> 几";
    assert_eq!([told(&command, response), told(&command, response)], [r#"correct "1""#, r#"correct "2""#]);
    let checked = script(
        r#"while read -r line; do case "$line" in
        '{"request":'*',"problem":{"id":"t/0","task":"t","question":"q","answer":"5"},"response":"<think>a\n\"b\"</think> 几"}') echo '{"correct": true}';;
        *) echo '{"correct": false}';; esac; done"#,
        10.0,
    );
    assert_eq!(told(&checked, response), r#"correct """#);
}

#[test]
fn what_is_no_answer_leaves_a_response_undecided() {
    let good = r#"echo '{"correct": true}'"#;
    let rows = [
        ("echo garbage", "undecided command_answer (no answer (expected value at line 1 column 1): garbage)"),
        ("echo", "undecided command_answer (no answer (EOF while parsing"),
        ("echo '{}'", "undecided command_answer (no answer (missing field `correct`"),
        (r#"echo '{"correct": "yes"}'"#, "undecided command_answer (no answer (invalid type"),
        (r#"echo '{"correct": true, "reward": NaN}'"#, "undecided command_answer (no answer ("),
        (r#"echo '{"correct": true, "reward": 1e999}'"#, "undecided command_answer (no answer (number out of range"),
        (r#"echo '{"correct": true, "request": 77}'"#, "undecided command_answer (an answer to request 77, where 0 was asked)"),
        (r"printf '\377\n'", "undecided command_answer (not UTF-8 from byte 0 of the line on)"),
        (r#"printf '{"correct": true}\n{"correct": true}\n'"#, "undecided command_answer (more than one line for one request)"),
        ("echo oh no >&2; exit 3", "undecided command_ended (it ended with exit status: 3: oh no)"),
        ("kill -9 $$", "undecided command_ended (it ended with signal: 9 (SIGKILL))"),
        ("exec >&-; sleep 60", "undecided command_ended (it closed its output)"),
        ("head -c 3000000 /dev/zero", "undecided command_answer (a line of more than 1048576 bytes)"),
        ("sleep 60", "undecided command_deadline (nothing within 0.9 s; is what it writes flushed?)"),
        (r"printf '{\n' | tr -d '\n'; echo late >&2; sleep 60", "undecided command_deadline (no end of the line within 0.9 s: late)"),
    ];
    for (what, expect) in rows {
        let command = script(&each(&format!("case $line in *\"response\\\":\\\"good\"*) {good};; *) {what};; esac")), 0.3);
        let begin = Instant::now();
        let verdict = told(&command, "bad");
        assert!(verdict.starts_with(expect), "{what}: {verdict}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{what} took {:?}", begin.elapsed());
        // The next response is judged by a new process.
        assert_eq!(told(&command, "good"), r#"correct """#, "{what}");
    }
}

#[test]
fn a_process_that_ends_after_each_answer_is_started_for_each() {
    let command = script(r#"read -r line; echo '{"correct": true}'"#, 10.0);
    for _ in 0..5 {
        assert_eq!(told(&command, "x"), r#"correct """#);
    }
}

#[test]
fn a_line_that_nobody_asked_for_is_never_an_answer_to_the_next_request() {
    let command = script(&each(r#"echo '{"correct": true}'; sleep 0.1; echo '{"correct": true}'"#), 10.0);
    assert_eq!(told(&command, "x"), r#"correct """#);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(told(&command, "x"), "undecided command_answer (a line that nobody asked for)");
}

#[test]
fn talk_on_stderr_blocks_nothing_and_its_end_is_kept() {
    let command = script(&each(r#"head -c 5000000 /dev/zero | tr '\0' 'x' >&2; echo; exit 1"#), 10.0);
    let verdict = told(&command, "x");
    assert!(verdict.starts_with("undecided command_answer") && verdict.len() < 600, "{} bytes", verdict.len());
    let command = script(&each("head -c 5000000 /dev/zero | tr '\\0' 'x' >&2; echo the end >&2; exit 1"), 10.0);
    let verdict = told(&command, "x");
    assert!(verdict.starts_with("undecided command_ended") && verdict.ends_with("xxxthe end)") && verdict.len() < 600, "{verdict}");
}

#[test]
fn a_response_larger_than_a_pipe_gets_through_and_one_that_nobody_reads_does_no_harm() {
    let large = "x".repeat(1 << 20);
    let counts = script(r#"while read -r line; do echo "{\"correct\": true, \"answer\": ${#line}}"; done"#, 60.0);
    let verdict = told(&counts, &large);
    assert!(verdict.starts_with(r#"correct "1048"#), "{verdict}");
    let deaf = script("sleep 60", 0.1);
    assert!(told(&deaf, &large).starts_with("undecided command_deadline"));
}

#[test]
fn failure_after_failure_makes_the_verifier_unavailable() {
    let never = script(&each("echo boom >&2; exit 1"), 10.0);
    let verdicts: Vec<String> = (0..3).map(|_| told(&never, "x")).collect();
    assert!(verdicts[..2].iter().all(|verdict| verdict.starts_with("undecided")), "{verdicts:?}");
    let expect = "3 failures in a row, the last one at t/0: it ended with exit status: 1: boom";
    assert!(verdicts[2].starts_with("verifier unavailable: the command `sh -c ") && verdicts[2].ends_with(expect), "{}", verdicts[2]);

    let then = script(&each(r#"case $line in *good*) echo '{"correct": true}';; *) echo no;; esac"#), 10.0);
    for n in [IN_A_ROW as usize - 1, IN_A_ROW as usize] {
        assert_eq!(told(&then, "good"), r#"correct """#);
        let verdicts: Vec<String> = (0..n).map(|_| told(&then, "bad")).collect();
        let unavailable = verdicts.iter().filter(|verdict| !verdict.starts_with("undecided")).count();
        assert_eq!(unavailable, usize::from(n == IN_A_ROW as usize), "{verdicts:?}");
    }
}

#[test]
fn what_cannot_run_is_known_before_anything_is_asked() {
    let ready = |words: &[&str]| {
        let command = Command::open(&CommandLine::new(words)).expect("it can be looked at");
        Rules { command: Some(Arc::new(command)), ..Rules::default() }.ready([&problem("5")].into_iter()).map_err(|error| error.to_string())
    };
    let missing = ready(&["no-such-program-anywhere", "x"]).expect_err("missing");
    assert!(
        missing.starts_with("verifier unavailable: the command `no-such-program-anywhere x`: it does not start: No such file"),
        "{missing}"
    );
    let ends = ready(&["sh", "no-such-script.sh"]).expect_err("it ends");
    assert!(ends.contains("it ended with exit status: ") && ends.contains("no-such-script.sh"), "{ends}");
    assert_eq!(ready(&["cat"]), Ok(()));
    let none = Rules::default().ready([&problem("5")].into_iter()).expect_err("none is named").to_string();
    assert!(none.contains("none is named here"), "{none}");
    assert!(Rules::default().ready([].into_iter()).is_ok());
}

#[test]
fn names_and_contents_of_files_are_its_identity_and_a_change_stops_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("check.sh");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(&each(r#"echo '{"correct": true}'; exit"#));
    let open = || Command::open(&CommandLine::new(&["sh", path.to_str().expect("UTF-8"), "--strict"])).expect("readable");
    let command = open();
    let (name, identity) = (command.name(), command.identity());
    assert!(name.starts_with("sh check.sh@") && name.ends_with(" --strict") && name.len() == 33, "{name}");
    assert_eq!(identity["command"], json!(["sh", "check.sh", "--strict"]));
    assert_eq!(told(&command, "x"), r#"correct """#);
    write(&each(r#"echo '{"correct": false}'; exit"#));
    let verdict = told(&command, "x");
    assert!(verdict.ends_with("check.sh has changed since this stage began"), "{verdict}");
    assert_ne!(open().identity(), identity);
}

/// How many processes run with this word among their arguments.
fn running(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("a list of processes").filter_map(|entry| entry.ok());
    entries
        .filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word)))
        .count()
}

#[test]
fn processes_and_theirs_end_with_the_command_and_leave_no_zombie() {
    const WORD: &str = "0.987654321e3";
    let command = script(&format!("sleep {WORD} & {}", each(r#"echo "{\"correct\": true, \"answer\": $$}""#)), 10.0);
    let verdict = told(&command, "x");
    let process = format!("/proc/{}", verdict.split('"').nth(1).expect("its number"));
    assert!(Path::new(&process).exists() && running(WORD) >= 2, "{verdict}: the script and its own child run");
    drop(command);
    assert!(!Path::new(&process).exists(), "{process} is there after all");
    let begin = Instant::now();
    while running(WORD) > 0 && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(running(WORD), 0);
}

#[test]
fn threads_have_a_process_each() {
    let command = script(&each(r#"sleep 0.05; echo "{\"correct\": true, \"answer\": $$}""#), 10.0);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..3).map(|_| told(&command, "x")).collect::<Vec<_>>())).collect();
        all.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(answers.iter().all(|answer| answer.starts_with("correct")), "{answers:?}");
    let processes: std::collections::BTreeSet<_> = answers.iter().collect();
    assert!((2..=4).contains(&processes.len()), "{processes:?}");
}
