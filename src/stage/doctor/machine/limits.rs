//! Small things that stop a run late: how many files may be open, and a clock that is years behind, with which no certificate is valid.

use super::super::finding::Finding;
use super::read;
use std::time::{SystemTime, UNIX_EPOCH};

/// Shards, journals, a server's connections and pipes to programs are open at once.
const ENOUGH: u64 = 1024;
/// 2026-01-01, in seconds since 1970: this program is younger.
const OLDEST: u64 = 1_767_225_600;
/// Seconds of a mean year.
const YEAR: u64 = 31_556_952;

/// Files that this process may have open.
pub fn files() -> Finding {
    enough(open_files(&read("/proc/self/limits")))
}

/// Of `/proc/self/limits`, the limit that holds now; `u64::MAX` where there is none.
fn open_files(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let word = line.split_whitespace().next()?;
    if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() }
}

fn enough(limit: Option<u64>) -> Finding {
    match limit {
        None => Finding::note("files", "how many may be open is not known here"),
        Some(u64::MAX) => Finding::good("files", "any number may be open"),
        Some(limit) if limit < ENOUGH => Finding::warning(
            "files",
            format!("only {limit} may be open at once, fewer than {ENOUGH}"),
            format!("ulimit -n {ENOUGH}, in the shell that starts distill"),
        ),
        Some(limit) => Finding::good("files", format!("{limit} may be open at once")),
    }
}

/// Whether the system's clock can be right.
pub fn clock() -> Finding {
    plausible(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn plausible(seconds: u64) -> Finding {
    let year = 1970 + seconds / YEAR;
    if seconds < OLDEST {
        return Finding::warning(
            "clock",
            format!("it is in the year {year}, before this program was made: the Hub's certificates are not valid yet"),
            "set it (timedatectl set-ntp true, or date -s)",
        );
    }
    Finding::good("clock", format!("it is in the year {year}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max cpu time              unlimited            unlimited            seconds   \n\
        Max processes             95870                95870                processes \n\
        Max open files            256                  524288               files     \n\
        Max locked memory         8388608              8388608              bytes     \n";

    #[test]
    fn few_open_files_are_noticed() {
        assert_eq!(open_files(LIMITS), Some(256));
        assert_eq!(open_files(&LIMITS.replace("256   ", "unlimited")), Some(u64::MAX));
        assert_eq!((open_files(""), open_files("Max open files")), (None, None));
        for (limit, state) in [(Some(1023), State::Warning), (Some(1024), State::Good), (Some(u64::MAX), State::Good), (None, State::Note)]
        {
            assert_eq!(enough(limit).state, state, "{limit:?}");
        }
    }

    #[test]
    fn a_clock_from_before_this_program_is_noticed() {
        for (seconds, state, year) in [
            (0, State::Warning, "1970"),
            (OLDEST - 1, State::Warning, ""),
            (OLDEST, State::Good, "2026"),
            (1_893_500_000, State::Good, "2030"), // 2030-01-01T12:13:20Z
        ] {
            let found = plausible(seconds);
            assert!(found.state == state && found.says.contains(year), "{seconds}: {found:?}");
        }
    }
}
