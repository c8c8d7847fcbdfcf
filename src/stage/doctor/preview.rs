//! A training row as a person sees it: what is in the loss, and what is not.
//!
//! Two marks at the margin say it without colours: `·` stands before what the model is shown, `+` before what it learns to say.

use crate::model::text::Text;
use crate::report::text::harmless;
use crate::train::Example;

/// Lines that are shown of the prompt and of the completion.
const LINES: usize = 8;
const GREY: &str = "\x1b[90m";
const GREEN: &str = "\x1b[32m";
const BOLD: &str = "\x1b[1;32m";
const PLAIN: &str = "\x1b[0m";

/// The prompt in grey, the completion in green, the end token in bold.
pub(super) fn lines(text: &Text, example: &Example) -> Vec<String> {
    let (prompt, targets) = example.tokens.split_at(example.completion);
    let (end, said) = match targets.split_last() {
        Some((last, said)) if *last == text.end_id() => (text.decode(&[*last]), said),
        _ => (String::new(), targets),
    };
    let mut lines = part(&text.decode(prompt), '·', GREY);
    let mut learnt = part(&text.decode(said), '+', GREEN);
    if let Some(last) = learnt.last_mut().filter(|_| !end.is_empty()) {
        *last += &format!("{BOLD}{end}{PLAIN}");
    }
    lines.append(&mut learnt);
    lines
}

fn part(text: &str, mark: char, colour: &str) -> Vec<String> {
    let all: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
    let line = |line: &str| format!("{colour}{mark} {}{PLAIN}", harmless(line));
    if all.len() <= LINES {
        return all.into_iter().map(line).collect();
    }
    let (first, last) = (&all[..LINES / 2], &all[all.len() - LINES / 2..]);
    let between = format!("… {} lines", all.len() - LINES);
    first.iter().copied().chain([&between[..]]).chain(last.iter().copied()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_is_learnt_is_marked_and_the_middle_of_long_parts_left_out() {
        let text = Text::tiny();
        let prompt = text.encode("<user>what is 1+2\n<assistant>").unwrap();
        let answer: String = format!("<think>{}</think><answer>3</answer>", "1+2 is 3\n".repeat(12));
        let tokens = [prompt.clone(), text.encode(&answer).unwrap(), vec![text.end_id()]].concat();
        let shown = lines(&text, &Example { tokens, completion: prompt.len() }).join("\n");
        let plain = shown.replace(GREY, "").replace(GREEN, "").replace(BOLD, "").replace(PLAIN, "");
        expect![[r#"
            · <user>what is 1+2
            · <assistant>
            + <think>1+2 is 3
            + 1+2 is 3
            + 1+2 is 3
            + 1+2 is 3
            + … 5 lines
            + 1+2 is 3
            + 1+2 is 3
            + 1+2 is 3
            + </think><answer>3</answer><eos>"#]]
        .assert_eq(&plain);
        assert!(shown.contains(&format!("{BOLD}<eos>{PLAIN}")));
    }
}
