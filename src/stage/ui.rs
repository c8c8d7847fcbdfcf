//! What a person sees while a stage works: progress bars and remarks on stderr, and the answer to Ctrl-C.

use crate::report::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C (or SIGTERM) once asks the stage to finish its step and keep everything; twice ends at once.
pub fn watch_for_interrupts() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(143);
        }
        complain("\nstopping after this step; once more to stop at once");
    })?)
}

/// Whether a stop was asked for.
pub fn interrupt_requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// A line on stderr; where it cannot be written there is nobody to tell.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Columns that text for a person is laid out in: `COLUMNS`, else those of the terminal that `stream` is, else 100.
pub fn columns(stream: impl std::os::fd::AsFd) -> usize {
    const DEFAULT: usize = 100;
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok());
    let measured = || rustix::termios::tcgetwinsize(stream).ok().map(|size| usize::from(size.ws_col));
    said.or_else(measured).filter(|columns| *columns > 0).unwrap_or(DEFAULT)
}

/// Whether text on `stream` may have colours: it is a terminal that knows them, and `NO_COLOR` is not set.
pub fn colours(stream: impl IsTerminal) -> bool {
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    stream.is_terminal() && wants_colours(&said("NO_COLOR"), &said("TERM"))
}

/// By the convention of no-color.org an empty variable is none.
fn wants_colours(no_color: &str, term: &str) -> bool {
    no_color.is_empty() && term != "dumb"
}

/// How much is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ui {
    /// Machine-readable results on stdout; no remarks.
    pub json: bool,
    pub verbose: bool,
}

impl Ui {
    /// A remark on stderr.
    pub fn say(&self, text: &str) {
        if !self.json {
            complain(text);
        }
    }

    /// A remark for those who asked for more.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            complain(text);
        }
    }

    /// A bar over `total` steps, with time left; hidden where stderr is not a terminal.
    pub fn bar(&self, label: &str, total: u64) -> ProgressBar {
        let hidden = self.json || !std::io::stderr().is_terminal();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // Name and bar take a third each at most, so that the numbers behind them stay on the line; the message gets what is left.
        let columns = columns(std::io::stderr());
        let (name, cells) = (text::width(label).max(24).min(columns / 3), (columns / 4).min(30));
        let style =
            ProgressStyle::with_template(&format!("{{prefix}} {{bar:{cells}}} {{pos}}/{{len}}  {{elapsed}} (left {{eta}})  {{wide_msg}}"));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(text::column(label, name));
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_shown_to_those_who_can_see_them_and_want_to() {
        for (no_color, term, wanted) in
            [("", "xterm-256color", true), ("", "", true), ("", "dumb", false), ("1", "xterm", false), ("0", "xterm", false)]
        {
            assert_eq!(wants_colours(no_color, term), wanted, "NO_COLOR={no_color} TERM={term}");
        }
        let file = std::fs::File::open("/dev/null").expect("it is everywhere");
        assert!(!colours(file));
    }
}
