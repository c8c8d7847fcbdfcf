//! Words in answers: numbers spelled out, and words that carry no meaning of their own.

/// The number that a word spells, 0 to 20, the tens, hundred, thousand; and the same in Chinese up to ten.
pub(super) fn number(word: &str) -> Option<i64> {
    const SMALL: [&str; 21] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    const TENS: [(&str, i64); 9] = [
        ("thirty", 30),
        ("forty", 40),
        ("fifty", 50),
        ("sixty", 60),
        ("seventy", 70),
        ("eighty", 80),
        ("ninety", 90),
        ("hundred", 100),
        ("thousand", 1000),
    ];
    if let Some(i) = SMALL.iter().position(|w| *w == word) {
        return Some(i as i64);
    }
    TENS.iter().find(|(w, _)| *w == word).map(|(_, n)| *n)
}

/// Factors that follow a number: `3 million`.
pub(super) fn scale(word: &str) -> Option<i64> {
    Some(match word {
        "hundred" => 100,
        "thousand" | "千" => 1000,
        "million" => 1_000_000,
        "billion" => 1_000_000_000,
        "trillion" => 1_000_000_000_000,
        "dozen" => 12,
        "万" => 10_000,
        "亿" => 100_000_000,
        _ => return None,
    })
}

/// Words before an answer that do not change it.
pub(super) fn is_noise(word: &str) -> bool {
    matches!(
        word,
        "the"
            | "is"
            | "are"
            | "answer"
            | "answers"
            | "value"
            | "values"
            | "final"
            | "result"
            | "total"
            | "solution"
            | "solutions"
            | "only"
            | "exactly"
            | "about"
            | "approximately"
            | "approx"
            | "roughly"
            | "around"
            | "equals"
            | "equal"
            | "thus"
            | "therefore"
            | "hence"
            | "so"
            | "we"
            | "have"
            | "get"
            | "both"
            | "either"
            | "共"
            | "约"
            | "答案"
            | "为"
            | "是"
    )
}

/// Words with which a remark begins that restricts or explains an answer: what follows is not compared.
pub(super) fn begins_remark(word: &str) -> bool {
    matches!(
        word,
        "for" | "where" | "with" | "when" | "if" | "since" | "because" | "such" | "respectively" | "only" | "total" | "in" | "altogether"
    )
}
