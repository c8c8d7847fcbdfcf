//! What a check has found, and findings as text, as JSON and as an exit code.
//!
//! Nothing is checked here. What a finding says may come from outside, a driver or the name of a file: nothing in it moves a terminal.

use crate::report::text::{self, harmless};
use crate::stage::config;
use anyhow::{Result, anyhow};
use serde_json::{Value, json};

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// Neither good nor bad: something to know.
    Note,
    /// A run is slower, smaller or may lack something.
    Warning,
    /// A run, or a kind of run, cannot be.
    Fault,
}

impl State {
    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }

    /// As it stands in text, with the code of its colour.
    fn shown(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Good => ("ok", Some("\x1b[32m")),
            Self::Note => ("note", None),
            Self::Warning => ("warning", Some("\x1b[33m")),
            Self::Fault => ("FAULT", Some("\x1b[31m")),
        }
    }
}

/// Columns of the longest word for a state.
const WORD: usize = 7;
/// Ends a colour.
const PLAIN: &str = "\x1b[0m";

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A short name, such as `memory`.
    pub check: &'static str,
    pub state: State,
    pub says: String,
    /// What to do; a warning and a fault have one.
    pub remedy: Option<String>,
    /// Lines below it. They may hold codes of colour (`ESC [ … m`), which go where no colour is wanted; a line with colours is printed as wide as it is.
    pub more: Vec<String>,
}

impl Finding {
    pub fn good(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, state: State::Good, says: says.into(), remedy: None, more: Vec::new() }
    }

    pub fn note(check: &'static str, says: impl Into<String>) -> Self {
        Self { state: State::Note, ..Self::good(check, says) }
    }

    pub fn warning(check: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Warning, remedy: Some(remedy.into()), ..Self::good(check, says) }
    }

    pub fn fault(check: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Fault, ..Self::warning(check, says, remedy) }
    }

    /// The same with lines below it.
    pub fn with(self, more: Vec<String>) -> Self {
        Self { more, ..self }
    }

    /// On lines of `columns`, the names of checks filled up to `names`.
    fn lines(&self, names: usize, columns: usize, colour: bool) -> Vec<String> {
        let (word, code) = self.state.shown();
        let head = format!("  {word:<WORD$}  {}  ", text::column(self.check, names));
        let mut lines = text::beside(&head, &one_line(&self.says), columns);
        if let (Some(code), Some(first), true) = (code, lines.first_mut(), colour) {
            *first = first.replacen(word, &format!("{code}{word}{PLAIN}"), 1);
        }
        let at = text::width(&head);
        let indent = if at + 30 <= columns { at } else { 6 };
        let remedy = self.remedy.iter().map(|remedy| format!("{:indent$}-> {}", "", one_line(remedy)));
        lines.extend(remedy.flat_map(|remedy| text::wrap(&remedy, columns, indent + 3)));
        lines.extend(self.more.iter().flat_map(|more| more.lines()).flat_map(|line| below(line, indent, columns, colour)));
        lines
    }

    fn json(&self) -> Value {
        let more: Vec<String> = self.more.iter().map(|line| plain(line)).collect();
        json!({"check": self.check, "state": self.state.name(), "says": self.says, "remedy": self.remedy, "more": more})
    }
}

/// All that was found, in the order in which it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// For a person: a line for each, wrapped, with its remedy and what else there is below it.
    pub fn text(&self, columns: usize, colour: bool) -> String {
        let names = self.0.iter().map(|finding| text::width(finding.check)).max().unwrap_or(0);
        self.0.iter().flat_map(|finding| finding.lines(names, columns, colour)).map(|line| line + "\n").collect()
    }

    /// A list of objects.
    pub fn json(&self) -> Value {
        self.0.iter().map(Finding::json).collect()
    }

    /// Whether it is well.
    ///
    /// # Errors
    /// Where there is a fault, of the class of recipe and environment (exit code 78).
    pub fn verdict(&self) -> Result<()> {
        let faults: Vec<&str> = self.0.iter().filter(|finding| finding.state == State::Fault).map(|finding| finding.check).collect();
        let what = match faults.len() {
            0 => return Ok(()),
            1 => "1 fault was found".to_owned(),
            n => format!("{n} faults were found"),
        };
        config(Err(anyhow!("{what} ({}); what to do is said with each", faults.join(", "))))
    }
}

fn one_line(text: &str) -> String {
    harmless(text).replace('\n', " ")
}

/// A line below a finding. One with colours is not wrapped: whoever made it has laid it out.
fn below(line: &str, indent: usize, columns: usize, colour: bool) -> Vec<String> {
    let pieces = pieces(line);
    if colour && pieces.len() > 1 {
        let painted: String = pieces.iter().map(|(text, code)| format!("{}{code}", harmless(text))).collect();
        return vec![format!("{:indent$}{painted}{PLAIN}", "")];
    }
    text::wrap(&format!("{:indent$}{}", "", harmless(&plain(line))), columns, indent + 2)
}

/// A line without codes of colour.
fn plain(line: &str) -> String {
    pieces(line).into_iter().map(|(text, _)| text).collect()
}

