//! The rules over all traces, on corpora made for them.

use super::tests::{group, ids, run, settings, trace, with};
use super::*;
use crate::key::Stream;
use crate::trace::Group;

/// `n` words of a vocabulary of 5,000.
fn text(n: u32, draw: &mut Stream) -> Vec<String> {
    (0..n).map(|_| format!("w{}", draw.below(5000))).collect()
}

/// A copy in which every word was exchanged with probability `share`.
fn changed(words: &[String], share: f64, draw: &mut Stream) -> Vec<String> {
    words.iter().map(|word| if draw.chance(share) { format!("v{}", draw.below(5000)) } else { word.clone() }).collect()
}

fn said(problem: &str, attempt: u32, words: &[String]) -> Trace {
    Trace { question: "q".into(), response: words.join(" "), ..trace(problem, attempt) }
}

fn similarity(a: &Trace, b: &Trace, words: usize) -> f64 {
    let hasher = Hasher::new(Key::new(9, "another one"));
    let set = |trace: &Trace| hasher.shingles(&trace.question, &trace.response, words);
    jaccard(&set(a), &set(b))
}

#[test]
fn near_duplicates_are_found_at_the_promised_rate_and_none_is_false() {
    let rule = "near_duplicate = { jaccard = 0.85, words = 3 }";
    let mut draw = Key::new(7, "near").stream();
    let (mut groups, mut alike) = (Vec::new(), 0.0);
    let mut originals = std::collections::HashMap::new();
    for p in 0..600 {
        let words = text(120, &mut draw);
        // From nearly the same to rather different; half within a problem and half across.
        let copy = changed(&words, 0.002 * f64::from(p % 40), &mut draw);
        let original = said(&format!("p{p:03}"), 0, &words);
        let copy = if p % 2 == 0 { said(&format!("p{p:03}"), 1, &copy) } else { said(&format!("q{p:03}"), 0, &copy) };
        if similarity(&original, &copy, 3) >= 0.85 {
            alike += probability(similarity(&original, &copy, 3), rows_for(0.85));
        }
        originals.insert(copy.id.clone(), original.clone());
        let others = if p % 2 == 0 { vec![vec![original, copy]] } else { vec![vec![original], vec![copy]] };
        groups.extend(others.into_iter().map(group));
    }
    let outcome = run(rule, groups);
    let mut found = 0.0;
    for (trace, reason) in &outcome.dropped {
        let original = originals.get(&trace.id).unwrap_or_else(|| panic!("{} has no copy before it: {reason}", trace.id));
        assert!(similarity(original, trace, 3) >= 0.85, "{} is not like {}: {reason}", trace.id, original.id);
        assert!(reason.to_string().contains(&format!("like {}, asked for less than 0.85", original.id)), "{reason}");
        found += 1.0;
    }
    assert!(alike > 100.0 && (found - alike).abs() <= 6.0, "{found} found, {alike:.1} expected of the curve");
}

#[test]
fn of_a_chain_of_near_duplicates_those_stay_that_are_like_none_that_stays() {
    let mut draw = Key::new(8, "chain").stream();
    let mut words = text(200, &mut draw);
    let mut traces = vec![said("p", 0, &words)];
    for attempt in 1..12 {
        words = changed(&words, 0.02, &mut draw);
        traces.push(said("p", attempt, &words));
    }
    let kept = run("near_duplicate = { jaccard = 0.7, words = 3 }", vec![group(traces.clone())]).kept;
    assert!((2..8).contains(&kept.len()), "{:?}", ids(&kept));
    for (i, trace) in kept.iter().enumerate() {
        assert!(kept[..i].iter().all(|other| similarity(trace, other, 3) < 0.7));
    }
    traces.reverse();
    assert_eq!(ids(&run("near_duplicate = { jaccard = 0.7, words = 3 }", vec![group(traces)]).kept), ids(&kept));
}

#[test]
fn texts_without_words_are_like_nothing() {
    let traces = (0..4).map(|i| Trace { question: String::new(), response: "!!".repeat(i as usize), ..trace("p", i) }).collect();
    assert_eq!(run("near_duplicate = { jaccard = 0.85 }", vec![group(traces)]).kept.len(), 4);
}

#[test]
fn diverse_selection_takes_the_shortest_and_then_what_is_farthest() {
    let mut draw = Key::new(9, "diverse").stream();
    let (a, b) = (text(60, &mut draw), text(60, &mut draw));
    let near = |words: &[String], draw: &mut Stream| changed(words, 0.1, draw);
    let texts = [a.clone(), near(&a, &mut draw), b.clone(), near(&a, &mut draw), near(&b, &mut draw)];
    let traces: Vec<Trace> = texts.iter().enumerate().map(|(i, words)| said("p", i as u32, words)).collect();
    let mut traces = traces;
    traces[1].completion_tokens = 5;
    let outcome = run("per_problem = { max = 2, order = \"diverse\" }", vec![group(traces)]);
    assert_eq!(ids(&outcome.kept), ["p#1", "p#2"], "the shortest, and the first of those that are farthest from it");
    assert_eq!(outcome.dropped[0].1.to_string(), "per_problem (place 3 of 5, asked for 2 most diverse)");
}

