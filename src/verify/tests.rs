use super::*;
use crate::problem::{Language, ProblemId};
use std::time::{Duration, Instant};

const STRICT: Rules = Rules::new(Extraction::Strict);
const FLEXIBLE: Rules = Rules::new(Extraction::Flexible);

fn problem(answer: Answer) -> Problem {
    Problem { id: ProblemId("t/0".into()), task: "t".into(), question: String::new(), answer, language: Language::En, level: None }
}

fn number(value: &str) -> Problem {
    problem(Answer::Number { value: value.into() })
}

fn countdown() -> Problem {
    problem(Answer::Countdown { numbers: vec![15, 44, 5], target: 54 })
}

fn zoey() -> Problem {
    problem(Answer::Knights { names: vec!["Zoey".into(), "Oliver".into()], knights: vec![false, true] })
}

/// A verdict in a few words: `correct 5`, `wrong different_number 6`, `none think_open`, `undecided overflow`.
fn told(rules: Rules, problem: &Problem, text: &str) -> String {
    let verdict = rules.judge(problem, &Response::parse(text));
    let rule = verdict.reason().map_or("", |reason| reason.rule.as_str());
    match &verdict {
        Verdict::Correct { answer } => format!("correct {answer}"),
        Verdict::Wrong { answer, .. } => format!("wrong {rule} {answer}"),
        Verdict::NoAnswer { .. } => format!("none {rule}"),
        Verdict::Undecided { .. } => format!("undecided {rule}"),
    }
}

fn check(rules: Rules, problem: &Problem, rows: &[(&str, &str)]) {
    let wrong: Vec<_> = rows
        .iter()
        .map(|(text, expect)| (text, told(rules.clone(), problem, text), expect))
        .filter(|(_, told, expect)| told != *expect)
        .collect();
    assert!(wrong.is_empty(), "(text, told, expected): {wrong:#?}");
}

#[test]
fn a_marked_answer_is_taken_in_the_order_box_tag_hashes() {
    check(
        STRICT,
        &number("5"),
        &[
            (r"\boxed{5}", "correct 5"),
            (r"\boxed{4} no, \boxed{5}", "correct 5"),
            (r"\boxed{5} <answer>4</answer> #### 4", "correct 5"),
            ("#### 4\n<answer> 5 </answer>", "correct 5"),
            ("<answer>4</answer><answer>5</answer>", "correct 5"),
            ("so\n#### 5", "correct 5"),
            ("#### 4\n#### 5\n", "correct 5"),
            ("#### 5\n#### Conclusion\nIt is 6.", "correct 5"),
            ("The answer is 5", "none no_answer"),
            ("#### Step two", "none no_answer"),
            ("", "none no_answer"),
            (r"\boxed{}", "none empty_answer"),
            ("<answer> \n</answer> 5", "none empty_answer"),
            (r"<think>\boxed{5}</think>so", "none no_answer"),
            (r"<think>so \boxed{5}", "none think_open"),
            ("<think>a</think><think>so 5 <answer>5</answer>", "none think_open"),
            (r"<think>\boxed{4}</think>\boxed{5}", "correct 5"),
        ],
    );
}

#[test]
fn flexible_extraction_falls_back_to_the_last_number() {
    check(
        FLEXIBLE,
        &number("72"),
        &[
            ("She sold 24, so it is 72 clips.", "correct 72"),
            ("72 clips in 2 months", "wrong different_number 2"),
            ("It costs $72.00.", "correct 72"),
            ("**72**", "correct 72"),
            ("the bag weighs 72kg!", "correct 72kg"),
            ("48+24=72", "correct 48+24=72"),
            ("x = 72", "correct x = 72"),
            ("$72$", "correct 72"),
            ("- 72", "wrong different_value - 72"),
            ("Answer: 72", "correct 72"),
            ("**Answer:** 72", "correct 72"),
            ("所以一共是72个苹果。", "correct 72"),
            ("it is -72", "wrong different_number -72"),
            ("x = -72", "wrong different_value x = -72"),
            (r"\boxed{7} then 72", "wrong different_number 7"),
            // What would be the last number is a part of something else.
            ("1/72", "wrong different_value 1/72"),
            ("172 - 100", "correct 172 - 100"),
            ("100 - 72", "wrong different_value 100 - 72"),
            (r"2 \times 36", r"correct 2 \times 36"),
            ("x^72", "wrong different_value x^72"),
            (r"$\frac{1}{72}$", r"wrong different_value $\frac{1}{72}$"),
            ("10:72", "wrong different 10:72"),
            ("1, 2, 72", "wrong different_shape 1, 2, 72"),
            ("Possible answers: 71, 72", "wrong different_shape 71, 72"),
            ("The answer is either 71 or 72, I am not sure.", "undecided not_understood"),
            ("x <=72", "wrong different x <=72"),
            ("72%", "correct 72%"),
            ("72 million people", "wrong different_value 72 million"),
            ("72万", "wrong different_value 72万"),
            ("72x", "wrong different_value 72x"),
            ("Answer: in the 72nd row", "wrong different_value in the 72nd row"),
            ("Answer: nobody knows the 72nd root of any such thing", "undecided not_understood"),
            ("Answer: after the 5th round there remain 72 people", "correct 72"),
            ("none at all", "none no_answer"),
        ],
    );
}

