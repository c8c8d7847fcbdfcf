use super::*;

#[test]
fn the_share_counts_words_that_have_a_language() {
    let rows = [
        ("7+4 is 11\n11-2得9", 0.5, 0.5),
        ("<think>7+4 is 11\n</think><answer>11</answer>", 1.0, 0.0),
        ("7+4得11\n", 0.0, 1.0),
        ("", 1.0, 1.0),
        ("7+4=11", 1.0, 1.0),
        ("x + y = α, a² ≤ ℝ", 1.0, 1.0),
        ("$\\text{因为}$ so it's done", 1.0, 0.0),
        ("`因为` because ```\n所以\n``` yes", 1.0, 0.0),
        (r"\frac{1}{2} \quad half", 1.0, 0.0),
        ("设x为3", 0.0, 1.0),
        ("我们 check 一下", 0.2, 0.8),
        ("naïve façade", 1.0, 0.0),
        ("because потому что", 1.0 / 3.0, 0.0),
        ("ok かな", 0.5, 0.0),
        ("a I x", 1.0, 1.0),
    ];
    for (text, en, zh) in rows {
        assert!((share(text, Language::En) - en).abs() < 1e-12, "{text:?} en {}", share(text, Language::En));
        assert!((share(text, Language::Zh) - zh).abs() < 1e-12, "{text:?} zh {}", share(text, Language::Zh));
    }
}

/// Responses of real reasoning models; `None` where they are not at hand.
fn real_traces() -> Option<Vec<String>> {
    let Ok(folder) = std::env::var("DISTILL_DATA") else {
        eprintln!("skipped: DISTILL_DATA is unset (languages of real traces)");
        return None;
    };
    let text = std::fs::read_to_string(format!("{folder}/traces/r1_math500_traces.jsonl")).expect("the data folder holds the file");
    let response = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        row["response"].as_str().expect("text").to_owned()
    };
    Some(text.lines().map(response).collect())
}

#[test]
fn real_english_reasoning_has_no_foreign_stretch() {
    let Some(traces) = real_traces() else { return };
    assert_eq!(traces.len(), 60);
    for (i, text) in traces.iter().enumerate() {
        let mix = measure(text, Language::En);
        let shown: Vec<&str> = mix.foreign.iter().map(|found| &text[found.span.0..found.span.1]).collect();
        assert!(shown.is_empty() && mix.share == Some(1.0), "trace {i}: {:?} {shown:?}", mix.share);
    }
}
