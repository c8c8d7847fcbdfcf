//! Words with which a text turns back on itself. A correlate of checking one's work, not a proof of it.

use regex::Regex;
use std::sync::LazyLock;

/// English markers as whole words, and Chinese ones anywhere.
///
/// After the words that the R1 paper plots (wait, mistake, however, retry, error, verify, wrong, check), without those that a plain
/// solution also uses (`but`, `error`, `wrong`, `check` alone).
const WORDS: &str = r"(?ix) (?-u:\b) (?: wait | hmm+ | however | alternatively | mistake | retry | try\ again | re-?check(?:ing)? | double-?\ ?check(?:ing)?
    | re-?consider(?:ing)? | re-?examin(?:e|ing) | re-?think(?:ing)? | re-?evaluat(?:e|ing) | verify | verifying | on\ second\ thought
    | let\ (?:me|us|'s)\ check | let['’]s\ check | start\ over ) (?-u:\b)
    | 等等 | 等一下 | 不对 | 然而 | 重新 | 检查 | 验证 | 验算 | 再想 | 再看 | 再算 | 或者说 | 换个思路 | 换一种";

static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(WORDS).expect("the pattern is a constant that the tests compile"));

/// How many reflection words `text` holds, case ignored.
pub fn words(text: &str) -> usize {
    PATTERN.find_iter(text).count()
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
        ];
        for (text, expect) in rows {
            assert_eq!(words(text), expect, "{text:?}");
        }
    }
}