#[test]
fn plain_numbers_are_compared_digit_by_digit() {
    let rows: &[(&str, &str, &str)] = &[
        ("3.5", "$3.50.", "correct 3.5"),
        ("3.5", r"\$3.50", "correct 3.5"),
        ("-5", "-5", "correct -5"),
        ("5", "-5", "wrong different_number -5"),
        ("-5", "5", "wrong different_number 5"),
        ("-5", "−5", "correct -5"),
        ("-5", "-$5", "correct -5"),
        ("-5", "$-5$", "correct -5"),
        ("5", "+5", "correct 5"),
        ("5", "5.", "correct 5"),
        ("5", "5.000", "correct 5"),
        ("73", "073", "correct 73"),
        ("0.5", ".5", "correct 0.5"),
        ("0", "-0.0", "correct 0"),
        ("1234", "1,234", "correct 1234"),
        ("1234567.5", "1,234,567.5", "correct 1234567.5"),
        ("1234", "1{,}234", "correct 1234"),
        ("1234", r"1\,234", "correct 1234"),
        ("72", r"\text{72}", "correct 72"),
        ("72", r"72\text{ cm}", r"correct 72\text{ cm}"),
        ("72", r"72 \text{ million}", r"wrong different_value 72 \text{ million}"),
        ("722", "72 clips in 2 months", "wrong different_value 72 clips in 2 months"),
        ("12", "1,2", "wrong different_shape 1,2"),
        ("1234", "1,23,4", "wrong different_shape 1,23,4"),
        ("0.5", r"\frac{1}{2}", r"correct \frac{1}{2}"),
        ("0.5", "1/2", "correct 1/2"),
        ("50", r"50\%", r"correct 50\%"),
        ("7", "3+4", "correct 3+4"),
        ("5", "five", "correct five"),
        ("5", "x", "wrong different_value x"),
        ("0.35", "0.35000000000000000001", "correct 0.35000000000000000001"),
        ("0.3", "0.30000000000000000001", "wrong different_value 0.30000000000000000001"),
        ("0.3", "1/3", "wrong different_value 1/3"),
        ("9007199254740993", "9007199254740992", "wrong different_number 9007199254740992"),
    ];
    for (gold, answer, expect) in rows {
        assert_eq!(told(STRICT, &number(gold), &format!("<answer>{answer}</answer>")), *expect, "{gold} {answer}");
        assert_eq!(
            told(STRICT, &problem(Answer::Math { text: gold.to_string() }), &format!(r"\boxed{{{answer}}}")),
            *expect,
            "{gold} {answer}"
        );
    }
}

#[test]
fn a_reason_points_at_the_answer() {
    let text = r"<think>7</think> so \boxed{ 6 }";
    let verdict = STRICT.judge(&number("5"), &Response::parse(text));
    let reason = verdict.reason().expect("6 is not 5");
    assert_eq!((reason.value.as_deref(), reason.threshold.as_deref()), (Some("6"), Some("5")));
    assert_eq!(reason.span.map(|(start, end)| &text[start..end]), Some("6"));
}

