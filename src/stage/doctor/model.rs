//! One model of a recipe: what it is asked with, what it would learn from, and whether training and sampling work on it.

use super::super::examples::{Corpora, Corpus, Demonstration};
use super::super::models::{self, Loaded, Origin, Preparation};
use super::super::run::Run;
use super::finding::Finding;
use super::free_memory;
use super::recipe::{TRIED, Tried, failed, folder_of, has_fault, or_failed};
use super::{preview, talk, taught, trial};
use crate::model::{self, Config};
use crate::problem::Problem;
use crate::recipe::{Method, Model, Sft};
use crate::report::text::{size, thousands};
use crate::response::Response;
use crate::rollout::{PromptStyle, render};
use crate::train::Example;
use crate::verify::{Rules, Verifier};
use anyhow::{Context, Result, anyhow};
use std::sync::Arc;

/// Parameters of a model that is read as a whole; of a larger one the first layers stand for all.
const WHOLE: usize = 200_000_000;
/// Layers that stand for all.
const LAYERS: usize = 2;
/// Rows of a corpus that are measured, of each part.
const MEASURED: usize = 2000;

/// A model that is looked at.
pub(super) struct Patient<'a> {
    pub run: &'a Run,
    pub role: &'static str,
    pub model: &'a Model,
    pub origin: &'a Origin,
    pub tried: &'a [Tried],
    pub rules: &'a Rules,
}

/// A limit on the tokens of completions, and whose.
struct Cap {
    key: String,
    /// As in [`Tried`].
    evaluation: Option<usize>,
    style: PromptStyle,
    tokens: usize,
}

pub(super) fn findings(patient: &Patient) -> Vec<Finding> {
    let config = match patient.config() {
        Ok(config) => config,
        Err(error) => return vec![failed(patient.role, &error)],
    };
    let part = config.as_ref().filter(|config| config.parameters() > WHOLE).map(|_| LAYERS);
    let loaded = match patient.open(part) {
        Ok(loaded) => loaded,
        Err(error) => return vec![failed(patient.role, &error)],
    };
    let mut all = vec![patient.says(config.as_ref(), &loaded, part)];
    all.extend(patient.positions(&loaded));
    all.extend(talk::findings(patient.model, patient.role, &loaded));
    all.extend(taught::findings(patient, &loaded.text, loaded.decoder.config()));
    let mut asked = or_failed("prompt", patient.asked(&loaded));
    let may_train = !has_fault(&asked);
    all.append(&mut asked);
    all.extend(or_failed("length", patient.lengths(&loaded)));
    if may_train && let Some(example) = patient.example(&loaded) {
        all.extend(or_failed("gradient", trial::findings(patient, &loaded, &example, part)));
    }
    all
}

