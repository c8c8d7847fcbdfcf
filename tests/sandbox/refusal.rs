//! Where nothing can be confined, nothing runs.

use crate::options;
use distill::sandbox::{Job, Options, Sandbox, Tier};
use distill::verify::Extraction;
use distill::verify::code::Code;
use std::path::PathBuf;

/// Fails with `part` in its message.
fn refused(options: Options, part: &str) {
    let error = Sandbox::open(options).map(|sandbox| sandbox.tier()).expect_err("refused").to_string();
    assert!(error.contains(part) && error.contains("none was run"), "{error}");
}

#[test]
fn without_a_helper_or_an_interpreter_nothing_runs() {
    refused(Options { helper: PathBuf::from("/bin/true"), ..options() }, "/bin/true is no helper of this sandbox");
    refused(Options { helper: PathBuf::from("/no/such"), ..options() }, "/no/such does not start");
    refused(Options { python: Some(PathBuf::from("/bin/true")), ..options() }, "does not answer as Python does");
    let unavailable = Code::open(Options { helper: PathBuf::from("/bin/true"), ..options() }, Extraction::Strict).map(|_| ());
    assert!(unavailable.expect_err("refused").to_string().starts_with("verifier unavailable: programs cannot be confined"));
}

#[test]
fn no_confinement_at_all_wants_its_own_flag() {
    refused(Options { only: Some(Tier::Unsandboxed), ..options() }, "no tier may be used");
    let sandbox = match Sandbox::open(Options { unsandboxed: true, ..options() }) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            eprintln!("skipped: Python is missing ({error})");
            return;
        }
    };
    assert_eq!(sandbox.tier(), Tier::Unsandboxed);
    let job = Job::Calls { program: "def f(): return 1".into(), entry: "f".into(), calls: vec!["()".into()] };
    assert!(sandbox.run(&job, "", None).expect("it runs").result.is_ok());
    let code = Code::open(Options { unsandboxed: true, ..options() }, Extraction::Strict).expect("as above");
    let line = r#"{"task": "code", "program": "def f(): return 1", "entry": "f", "calls": [[]], "expected": [1]}"#;
    let judged = code.judge_pair(&distill::verify::code::Pair::parse(line).expect("a pair")).expect("it runs");
    assert_eq!((judged.correct, judged.sandbox), (true, Some("unsandboxed")));
}

#[test]
fn the_tier_without_namespaces_starts_no_process_and_writes_no_file() {
    let Ok(sandbox) = Sandbox::open(Options { only: Some(Tier::Landlock), ..options() }) else {
        eprintln!("skipped: landlock is missing (the tier without namespaces)");
        return;
    };
    let check = |program: &str, ok: bool| {
        let job = Job::Calls { program: program.into(), entry: "f".into(), calls: vec!["()".into()] };
        let outcome = sandbox.run(&job, "", None).expect("it runs");
        assert_eq!(outcome.result.is_ok(), ok, "{program}: {outcome:?}");
    };
    check("def f(): return 1", true);
    check("import threading\ndef f():\n    t = threading.Thread(target=print)\n    t.start()\n    t.join()", true);
    check("import os\ndef f(): os.fork()", false);
    check("import os\ndef f(): os.kill(os.getppid(), 9)", false);
    check("def f(): open('/tmp/distill-sandbox-test', 'w')", false);
    check("def f(): open('/etc/passwd').read()", false);
    check("import socket\ndef f(): socket.socket()", false);
}