#[test]
fn a_mixture_keeps_its_weights_and_says_what_it_left_out() {
    let traces = |source: usize, n: u32| (0..n).map(move |i| group(vec![Trace { source, ..trace(&format!("s{source}/{i}"), 0) }]));
    let groups: Vec<Group> = traces(0, 300).chain(traces(1, 100)).collect();
    let toml = "[[source]]\nname = \"big\"\nweight = 1\n[[source]]\nname = \"small\"\nweight = 1";
    let filter = Filter::new(&settings(toml)).expect("in range");
    let outcome = filter.clone().with_sources(&["org/big", "small"]).expect("two sources").run(groups, Key::new(1, "filter"));
    let of = |source| outcome.kept.iter().filter(|trace| trace.source == source).count();
    assert_eq!((of(0), of(1), outcome.dropped.len()), (100, 100, 200));
    assert_eq!(outcome.dropped[0].1.to_string(), "source (one of 300 of its source, asked for 100 of them, chosen at random)");
    let error = |models: &[&str]| filter.clone().with_sources(models).expect_err("no fit").to_string();
    assert!(error(&["org/big", "small", "third"]).contains("source 2 has no weight"), "{}", error(&["org/big", "small", "third"]));
    assert!(error(&["org/big"]).contains("\"small\" names 0 sources; there are 0 (org/big)"), "{}", error(&["org/big"]));
}

/// Everything at once, over random groups: nothing is lost, the funnel adds up in all and in each bucket, and neither the order of the input nor the
/// form in which it is read makes a difference.
#[test]
fn every_rule_together_loses_nothing_and_asks_for_no_order() {
    let rules = [
        "correct = true",
        "finished = true",
        "length = { min = 3 }",
        "repetition = true",
        "pass_rate = { max = 0.9 }",
        "exact_duplicate = true",
        "near_duplicate = { jaccard = 0.6, words = 2 }",
        "per_problem = { max = 3, order = \"diverse\" }",
    ];
    let evaluations = || Evaluations::new([("e/0".to_owned(), "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14".to_owned())]);
    for seed in 0..60 {
        let mut draw = Key::new(seed, "all-rules").stream();
        let mut toml: Vec<&str> = rules.iter().copied().filter(|_| draw.chance(0.7)).collect();
        toml.push("decontaminate = [\"e\"]");
        let mut traces: Vec<Trace> = (0..draw.below(60)).map(|i| random(i, &mut draw)).collect();
        let filter = Filter::new(&settings(&toml.join("\n"))).expect("in range").against(evaluations());
        let outcome = filter.run(vec![Group { problem: ProblemId("all".into()), traces: traces.clone() }], Key::new(seed, "filter"));
        assert_eq!(outcome.kept.len() + outcome.dropped.len(), traces.len());
        let rates: Vec<f64> = outcome.kept.iter().map(|t| f64::from(t.passes.unwrap_or(0)) / f64::from(t.attempts.unwrap_or(1))).collect();
        for step in &outcome.funnel {
            assert_eq!(step.by_pass_rate.iter().sum::<usize>(), step.count, "{step:?}");
        }
        let last = outcome.funnel.last().expect("a funnel");
        assert_eq!(last.count, outcome.kept.len());
        assert_eq!(last.by_pass_rate[0], rates.iter().filter(|rate| **rate == 0.0).count());
        assert_eq!(last.by_pass_rate[5], rates.iter().filter(|rate| **rate == 1.0).count());
        for pair in outcome.funnel.windows(2) {
            let counted = outcome.dropped.iter().filter(|(_, reason)| reason.rule.split('.').next() == Some(&pair[1].step)).count();
            assert_eq!(pair[0].count - pair[1].count, counted, "{pair:?}");
        }
        draw.shuffle(&mut traces);
        let again = filter.run(vec![Group { problem: ProblemId("all".into()), traces: traces.clone() }], Key::new(seed, "filter"));
        assert_eq!(again, outcome, "{toml:?}");
        assert_eq!(stored(&filter, &traces, seed), (ids(&again.kept).into_iter().map(str::to_owned).collect(), again.funnel), "{toml:?}");
    }
}

/// Ids that are kept, sorted by problem and attempt, and the funnel of the same traces read from a file on several threads.
fn stored(filter: &Filter, traces: &[Trace], seed: u64) -> (Vec<String>, Vec<Step>) {
    let file = tempfile::NamedTempFile::with_suffix(".jsonl").expect("a file");
    let lines: Vec<String> = traces.iter().map(|trace| serde_json::to_string(trace).expect("JSON")).collect();
    std::fs::write(file.path(), lines.join("\n")).expect("written");
    let mut input = Stored::new(file.path());
    let judged = filter.judge(&mut input, Key::new(seed, "filter")).expect("readable");
    let mut kept = Vec::new();
    let mut order = Vec::new();
    judged
        .hand_out(&mut input, |trace, decision| {
            order.push(trace.id.clone());
            if decision == Decision::Keep {
                kept.push((trace.problem.clone(), trace.attempt, trace.id));
            }
            Ok(())
        })
        .expect("readable");
    assert_eq!(order, traces.iter().map(|trace| trace.id.clone()).collect::<Vec<_>>(), "handed out in the order of the input");
    kept.sort();
    (kept.into_iter().map(|(.., id)| id).collect(), judged.funnel())
}

fn random(i: u32, draw: &mut Stream) -> Trace {
    let words: Vec<String> = (0..draw.below(30)).map(|_| format!("w{}", draw.below(3))).collect();
    let response = match draw.below(10) {
        0 => "so it is ".repeat(300),
        1 => format!("<think>{}", words.join(" ")),
        2 => "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14".into(),
        _ => words.join(" "),
    };
    let mut trace = with(i, |_| {});
    trace.problem = ProblemId(format!("p{}", draw.below(8)));
    trace.id = Trace::id_of(&trace.problem, i);
    trace.completion_tokens = draw.below(9) as usize;
    if draw.chance(0.3) {
        trace.verdict = None;
    }
    Trace { question: format!("q{}", draw.below(3)), response, ..trace }
}
