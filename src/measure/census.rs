//! All measures over many texts: counts, shares and quantiles, for a corpus or for a model's samples.
//!
//! A census is a few kilobytes however many texts it holds: a quantile comes from a histogram whose bins are 2 % wide. Adding the same texts in the
//! same order gives the same census; counts do not depend on the order at all.

use super::after_answer::{self, AfterAnswer};
use super::behaviours::{self, Behaviours};
use super::{language, readability, repetition};
use crate::problem::Language;
use crate::trace::FinishReason;
use std::collections::BTreeMap;

mod distribution;

pub use distribution::Distribution;

/// One text and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub text: &'a str,
    pub target: Language,
    /// 0 where nobody counted: rates then take four bytes for a token.
    pub tokens: usize,
    pub finish: FinishReason,
    /// `None` for a text that nobody judged.
    pub correct: Option<bool>,
}

/// The census of the texts added so far.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Census {
    pub texts: usize,
    pub bytes: usize,
    pub finished: usize,
    pub judged: usize,
    pub correct: usize,
    /// By name of the measure, in the order of `rows`.
    pub distributions: BTreeMap<&'static str, Distribution>,
    /// Texts with no word of any language.
    pub neutral: usize,
    /// Texts with a foreign stretch, by its language; `other` where that has no name.
    pub foreign: BTreeMap<&'static str, usize>,
    /// Texts that the default rules would drop, by part.
    pub unreadable: BTreeMap<String, usize>,
    pub repetitive: BTreeMap<String, usize>,
    /// Texts with at least one sign of each behaviour.
    pub behaviours: BTreeMap<&'static str, usize>,
    pub answers: Answers,
}

/// What texts do with their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Answers {
    /// Texts that state an answer, and those of them that go on reasoning behind the first one.
    pub with_answer: usize,
    pub going_on: usize,
    pub right_to_wrong: usize,
    pub wrong_to_right: usize,
    /// Equations checked and wrong ones, and texts that have a wrong one.
    pub equations: usize,
    pub wrong_equations: usize,
    pub texts_with_wrong_equation: usize,
    /// Texts with a boxed number and a computed one, and those where they are equal.
    pub boxed_and_computed: usize,
    pub boxed_is_last_computed: usize,
    pub texts_with_code: usize,
}

impl Census {
    /// Adds a text; `judge` says whether an answer that the text states is right, `None` where it cannot say.
    pub fn add(&mut self, sample: &Sample, judge: &mut dyn FnMut(&str) -> Option<bool>) {
        self.texts += 1;
        self.bytes += sample.text.len();
        self.finished += usize::from(sample.finish == FinishReason::Stop);
        self.judged += usize::from(sample.correct.is_some());
        self.correct += usize::from(sample.correct == Some(true));
        self.note("tokens", sample.tokens as f64);
        self.add_language(sample);
        self.add_form(sample.text);
        self.add_behaviours(sample);
        self.add_answers(&after_answer::measure(sample.text, judge));
    }

    fn note(&mut self, name: &'static str, value: f64) {
        self.distributions.entry(name).or_default().add(value);
    }

    fn add_language(&mut self, sample: &Sample) {
        let mix = language::measure(sample.text, sample.target);
        match mix.share {
            Some(share) => self.note("language_share", share),
            None => self.neutral += 1,
        }
        self.note("language_switch_rate", mix.switch_rate());
        let mut names: Vec<&str> = mix.foreign.iter().map(|found| found.language.map_or("other", Language::code)).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().for_each(|name| *self.foreign.entry(name).or_default() += 1);
    }

    fn add_form(&mut self, text: &str) {
        let parts = readability::measure(text);
        self.note("longest_paragraph", parts.longest_paragraph as f64);
        self.note("symbol_share", parts.symbol_share);
        self.note("code_share", parts.code_share);
        self.answers.texts_with_code += usize::from(parts.code_share > 0.0);
        if let Err(reason) = readability::is_readable(&parts) {
            *self.unreadable.entry(reason.rule).or_default() += 1;
        }
        let parts = repetition::measure(text);
        self.note("repeated_grams", parts.grams.share);
        if let Err(reason) = repetition::is_repetitive(&parts) {
            *self.repetitive.entry(reason.rule).or_default() += 1;
        }
    }

    fn add_behaviours(&mut self, sample: &Sample) {
        let tokens = if sample.tokens == 0 { sample.text.len().div_ceil(4) } else { sample.tokens };
        for (name, count) in behaviours::measure(sample.text).named() {
            self.note(name, Behaviours::per_thousand(count, tokens));
            *self.behaviours.entry(name).or_default() += usize::from(count > 0);
        }
    }

