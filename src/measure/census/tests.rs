use super::*;

fn sample(text: &str) -> Sample<'_> {
    Sample { text, target: Language::En, tokens: text.len() / 4, finish: FinishReason::Stop, correct: Some(text.contains("36")) }
}

const TEXTS: [&str; 4] = [
    "<think>First, let me multiply: 12*3 = 36. Wait, let me check: 36/3 = 12. 所以对。</think>The answer is \\boxed{36}.",
    "<think>12*3 = 35. The answer is 35. Hmm, no, that's not right. The answer is 36.</think>\\boxed{36}",
    "12*3",
    "<think>",
];

fn census(texts: &[&str]) -> Census {
    let mut census = Census::default();
    texts.iter().for_each(|text| census.add(&sample(text), &mut |answer| Some(answer == "36")));
    census
}

#[test]
fn a_census_counts_what_the_measures_find() {
    let all = census(&TEXTS);
    assert_eq!((all.texts, all.neutral, all.judged, all.correct), (4, 2, 4, 2));
    assert_eq!(all.foreign, BTreeMap::from([("zh", 1)]));
    assert_eq!(all.unreadable, BTreeMap::from([("readable.unclosed_tags".to_owned(), 1)]));
    assert_eq!((all.behaviours["verification"], all.behaviours["backtracking"]), (1, 1));
    let Answers { with_answer, wrong_to_right, right_to_wrong, equations, wrong_equations, .. } = all.answers;
    assert_eq!((with_answer, wrong_to_right, right_to_wrong, equations, wrong_equations), (2, 1, 0, 3, 1));
    let rows = all.rows();
    let value = |name: &str| rows.iter().find(|row| row[0] == name).map(|row| row[1].as_str());
    assert_eq!(value("wrong equations"), Some("1 of 3 (33.3 %)"));
    assert_eq!(value("texts with words in: zh"), Some("1 of 4 (25.0 %)"));
    assert_eq!(value("not readable: unclosed_tags"), Some("1 of 4 (25.0 %)"));
    assert!(serde_json::to_value(&all).expect("a census serialises")["distributions"]["tokens"]["p50"].is_number());
}

#[test]
fn merged_censuses_are_the_census_of_all() {
    for cut in 0..=TEXTS.len() {
        let mut merged = census(&TEXTS[..cut]);
        merged.merge(&census(&TEXTS[cut..]));
        assert_eq!(merged.rows(), census(&TEXTS).rows(), "{cut}");
    }
    assert!(Census::default().rows().iter().all(|row| !row[1].contains("NaN")));
}