/// Text and the code of colour behind it; the last piece has none. Other codes are text.
fn pieces(line: &str) -> Vec<(&str, &str)> {
    let (mut pieces, mut from, mut at) = (Vec::new(), 0, 0);
    while let Some(found) = line[at..].find("\x1b[") {
        let start = at + found;
        at = start + 2;
        let numbers = line[at..].bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
        if line[at + numbers..].starts_with('m') {
            at += numbers + 1;
            pieces.push((&line[from..start], &line[start..at]));
            from = at;
        }
    }
    pieces.push((&line[from..], ""));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn some() -> Findings {
        Findings(vec![
            Finding::good("memory", "21.3 GB free of 23.4 GB"),
            Finding::note("gpu", "none was found"),
            Finding::warning(
                "disk",
                "3.2 GB free on the disk of /home/somebody/with/a/long/name/runs, where a run begins at the folder of its recipe",
                "make room, or give --run DIR on another disk",
            ),
            Finding::fault("sandbox", "1 of 2 tries got out", "run no untrusted program here")
                .with(vec!["held     the network".into(), "\x1b[31mESCAPED\x1b[0m  files of the machine".into()]),
        ])
    }

    #[test]
    fn each_finding_has_a_line_with_its_remedy_and_the_rest_below() {
        expect![[r#"
            at 70 columns
              ok       memory   21.3 GB free of 23.4 GB
              note     gpu      none was found
              warning  disk     3.2 GB free on the disk of
                                /home/somebody/with/a/long/name/runs, where a run
                                begins at the folder of its recipe
                                -> make room, or give --run DIR on another disk
              FAULT    sandbox  1 of 2 tries got out
                                -> run no untrusted program here
                                held     the network
                                ESCAPED  files of the machine
        "#]]
        .assert_eq(&format!("at 70 columns\n{}", some().text(70, false)));
    }

    #[test]
    fn text_keeps_to_the_columns() {
        for columns in [30, 40, 60, 80, 140] {
            let text = some().text(columns, false);
            assert!(text.lines().all(|line| text::width(line) <= columns), "{columns}:\n{text}");
            for part in ["untrusted", "files of the", "-> make room"] {
                assert!(text.contains(part), "{columns}: {part} is not in\n{text}");
            }
        }
    }

    #[test]
    fn only_the_word_is_coloured_and_what_has_colours_of_its_own_keeps_them() {
        let lines: Vec<String> = some().text(70, true).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "  \x1b[32mok\x1b[0m       memory   21.3 GB free of 23.4 GB");
        assert_eq!(lines[1], "  note     gpu      none was found");
        assert!(lines[2].starts_with("  \x1b[33mwarning\x1b[0m  disk     3.2 GB"), "{}", lines[2]);
        assert!(lines[6].starts_with("  \x1b[31mFAULT\x1b[0m    sandbox  1 of 2"), "{}", lines[6]);
        assert_eq!(lines[9], "                    \x1b[31mESCAPED\x1b[0m  files of the machine\x1b[0m");
        assert_eq!(plain(&lines.join("\n")).trim_end(), some().text(70, false).trim_end());
    }

    #[test]
    fn nothing_from_outside_moves_a_terminal() {
        let hostile = "a\x1b[2Jb\x1b]0;title\x07c\u{202e}d\r\x1b[";
        for colour in [false, true] {
            let finding = Finding::warning("gpu", hostile, hostile).with(vec![hostile.into(), format!("{hostile}\x1b[1mx")]);
            let text = plain(&Findings(vec![finding]).text(200, colour));
            assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
            assert_eq!(text.matches("a\u{fffd}[2Jb").count(), 4, "{text:?}");
        }
        assert_eq!(Findings(vec![Finding::note("gpu", "a\nb")]).text(80, false), "  note     gpu  a b\n");
    }

    #[test]
    fn json_has_every_field_and_no_colours() {
        expect![[r#"
            {
              "check": "sandbox",
              "state": "fault",
              "says": "1 of 2 tries got out",
              "remedy": "run no untrusted program here",
              "more": [
                "held     the network",
                "ESCAPED  files of the machine"
              ]
            }"#]]
        .assert_eq(&format!("{:#}", some().json()[3]));
        let states: Vec<Value> = some().json().as_array().expect("a list").iter().map(|finding| finding["state"].clone()).collect();
        assert_eq!(states, ["ok", "note", "warning", "fault"]);
        assert_eq!(some().json()[0]["remedy"], Value::Null);
    }

    #[test]
    fn a_fault_is_a_matter_of_the_environment_and_a_warning_is_none() {
        let error = some().verdict().expect_err("there is a fault");
        assert!(error.is::<crate::stage::ConfigError>());
        assert_eq!(error.to_string(), "1 fault was found (sandbox); what to do is said with each");
        let mut all = some();
        all.0.insert(0, Finding::fault("disk", "full", "make room"));
        assert_eq!(all.verdict().expect_err("two").to_string(), "2 faults were found (disk, sandbox); what to do is said with each");
        all.0.retain(|finding| finding.state != State::Fault);
        assert!(all.verdict().is_ok() && all.0.len() == 3);
    }
}