#[test]
fn countdown_wants_each_number_once_and_the_target() {
    let rows: &[(&str, &str)] = &[
        ("(15 + 44) - 5", "correct (15 + 44) - 5"),
        ("(15+44)-5 = 54", "correct (15+44)-5 = 54"),
        ("15+44-5", "correct 15+44-5"),
        ("44--(15-5)", "correct 44--(15-5)"),
        (r"$\left(15+44\right)-5$", r"correct $\left(15+44\right)-5$"),
        ("15+44−5", "correct 15+44−5"),
        ("(15+44)-5 = 55", "wrong states_another_target (15+44)-5 = 55"),
        ("15+44-5 = 54 = 54", "wrong states_another_target 15+44-5 = 54 = 54"),
        ("15+44+5", "wrong misses_target 15+44+5"),
        ("44+5+5", "wrong wrong_numbers 44+5+5"),
        ("15+44", "wrong wrong_numbers 15+44"),
        ("54", "wrong wrong_numbers 54"),
        ("15+44-5+0", "wrong wrong_numbers 15+44-5+0"),
        ("15 44 5", "wrong not_an_expression 15 44 5"),
        ("15**44", "wrong not_an_expression 15**44"),
        ("15+44-5.0", "wrong not_an_expression 15+44-5.0"),
        ("(15+44-5", "wrong not_an_expression (15+44-5"),
        ("15+44)-5", "wrong not_an_expression 15+44)-5"),
        ("no", "wrong not_an_expression no"),
        ("15/(44-44)", "wrong division_by_zero 15/(44-44)"),
        ("1/0", "wrong division_by_zero 1/0"),
        ("99999999999999999999", "undecided overflow"),
    ];
    for (text, expect) in rows {
        assert_eq!(told(STRICT, &countdown(), &format!("<answer>{text}</answer>")), *expect, "{text:?}");
    }
    let thirds = problem(Answer::Countdown { numbers: vec![8, 3, 8, 3], target: 24 });
    check(
        STRICT,
        &thirds,
        &[
            (r"\boxed{8 \div (3 - 8 ÷ 3)}", r"correct 8 \div (3 - 8 ÷ 3)"),
            (r"\boxed{8 \times 3 \cdot (8 / 8)}", r"wrong wrong_numbers 8 \times 3 \cdot (8 / 8)"),
        ],
    );
    let huge = problem(Answer::Countdown { numbers: vec![i64::MAX; 4], target: 1 });
    let product = format!("<answer>{0}*{0}*{0}*{0}</answer>", i64::MAX);
    check(STRICT, &huge, &[(&product, "undecided overflow")]);
    check(FLEXIBLE, &countdown(), &[("15+44-5", "none no_answer")]);
}

#[test]
fn knights_and_knaves_wants_every_role_right() {
    let rows: &[(&str, &str)] = &[
        ("(1) Zoey is a knave (2) Oliver is a knight", "correct Zoey is a knave, Oliver is a knight"),
        ("OLIVER  is a\nKnight, zoey is A knave.", "correct Zoey is a knave, Oliver is a knight"),
        ("**Zoey** is a **knave** and **Oliver** is a **knight**", "correct Zoey is a knave, Oliver is a knight"),
        ("Zoey is a knight, Oliver is a knight", "wrong roles_right Zoey is a knight, Oliver is a knight"),
        ("Zoey is a knight, Oliver is a knave", "wrong roles_right Zoey is a knight, Oliver is a knave"),
        ("Zoey is a knave", "none roles_stated"),
        ("Zoey is a knave, Oliver is a knight, Ann is a knight", "none roles_stated"),
        ("Zoey is a knave, Zoey is a knight", "none person_without_role"),
        ("Zoey is not a knight, Oliver is a knight", "none person_without_role"),
        ("McZoey is a knave, Oliver is a knight", "none person_without_role"),
        ("Zoey, is a knave; Oliver is a knight", "none person_without_role"),
        ("nobody knows", "none roles_stated"),
    ];
    for (text, expect) in rows {
        assert_eq!(told(STRICT, &zoey(), &format!("<think>?</think><answer>{text}</answer>")), *expect, "{text:?}");
    }
    check(STRICT, &zoey(), &[("Zoey is a knave, Oliver is a knight", "none no_answer")]);
    check(FLEXIBLE, &zoey(), &[("Zoey is a knave, Oliver is a knight", "correct Zoey is a knave, Oliver is a knight")]);
}

