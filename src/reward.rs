//! Verdict and measures to a reward, by named preset.
//!
//! Each preset is one published rule; its parts add up to its total. This file does not judge, and knows neither groups nor advantages.
//! Where a preset tells a wrong answer from none, an undecided verdict is named beside it: rules found an answer and could not decide it.

use crate::measure::language;
use crate::problem::Problem;
use crate::response::Response;
use crate::trace::{FinishReason, Verdict};
use crate::verify::Judgement;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A reward rule by its name in recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardPreset {
    /// Accuracy 0/1 + format 0/1. Source: DeepSeek-R1, R1-Zero; format is its template, think then answer.
    R1Zero,
    /// `r1-zero` + share of reasoning words in the question's language. Source: DeepSeek-R1, first RL stage.
    R1Stage1,
    /// +1 correct, -1 wrong, 0 none or undecided; +0.5 format. Abstaining pays more than a wrong try.
    OutcomeFormat,
    /// Format ±1 (the four tags once each, in order); answer +2 correct, -1.5 wrong, -2 none, undecided, or without format.
    /// Source: Logic-RL, `kk.py`. Reachable totals: 3, -0.5, -1, -3.
    LogicRl,
    /// +1 correct, -0.5 wrong or undecided, -1 none. Source: simpleRL-reason, issue 37.
    SimplerlV0,
    /// 1 correct, else 0. Source: SimpleRL-Zoo.
    SimplerlZoo,
    /// 1 correct, 0.1 wrong or undecided, 0 none. Source: TinyZero.
    Tinyzero,
    /// +1 correct, else -1. Source: Reinforce-Lite.
    ReinforceLite,
    /// +1 correct, else -1; + soft overlong punishment over the last fifth of `max_tokens` (16,384 + 4,096 in the paper). Source: DAPO.
    Dapo,
    /// 1 correct, else 0. Source: understand-r1-zero (Dr. GRPO).
    DrGrpo,
    /// Accuracy 0/1 + format 0/1 + tag count (0.25 for each tag that stands once), with the tags on lines of their own. Source: open-r1,
    /// `rewards.py`, the demonstration recipes.
    OpenR1Demo,
    /// 1 correct, else 0. Source: nanochat, GSM8K.
    Nanochat,
    /// 0.1 format + correct and format * (0.7 + 0.3 consistent): our tiny recipe. Format wants an integer between answer tags and an attempt
    /// that ended by itself; consistent wants reasoning in the question's language only. The second term is gated because ungated bonuses collapse.
    Tiny,
    /// What the user's own command pays (`problems.verify = { command = … }`); 1 correct, else 0, where it pays nothing.
    Command,
    /// A model's opinion in [0, 1], for problems that no rule can check (`problems.verify = "judge"`), and for these alone. Source: DeepSeek-R1, last RL stage:
    /// preference rewards for general data beside rules for reasoning.
    Judge,
}

impl RewardPreset {
    /// The most that it pays for an attempt; `None` where something outside of this program says.
    pub fn best(self) -> Option<f64> {
        match self {
            Self::R1Zero => Some(2.0),
            Self::R1Stage1 | Self::LogicRl | Self::OpenR1Demo => Some(3.0),
            Self::OutcomeFormat => Some(1.5),
            Self::Tiny => Some(1.1),
            Self::SimplerlV0 | Self::SimplerlZoo | Self::Tinyzero | Self::ReinforceLite | Self::Dapo | Self::DrGrpo | Self::Nanochat => {
                Some(1.0)
            }
            Self::Command | Self::Judge => None,
        }
    }
}

/// A reward with its named parts, which add up to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub parts: Vec<(&'static str, f64)>,
    pub total: f64,
    /// What a command pays where another preset decides: recorded, and no part of the total.
    pub beside: Option<f64>,
}