    fn add_answers(&mut self, found: &AfterAnswer) {
        let answers = &mut self.answers;
        answers.with_answer += usize::from(found.first.is_some());
        answers.going_on += usize::from(found.goes_on() == Some(true));
        answers.right_to_wrong += found.right_to_wrong;
        answers.wrong_to_right += found.wrong_to_right;
        answers.equations += found.audit.checked;
        answers.wrong_equations += found.audit.wrong;
        answers.texts_with_wrong_equation += usize::from(found.audit.wrong > 0);
        answers.boxed_and_computed += usize::from(found.boxed_is_last_computed.is_some());
        answers.boxed_is_last_computed += usize::from(found.boxed_is_last_computed == Some(true));
        if let Some(first) = found.first {
            self.note("first_answer_at", first);
        }
    }

    /// Adds the texts of another census.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.texts, other.texts),
            (&mut self.bytes, other.bytes),
            (&mut self.finished, other.finished),
            (&mut self.judged, other.judged),
            (&mut self.correct, other.correct),
            (&mut self.neutral, other.neutral),
        ] {
            *mine += theirs;
        }
        other.distributions.iter().for_each(|(name, theirs)| self.distributions.entry(name).or_default().merge(theirs));
        merge_counts(&mut self.foreign, &other.foreign);
        merge_counts(&mut self.unreadable, &other.unreadable);
        merge_counts(&mut self.repetitive, &other.repetitive);
        merge_counts(&mut self.behaviours, &other.behaviours);
        self.answers.merge(&other.answers);
    }

    /// A table: what was measured, and its value in words.
    pub fn rows(&self) -> Vec<[String; 2]> {
        let mut rows = vec![
            ["texts".into(), self.texts.to_string()],
            ["megabytes".into(), format!("{:.1}", self.bytes as f64 / 1e6)],
            ["finished".into(), of(self.finished, self.texts)],
            ["correct".into(), of(self.correct, self.judged)],
            ["without a word (neutral)".into(), of(self.neutral, self.texts)],
        ];
        let counts = |title: &str, counts: Vec<(&str, usize)>| -> Vec<[String; 2]> {
            counts.into_iter().map(|(name, count)| [format!("{title}: {name}"), of(count, self.texts)]).collect()
        };
        rows.extend(self.distributions.iter().map(|(name, values)| [name.replace('_', " ") + unit(name), values.to_string()]));
        rows.extend(counts("texts with words in", self.foreign.iter().map(|(name, n)| (*name, *n)).collect()));
        rows.extend(counts("not readable", self.unreadable.iter().map(|(name, n)| (part(name), *n)).collect()));
        rows.extend(counts("repetitive", self.repetitive.iter().map(|(name, n)| (part(name), *n)).collect()));
        rows.extend(counts("texts with", self.behaviours.iter().map(|(name, n)| (*name, *n)).collect()));
        rows.extend(self.answers.rows(self.texts));
        rows
    }
}

impl Answers {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.with_answer, other.with_answer),
            (&mut self.going_on, other.going_on),
            (&mut self.right_to_wrong, other.right_to_wrong),
            (&mut self.wrong_to_right, other.wrong_to_right),
            (&mut self.equations, other.equations),
            (&mut self.wrong_equations, other.wrong_equations),
            (&mut self.texts_with_wrong_equation, other.texts_with_wrong_equation),
            (&mut self.boxed_and_computed, other.boxed_and_computed),
            (&mut self.boxed_is_last_computed, other.boxed_is_last_computed),
            (&mut self.texts_with_code, other.texts_with_code),
        ] {
            *mine += theirs;
        }
    }

    fn rows(&self, texts: usize) -> Vec<[String; 2]> {
        let rows = [
            ("state an answer", of(self.with_answer, texts)),
            ("reason on behind their first answer", of(self.going_on, self.with_answer)),
            ("turns from right to wrong", self.right_to_wrong.to_string()),
            ("turns from wrong to right", self.wrong_to_right.to_string()),
            ("wrong equations", of(self.wrong_equations, self.equations)),
            ("texts with a wrong equation", of(self.texts_with_wrong_equation, texts)),
            ("boxed number is the last one computed", of(self.boxed_is_last_computed, self.boxed_and_computed)),
            ("texts with code", of(self.texts_with_code, texts)),
        ];
        rows.map(|(name, value)| [name.to_owned(), value]).into()
    }
}

fn merge_counts<K: Ord + Clone>(mine: &mut BTreeMap<K, usize>, theirs: &BTreeMap<K, usize>) {
    theirs.iter().for_each(|(name, count)| *mine.entry(name.clone()).or_default() += count);
}

/// `3 of 60 (5.0 %)`.
fn of(part: usize, whole: usize) -> String {
    if whole == 0 { "none".into() } else { format!("{part} of {whole} ({:.1} %)", 100.0 * part as f64 / whole as f64) }
}

/// The part of a rule behind its point.
fn part(rule: &str) -> &str {
    rule.split_once('.').map_or(rule, |(_, part)| part)
}

fn unit(name: &str) -> &'static str {
    match name {
        "verification" | "backtracking" | "subgoal" | "backward_chaining" | "thinking_words" => " per 1,000 tokens",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
