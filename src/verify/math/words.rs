//! Words in answers: numbers spelled out, and words that carry no meaning of their own.

/// The number that an English word spells: 0 to 20, the tens, hundred, thousand.
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

/// The number that a sequence of words spells: `one hundred twenty five`; `None` where a word among them is no number.
pub(super) fn spelled(words: &[&str]) -> Option<i64> {
    let (mut total, mut current) = (0i64, 0i64);
    for word in words {
        match (number(word), scale(word)) {
            (_, Some(100)) | (Some(100), _) => current = current.max(1).checked_mul(100)?,
            (_, Some(factor)) => {
                total = total.checked_add(current.max(1).checked_mul(factor)?)?;
                current = 0;
            }
            (Some(1000), _) => {
                total = total.checked_add(current.max(1).checked_mul(1000)?)?;
                current = 0;
            }
            // `twenty five`, not `five twenty`.
            (Some(n), _) if current == 0 || (n < 10 && current % 10 == 0 && current % 100 != 10) || (n < 100 && current % 100 == 0) => {
                current += n
            }
            _ => return None,
        }
    }
    total.checked_add(current)
}

/// Factors that follow a number: `3 million`.
pub(super) fn scale(word: &str) -> Option<i64> {
    Some(match word {
        "hundred" => 100,
        "thousand" | "千" => 1000,
        "million" => 1_000_000,
        "billion" => 1_000_000_000,
        "lakh" => 100_000,
        "crore" => 10_000_000,
        "tens" => 10,
        "hundreds" => 100,
        "thousands" => 1000,
        "millions" => 1_000_000,
        "quadrillion" => 1_000_000_000_000_000,
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

/// Words with which a remark begins that explains an answer or says for what it holds: what follows is not compared.
pub(super) fn begins_remark(word: &str) -> bool {
    matches!(word, "for" | "where" | "with" | "when" | "if" | "since" | "because" | "respectively" | "total" | "altogether")
}

/// Words that part cases.
pub(super) fn is_case(word: &str) -> bool {
    matches!(word, "otherwise" | "else" | "even" | "odd")
}

/// Words with which a value is not, or not for certain, the answer.
pub(in crate::verify) fn is_uncertain(word: &str) -> bool {
    matches!(
        word,
        "not"
            | "neither"
            | "maybe"
            | "perhaps"
            | "probably"
            | "possibly"
            | "guess"
            | "unknown"
            | "unsure"
            | "different"
            | "wrong"
            | "between"
    )
}

/// Words that make something else of the value beside them.
pub(super) fn changes_meaning(word: &str) -> bool {
    let otherwise = matches!(
        word,
        "no" | "none"
            | "never"
            | "least"
            | "most"
            | "than"
            | "except"
            | "without"
            | "factorial"
            | "remainder"
            | "modulo"
            | "half"
            | "thirds"
            | "quarters"
            | "tenths"
            | "hundredths"
            | "thousandths"
            | "millionths"
            | "score"
            | "gross"
            | "otherwise"
            | "inverse"
            | "reciprocal"
            | "root"
            | "cube"
            | "above"
            | "below"
            | "more"
            | "less"
            | "fewer"
            | "out"
            | "incorrect"
            | "false"
            | "myriad"
            | "permille"
            | "basis"
            | "fold"
            | "impossible"
            | "fails"
            | "cannot"
            | "excluded"
            | "invalid"
            | "doubled"
            | "halved"
            | "tripled"
            | "left"
            | "excluding"
            | "exclusive"
            | "away"
            | "short"
            | "among"
            | "example"
    );
    otherwise || is_uncertain(word)
}

/// Into how many parts a word like `thirds` divides.
pub(super) fn fraction(word: &str) -> Option<i64> {
    Some(match word {
        "half" | "halves" => 2,
        "third" | "thirds" => 3,
        "fourth" | "fourths" | "quarter" | "quarters" => 4,
        "fifth" | "fifths" => 5,
        "sixth" | "sixths" => 6,
        "seventh" | "sevenths" => 7,
        "eighth" | "eighths" => 8,
        "ninth" | "ninths" => 9,
        "tenth" | "tenths" => 10,
        "twelfths" => 12,
        "hundredth" | "hundredths" => 100,
        "thousandth" | "thousandths" => 1000,
        _ => return None,
    })
}