impl Patient<'_> {
    fn config(&self) -> Result<Option<Config>> {
        Ok(match folder_of(self.origin) {
            // An adapter is opened with its base.
            Some(folder) if !model::is_adapter(folder) => Some(Config::load(folder)?),
            _ => None,
        })
    }

    pub fn open(&self, layers: Option<usize>) -> Result<Loaded> {
        match folder_of(self.origin) {
            Some(folder) => {
                let preparation = Preparation::of(self.run, self.model, folder)?.of_layers(layers);
                models::open_folder(folder, &preparation, self.run.date)
            }
            None => models::open(self.run, self.model, self.origin, self.role),
        }
    }

    fn says(&self, config: Option<&Config>, loaded: &Loaded, part: Option<usize>) -> Finding {
        let config = config.unwrap_or(loaded.decoder.config());
        let trains = match (&self.model.lora, self.model.phases.len()) {
            (_, 0) => "used as it is".to_owned(),
            (Some(lora), _) => format!("an adapter of {} parameters is trained", thousands(lora.parameters(config))),
            (None, _) => "all of it is trained".to_owned(),
        };
        let part = part.map_or(String::new(), |n| format!("; looked at with its first {n} of {} layers", config.layers));
        let says = format!(
            "{}: {:?}, {} parameters ({} in f32), {} positions; {trains}{part}",
            self.model.model,
            config.architecture,
            thousands(config.parameters()),
            size(4 * config.parameters()),
            thousands(loaded.decoder.config().max_positions)
        );
        Finding::good(self.role, says)
    }

    fn positions(&self, loaded: &Loaded) -> Option<Finding> {
        let (limit, there) = (self.model.max_length, loaded.decoder.config().max_positions);
        (limit > there).then(|| {
            let says = format!("{}.max_length {limit} is beyond the model's {there} positions", self.role);
            let remedy =
                format!("choose at most {there}, or set {0}.rope_theta (300000.0 takes Qwen2.5-Math from 4,096 to 32,768)", self.role);
            Finding::fault("length", says, remedy)
        })
    }

    /// How this model is asked and taught: each task with each of its prompts.
    fn asks(&self) -> Vec<(&Tried, PromptStyle)> {
        let recipe = &self.run.recipe;
        let asked = self.model.phases.iter().filter_map(|phase| phase.asks()).map(|(prompt, _)| prompt);
        let trained: Vec<PromptStyle> = std::iter::once(recipe.sample.prompt).chain(asked).collect();
        let mut all: Vec<(&Tried, PromptStyle)> = Vec::new();
        for tried in self.tried {
            let styles = tried.evaluation.map_or(trained.clone(), |i| vec![recipe.evaluate.tasks[i].prompt]);
            for style in styles {
                let kind = |tried: &Tried| tried.problems.first().map(|problem| problem.task.clone());
                if !all.iter().any(|(before, other)| kind(before) == kind(tried) && *other == style) {
                    all.push((tried, style));
                }
            }
        }
        all
    }

    /// A problem with a right response to it, in the form that the prompt asks for where there is one.
    fn answered<'t>(&self, tried: &'t Tried, style: PromptStyle) -> Option<(&'t Arc<Problem>, &'t String)> {
        let is_asked_for = |text: &&String| style == PromptStyle::R1 && text.contains("\\boxed") && !text.contains("<answer>");
        tried.problems.iter().zip(&tried.perfect).find_map(|(problem, forms)| {
            let right: Vec<&String> = forms.as_ref().ok()?.iter().filter(|text| self.is_right(problem, text)).collect();
            Some((problem, *right.iter().find(|text| is_asked_for(text)).or(right.first())?))
        })
    }

    fn is_right(&self, problem: &Problem, response: &str) -> bool {
        self.rules.verify(problem, &Response::parse(response)).is_ok_and(|verdict| verdict.is_correct())
    }

    /// A row to try training on.
    fn example(&self, loaded: &Loaded) -> Option<Example> {
        let (style, (problem, response)) =
            self.asks().into_iter().find_map(|(tried, style)| Some((style, self.answered(tried, style)?)))?;
        Demonstration::of(style, &problem.question, response.clone()).and_then(|row| row.example(&loaded.text)).ok()
    }

    /// One prompt of every task with a perfect completion: what is in the loss of it, and where its tokens end.
    fn asked(&self, loaded: &Loaded) -> Result<Vec<Finding>> {
        let mut all = Vec::new();
        for (tried, style) in self.asks() {
            match self.answered(tried, style) {
                Some((problem, response)) => all.extend(self.mask(loaded, style, problem, response)?),
                None => all.push(Finding::note("mask", format!("{}: {} not tried, no right answer is known", self.role, tried.task))),
            }
        }
        Ok(all)
    }

    fn mask(&self, loaded: &Loaded, style: PromptStyle, problem: &Problem, response: &str) -> Result<Vec<Finding>> {
        let text = &loaded.text;
        let rendered = render(text, style, &problem.question)?;
        let example = Demonstration::of(style, &problem.question, response.to_owned())?.example(text)?;
        let (prompt, targets) = example.tokens.split_at(example.completion);
        let name = format!("{}: {} with prompt {}", self.role, problem.task, serde_json::to_value(style)?.as_str().unwrap_or_default());
        let ends = targets.last() == Some(&text.end_id()) && text.stop_ids().contains(&text.end_id());
        let said = text.decode(&targets[..targets.len() - 1]);
        let lines = preview::lines(text, &example);
        if prompt != rendered.tokens {
            let remedy = "report this: training and sampling must render a prompt alike";
            return Ok(vec![Finding::fault("mask", format!("{name}: the prompt in training is not that of sampling"), remedy).with(lines)]);
        }
        if !ends || said.is_empty() {
            let remedy =
                "name the end token as eos_token in tokenizer_config.json, and in generation_config.json where sampling is to stop";
            let says = format!("{name}: the end token is not in the loss, or does not stop sampling");
            return Ok(vec![Finding::fault("mask", says, remedy).with(lines)]);
        }
        let opens =
            if rendered.prefill.is_empty() { String::new() } else { format!(", which opens the response with {:?},", rendered.prefill) };
        let says = format!(
            "{name}: {} tokens of the completion and the end token {:?} are in the loss, {} of the prompt{opens} are not",
            thousands(targets.len() - 1),
            text.decode(&[text.end_id()]),
            thousands(prompt.len())
        );
        let good = Finding::good("mask", says).with(lines);
        Ok(std::iter::once(good).chain(talk::border(text, &name, prompt, targets)?).collect())
    }

    /// Whether what is sampled and trained on fits into what is allowed for it.
    fn lengths(&self, loaded: &Loaded) -> Result<Vec<Finding>> {
        let (mut all, mut taught) = (Vec::new(), Vec::new());
        let recipe = &self.run.recipe;
        let positions = loaded.decoder.config().max_positions;
        let limit = if self.model.max_length == 0 { positions } else { self.model.max_length };
        for phase in &self.model.phases {
            if let Method::Sft(sft) = &phase.method
                && !sft.data.is_empty()
            {
                let (finding, completions) = self.rows(loaded, &phase.name, sft, limit)?;
                all.push(finding);
                taught.extend(completions);
            }
        }
        let mut caps: Vec<Cap> = Vec::new();
        let trained = |key: String, style, tokens| Cap { key, evaluation: None, style, tokens };
        if self.role == "teacher" {
            caps.push(trained("sample.max_tokens".into(), recipe.sample.prompt, recipe.sample.params.max_tokens));
        }
        for (i, phase) in self.model.phases.iter().enumerate() {
            if let Some((prompt, max_tokens)) = phase.asks() {
                caps.push(trained(format!("{}.phase[{i}].max_tokens", self.role), prompt, max_tokens));
            }
        }
        caps.extend(recipe.evaluate.tasks.iter().enumerate().map(|(i, task)| {
            let key = format!("evaluate.{}.max_tokens", task.name);
            Cap { key, evaluation: Some(i), style: task.prompt, tokens: task.params.max_tokens }
        }));
        for cap in caps {
            all.push(self.cap(loaded, &cap, &taught)?);
        }
        Ok(all)
    }

    /// A cap on completions against what right answers to its own task need, against the completions that the model is taught, and together with its prompts against
    /// the positions.
    fn cap(&self, loaded: &Loaded, cap: &Cap, taught: &[usize]) -> Result<Finding> {
        let Cap { key, style, tokens, .. } = cap;
        let positions = loaded.decoder.config().max_positions;
        let (mut longest, mut prompts) = (0, 0);
        for tried in self.tried.iter().filter(|tried| tried.evaluation == cap.evaluation) {
            for (problem, forms) in tried.problems.iter().zip(&tried.perfect) {
                prompts = prompts.max(render(&loaded.text, *style, &problem.question)?.tokens.len());
                let right = forms.iter().flatten().filter(|text| self.is_right(problem, text));
                // The shortest form: a model needs at least so many.
                let lengths = right.map(|form| {
                    let row = Demonstration::of(*style, &problem.question, form.clone())?.example(&loaded.text)?;
                    Ok(row.targets())
                });
                longest = longest.max(lengths.collect::<Result<Vec<usize>>>()?.into_iter().min().unwrap_or(0));
            }
        }
        let beyond = taught.iter().filter(|length| *length > tokens).count();
        let share = format!("{key} = {tokens}, but {beyond} of {} completions that it is taught are longer", taught.len());
        let most = || taught.iter().max().copied().unwrap_or(0);
        Ok(if longest > *tokens {
            let remedy = format!(
                "raise it: an answer to such a problem would be cut even without any reasoning; {} leaves room for that",
                (8 * longest).max(256)
            );
            Finding::fault("length", format!("{key} = {tokens} is less than the {longest} tokens that a bare right answer takes"), remedy)
        } else if beyond * 2 > taught.len() {
            Finding::fault("length", share, format!("raise it; the longest of them takes {}", most()))
        } else if prompts + tokens > positions {
            let remedy = format!("lower it to {}, or take a model with more positions", positions.saturating_sub(prompts));
            let says = format!(
                "{key} = {tokens} and a prompt of {prompts} tokens are beyond the model's {positions} positions: long attempts would be cut there"
            );
            Finding::warning("length", says, remedy)
        } else if beyond * 50 > taught.len() {
            Finding::warning("length", share, format!("raise it; the longest of them takes {}", most()))
        } else {
            Finding::good(
                "length",
                format!("{key} = {tokens}; the longest prompt of {TRIED} is {prompts} tokens, a bare right answer at most {longest}"),
            )
        })
    }

    /// What rows of a corpus measure, against the longest that are trained on.
    fn rows(&self, loaded: &Loaded, phase: &str, sft: &Sft, limit: usize) -> Result<(Finding, Vec<usize>)> {
        let stage = format!("{}/{phase}", self.role);
        let corpora = Corpora { run: self.run, stage: &stage, corpus: Corpus::Filtered, limit };
        let corpus = self.run.folder(super::super::filter::FOLDER);
        if sft.data.iter().any(|part| part.from == crate::recipe::DataPart::CORPUS) && !corpus.exists() {
            let says = format!("{stage}: the corpus is not made yet; look again when it is, before the phase begins");
            return Ok((Finding::note("length", says), Vec::new()));
        }
        let mut measured = corpora.measure(sft, &loaded.text, MEASURED).with_context(|| stage.clone())?;
        measured.tokens.sort_unstable();
        let n = measured.tokens.len();
        let Some(longest) = measured.tokens.last().copied() else {
            return Err(anyhow!("{stage}: {} holds no rows; filter less, or sample more", sft.sources()));
        };
        let at = |share: f64| measured.tokens[((n - 1) as f64 * share).round() as usize];
        let says = format!(
            "{stage}: {} rows of {}: {} tokens in the middle, {} at the 99th of 100, {longest} at most; max_length {limit}",
            thousands(n),
            sft.sources(),
            at(0.5),
            at(0.99)
        );
        let beyond = measured.tokens.iter().filter(|tokens| **tokens > limit).count();
        let finding = if measured.ended == 0 {
            let remedy = "take traces that ended by themselves (finished = true in [filter]); sample with more max_tokens";
            Finding::fault(
                "length",
                format!("{stage}: not one of {n} rows ends by itself, so no end token is in the loss: the model would never learn to stop"),
                remedy,
            )
        } else if beyond * 2 > n {
            let remedy = format!(
                "raise max_length to {}, or filter for length: what is too long is left out, and here that is most of it",
                at(0.99)
            );
            Finding::fault("length", format!("{says}; {beyond} are longer"), remedy)
        } else if beyond > 0 {
            let remedy = format!("raise max_length to {longest} to keep them all; they are left out, not cut");
            Finding::warning("length", format!("{says}; {beyond} are longer"), remedy)
        } else {
            Finding::good("length", says)
        };
        Ok((finding, measured.completions))
    }

    /// Bytes that may be used to try the model.
    pub fn room(&self) -> usize {
        free_memory().unwrap_or(usize::MAX) / 2
    }
}
