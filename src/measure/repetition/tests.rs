use super::*;

fn rule(text: &str) -> Option<String> {
    is_repetitive(&measure(text)).err().map(|reason| reason.rule)
}

/// `n` sentences that differ in every word that carries meaning.
fn filler(n: usize) -> String {
    const WORDS: [&str; 12] =
        ["apple", "river", "seven", "green", "north", "candle", "market", "silver", "window", "paper", "garden", "stone"];
    let word = |i: usize| WORDS[(i * i + i / 3 + i / 7) % 12];
    (0..n).map(|i| format!("The {} {} number {i} meets {} at {}. ", word(i), word(i + 5), word(3 * i + 1), i * i)).collect()
}

#[test]
fn each_part_is_repetitive_from_its_limit_on() {
    let apart = |unit: &str, n: usize| (0..n).map(|i| format!("{unit}\n\nNothing else is like number {i} here\n\n")).collect::<String>();
    let sentences = |n: usize| (0..n).map(|i| format!("we still have to look at it. other sentence {i} is here. ")).collect::<String>();
    let rows = [
        (String::new(), None),
        (filler(200), None),
        ("The very same paragraph stands here\n\n".repeat(9) + &filler(40), None),
        ("The very same paragraph stands here\n\n".repeat(10) + &filler(40), Some("repetition.paragraph")),
        (apart("The very same paragraph stands here", 19) + &filler(40), None),
        (apart("The very same paragraph stands here", 20) + &filler(60), Some("repetition.paragraph")),
        // Mathematics may return twice as often.
        ("so the value = x + 1 as before\n\n".repeat(19) + &filler(100), None),
        ("so the value = x + 1 as before\n\n".repeat(20) + &filler(100), Some("repetition.paragraph")),
        ("it goes on and on.".repeat(3) + &filler(9), None),
        ("it goes on and on.".repeat(4) + &filler(9), Some("repetition.sentence_in_row")),
        ("Hmm.".repeat(30) + &filler(9), None),
        ("他继续往前走。".repeat(4) + &filler(9), Some("repetition.sentence_in_row")),
        (sentences(39) + &filler(100), None),
        (sentences(40) + &filler(100), Some("repetition.sentence")),
        // In a text with a list three times as often.
        ("1. a\n2. b.".to_owned() + &"it goes on and on.".repeat(11) + &filler(9), None),
        ("1. a\n2. b.".to_owned() + &"it goes on and on.".repeat(12) + &filler(9), Some("repetition.sentence_in_row")),
    ];
    for (text, expect) in rows {
        assert_eq!(rule(&text).as_deref(), expect, "{:?}", measure(&text));
    }
}

#[test]
fn reasons_have_value_limit_and_place() {
    let text = filler(3) + &"it goes on and on. ".repeat(5) + &filler(3);
    let reason = is_repetitive(&measure(&text)).expect_err("five in a row");
    assert_eq!(reason.to_string(), "repetition.sentence_in_row (5, asked for less than 4)");
    let (start, end) = reason.span.expect("a place");
    assert_eq!(&text[start..end], "it goes on and on");
}

#[test]
fn a_loop_without_sentences_is_found_by_its_grams() {
    let step =
        |i: usize| format!("{} take the left one then the right one and then go around the block until it is {} again\n", i % 7, i % 5);
    let text: String = (0..200).map(step).collect();
    let m = measure(&(text.clone() + &filler(20)));
    assert!(m.grams.share > 0.5 && m.grams.times >= 20, "{m:?}");
    let m = measure(&filler(300));
    assert!(m.grams.sampled > 300 && m.grams.share < 0.02, "{m:?}");
    // A loop of a few letters has few different grams, and none of them need be a sampled one.
    for unit in ["a", "ab", "abc ", "0123456789", "好"] {
        let m = measure(&(filler(5) + &unit.repeat(5000) + &filler(5)));
        assert!(m.grams.times >= 3 && m.grams.share > 0.3, "{unit:?} {m:?}");
    }
}

#[test]
fn the_tail_is_the_loop_that_a_text_ends_in() {
    let rows = [
        ("", 0, 0),
        ("abcabc", 0, 0),
        (&*filler(50), 0, 0),
        (&*(filler(50) + &"round and round. ".repeat(30)), 17, 30),
        (&*(filler(50) + &"round and round. ".repeat(30) + "round an"), 17, 30),
        (&*"x".repeat(1000), 1, 1000),
        (&*("so ".to_owned() + &"0".repeat(500)), 1, 500),
        (&*(filler(3) + &filler(40).repeat(4)), filler(40).len(), 4),
        (&*("ab".repeat(100) + "c"), 0, 0),
        // Longer than the window.
        (&*("start: ".to_owned() + &"seven letters. ".repeat(20_000)), 15, 20_000),
    ];
    for (text, period, times) in rows {
        let tail = measure(text).tail;
        assert_eq!((tail.period, tail.times), (period, times), "{:?}", &text[text.len().saturating_sub(60)..]);
        if period > 0 {
            let bytes = &text.as_bytes()[tail.span.0..tail.span.1];
            assert!(bytes.iter().zip(&bytes[period..]).all(|(a, b)| a == b));
        }
    }
    assert_eq!(rule(&(filler(9) + &"round and round, ".repeat(30))).as_deref(), Some("repetition.tail"));
    assert_eq!(rule(&(filler(9) + &"-".repeat(200))), None);
}

/// The Z-function against its definition, on texts of two letters, where matches are long.
#[test]
fn the_tail_has_the_period_that_goes_on_furthest() {
    let mut draw = crate::key::Key::new(1, "tails").stream();
    for _ in 0..500 {
        let unit: String = (0..draw.range(1, 40)).map(|_| if draw.chance(0.5) { 'a' } else { 'b' }).collect();
        let text = (0..draw.range(0, 60)).map(|_| if draw.chance(0.5) { 'a' } else { 'b' }).collect::<String>()
            + &unit.repeat(draw.range(2, 9) as usize);
        let bytes = text.as_bytes();
        let extent =
            |p: usize| p + (0..bytes.len() - p).take_while(|i| bytes[bytes.len() - 1 - i] == bytes[bytes.len() - 1 - i - p]).count();
        let best = (1..bytes.len()).filter(|p| extent(*p) >= 2 * p).map(|p| (extent(p), std::cmp::Reverse(p))).max();
        let tail = measure(&text).tail;
        // Ends that are shorter than the anchor may be passed over.
        if let Some((length, std::cmp::Reverse(period))) = best.filter(|(length, p)| *length >= p.0 + 32) {
            assert_eq!((tail.period, tail.span.1 - tail.span.0), (period, length), "{text}");
        }
    }
}

#[test]
fn real_reasoning_repeats_itself_only_where_it_runs_in_a_loop() {
    let Ok(folder) = std::env::var("DISTILL_DATA") else {
        eprintln!("skipped: DISTILL_DATA is unset (repetition in real traces)");
        return;
    };
    let text = std::fs::read_to_string(format!("{folder}/traces/r1_math500_traces.jsonl")).expect("the data folder holds the file");
    let mut dropped = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        dropped.extend(rule(row["response"].as_str().expect("text")).map(|rule| (i, rule)));
    }
    assert_eq!(dropped, [(29, "repetition.tail".to_owned())]);
}
