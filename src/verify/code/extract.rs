//! The program in a response: where it stands, and how it becomes whole. It does not know whether the program is right.

use super::super::extract::Extraction;
use crate::problem::CodeTests;
use crate::response::Response;
use crate::trace::Reason;

/// Longest program that is run, in bytes.
const MAX_PROGRAM: usize = 64 << 10;

/// A program as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub source: String,
    /// Byte range in the response of what it was made from.
    pub span: (usize, usize),
}

/// The last fenced block of the answer part, else its last `<answer>`, else the answer part itself where that is a program by its look (the entry point
/// is defined in it, or the problem gave the beginning), or where extraction is flexible.
pub(super) fn program(response: &Response, tests: &CodeTests, extraction: Extraction) -> Result<Program, Reason> {
    if response.think_open {
        return Err(Reason::rule("think_open"));
    }
    let (prompt, entry) = match tests {
        CodeTests::Asserts { prompt, entry, .. } => (prompt.as_deref(), entry.as_deref()),
        CodeTests::Calls { entry, .. } => (None, Some(entry.as_str())),
        CodeTests::Streams { .. } => (None, None),
    };
    let fenced = last_fence(response.answer).or_else(|| response.tag("answer"));
    let by_look = || prompt.is_some() || extraction == Extraction::Flexible || entry.is_some_and(|e| defines(response.answer, e));
    let Some(text) = fenced.or_else(|| by_look().then_some(response.answer)) else { return Err(Reason::rule("no_answer")) };
    let start = (text.as_ptr() as usize).saturating_sub(response.text.as_ptr() as usize);
    let span = (start, start + text.len());
    if text.trim().is_empty() {
        return Err(Reason { span: Some(span), ..Reason::rule("empty_answer") });
    }
    if text.len() > MAX_PROGRAM {
        return Err(Reason { span: Some(span), ..Reason::measured("answer_too_long", text.len(), MAX_PROGRAM) });
    }
    let source = match (prompt, entry) {
        (Some(prompt), Some(entry)) if defines(text, entry) => format!("{}\n{text}", before_entry(prompt, entry)),
        (Some(prompt), _) => continued(prompt, text, fenced.is_some()),
        (None, _) => text.to_owned(),
    };
    Ok(Program { source, span })
}

/// Inside of the last block between fences that is Python or says nothing of its language; an open block goes on to the end.
fn last_fence(text: &str) -> Option<&str> {
    let (mut found, mut open): (Option<&str>, Option<(usize, &str, bool)>) = (None, None);
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let mark = line.trim_start_matches([' ', '\t']);
        let ticks = mark.len() - mark.trim_start_matches('`').len();
        let tildes = mark.len() - mark.trim_start_matches('~').len();
        let (fence, info) = mark.split_at(ticks.max(tildes));
        at += line.len();
        if fence.len() < 3 {
            continue;
        }
        match open {
            None if !info.contains('`') => open = Some((at, fence, is_python(info))),
            Some((start, opened, python)) if fence.starts_with(opened) && info.trim().is_empty() => {
                if python {
                    found = Some(&text[start..at - line.len()]);
                }
                open = None;
            }
            _ => {}
        }
    }
    match open {
        Some((start, _, true)) => Some(&text[start..]),
        _ => found,
    }
}

fn is_python(info: &str) -> bool {
    let name = info.trim().split([' ', '{', ',']).next().unwrap_or_default().to_ascii_lowercase();
    matches!(&*name, "" | "python" | "python3" | "py" | "py3")
}

/// Whether a line begins with the definition of `name`.
fn defines(text: &str, name: &str) -> bool {
    text.lines().any(|line| is_definition(line, name))
}

fn is_definition(line: &str, name: &str) -> bool {
    let line = line.strip_prefix("async ").unwrap_or(line);
    let after = line.strip_prefix("def ").and_then(|rest| rest.trim_start().strip_prefix(name));
    let bound = line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('=') && !rest.trim_start().starts_with("=="));
    after.is_some_and(|rest| rest.trim_start().starts_with('(')) || bound
}

/// What a prompt has before the function that is asked for: imports and helpers.
fn before_entry<'a>(prompt: &'a str, entry: &str) -> &'a str {
    let mut at = 0;
    for line in prompt.split_inclusive('\n') {
        if is_definition(line, entry) {
            return &prompt[..at];
        }
        at += line.len();
    }
    ""
}

