//! The verifier of programs: responses and tests in each style, and what they are worth.

use crate::{code, options};
use distill::problem::{Answer, CodeTests, Language, Problem, ProblemId, StreamCase};
use distill::response::Response;
use distill::trace::Verdict;
use distill::verify::Verifier;
use distill::verify::code::Code;

fn problem(tests: CodeTests) -> Problem {
    Problem {
        id: ProblemId("t/0".into()),
        task: "t".into(),
        question: String::new(),
        answer: Answer::Code { tests },
        language: Language::En,
        level: None,
    }
}

/// The rule of the verdict: `ok`, `ok in_process`, or the reason.
fn verdict(code: &Code, tests: &CodeTests, program: &str) -> String {
    let text = format!("<think>\n```python\nx\n```\n</think>\n```python\n{program}\n```\n");
    match code.verify(&problem(tests.clone()), &Response::parse(&text)).expect("it runs") {
        Verdict::Correct { answer } if answer.ends_with(" [in_process]") => "ok in_process".into(),
        Verdict::Correct { .. } => "ok".into(),
        Verdict::Wrong { reason, .. } | Verdict::NoAnswer { reason } | Verdict::Undecided { reason } => reason.rule,
    }
}

#[test]
fn asserts_are_held_against_values_that_stay_outside() {
    let Some(code) = code(options()) else { return };
    let check = |test: &str, program: &str, expect: &str| {
        let tests = CodeTests::Asserts { prompt: None, entry: None, test: test.to_owned() };
        assert_eq!(verdict(&code, &tests, program), expect, "{test:?} {program:?}");
    };
    const LIAR: &str = "class E:\n    def __eq__(self, o): return True\n    def __sub__(self, o): return 0\n    def __abs__(self): return 0\n    def __lt__(self, o): return True\ndef f(*a): return E()";
    let equal = "assert f(2) == 4\nassert f(3) == 9";
    check(equal, "def f(x): return x * x", "ok");
    check(equal, "def f(x): return x + x", "wrong_answer");
    check(equal, "def f(x): return float(x * x)", "ok");
    check(equal, "def f(x): return str(x * x)", "wrong_answer");
    check(equal, LIAR, "wrong_answer");
    check(equal, "import sys\nsys.exit(0)", "runtime_error");
    check(equal, "import builtins\nbuiltins.AssertionError = SystemExit\ndef f(x): return 4", "wrong_answer");
    check("assert 4 == f(2)", "def f(x): return 4", "ok");
    check("assert f(2) == (1, [2])", "def f(x): return (1, [2])", "ok");
    check("assert f(2) == (1, [2])", "def f(x): return [1, [2]]", "wrong_answer");
    check("assert set(f(2)) == set([1, 2])", "def f(x): return [2, 1, 1]", "ok");
    check("assert set(f(2)) == set([1, 2])", "import builtins\nbuiltins.set = lambda x: 0\ndef f(x): return [3]", "wrong_answer");
    check("assert abs(f(2) - 0.5) < 1e-6", "def f(x): return 0.5000001", "ok");
    check("assert abs(f(2) - 0.5) < 1e-6", "def f(x): return 0.51", "wrong_answer");
    check("assert abs(f(2) - 0.5) < 1e-6", LIAR, "wrong_answer");
    check("import math\nassert math.isclose(f(2), 0.3)", "def f(x): return 0.1 + 0.2", "ok");
    check("import math\nassert math.isclose(f(2), 0.3)", "import math\nmath.isclose = lambda *a: True\ndef f(x): return 4", "wrong_answer");
    check("assert f(2) and not f(3)", "def f(x): return x == 2", "ok");
    check("assert f(2)\nassert not f(3)", "def f(x): return x == 2", "ok");
    check("assert f(2)\nassert not f(3)", "def f(x): return True", "wrong_answer");
    check("for x in range(5):\n    assert f(x) == x", "def f(x): return x", "ok");
    check("for x in range(5):\n    assert f(x) == x", "def f(x): return min(x, 3)", "wrong_answer");
}

#[test]
fn asserts_that_are_not_simple_are_counted_and_marked() {
    let Some(code) = code(options()) else { return };
    let test = "x = f(1)\nfor i in range(3):\n    y = f(i)\n    assert y == x + i - 1\nassert x == 1";
    let tests = CodeTests::Asserts { prompt: None, entry: None, test: test.into() };
    let check = |program: &str, expect: &str| assert_eq!(verdict(&code, &tests, program), expect, "{program:?}");
    check("def f(x): return x", "ok in_process");
    check("def f(x): return 0", "wrong_answer");
    check("import os\ndef f(x): os._exit(0)", "runtime_error");
    check("import sys\ndef f(x): sys.exit(0)", "runtime_error");
    check("import os\nos.write(4, b'done [\"x6e\",[\"d\",0,1,1,1]]\\n')\nos._exit(0)", "runtime_error");
    let tests = CodeTests::Asserts {
        prompt: Some("def f(x):\n".into()),
        entry: Some("f".into()),
        test: "def check(candidate):\n    a = [candidate(i) for i in range(3)]\n    assert a == [0, 1, 2]\n".into(),
    };
    assert_eq!(verdict(&code, &tests, "def f(x):\n    return x"), "ok in_process");
    assert_eq!(verdict(&code, &tests, "    return 2 * x"), "wrong_answer");
    assert_eq!(verdict(&code, &tests, "def g(x):\n    return x"), "wrong_answer");
}

#[test]
fn streams_are_compared_line_by_line() {
    let Some(code) = code(options()) else { return };
    let case = |stdin: &str, stdout: &str| StreamCase { stdin: stdin.into(), stdout: stdout.into() };
    let tests = CodeTests::Streams { cases: vec![case("1 2\n", "3\n"), case("10 20", "30")] };
    let check = |program: &str, expect: &str| assert_eq!(verdict(&code, &tests, program), expect, "{program:?}");
    check("a, b = map(int, input().split())\nprint(a + b)", "ok");
    check("import sys\nprint(sum(map(int, sys.stdin.read().split())), ' ')\nexit()", "ok");
    check("if __name__ == '__main__':\n    print(eval(input().replace(' ', '+')))", "ok");
    check("print(3)", "wrong_answer");
    check("a, b = map(int, input().split())\nprint(a + b)\nraise SystemExit(1)", "runtime_error");
    check("print(input())\nprint(input())", "runtime_error");
    check("import time\ntime.sleep(0.01)\nprint(3 if input() == '1 2' else 30, end='')", "ok");
    check("import os\na, b = map(int, input().split())\nos.write(1, b'%d' % (a + b))", "ok");
    check("while True: print(1)", "output_limit");
    check("import sys\nsys.stdout.close()", "wrong_answer");
}

#[test]
fn what_is_no_program_is_no_answer_and_other_problems_are_none_of_its_business() {
    let Some(code) = code(options()) else { return };
    let tests = CodeTests::Asserts { prompt: None, entry: None, test: "assert f(1) == 1".into() };
    let verify = |problem: &Problem, text: &str| code.verify(problem, &Response::parse(text));
    for text in ["I do not know", "<think>```python\ndef f(x): return x\n```", ""] {
        assert!(matches!(verify(&problem(tests.clone()), text), Ok(Verdict::NoAnswer { .. })), "{text}");
    }
    let other = Problem { answer: Answer::Number { value: "1".into() }, ..problem(tests) };
    assert!(verify(&other, "1").is_err());
}
