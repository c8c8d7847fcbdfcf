use super::*;
use crate::problem::{Language, ProblemId};
use crate::trace::{FinishReason, LanguageShare, Verdict};
use serde_json::Map;

const GOOD: &str = "<think>7+4 is 11\n</think><answer>11</answer>";

/// A trace that every rule of these tests keeps, apart from duplicates.
pub(super) fn trace(problem: &str, attempt: u32) -> Trace {
    let problem = ProblemId(problem.into());
    Trace {
        id: Trace::id_of(&problem, attempt),
        question: format!("question of {problem}"),
        problem,
        attempt,
        task: "t".into(),
        gold: "11".into(),
        messages: Vec::new(),
        response: GOOD.replace("7+4", &format!("7+{attempt}")),
        answer: Some("11".into()),
        verdict: Some(Verdict::Correct { answer: "11".into() }),
        rewards: Map::new(),
        prompt_tokens: 5,
        completion_tokens: 20,
        finish: FinishReason::Stop,
        logprob: None,
        language: LanguageShare { target: Language::En, share: 1.0 },
        source: 0,
        attempts: None,
        passes: None,
        other: Map::new(),
    }
}

pub(super) fn with(attempt: u32, change: impl Fn(&mut Trace)) -> Trace {
    let mut trace = trace("p", attempt);
    change(&mut trace);
    trace
}

pub(super) fn group(traces: Vec<Trace>) -> Group {
    Group { problem: traces[0].problem.clone(), traces }
}

pub(super) fn settings(toml: &str) -> FilterSettings {
    toml::from_str(toml).expect("the settings parse")
}

pub(super) fn run(toml: &str, groups: Vec<Group>) -> Outcome {
    Filter::new(&settings(toml)).expect("the settings are in range").run(groups, Key::new(1, "filter"))
}

pub(super) fn ids(traces: &[Trace]) -> Vec<&str> {
    traces.iter().map(|trace| trace.id.as_str()).collect()
}