#[test]
fn hostile_text_gets_a_verdict_quickly() {
    let many = |piece: &str| piece.repeat(100_000);
    let rows = [
        String::new(),
        "1".repeat(1_000_000),
        format!(r"\boxed{{{}}}", "1".repeat(1_000_000)),
        format!(r"\boxed{{{}1{}}}", many("{"), many("}")),
        format!(r"\boxed{{{}", many("{")),
        many(r"\boxed{"),
        format!("{}{}", many(r"\boxed{"), many("}")),
        many("<answer>"),
        many("</answer>"),
        many("<think>"),
        many("####"),
        many("####\n"),
        many("#### 1,\n"),
        format!("<answer>{}</answer>", "(".repeat(500)),
        format!("<answer>{}5</answer>", "-".repeat(500)),
        format!("<answer>{}</answer>", many("(")),
        format!("<answer>{}</answer>", "9*".repeat(200)),
        format!("<answer>{}</answer>", many("Zoey is a knave ")),
        many("1 - "),
        many(r"\$\("),
        "#### ".to_string() + &r"\$\(*".repeat(800),
        "<answer>1/0</answer>".into(),
        "<answer>170141183460469231731687303715884105728*5</answer>".into(),
        "\u{0}\u{feff}\\".into(),
        "}{".into(),
        "…1…".into(),
        "－１".into(),
    ];
    let problems = [
        number("5"),
        problem(Answer::Math { text: many("{") }),
        countdown(),
        zoey(),
        problem(Answer::Exact { text: "A b".into() }),
        problem(Answer::Choice { letter: 'J' }),
        problem(Answer::Regex { pattern: "(x+x+)+y".into() }),
    ];
    for text in &rows {
        for (problem, rules) in problems.iter().flat_map(|problem| [(problem, STRICT), (problem, FLEXIBLE)]) {
            let start = Instant::now();
            let verdict = rules.judge(problem, &Response::parse(text));
            let shown: String = text.chars().take(20).collect();
            assert!(!verdict.is_correct(), "{shown:?} for {:?}", problem.answer.gold());
            assert!(verdict.answer().is_none_or(|answer| answer.len() <= 4096), "{shown:?}");
            // Milliseconds; work that grows with the square of the length takes ten seconds and more.
            assert!(start.elapsed() < Duration::from_secs(2), "{shown:?} took {:?}", start.elapsed());
        }
    }
}

#[test]
fn exact_answers_are_the_same_text_white_space_aside() {
    let york = problem(Answer::Exact { text: "New York".into() });
    let marked = [
        (r"\boxed{New York}", "correct New York"),
        ("<answer> New\n  York </answer>", "correct New\n  York"),
        (r"\boxed{new york}", "wrong different_text new york"),
        (r"\boxed{New York City}", "wrong different_text New York City"),
        (r"\boxed{NewYork}", "wrong different_text NewYork"),
        (r"\boxed{New York.}", "wrong different_text New York."),
        (r"\boxed{} New York", "none empty_answer"),
        ("<think>\\boxed{New York}", "none think_open"),
        (r"\boxed{Paris} so the answer is New York", "wrong different_text Paris"),
    ];
    check(STRICT, &york, &marked);
    check(FLEXIBLE, &york, &marked);
    check(STRICT, &york, &[("New York", "none no_answer"), ("The answer is New York.", "none no_answer")]);
    check(
        FLEXIBLE,
        &york,
        &[
            ("<think>Paris?</think>\nNew York\n", "correct New York"),
            ("The answer is New York.", "correct New York"),
            ("The answer is: **New York**", "correct New York"),
            ("The answer is not New York.", "wrong different_text not New York"),
            ("The answer is New York or Paris", "wrong different_text New York or Paris"),
            ("I went to New York", "wrong different_text I went to New York"),
            ("", "none empty_answer"),
        ],
    );
    let sentence = problem(Answer::Exact { text: "My answer is no.".into() });
    check(FLEXIBLE, &sentence, &[("My answer is no.", "correct My answer is no."), ("no.", "wrong different_text no.")]);
}

#[test]
fn choices_are_letters_wherever_they_are_meant() {
    let c = problem(Answer::Choice { letter: 'C' });
    let marked = [
        (r"\boxed{C}", "correct C"),
        (r"\boxed{c}", "correct c"),
        (r"\boxed{(C)}", "correct (C)"),
        (r"\boxed{\text{C}}", r"correct \text{C}"),
        (r"\boxed{\textbf{(C)}\ 42}", r"correct \textbf{(C)}\ 42"),
        ("<answer>C. a cat</answer>", "correct C. a cat"),
        (r"\boxed{B}", "wrong different_choice B"),
        ("<answer>(D) a cat</answer>", "wrong different_choice (D) a cat"),
        ("<think>C</think>", "none no_answer"),
        ("<think>C", "none think_open"),
    ];
    check(STRICT, &c, &marked);
    check(STRICT, &c, &[("The answer is C.", "none no_answer")]);
    check(
        FLEXIBLE,
        &c,
        &[
            ("The answer is C.", "correct C"),
            ("The correct answer is (C) because A is too small.", "correct (C)"),
            ("So the answer is B.", "wrong different_choice B"),
            ("I choose (C).", "correct C"),
        ],
    );
    for text in [r"\boxed{C or D}", r"\boxed{A, B, C}", "The answer is C or D.", "The answer is not C.", r"\boxed{Cat}", r"\boxed{C+1}"] {
        assert!(!told(FLEXIBLE, &c, text).starts_with("correct"), "{text}: {}", told(FLEXIBLE, &c, text));
    }
}

