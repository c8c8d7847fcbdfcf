//! Jobs for the Python driver: what is to be run, as the Python literal that `driver.py` reads.

/// The driver itself, the same whether it is started fresh or waits in a warm process.
pub(super) const DRIVER: &str = include_str!("driver.py");

/// One run of one program.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// The program as it stands, under the name `__main__`.
    Main { program: String },
    /// `entry` on each list of arguments, in one process, in order; a list is a Python literal of a tuple or list.
    Calls { program: String, entry: String, calls: Vec<String> },
    /// Expressions beside the program, after the statements `before`; `name` stands for the function `entry` in them where there is one.
    Expressions { program: String, before: String, name: String, entry: Option<String>, sources: Vec<String> },
    /// Statements beside the program, which call a function named `counter` after each assert; then `check(entry)` where there is an entry.
    Asserts { program: String, test: String, entry: Option<String>, counter: String },
}

impl Job {
    /// The literal that the driver evaluates, ASCII only.
    pub(super) fn literal(&self) -> String {
        let name = |entry: &Option<String>| entry.as_deref().map_or("None".to_owned(), text);
        let list = |items: &mut dyn Iterator<Item = String>| format!("[{}]", items.map(|item| item + ",").collect::<String>());
        match self {
            Self::Main { program } => format!("('main',{})", text(program)),
            Self::Calls { program, entry, calls } => {
                format!("('calls',{},{},{})", text(program), text(entry), list(&mut calls.iter().cloned()))
            }
            Self::Expressions { program, before, name: alias, entry, sources } => {
                let sources = list(&mut sources.iter().map(|source| text(source)));
                format!("('expressions',{},{},{},{},{sources})", text(program), text(before), text(alias), name(entry))
            }
            Self::Asserts { program, test, entry, counter } => {
                format!("('asserts',{},{},{},{})", text(program), text(test), name(entry), text(counter))
            }
        }
    }
}

/// A text as a Python string literal, ASCII only.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_python_literals() {
        assert_eq!(text("a\"\\\n\u{e9}\u{4e00}\u{1f600}\u{0}"), "\"a\\\"\\\\\\n\\xe9\\u4e00\\U0001f600\\x00\"");
    }
}