#[test]
fn each_rule_drops_with_value_and_threshold() {
    let wrong =
        Verdict::Wrong { answer: "12".into(), reason: Reason { span: Some((3, 5)), ..Reason::measured("different_number", 12, 11) } };
    let none = Verdict::NoAnswer { reason: Reason::rule("think_open") };
    let rows: Vec<(&str, Trace, &str)> = vec![
        ("", with(0, |t| t.verdict = Some(wrong.clone())), ""),
        (
            "correct = true",
            with(0, |t| t.verdict = Some(wrong.clone())),
            "correct (wrong: different_number (12, asked for 11), asked for correct)",
        ),
        ("correct = true", with(0, |t| t.verdict = Some(none.clone())), "correct (no answer: think_open, asked for correct)"),
        ("correct = true", with(0, |t| t.verdict = None), "correct (no verdict, asked for correct)"),
        ("finished = true", with(0, |t| t.finish = FinishReason::Length), "finished (length, asked for stop)"),
        ("finished = true", with(0, |t| t.finish = FinishReason::Overflow), "finished (overflow, asked for stop)"),
        ("finished = true", with(0, |t| t.response = "<think>so".into()), "finished (think not closed, asked for stop)"),
        ("finished = true", with(0, |t| t.response = r"so \boxed{1}, or \boxed{1}".into()), ""),
        ("finished = true", with(0, |t| t.response = r"<think>\boxed{2}</think>\boxed{1}".into()), ""),
        (
            "finished = true",
            with(0, |t| t.response = r"so \boxed{1}, or \boxed{2}".into()),
            "finished.one_answer (a second box, asked for one answer)",
        ),
        (
            "finished = true",
            with(0, |t| t.response = "<answer>1</answer><answer>2</answer>".into()),
            "finished.one_answer (a second <answer>, asked for one answer)",
        ),
        ("repetition = true", trace("p", 0), ""),
        ("format = \"think\"", with(0, |t| t.response = "<think>a</think>b".into()), ""),
        ("format = \"think\"", with(0, |t| t.response = "<think>a</think> \n".into()), "format (think without an answer, asked for think)"),
        ("format = \"think\"", with(0, |t| t.response = "plain".into()), "format (no think, asked for think)"),
        ("format = \"think-answer\"", trace("p", 0), ""),
        ("format = \"think-answer\"", with(0, |t| t.response = "<think>a</think>b".into()), "format (think, asked for think-answer)"),
        ("language = { min = 0.5 }", with(0, |t| t.language.share = 0.5), ""),
        ("language = { min = 0.5 }", with(0, |t| t.language.share = 0.25), "language (0.25, asked for at least 0.5)"),
        ("language = { min = 0.0 }", with(0, |t| t.language.share = f64::NAN), "language (NaN, asked for at least 0)"),
        ("readable = true", trace("p", 0), ""),
        ("readable = true", with(0, |t| t.response = "!".repeat(9)), "readable.symbol_share (1, asked for at most 0.5)"),
        ("readable = false", with(0, |t| t.response = "!".repeat(9)), ""),
        (r"readable = { lines = '^\d.*\d$' }", trace("p", 0), ""),
        (
            r"readable = { lines = '^\d.*\d$' }",
            with(0, |t| t.response = "<think>1 2\nso</think>1".into()),
            r"readable.lines (so, asked for ^\d.*\d$)",
        ),
        (r"readable = { lines = '^\d' }", with(0, |t| t.response = "no think".into()), r"readable.lines (no lines, asked for ^\d)"),
        ("length = { min = 20, max = 20 }", trace("p", 0), ""),
        ("length = { min = 21 }", trace("p", 0), "length (20, asked for at least 21)"),
        ("length = { max = 19 }", trace("p", 0), "length (20, asked for at most 19)"),
        ("pass_rate = { max = 0.5 }", trace("p", 0), "pass_rate (1, asked for at most 0.5)"),
        ("pass_rate = { min = 0.1 }", with(0, |t| t.verdict = None), "pass_rate (0, asked for at least 0.1)"),
    ];
    for (toml, trace, expect) in rows {
        let response = trace.response.clone();
        let outcome = run(toml, vec![group(vec![trace])]);
        let reason = outcome.dropped.first().map_or(String::new(), |(_, reason)| reason.to_string());
        assert_eq!(reason, expect, "{toml} on {response:?}");
        assert_eq!(outcome.kept.len() + outcome.dropped.len(), 1);
    }
}

#[test]
fn the_reason_of_a_wrong_answer_points_where_the_verdict_does() {
    let verdict = Verdict::Undecided { reason: Reason { span: Some((3, 5)), ..Reason::rule("not_numeric") } };
    let outcome = run("correct = true", vec![group(vec![with(0, |t| t.verdict = Some(verdict.clone()))])]);
    assert_eq!(outcome.dropped[0].1.span, Some((3, 5)));
}