/// The prompt and the body that goes on from it: up to the first line that is not indented, and indented if none is.
fn continued(prompt: &str, text: &str, fenced: bool) -> String {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let prompt = format!("{}\n", prompt.trim_end_matches([' ', '\t']).trim_end_matches('\n'));
    if !first.starts_with([' ', '\t']) {
        // A sampler may have swallowed the indentation of the first line alone; a block that stands at the margin is indented as a whole.
        let others = text.lines().filter(|line| !line.trim().is_empty()).skip(1);
        if !fenced && others.clone().next().is_some_and(|line| line.starts_with([' ', '\t'])) {
            return prompt + "    " + body(text);
        }
        return text.lines().fold(prompt, |all, line| all + "    " + line + "\n");
    }
    prompt + body(text)
}

/// Up to the first line after the first that begins at the margin.
fn body(text: &str) -> &str {
    let mut at = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let ends = !line.trim().is_empty() && !line.starts_with([' ', '\t', ')', ']', '}', '#']);
        if ends && i > 0 && !text[..at].trim().is_empty() {
            return &text[..at];
        }
        at += line.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asserts(prompt: Option<&str>, entry: Option<&str>) -> CodeTests {
        CodeTests::Asserts { prompt: prompt.map(str::to_owned), entry: entry.map(str::to_owned), test: String::new() }
    }

    fn check(text: &str, tests: &CodeTests, extraction: Extraction, expect: Result<&str, &str>) {
        let got = program(&Response::parse(text), tests, extraction);
        let got = got.as_ref().map(|p| p.source.as_str()).map_err(|r| r.rule.as_str());
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn the_last_block_of_the_answer_part_is_the_program() {
        use Extraction::{Flexible, Strict};
        let plain = asserts(None, None);
        check("so\n```python\na = 1\n```\nor\n```\na = 2\n```\ndone", &plain, Strict, Ok("a = 2\n"));
        check("<think>\n```python\na = 1\n```\n</think>none", &plain, Strict, Err("no_answer"));
        check("<think>\n```python\na = 1\n```\n</think>\n```py\na = 2\n```", &plain, Strict, Ok("a = 2\n"));
        check("<think>```\na = 1", &plain, Strict, Err("think_open"));
        check("```python\na = 1\n```\nit prints\n```text\n1\n```", &plain, Strict, Ok("a = 1\n"));
        check("```python\na = 1\n", &plain, Strict, Ok("a = 1\n"));
        check("````python\ns = '''\n```\n'''\n````", &plain, Strict, Ok("s = '''\n```\n'''\n"));
        check("~~~\na = 1\n~~~", &plain, Strict, Ok("a = 1\n"));
        check("- step:\n  ```python\n  a = 1\n  ```", &plain, Strict, Ok("  a = 1\n"));
        check("<answer>a = 1</answer>", &plain, Strict, Ok("a = 1"));
        check("a = 1", &plain, Strict, Err("no_answer"));
        check("a = 1", &plain, Flexible, Ok("a = 1"));
        check("```python\n \n```", &plain, Strict, Err("empty_answer"));
        check("", &plain, Flexible, Err("empty_answer"));
        check(&format!("```\n{}\n```", "x".repeat(70_000)), &plain, Strict, Err("answer_too_long"));
        check("use ```a``` inline", &plain, Strict, Err("no_answer"));
        check("def f(x): return x", &asserts(None, Some("f")), Strict, Ok("def f(x): return x"));
        check("def ff(x): return x", &asserts(None, Some("f")), Strict, Err("no_answer"));
    }

    #[test]
    fn a_body_goes_on_from_its_prompt() {
        use Extraction::Strict;
        let tests = asserts(Some("import re\n\ndef f(x):\n    \"\"\"doc\"\"\"\n"), Some("f"));
        let head = "import re\n\ndef f(x):\n    \"\"\"doc\"\"\"\n";
        check("    return x\n", &tests, Strict, Ok(&format!("{head}    return x\n")));
        check("    return x\n\nprint(f(1))\n", &tests, Strict, Ok(&format!("{head}    return x\n\n")));
        check("return x + 1", &tests, Strict, Ok(&format!("{head}    return x + 1\n")));
        check("y = x\n    return y\n", &tests, Strict, Ok(&format!("{head}    y = x\n    return y\n")));
        check("```python\ny = x\nreturn y\n```", &tests, Strict, Ok(&format!("{head}    y = x\n    return y\n")));
        check("```python\ndef f(x):\n    return 2\n```", &tests, Strict, Ok("import re\n\n\ndef f(x):\n    return 2\n"));
    }
}