impl Scored {
    fn sum(parts: Vec<(&'static str, f64)>) -> Self {
        Self { total: parts.iter().map(|(_, value)| value).sum(), parts, beside: None }
    }

    /// The form of `Trace.rewards`: every part, then `total`. What a command pays is named `command`, whether it counts or not.
    pub fn to_map(&self) -> Map<String, Value> {
        let beside = self.beside.map(|paid| ("command", paid));
        let parts = self.parts.iter().copied().chain(beside).chain([("total", self.total)]);
        parts.map(|(name, value)| (name.to_string(), Value::from(value))).collect()
    }
}

/// Rewards one attempt. `completion_tokens` and `max_tokens` count sampled tokens, the end token included.
pub fn score(
    preset: RewardPreset,
    problem: &Problem,
    response: &Response,
    judgement: &Judgement,
    finish: FinishReason,
    completion_tokens: usize,
    max_tokens: usize,
) -> Scored {
    use RewardPreset::*;
    let Judgement { verdict, reward: paid } = judgement;
    let correct = verdict.is_correct();
    let accuracy = ("accuracy", unit(correct));
    let format = ("format", unit(response.is_think_answer()));
    let consistency = || language::share(response.think.unwrap_or(response.text), problem.language);
    let scored = Scored::sum(match preset {
        Command => vec![("command", paid.unwrap_or(accuracy.1))],
        // Paid when the group is there: a judge is asked for many attempts at once.
        Judge => Vec::new(),
        R1Zero => vec![accuracy, format],
        R1Stage1 => vec![accuracy, format, ("language", consistency())],
        OutcomeFormat => vec![("accuracy", grade(verdict, 1.0, -1.0, 0.0, 0.0)), ("format", 0.5 * format.1)],
        LogicRl if has_tags_in_order(response.text) => vec![("format", 1.0), ("accuracy", grade(verdict, 2.0, -1.5, -2.0, -2.0))],
        LogicRl => vec![("format", -1.0), ("accuracy", -2.0)],
        SimplerlV0 => vec![("accuracy", grade(verdict, 1.0, -0.5, -0.5, -1.0))],
        SimplerlZoo | DrGrpo | Nanochat => vec![accuracy],
        Tinyzero => vec![("accuracy", grade(verdict, 1.0, 0.1, 0.1, 0.0))],
        ReinforceLite => vec![("accuracy", sign(correct))],
        Dapo => vec![("accuracy", sign(correct)), ("overlong", overlong_penalty(completion_tokens, max_tokens, max_tokens / 5, 1.0))],
        OpenR1Demo => vec![accuracy, ("format", unit(is_open_r1_format(response.text))), ("tag_count", open_r1_tag_count(response.text))],
        Tiny => {
            let format = is_tiny_format(response, finish);
            let gate = unit(format && correct);
            vec![("format", 0.1 * unit(format)), ("accuracy", 0.7 * gate), ("consistent", 0.3 * gate * unit(consistency() == 1.0))]
        }
    });
    Scored { beside: paid.filter(|_| preset != Command), ..scored }
}

/// DAPO's soft overlong punishment: `min(-(len - (max - buffer)) / buffer * factor, 0)`, 0 up to `max - buffer` tokens and `-factor` at `max`.
///
/// Source: DAPO (arXiv 2503.14476), equation 13, in the form of verl. Without a buffer there is no soft zone and no punishment.
pub fn overlong_penalty(len: usize, max: usize, buffer: usize, factor: f64) -> f64 {
    if buffer == 0 {
        return 0.0;
    }
    let excess = len as f64 - (max as f64 - buffer as f64);
    // Not `(-excess).min(0)`: that gives -0 at the edge, which shows in reports.
    if excess > 0.0 { -excess / buffer as f64 * factor } else { 0.0 }
}

fn unit(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn sign(holds: bool) -> f64 {
    if holds { 1.0 } else { -1.0 }
}

fn grade(verdict: &Verdict, correct: f64, wrong: f64, undecided: f64, none: f64) -> f64 {
    match verdict {
        Verdict::Correct { .. } => correct,
        Verdict::Wrong { .. } => wrong,
        Verdict::Undecided { .. } => undecided,
        Verdict::NoAnswer { .. } => none,
    }
}

/// Logic-RL's format: each tag exactly once and in order, whatever stands around them.
fn has_tags_in_order(text: &str) -> bool {
    let at = ["<think>", "</think>", "<answer>", "</answer>"].map(|tag| text.find(tag).filter(|_| text.matches(tag).count() == 1));
    at[0].is_some() && at.is_sorted() // None sorts first, so the rest are there too
}

/// open-r1's format: the text is the four tags, each alone on its line, with a line between each two that open and close.
fn is_open_r1_format(text: &str) -> bool {
    let inside = text.strip_prefix("<think>\n").and_then(|rest| rest.strip_suffix("\n</answer>"));
    inside.is_some_and(|inside| inside.contains("\n</think>\n<answer>\n"))
}

fn open_r1_tag_count(text: &str) -> f64 {
    let tags = ["<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"];
    0.25 * tags.iter().filter(|tag| text.matches(**tag).count() == 1).count() as f64
}

fn is_tiny_format(response: &Response, finish: FinishReason) -> bool {
    let answer = response.tag("answer").map(|answer| answer.strip_prefix('-').unwrap_or(answer));
    let integer = answer.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    finish == FinishReason::Stop && integer && response.is_think_answer()
}

#[cfg(test)]
mod tests {
    use super::RewardPreset::*;
    use super::*;
    use crate::problem::{Answer, Language, ProblemId};
    use crate::trace::Reason;

    const GOOD: &str = "<think>7+4 is 11\n</think><answer>11</answer>";
    const LOOSE: &str = "so <think>7+4 is 11\n</think> then <answer>11</answer>";
    const PLAIN: &str = "it is 11";
    const ALL: [RewardPreset; 15] = [
        R1Zero,
        R1Stage1,
        OutcomeFormat,
        LogicRl,
        SimplerlV0,
        SimplerlZoo,
        Tinyzero,
        ReinforceLite,
        Dapo,
        DrGrpo,
        OpenR1Demo,
        Nanochat,
        Tiny,
        Command,
        Judge,
    ];

    fn verdicts() -> [Verdict; 4] {
        let (answer, reason) = ("11".to_string(), Reason::rule("r"));
        [
            Verdict::Correct { answer: answer.clone() },
            Verdict::Wrong { answer, reason: reason.clone() },
            Verdict::Undecided { reason: reason.clone() },
            Verdict::NoAnswer { reason },
        ]
    }

    fn scored(preset: RewardPreset, text: &str, verdict: &Verdict, finish: FinishReason, tokens: usize) -> Scored {
        let answer = Answer::Number { value: "11".into() };
        let problem = Problem {
            id: ProblemId("t/0".into()),
            task: "t".into(),
            question: "what is 7+4".into(),
            answer,
            language: Language::En,
            level: None,
        };
        let judgement = Judgement { verdict: verdict.clone(), reward: None };
        score(preset, &problem, &Response::parse(text), &judgement, finish, tokens, 100)
    }

    /// Totals for a correct, wrong, undecided and missing answer.
    fn check(preset: RewardPreset, text: &str, expect: [f64; 4]) {
        for (verdict, expect) in verdicts().iter().zip(expect) {
            let total = scored(preset, text, verdict, FinishReason::Stop, 10).total;
            assert!((total - expect).abs() < 1e-12, "{preset:?} {text:?} {verdict:?}: {total}, not {expect}");
        }
    }

    #[test]
    fn every_preset_pays_what_its_source_says() {
        check(R1Zero, GOOD, [2.0, 1.0, 1.0, 1.0]);
        check(R1Zero, LOOSE, [1.0, 0.0, 0.0, 0.0]);
        check(R1Stage1, GOOD, [3.0, 2.0, 2.0, 2.0]);
        check(R1Stage1, "<think>7+4 is 11\n11-2得9</think><answer>9</answer>", [2.5, 1.5, 1.5, 1.5]);
        check(OutcomeFormat, GOOD, [1.5, -0.5, 0.5, 0.5]);
        check(OutcomeFormat, PLAIN, [1.0, -1.0, 0.0, 0.0]);
        check(LogicRl, GOOD, [3.0, -0.5, -1.0, -1.0]);
        check(LogicRl, LOOSE, [3.0, -0.5, -1.0, -1.0]);
        check(LogicRl, PLAIN, [-3.0; 4]);
        check(LogicRl, "<think></think><answer>1</answer><answer>2</answer>", [-3.0; 4]);
        check(LogicRl, "<think><answer>1</answer></think>", [-3.0; 4]);
        check(LogicRl, "<think></think><answer>1", [-3.0; 4]);
        check(SimplerlV0, PLAIN, [1.0, -0.5, -0.5, -1.0]);
        check(Tinyzero, PLAIN, [1.0, 0.1, 0.1, 0.0]);
        check(ReinforceLite, PLAIN, [1.0, -1.0, -1.0, -1.0]);
        check(Dapo, PLAIN, [1.0, -1.0, -1.0, -1.0]);
        for preset in [SimplerlZoo, DrGrpo, Nanochat, Command] {
            check(preset, PLAIN, [1.0, 0.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn open_r1_wants_tags_on_lines_of_their_own() {
        check(OpenR1Demo, "<think>\na\n</think>\n<answer>\n11\n</answer>", [3.0, 2.0, 2.0, 2.0]);
        check(OpenR1Demo, GOOD, [1.0, 0.0, 0.0, 0.0]);
        check(OpenR1Demo, "<think>\na\n</think>\n<answer>\n</answer>", [2.0, 1.0, 1.0, 1.0]);
        check(OpenR1Demo, PLAIN, [1.0, 0.0, 0.0, 0.0]);
        check(OpenR1Demo, "<think>\na\n</think>\n<answer>\n11\n</answer> so", [2.0, 1.0, 1.0, 1.0]);
        check(OpenR1Demo, "<think>\na\n</think>\n", [1.5, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn tiny_pays_the_second_term_for_correct_and_formatted_only() {
        check(Tiny, GOOD, [1.1, 0.1, 0.1, 0.1]);
        check(Tiny, "<think>7+4得11\n</think><answer>11</answer>", [0.8, 0.1, 0.1, 0.1]);
        check(Tiny, "<think>5+6 is 11\n7+4得11\n</think><answer>11</answer>", [0.8, 0.1, 0.1, 0.1]);
        check(Tiny, "<think>7+4 is 11\n</think><answer>-11</answer>", [1.1, 0.1, 0.1, 0.1]);
        check(Tiny, "<think>7+4 is 11\n</think><answer>7+4</answer>", [0.0; 4]);
        check(Tiny, "<think>7+4 is 11\n</think><answer></answer>", [0.0; 4]);
        check(Tiny, LOOSE, [0.0; 4]);
        for finish in [FinishReason::Length, FinishReason::Overflow] {
            assert_eq!(scored(Tiny, GOOD, &verdicts()[0], finish, 40).total, 0.0);
        }
    }

    #[test]
    fn what_a_command_pays_counts_under_its_preset_and_is_recorded_under_others() {
        let problem = Problem {
            id: ProblemId("t/0".into()),
            task: "t".into(),
            question: "q".into(),
            answer: Answer::Command { reference: String::new() },
            language: Language::En,
            level: None,
        };
        let [correct, wrong, ..] = verdicts();
        for (preset, verdict, reward, parts, total) in [
            (Command, &correct, Some(0.25), r#"{"command":0.25,"total":0.25}"#, 0.25),
            (Command, &wrong, Some(-3.0), r#"{"command":-3.0,"total":-3.0}"#, -3.0),
            (Command, &correct, None, r#"{"command":1.0,"total":1.0}"#, 1.0),
            (Command, &wrong, None, r#"{"command":0.0,"total":0.0}"#, 0.0),
            (SimplerlZoo, &correct, Some(0.25), r#"{"accuracy":1.0,"command":0.25,"total":1.0}"#, 1.0),
            (SimplerlZoo, &correct, None, r#"{"accuracy":1.0,"total":1.0}"#, 1.0),
        ] {
            let judgement = Judgement { verdict: verdict.clone(), reward };
            let scored = score(preset, &problem, &Response::parse(GOOD), &judgement, FinishReason::Stop, 10, 100);
            assert_eq!((serde_json::to_string(&scored.to_map()).expect("a map"), scored.total), (parts.to_owned(), total), "{preset:?}");
        }
    }

    #[test]
    fn overlong_answers_lose_linearly_inside_the_buffer() {
        let rows = [(0, 0.0), (16_384, 0.0), (16_385, -1.0 / 4096.0), (18_432, -0.5), (20_480, -1.0)];
        for (len, expect) in rows {
            assert_eq!(overlong_penalty(len, 20_480, 4096, 1.0), expect, "{len}");
            assert_eq!(overlong_penalty(len, 20_480, 4096, 0.5), expect / 2.0, "{len}");
        }
        assert_eq!(overlong_penalty(10, 5, 0, 1.0), 0.0);
        assert_eq!(overlong_penalty(3, 5, 10, 1.0), -0.8);
        let total = |tokens| scored(Dapo, PLAIN, &verdicts()[0], FinishReason::Stop, tokens).total;
        assert_eq!([total(80), total(90), total(100)], [1.0, 0.5, 0.0]);
    }

    #[test]
    fn parts_add_up_and_are_stored_with_the_total() {
        for (preset, text) in ALL.iter().flat_map(|preset| [GOOD, LOOSE, PLAIN, "", "</answer>", "<think>"].map(|text| (*preset, text))) {
            for verdict in verdicts() {
                let scored = scored(preset, text, &verdict, FinishReason::Stop, 95);
                let map = scored.to_map();
                assert_eq!(map.len(), scored.parts.len() + 1, "{preset:?}");
                assert_eq!(map["total"].as_f64(), Some(scored.total));
                let sum: f64 = map.iter().filter(|(name, _)| *name != "total").filter_map(|(_, value)| value.as_f64()).sum();
                assert_eq!(sum, scored.total, "{preset:?} {text:?}");
            }
        }
    }

    #[test]
    fn presets_have_the_names_of_recipes() {
        let names = ALL.map(|preset| serde_json::to_value(preset).expect("a name").as_str().expect("text").to_string());
        let expect = [
            "r1-zero",
            "r1-stage1",
            "outcome-format",
            "logic-rl",
            "simplerl-v0",
            "simplerl-zoo",
            "tinyzero",
            "reinforce-lite",
            "dapo",
            "dr-grpo",
            "open-r1-demo",
            "nanochat",
            "tiny",
            "command",
            "judge",
        ];
        assert_eq!(names, expect);
    }
}
