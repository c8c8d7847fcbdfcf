//! Words with which a text turns back on itself. A correlate of checking one's work, not a proof of it.

use super::phrases::Phrases;
use std::sync::LazyLock;

/// English markers as whole words, case ignored, and Chinese ones anywhere.
///
/// After the words that the R1 paper plots (wait, mistake, however, retry, error, verify, wrong, check), without those that a plain
/// solution also uses (`but`, `error`, `wrong`, `check` alone). No two of them can overlap but `等等` with itself.
pub(super) const WORDS: &[&str] = &[
    "wait",
    "hmm",
    "hmmm",
    "hmmmm",
    "hmmmmm",
    "hmmmmmm",
    "however",
    "alternatively",
    "mistake",
    "retry",
    "try again",
    "recheck",
    "rechecking",
    "re-check",
    "re-checking",
    "doublecheck",
    "doublechecking",
    "double-check",
    "double-checking",
    "double check",
    "double checking",
    "reconsider",
    "reconsidering",
    "re-consider",
    "re-considering",
    "reexamine",
    "reexamining",
    "re-examine",
    "re-examining",
    "rethink",
    "rethinking",
    "re-think",
    "re-thinking",
    "reevaluate",
    "reevaluating",
    "re-evaluate",
    "re-evaluating",
    "verify",
    "verifying",
    "on second thought",
    "let me check",
    "let us check",
    "let's check",
    "let’s check",
    "start over",
    "等等",
    "等一下",
    "不对",
    "然而",
    "重新",
    "检查",
    "验证",
    "验算",
    "再想",
    "再看",
    "再算",
    "或者说",
    "换个思路",
    "换一种",
];

static PHRASES: LazyLock<Phrases> = LazyLock::new(|| Phrases::new(WORDS.iter().copied()));

/// How many reflection words `text` holds.
pub fn words(text: &str) -> usize {
    let mut counter = Counter::default();
    PHRASES.find(text, |_, start, end| counter.add(start, end));
    counter.count
}

/// Counts words that do not overlap, in the order of their beginnings.
#[derive(Default)]
pub(super) struct Counter {
    pub(super) count: usize,
    end: usize,
}

impl Counter {
    pub(super) fn add(&mut self, start: usize, end: usize) {
        if start >= self.end {
            self.count += 1;
            self.end = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_words_are_counted_as_whole_words() {
        let rows = [
            ("", 0),
            ("Wait, that is wrong.", 1),
            ("waiting waiter await", 0),
            ("However, let me check. Let's check! Re-check and recheck it.", 5),
            ("Alternatively, double-check; on second thought, verify.", 4),
            ("I checked, but the error is small.", 0),
            ("verified", 0),
            ("好wait等等，重新检查一下，再想想。", 5),
            ("等于 11", 0),
            ("等等等等等", 2),
            ("Hmm hmmm Hmmmm hm", 3),
            ("let me check let us check let’s check", 3),
        ];
        for (text, expect) in rows {
            assert_eq!(words(text), expect, "{text:?}");
        }
    }
}