#[test]
fn the_first_rule_in_order_gives_the_reason() {
    let all = "per_problem = { max = 1 }\nexact_duplicate = true\npass_rate = { min = 1.0 }\nlength = { max = 1 }\nreadable = true\nlanguage = { min = 1.0 }\n\
               format = \"think\"\nfinished = true\ncorrect = true";
    let bad = with(0, |t| {
        t.verdict = None;
        t.finish = FinishReason::Length;
        t.response = "!".repeat(9);
        t.language.share = 0.0;
    });
    let outcome = run(all, vec![group(vec![bad])]);
    assert_eq!(outcome.dropped[0].1.rule, "correct");
    let steps: Vec<&str> = outcome.funnel.iter().map(|step| step.step.as_str()).collect();
    let order = ["input", "correct", "finished", "format", "length", "language", "readable", "pass_rate", "exact_duplicate", "per_problem"];
    assert_eq!(steps, order);
    assert_eq!(outcome.funnel.iter().map(|step| step.count).collect::<Vec<_>>(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn reasons_point_at_the_place_in_the_response() {
    let rows = [
        ("finished = true", r"<think>\boxed{0}</think> \boxed{1}, no: \boxed{2}.", r"\boxed{2}"),
        ("readable = { lines = '^\\d' }", "<think>1 a\nso it is\n</think>3", "so it is"),
        (
            "decontaminate = ['e']",
            "I saw it: One two three four five six seven eight, nine ten eleven twelve thirteen!",
            "One two three four five six seven eight, nine ten eleven twelve thirteen!",
        ),
    ];
    let item = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
    for (toml, response, expected) in rows {
        let filter = Filter::new(&settings(toml)).expect("in range").against(Evaluations::new([("e".to_owned(), item.to_owned())]));
        let bad = with(0, |t| t.response = response.into());
        let outcome = filter.run(vec![group(vec![bad])], Key::new(1, "filter"));
        let (start, end) = outcome.dropped[0].1.span.expect("a span");
        assert_eq!(&response[start..end], expected, "{toml}");
    }
}

#[test]
fn what_a_rule_measured_is_told_down_to_the_one_that_drops() {
    let filter =
        Filter::new(&settings("correct = true\nlength = { max = 30 }\nlanguage = { min = 0.9 }\nreadable = true")).expect("in range");
    let said = |trace: &Trace| {
        let told = |finding: Finding| match finding.says {
            Ok(value) => format!("{}: {value}", finding.rule),
            Err(reason) => format!("{reason}"),
        };
        filter.explain(trace).into_iter().map(told).collect::<Vec<_>>()
    };
    let passed = ["correct: correct: 11", "length: 20 tokens", "language: 1", "readable: every part within its limit"];
    assert_eq!(said(&trace("p", 0)), passed);
    let foreign = said(&with(0, |t| t.language.share = 0.5));
    assert_eq!(foreign, [passed[0], passed[1], "language (0.5, asked for at least 0.9)"]);
}

#[test]
fn pass_rates_count_every_attempt_at_the_problem() {
    let traces =
        vec![trace("p", 0), with(1, |t| t.verdict = None), with(2, |t| t.finish = FinishReason::Length), with(3, |t| t.verdict = None)];
    let outcome = run("correct = true\nfinished = true\npass_rate = { min = 0.5, max = 0.5 }", vec![group(traces)]);
    assert_eq!(ids(&outcome.kept), ["p#0"]);
    let counts = |trace: &Trace| (trace.attempts, trace.passes);
    assert!(outcome.kept.iter().chain(outcome.dropped.iter().map(|(trace, _)| trace)).all(|trace| counts(trace) == (Some(4), Some(2))));
}

#[test]
fn of_duplicates_the_first_in_problem_and_attempt_order_stays() {
    let same = |problem: &str, attempt| {
        let mut trace = trace(problem, attempt);
        (trace.question, trace.response) = ("q".into(), GOOD.into());
        trace
    };
    let mut moved = same("a", 2);
    (moved.question, moved.response) = ("q<".into(), GOOD[1..].into());
    let groups = vec![group(vec![same("b", 1), same("b", 0)]), group(vec![same("a", 3), same("a", 1), moved, trace("a", 0)])];
    let outcome = run("exact_duplicate = true", groups);
    assert_eq!(ids(&outcome.kept), ["a#0", "a#1", "a#2"]);
    assert_eq!(
        outcome.dropped.iter().map(|(trace, reason)| format!("{} {reason}", trace.id)).collect::<Vec<_>>(),
        ["a#3", "b#0", "b#1"].map(|id| format!("{id} exact_duplicate (the same text as a#1, asked for a text of its own)"))
    );
    // A trace that another rule drops does not shadow its copy.
    let mut unfinished = same("a", 0);
    unfinished.finish = FinishReason::Length;
    let outcome = run("finished = true\nexact_duplicate = true", vec![group(vec![unfinished, same("a", 1)])]);
    assert_eq!(ids(&outcome.kept), ["a#1"]);
}

#[test]
fn at_most_k_traces_of_a_problem_stay_in_the_order_asked_for() {
    let traces =
        |problem: &str| (0..5).map(|i| Trace { completion_tokens: [30, 10, 20, 10, 40][i as usize], ..trace(problem, i) }).collect();
    let groups = || vec![group(traces("a")), group(traces("b"))];
    let kept = |order: &str| run(&format!("per_problem = {{ max = 2{order} }}"), groups()).kept;
    assert_eq!(ids(&kept("")), ["a#1", "a#3", "b#1", "b#3"]);
    assert_eq!(ids(&kept(", order = \"shortest\"")), ["a#1", "a#3", "b#1", "b#3"]);
    assert_eq!(ids(&kept(", order = \"longest\"")), ["a#0", "a#4", "b#0", "b#4"]);
    let random = kept(", order = \"random\"");
    assert_eq!(random.iter().filter(|trace| trace.problem.0 == "a").count(), 2);
    assert_eq!(random, kept(", order = \"random\""));
    let outcome = run("per_problem = { max = 4 }", groups());
    assert_eq!(outcome.dropped[0].1.to_string(), "per_problem (place 5 of 5, asked for 4 shortest)");
}

#[test]
fn random_selection_is_fair_over_attempts_and_depends_on_the_key() {
    let filter = Filter::new(&settings("per_problem = { max = 1, order = \"random\" }")).expect("in range");
    let groups: Vec<Group> = (0..1000).map(|p| group((0..4).map(|i| trace(&format!("p{p}"), i)).collect())).collect();
    let one = filter.run(groups.clone(), Key::new(1, "filter")).kept;
    let mut counts = [0; 4];
    one.iter().for_each(|trace| counts[trace.attempt as usize] += 1);
    assert!(counts.iter().all(|count| (200..300).contains(count)), "{counts:?}");
    assert_ne!(one, filter.run(groups, Key::new(2, "filter")).kept);
}

#[test]
fn settings_out_of_range_are_refused_all_at_once() {
    let rows = [
        ("language = { min = 1.5 }", "filter.language.min must be in [0, 1], got 1.5"),
        ("language = { min = nan }", "filter.language.min must be in [0, 1], got NaN"),
        ("pass_rate = { min = -0.1 }", "filter.pass_rate.min must be in [0, 1], got -0.1"),
        ("pass_rate = { min = 0.9, max = 0.5 }", "filter.pass_rate.min must be at most filter.pass_rate.max (0.5), got 0.9"),
        ("length = { min = 20, max = 10 }", "filter.length.min must be at most filter.length.max (10), got 20"),
        ("per_problem = { max = 0 }", "filter.per_problem.max must be at least 1, got 0"),
        ("near_duplicate = { jaccard = 0.3 }", "filter.near_duplicate.jaccard must be in [0.5, 1], got 0.3"),
        ("near_duplicate = { jaccard = 0.8, words = 0 }", "filter.near_duplicate.words must be from 1 to 32, got 0"),
        (
            "source = [{ name = 'a', weight = 0 }, { name = 'a', weight = 1, repeat = 0 }]",
            "filter.source[0].weight must be above 0, got 0; leave a source out by the traces that you give\n\
             filter.source[1].repeat must be from 1 to 100, got 0\nfilter.source[1].name: \"a\" is there twice",
        ),
        (
            "language = { min = 2.0 }\nper_problem = { max = 0 }",
            "filter.language.min must be in [0, 1], got 2\nfilter.per_problem.max must be at least 1, got 0",
        ),
    ];
    for (toml, expect) in rows {
        assert_eq!(Filter::new(&settings(toml)).expect_err(toml).to_string(), expect);
    }
    let error = Filter::new(&settings("readable = { lines = '(' }")).expect_err("an open group").to_string();
    assert!(error.starts_with("filter.readable.lines is not a regular expression: "), "{error}");
}

#[test]
fn unknown_keys_and_wrong_types_are_refused() {
    let rows = [
        ("corect = true", "unknown field `corect`"),
        ("language = { minimum = 0.5 }", "unknown field `minimum`"),
        ("format = \"thinking\"", "unknown variant `thinking`"),
        ("readable = 3", "readable must be true, false or { lines = \"regular expression\" }"),
        ("per_problem = { order = \"random\" }", "missing field `max`"),
    ];
    for (toml, expect) in rows {
        let error = toml::from_str::<FilterSettings>(toml).expect_err(toml).to_string();
        assert!(error.contains(expect), "{toml}: {error}");
    }
    let full = "correct = true\nfinished = true\nformat = \"think-answer\"\nlanguage = { min = 0.95 }\nreadable = { lines = '^a$' }\nlength = { max = 9 }\n\
                pass_rate = { min = 0.1 }\nexact_duplicate = true\nper_problem = { max = 4, order = \"diverse\" }\nrepetition = true\n\
                decontaminate = [\"aime24\"]\nnear_duplicate = { jaccard = 0.85 }\nsource = [{ name = \"0\", weight = 2, repeat = 3 }]";
    let written = toml::to_string(&settings(full)).expect("settings serialise");
    assert_eq!(settings(&written), settings(full));
    assert_eq!(settings(&toml::to_string(&FilterSettings::default()).expect("settings serialise")), FilterSettings::default());
}

/// Random groups: kept + dropped = input, the funnel adds up, and neither order of groups nor of traces matters.
#[test]
fn nothing_is_lost_and_the_funnel_adds_up() {
    let rules = [
        "correct = true",
        "finished = true",
        "format = \"think\"",
        "language = { min = 0.5 }",
        "readable = true",
        "length = { min = 5, max = 25 }",
        "pass_rate = { min = 0.2, max = 0.9 }",
        "exact_duplicate = true",
        "per_problem = { max = 2, order = \"random\" }",
    ];
    for seed in 0..200 {
        let mut draw = Key::new(seed, "filter-property").stream();
        let toml: Vec<&str> = rules.iter().copied().filter(|_| draw.chance(0.6)).collect();
        let mut groups: Vec<Group> = (0..draw.range(0, 6))
            .map(|p| group((0..draw.below(6) + 1).map(|i| random_trace(&format!("p{p}"), i, &mut draw)).collect()))
            .collect();
        let outcome = run(&toml.join("\n"), groups.clone());
        let mut all: Vec<&str> = ids(&outcome.kept);
        all.extend(outcome.dropped.iter().map(|(trace, _)| trace.id.as_str()));
        all.sort_unstable();
        let mut input: Vec<&str> = groups.iter().flat_map(|group| ids(&group.traces)).collect();
        input.sort_unstable();
        assert_eq!(all, input, "{toml:?}");
        assert_eq!(outcome.funnel.first().map(|step| step.count), Some(input.len()));
        assert_eq!(outcome.funnel.last().map(|step| step.count), Some(outcome.kept.len()), "{toml:?}");
        for pair in outcome.funnel.windows(2) {
            let counted = outcome.dropped.iter().filter(|(_, reason)| reason.rule.split('.').next() == Some(&pair[1].step)).count();
            assert_eq!(pair[0].count - pair[1].count, counted, "{pair:?}");
        }
        draw.shuffle(&mut groups);
        groups.iter_mut().for_each(|group| draw.shuffle(&mut group.traces));
        assert_eq!(run(&toml.join("\n"), groups), outcome, "{toml:?}");
    }
}

fn random_trace(problem: &str, attempt: u32, draw: &mut crate::key::Stream) -> Trace {
    let responses = ["<think>7+4 is 11\n</think>11", "<think>open", "plain", "!!!!", ""];
    Trace {
        question: "shared by all".into(),
        response: draw.choose(&responses).to_string(),
        verdict: if draw.chance(0.7) { Some(Verdict::Correct { answer: "11".into() }) } else { None },
        finish: if draw.chance(0.8) { FinishReason::Stop } else { FinishReason::Length },
        completion_tokens: draw.below(30) as usize,
        language: LanguageShare { target: Language::En, share: draw.unit() },
        ..trace(problem, attempt)
    }
}