#[test]
fn patterns_match_the_answer_as_a_whole() {
    let km = problem(Answer::Regex { pattern: r"(?i)(\d+) ?(km|kilometres?)".into() });
    let marked = [
        (r"\boxed{12 km}", "correct 12 km"),
        ("<answer>12KM</answer>", "correct 12KM"),
        (r"\boxed{12 km or so}", "wrong no_match 12 km or so"),
        (r"\boxed{about 12 km}", "wrong no_match about 12 km"),
        (r"\boxed{12}", "wrong no_match 12"),
        ("12 km", "none no_answer"),
    ];
    check(STRICT, &km, &marked);
    check(
        FLEXIBLE,
        &km,
        &[
            ("12 km", "correct 12 km"),
            ("The answer is 12 km.", "correct 12 km"),
            ("It is 12 km.", "wrong no_match It is 12 km."),
            ("12\nkm", "wrong no_match 12\nkm"),
        ],
    );
    // Hostile to engines that go back.
    let nested = problem(Answer::Regex { pattern: "(a*)*b".into() });
    let text = format!("<answer>{}</answer>", "a".repeat(4000));
    assert!(told(STRICT, &nested, &text).starts_with("wrong no_match a"));
    let long = format!("<answer>{}</answer>", "a".repeat(5000));
    assert_eq!(told(STRICT, &nested, &long), "none answer_too_long");
    let none = problem(Answer::Regex { pattern: "a)|(b".into() });
    check(STRICT, &none, &[("<answer>a</answer>", "undecided no_pattern"), (r"\boxed{a}", "undecided no_pattern")]);
}

#[test]
fn published_solutions_answer_their_own_problems() {
    let Ok(folder) = std::env::var("DISTILL_DATA") else {
        eprintln!("skipped: DISTILL_DATA is unset (published solutions)");
        return;
    };
    let rows = |file: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).expect("the data folder holds the file");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    };
    for row in rows("gsm8k_test.jsonl") {
        let (gold, solution) = (row["answer"].as_str().expect("text"), row["solution"].as_str().expect("text"));
        assert!(told(STRICT, &problem(Answer::Math { text: gold.into() }), solution).starts_with("correct"), "{}", row["id"]);
        assert!(
            told(FLEXIBLE, &problem(Answer::Math { text: gold.into() }), &solution.replace("#### ", "It is ")).starts_with("correct"),
            "{}",
            row["id"]
        );
    }
    for row in rows("countdown.jsonl") {
        let numbers: Vec<i64> = serde_json::from_value(row["nums"].clone()).expect("numbers");
        let target = row["target"].as_i64().expect("a number");
        let text = format!("<answer>{} = {target}</answer>", row["answer"].as_str().expect("text"));
        assert!(
            told(STRICT, &problem(Answer::Countdown { numbers: numbers.clone(), target }), &text).starts_with("correct"),
            "{}",
            row["id"]
        );
        assert!(!told(STRICT, &problem(Answer::Countdown { numbers, target: target + 1 }), &text).starts_with("correct"), "{}", row["id"]);
    }
    for row in rows("knights_knaves_test.jsonl") {
        let names: Vec<String> = serde_json::from_value(row["names"].clone()).expect("names");
        let mut knights: Vec<bool> = serde_json::from_value(row["solution_bool"].clone()).expect("roles");
        let text = format!("<answer>{}</answer>", row["answer"].as_str().expect("text"));
        assert!(
            told(STRICT, &problem(Answer::Knights { names: names.clone(), knights: knights.clone() }), &text).starts_with("correct"),
            "{}",
            row["id"]
        );
        knights[0] = !knights[0];
        assert!(told(STRICT, &problem(Answer::Knights { names, knights }), &text).starts_with("wrong"), "{}", row["id"]);
    }
}
