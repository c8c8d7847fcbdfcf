//! Runs of letters: variables side by side, names that grew together, superscripts.

/// Whether a run of letters is names of functions and variables that grew together.
pub(super) fn is_formula(run: &str) -> bool {
    grown_together(run, "").is_some()
}

/// The parts of names that grew together: `xsin` before a bracket, `pisqrt`, `costheta`, `xlnx`. `None` for a word.
pub(super) fn grown_together<'a>(run: &'a str, behind: &str) -> Option<Vec<&'a str>> {
    const NAMES: [&str; 24] = [
        "sqrt", "sin", "cos", "tan", "cot", "sec", "ln", "log", "exp", "pi", "theta", "alpha", "beta", "gamma", "delta", "lambda", "omega",
        "sigma", "phi", "rho", "mu", "arctan", "arcsin", "arccos",
    ];
    if !run.is_ascii() || run.len() > 16 || super::words::begins_remark(run) {
        return None;
    }
    let (mut parts, mut at, mut singles, mut functions) = (Vec::new(), 0, 0, 0);
    while at < run.len() {
        let name = NAMES.iter().filter(|name| run[at..].starts_with(**name)).max_by_key(|name| name.len());
        let n = name.map_or(1, |name| name.len());
        singles += usize::from(name.is_none());
        functions += usize::from(name.is_some_and(|n| {
            matches!(*n, "sqrt" | "sin" | "cos" | "tan" | "cot" | "sec" | "ln" | "log" | "exp" | "arctan" | "arcsin" | "arccos")
        }));
        parts.push(&run[at..at + n]);
        at += n;
    }
    let last = parts.last()?;
    let opens = behind.starts_with(['(', '{', '^', '\\']) || behind.starts_with(|c: char| c.is_ascii_digit());
    let ends_in_function = matches!(*last, "sqrt" | "sin" | "cos" | "tan" | "cot" | "sec" | "ln" | "log" | "exp");
    let named = parts.len() - singles;
    let fits = match (functions, ends_in_function) {
        (0, _) => singles <= 2 && named >= 1 && (opens || singles <= 1),
        (_, true) => opens && singles <= 2,
        // `xlnx`, `sinx`: a function with its letter, and one before it.
        _ => {
            functions == 1
                && singles <= 2
                && run.len() <= 12
                && (named >= 2 || matches!(parts.as_slice(), [_, "sin" | "cos" | "tan" | "ln" | "log", x] if x.len() == 1))
        }
    };
    (named >= 1 && parts.len() >= 2 && fits).then_some(parts)
}

/// Whether a run of letters is variables side by side rather than a word: neighbours in the alphabet in any order (`abcd`, `xyzw`), or without a vowel.
pub(super) fn is_product(run: &str) -> bool {
    let mut letters = run.as_bytes().to_vec();
    letters.sort_unstable();
    run.is_ascii()
        && run.len() <= 6
        && (letters.windows(2).all(|w| w[0] + 1 == w[1]) || !run.contains(['a', 'e', 'i', 'o', 'u', 'y', 'A', 'E', 'I', 'O', 'U', 'Y']))
}

/// Letters of Unicode that are signs of mathematics.
pub(super) fn is_symbol(c: char) -> bool {
    matches!(c, 'π' | 'ⁿ' | 'ª' | 'º' | 'ℝ' | 'ℤ' | 'ℚ' | 'ℕ' | 'ℂ' | 'ⁱ') || superscript(c).is_some()
}

/// The character that a superscript stands for.
pub(super) fn superscript(c: char) -> Option<char> {
    Some(match c {
        '⁰' => '0',
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        '⁴'..='⁹' => char::from(b'4' + (c as u32 - '⁴' as u32) as u8),
        '⁺' => '+',
        '⁻' => '-',
        '⁽' => '(',
        '⁾' => ')',
        'ⁿ' => 'n',
        'ˣ' => 'x',
        'ʸ' => 'y',
        'ᵃ' => 'a',
        'ᵇ' => 'b',
        'ᶜ' => 'c',
        'ᵈ' => 'd',
        'ᵉ' => 'e',
        'ᵏ' => 'k',
        'ᵐ' => 'm',
        'ᵖ' => 'p',
        'ʳ' => 'r',
        'ˢ' => 's',
        'ᵗ' => 't',
        'ⁱ' => 'i',
        'ʲ' => 'j',
        _ => return None,
    })
}
