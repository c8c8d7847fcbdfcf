//! The `[filter]` table of a recipe: its keys, their defaults and their ranges.

use serde::{Deserialize, Serialize};

/// Every rule is off unless its key is given. The fields stand in the order in which the rules run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSettings {
    /// Only traces whose verdict is correct; those without a verdict are dropped too.
    pub correct: bool,
    /// Only attempts that ended by themselves, closed their think part and gave one answer: no second box with other content, no second `<answer>`.
    pub finished: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<LengthRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<ReadableRule>,
    /// Only texts that do not run in a loop.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repetition: bool,
    /// Evaluation sets of which no problem may stand in question or response: tasks by name, or files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decontaminate: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_rate: Option<PassRateRule>,
    /// Of traces with equal question and response, only the first in (problem, attempt) order.
    pub exact_duplicate: bool,
    /// Of traces with nearly equal question and response, only the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near_duplicate: Option<NearDuplicateRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_problem: Option<PerProblemRule>,
    /// What share each source of traces has in the corpus; empty is as they come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<SourceRule>,
}

/// What parts a response must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatRule {
    /// A closed think part, then an answer part that is not blank.
    Think,
    /// `<think>…</think><answer>…</answer>` and nothing else.
    ThinkAnswer,
}

/// Least share of words in the language of the question.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageRule {
    pub min: f64,
}

/// Readable by the default rule (`true`), or line by line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "readable must be true, false or { lines = \"regular expression\" }")]
pub enum ReadableRule {
    Default(bool),
    Lines(LinesRule),
}

/// A regular expression that every non-empty line of the think part must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinesRule {
    pub lines: String,
}

/// Length in completion tokens, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
}

/// Share of correct attempts among all attempts at a problem, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PassRateRule {
    pub min: f64,
    pub max: f64,
}

impl Default for PassRateRule {
    fn default() -> Self {
        Self { min: 0.0, max: 1.0 }
    }
}

/// Least Jaccard similarity, over runs of `words` words of question and response, from which on two traces are nearly equal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearDuplicateRule {
    pub jaccard: f64,
    /// Words of a shingle.
    #[serde(default = "five")]
    pub words: usize,
}

fn five() -> usize {
    5
}

/// The weight of one source in a mixture.
///
/// The corpus gets as many traces as the weights allow without repeating any: the source that is scarcest by its weight gives all it has, of the others a
/// random part is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRule {
    /// Number of the source in the manifest, or name of its model, or the end of that name behind a slash.
    pub name: String,
    pub weight: f64,
    /// How often a trace may stand in the corpus at most. Above 1 a scarce source gives its traces several times before others lose theirs.
    #[serde(default = "once")]
    pub repeat: u32,
}

fn once() -> u32 {
    1
}

/// At most `max` traces of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerProblemRule {
    pub max: usize,
    #[serde(default)]
    pub order: Order,
}

/// Which traces of a problem come first. Equal ones are taken by attempt number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    #[default]
    Shortest,
    Longest,
    /// The shortest, then each time the one whose nearest one among those taken is farthest, by Jaccard similarity over runs of 5 words.
    Diverse,
    Random,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shortest => "shortest",
            Self::Longest => "longest",
            Self::Diverse => "most diverse",
            Self::Random => "random",
        }
    }
}

impl FilterSettings {
    /// What is wrong with the values, each with key path, limit and value; empty when nothing is.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut unit = |key: &str, value: f64| {
            if !(0.0..=1.0).contains(&value) {
                faults.push(format!("filter.{key} must be in [0, 1], got {value}"));
            }
        };
        if let Some(rule) = &self.language {
            unit("language.min", rule.min);
        }
        if let Some(rule) = &self.pass_rate {
            unit("pass_rate.min", rule.min);
            unit("pass_rate.max", rule.max);
            if rule.min > rule.max {
                faults.push(format!("filter.pass_rate.min must be at most filter.pass_rate.max ({}), got {}", rule.max, rule.min));
            }
        }
        if let Some(ReadableRule::Lines(rule)) = &self.readable
            && let Err(error) = regex::Regex::new(&rule.lines)
        {
            faults.push(format!("filter.readable.lines is not a regular expression: {error}"));
        }
        if let Some(LengthRule { min: Some(min), max: Some(max) }) = self.length
            && min > max
        {
            faults.push(format!("filter.length.min must be at most filter.length.max ({max}), got {min}"));
        }
        if let Some(NearDuplicateRule { jaccard, words }) = self.near_duplicate {
            if !(0.5..=1.0).contains(&jaccard) {
                faults.push(format!("filter.near_duplicate.jaccard must be in [0.5, 1], got {jaccard}"));
            }
            if !(1..=32).contains(&words) {
                faults.push(format!("filter.near_duplicate.words must be from 1 to 32, got {words}"));
            }
        }
        for (i, source) in self.source.iter().enumerate() {
            if !(source.weight > 0.0 && source.weight.is_finite()) {
                faults.push(format!(
                    "filter.source[{i}].weight must be above 0, got {}; leave a source out by the traces that you give",
                    source.weight
                ));
            }
            if !(1..=100).contains(&source.repeat) {
                faults.push(format!("filter.source[{i}].repeat must be from 1 to 100, got {}", source.repeat));
            }
            if self.source[..i].iter().any(|other| other.name == source.name) {
                faults.push(format!("filter.source[{i}].name: {:?} is there twice", source.name));
            }
        }
        if self.per_problem.is_some_and(|rule| rule.max == 0) {
            faults.push("filter.per_problem.max must be at least 1, got 0".into());
        }
        faults
    }

    /// Whether the rule of this name is on.
    pub fn has(&self, rule: &str) -> bool {
        RULES.iter().position(|name| *name == rule).is_some_and(|place| self.is_on(place as u8))
    }

    /// Whether a rule of [`RULES`] is on.
    pub(super) fn is_on(&self, rule: u8) -> bool {
        match RULES[usize::from(rule)] {
            "correct" => self.correct,
            "finished" => self.finished,
            "format" => self.format.is_some(),
            "length" => self.length.is_some(),
            "language" => self.language.is_some(),
            "readable" => !matches!(self.readable, None | Some(ReadableRule::Default(false))),
            "repetition" => self.repetition,
            "decontaminate" => !self.decontaminate.is_empty(),
            "pass_rate" => self.pass_rate.is_some(),
            "exact_duplicate" => self.exact_duplicate,
            "near_duplicate" => self.near_duplicate.is_some(),
            "per_problem" => self.per_problem.is_some(),
            _ => !self.source.is_empty(),
        }
    }
}

/// The rules in the order in which they run, cheapest first: the first eight look at one trace, the others at what is left of all.
pub const RULES: [&str; 13] = [
    "correct",
    "finished",
    "format",
    "length",
    "language",
    "readable",
    "repetition",
    "decontaminate",
    "pass_rate",
    "exact_duplicate",
    "near_duplicate",
    "per_problem",
    "source",
];
/// Rules of [`RULES`] that look at one trace alone.
pub(super) const LOCAL: u8 = 8;
pub(super) const PASS_RATE: u8 = 8;
pub(super) const EXACT_DUPLICATE: u8 = 9;
pub(super) const NEAR_DUPLICATE: u8 = 10;
pub(super) const PER_PROBLEM: u8 = 11;
pub(super) const SOURCE: u8 = 12;
