//! The `[filter]` table of a recipe: its keys, their defaults and their ranges.

use serde::{Deserialize, Serialize};

/// Every rule is off unless its key is given. The fields stand in the order in which the rules run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSettings {
    /// Only traces whose verdict is correct; those without a verdict are dropped too.
    pub correct: bool,
    /// Only attempts that ended by themselves and closed their think part.
    pub finished: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<ReadableRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<LengthRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_rate: Option<PassRateRule>,
    /// Of traces with equal question and response, only the first in (problem, attempt) order.
    pub exact_duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_problem: Option<PerProblemRule>,
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
    Random,
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
        if self.per_problem.is_some_and(|rule| rule.max == 0) {
            faults.push("filter.per_problem.max must be at least 1, got 0".into());
        }
        faults
    }

    /// Names of the rules that are on, in the order in which they run.
    pub(super) fn rules(&self) -> Vec<&'static str> {
        let rows = [
            ("correct", self.correct),
            ("finished", self.finished),
            ("format", self.format.is_some()),
            ("language", self.language.is_some()),
            ("readable", !matches!(self.readable, None | Some(ReadableRule::Default(false)))),
            ("length", self.length.is_some()),
            ("pass_rate", self.pass_rate.is_some()),
            ("exact_duplicate", self.exact_duplicate),
            ("per_problem", self.per_problem.is_some()),
        ];
        rows.into_iter().filter_map(|(name, on)| on.then_some(name)).collect()
    }
}
