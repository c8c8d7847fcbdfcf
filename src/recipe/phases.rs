//! `[[teacher.phase]]` and `[[student.phase]]`: a list of trainings, each named by its method unless it names itself.

use super::table::Table;
use super::{kd, ladder};
use crate::reward::RewardPreset;
use crate::rollout::PromptStyle;
use crate::train::advantage::Advantage;
use crate::train::objective::{KlEstimator, KlPlacement, LossType};
use crate::train::{Decay, GrpoSettings, KdSettings, OverlongPenalty, SftLoss, SftSettings};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One training.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    pub method: Method,
    /// Whether the layers' products are computed in bf16; weights and moments are f32 in any case.
    pub bf16: bool,
    pub probes: Option<Probes>,
}

/// Held-out problems of the first evaluation task that are answered greedily again and again while a phase trains. Nothing follows from the answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    pub problems: usize,
    /// Optimiser steps from one time to the next; an eighth of the phase where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum Method {
    Sft(Box<Sft>),
    Grpo(Box<Grpo>),
}

#[derive(Clone, Debug)]
pub struct Sft {
    /// At least one, where not every sequence is an own attempt.
    pub data: Vec<DataPart>,
    pub too_long: TooLong,
    pub settings: SftSettings,
    /// How own attempts are asked for, in a phase of distillation that has some.
    pub own: Option<kd::OwnAttempts>,
}

impl Sft {
    /// What is learnt from, in words.
    pub fn sources(&self) -> String {
        let name = |part: &DataPart| if part.weight == 1.0 { part.from.clone() } else { format!("{} x {}", part.weight, part.from) };
        let own = self.settings.kd.filter(|kd| kd.lmbda > 0.0).map(|kd| match kd.lmbda {
            1.0 => "own attempts".to_owned(),
            share => format!("own attempts ({share} of the sequences)"),
        });
        self.data.iter().map(name).chain(own).collect::<Vec<_>>().join(" + ")
    }

    /// As the recipe has it.
    pub fn method(&self) -> &'static str {
        if self.settings.kd.is_some() { "kd" } else { "sft" }
    }

    fn uses(&self, from: &str) -> bool {
        self.data.iter().any(|part| part.from == from)
    }
}

/// One of the corpora of an SFT phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPart {
    /// `corpus`, `cold-start`, or shards or a JSONL file of traces or chats.
    pub from: String,
    /// How often an epoch goes through it.
    #[serde(default = "DataPart::once")]
    pub weight: f64,
}

impl DataPart {
    pub const CORPUS: &str = "corpus";
    pub const COLD_START: &str = "cold-start";

    fn once() -> f64 {
        1.0
    }

    /// Where it is read from, if it is not made by the run.
    pub fn place(&self) -> Option<&Path> {
        (![Self::CORPUS, Self::COLD_START].contains(&self.from.as_str())).then(|| Path::new(&self.from))
    }
}

/// What becomes of rows beyond `max_length`; none is ever cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// They are left out, counted, and said.
    #[default]
    Drop,
    /// One is enough for the phase not to begin.
    Refuse,
}

#[derive(Clone, Debug)]
pub struct Grpo {
    pub reward: RewardPreset,
    pub prompt: PromptStyle,
    pub temperature: f32,
    pub max_tokens: usize,
    pub settings: GrpoSettings,
}

impl Phase {
    pub fn uses_cold_start(&self) -> bool {
        matches!(&self.method, Method::Sft(sft) if sft.uses(DataPart::COLD_START))
    }

    pub fn uses_corpus(&self) -> bool {
        matches!(&self.method, Method::Sft(sft) if sft.uses(DataPart::CORPUS))
    }

    /// Whether a teacher stands beside the model.
    pub fn is_taught(&self) -> bool {
        matches!(&self.method, Method::Sft(sft) if sft.settings.kd.is_some())
    }

    /// How the model is asked problems while it trains, if it is, and the tokens of an attempt at most.
    pub fn asks(&self) -> Option<(PromptStyle, usize)> {
        match &self.method {
            Method::Grpo(grpo) => Some((grpo.prompt, grpo.max_tokens)),
            Method::Sft(sft) => sft.own.as_ref().map(|own| (own.prompt, own.max_tokens)),
        }
    }

    pub fn is_grpo(&self) -> bool {
        matches!(self.method, Method::Grpo(_))
    }
}

pub(super) fn read(t: &mut Table) -> Phase {
    let method: String = t.required("method", "sft, kd or grpo");
    let name = t.or("name", method.clone());
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    t.check("name", plain || method.is_empty(), "letters, digits, '-' or '_'", format!("{name:?}"));
    let bf16 = t.optional("bf16").unwrap_or_default();
    let probes: Option<Probes> = t.optional("probes");
    t.check("probes.steps", probes.is_none_or(|probes| probes.steps != Some(0)), "at least 1", 0);
    let method = match method.as_str() {
        "grpo" => Method::Grpo(Box::new(read_grpo(t))),
        "sft" => Method::Sft(Box::new(read_sft(t, None))),
        "kd" => Method::Sft(Box::new(kd::read(t))),
        other => {
            if !other.is_empty() {
                t.problem(format!("{} must be sft, kd or grpo, got {other:?}", t.path("method")));
            }
            // Which keys belong here hangs on the method, unless one of them is its name misspelt.
            let phase = Method::Sft(Box::new(read_sft(&mut t.blank(), None)));
            t.pass_over(|key, _| strsim::damerau_levenshtein(key, "method") > 2);
            phase
        }
    };
    Phase { name, method, bf16, probes }
}

pub(super) fn read_sft(t: &mut Table, kd: Option<KdSettings>) -> Sft {
    let steps: Option<usize> = t.optional("steps");
    let epochs: Option<f64> = t.optional("epochs");
    if steps.is_some() && epochs.is_some() {
        t.problem(format!("{}: give steps or epochs, not both", t.path("steps")));
    }
    let settings = SftSettings {
        steps: steps.unwrap_or(0),
        epochs: epochs.unwrap_or(3.0),
        batch_size: t.or("batch_size", 64),
        learning_rate: t.or("learning_rate", 1e-5),
        schedule: t.or("schedule", Decay::Cosine),
        warmup_ratio: t.or("warmup_ratio", 0.03),
        adam_beta1: t.or("adam_beta1", 0.9),
        adam_beta2: t.or("adam_beta2", 0.95),
        weight_decay: t.or("weight_decay", 0.01),
        max_grad_norm: t.or("max_grad_norm", 1.0),
        optim: t.optional("optim").unwrap_or_default(),
        loss_type: if kd.is_some() { SftLoss::default() } else { t.optional("loss_type").unwrap_or_default() },
        neftune_noise_alpha: t.optional("neftune_noise_alpha"),
        held_out: t.optional("held_out"),
        kd,
    };
    t.check("steps", steps != Some(0), "at least 1", 0);
    t.check("epochs", settings.epochs > 0.0, "more than 0", settings.epochs);
    t.check("batch_size", settings.batch_size > 0, "at least 1", settings.batch_size);
    t.check("learning_rate", settings.learning_rate > 0.0, "more than 0", settings.learning_rate);
    t.check("warmup_ratio", (0.0..1.0).contains(&settings.warmup_ratio), "in [0, 1)", settings.warmup_ratio);
    if let Some(held_out) = settings.held_out {
        t.check("held_out.share", held_out.share > 0.0 && held_out.share < 1.0, "above 0 and below 1", held_out.share);
        t.check("held_out.eval_steps", held_out.eval_steps > 0, "at least 1", 0);
    }
    let alpha = settings.neftune_noise_alpha;
    t.check("neftune_noise_alpha", alpha.is_none_or(|alpha| alpha > 0.0), "more than 0; leave it out for none", alpha.unwrap_or_default());
    check_optimizer(t, settings.adam_beta1, settings.adam_beta2, settings.weight_decay, settings.max_grad_norm);
    let samples_all = kd.is_some_and(|kd| kd.lmbda == 1.0);
    let data = if samples_all { Vec::new() } else { read_data(t) };
    Sft { data, too_long: t.optional("too_long").unwrap_or_default(), settings, own: None }
}

/// One name, or a list of tables with weights.
fn read_data(t: &mut Table) -> Vec<DataPart> {
    let one = |from: String| vec![DataPart { from, weight: 1.0 }];
    if !t.has_list("data") {
        return one(t.or("data", DataPart::CORPUS.to_owned()));
    }
    let parts: Vec<DataPart> = t.optional("data").unwrap_or_else(|| one(String::new()));
    t.check("data", !parts.is_empty(), "at least one of { from = \"…\" }", "none");
    for (i, part) in parts.iter().enumerate() {
        let is_fine = part.weight > 0.0 && part.weight <= 1000.0;
        t.check(&format!("data[{i}].weight"), is_fine, "above 0 and at most 1000", part.weight);
        if parts[..i].iter().any(|before| before.from == part.from) {
            t.problem(format!("{}: {:?} is there twice; give it one weight", t.path(&format!("data[{i}].from")), part.from));
        }
    }
    parts
}

fn check_optimizer(t: &Table, beta1: f64, beta2: f64, weight_decay: f64, max_grad_norm: f64) {
    t.check("adam_beta1", (0.0..1.0).contains(&beta1), "in [0, 1)", beta1);
    t.check("adam_beta2", (0.0..1.0).contains(&beta2), "in [0, 1)", beta2);
    t.check("weight_decay", weight_decay >= 0.0, "0 or more", weight_decay);
    t.check("max_grad_norm", max_grad_norm > 0.0, "more than 0", max_grad_norm);
}

fn read_grpo(t: &mut Table) -> Grpo {
    let cuts = ["top_p", "top_k", "min_p"];
    for key in cuts.into_iter().filter(|key| t.has(key)) {
        t.problem(format!(
            "{}: GRPO samples from the whole distribution, leave it out: attempts from a cut one are not those of the policy that is updated",
            t.path(key)
        ));
    }
    t.pass_over(|key, _| cuts.contains(&key));
    let epsilon = t.or("epsilon", 0.2);
    let settings = GrpoSettings {
        steps: t.or("steps", 100),
        prompts_per_step: t.or("prompts_per_step", 16),
        num_generations: t.or("num_generations", 8),
        learning_rate: t.or("learning_rate", 1e-6),
        schedule: t.or("schedule", Decay::Constant),
        warmup_steps: t.or("warmup_steps", 0),
        adam_beta1: t.or("adam_beta1", 0.9),
        adam_beta2: t.or("adam_beta2", 0.99),
        weight_decay: t.or("weight_decay", 0.0),
        max_grad_norm: t.or("max_grad_norm", 1.0),
        optim: t.optional("optim").unwrap_or_default(),
        num_iterations: t.or("num_iterations", 1),
        steps_per_generation: t.optional("steps_per_generation").unwrap_or(1),
        advantage: t.or("advantage", Advantage::default()),
        loss_type: t.or("loss_type", LossType::default()),
        epsilon,
        epsilon_high: t.or("epsilon_high", epsilon),
        beta: t.or("beta", 0.0),
        kl: t.or("kl", KlEstimator::default()),
        kl_in: t.or("kl_in", KlPlacement::default()),
        use_bias_correction_kl: t.optional("use_bias_correction_kl").unwrap_or_default(),
        reference_reset: t.or("reference_reset", 0),
        one_step_off_policy: t.optional("one_step_off_policy").unwrap_or_default(),
        dynamic_sampling: t.or("dynamic_sampling", 0),
        mask_truncated: t.or("mask_truncated", false),
        overlong_penalty: t.optional::<OverlongPenalty>("overlong_penalty"),
        context_ladder: t.optional("context_ladder").unwrap_or_default(),
        collapse: t.optional("collapse"),
    };
    let grpo = Grpo {
        reward: t.or("reward", RewardPreset::R1Zero),
        prompt: t.or("prompt", PromptStyle::Plain),
        temperature: t.or("temperature", 1.0),
        max_tokens: t.or("max_tokens", 2048),
        settings,
    };
    let s = &grpo.settings;
    for (key, value) in [("steps", s.steps), ("prompts_per_step", s.prompts_per_step), ("num_iterations", s.num_iterations)] {
        t.check(key, value > 0, "at least 1", value);
    }
    let parts = s.steps_per_generation;
    let cuts = parts > 0 && s.prompts_per_step.is_multiple_of(parts);
    t.check("steps_per_generation", cuts, &format!("at least 1, and a divisor of prompts_per_step, {}", s.prompts_per_step), parts);
    let least = s.advantage.smallest_group();
    t.check("num_generations", s.num_generations >= least, &format!("at least {least} for this advantage"), s.num_generations);
    t.check("learning_rate", s.learning_rate > 0.0, "more than 0", s.learning_rate);
    t.check("epsilon", s.epsilon > 0.0, "more than 0", s.epsilon);
    t.check("epsilon_high", s.epsilon_high > 0.0, "more than 0", s.epsilon_high);
    t.check("beta", s.beta >= 0.0, "0 or more", s.beta);
    t.check("temperature", grpo.temperature > 0.0, "more than 0: a policy gradient needs a distribution", grpo.temperature);
    t.check("max_tokens", grpo.max_tokens > 0, "at least 1", grpo.max_tokens);
    if s.kl == KlEstimator::Full && s.kl_in == KlPlacement::Reward {
        t.problem(format!("{}: the full-vocabulary KL can stand in the loss only; use k1 in the reward", t.path("kl")));
    }
    if s.use_bias_correction_kl && (s.kl == KlEstimator::Full || s.kl_in == KlPlacement::Reward) {
        t.problem(format!(
            "{}: it corrects estimates from sampled tokens in the loss; there is nothing to correct here",
            t.path("use_bias_correction_kl")
        ));
    }
    if s.reference_reset > 0 && s.beta == 0.0 {
        t.problem(format!("{}: there is no reference to reset where beta is 0", t.path("reference_reset")));
    }
    if s.one_step_off_policy && s.beta > 0.0 && s.kl_in == KlPlacement::Reward {
        t.problem(format!(
            "{}: the KL in the reward would be that of another policy than sampled; take kl_in = \"loss\"",
            t.path("one_step_off_policy")
        ));
    }
    if s.one_step_off_policy && s.dynamic_sampling > 0 {
        t.problem(format!(
            "{}: dynamic sampling asks again by what was sampled, and what is sampled ahead is known too late for that; leave one of the two out",
            t.path("one_step_off_policy")
        ));
    }
    if s.dynamic_sampling > 0 && s.num_generations < 2 {
        t.problem(format!("{}: a group of one attempt is all right or all wrong, so all would be thrown away", t.path("dynamic_sampling")));
    }
    if let Some(penalty) = s.overlong_penalty {
        t.check("overlong_penalty.factor", penalty.factor > 0.0, "more than 0", penalty.factor);
        let fits = penalty.buffer > 0 && penalty.buffer <= grpo.max_tokens;
        t.check("overlong_penalty.buffer", fits, "from 1 to max_tokens", penalty.buffer);
        if grpo.reward == RewardPreset::Dapo {
            t.problem(format!("{}: the reward \"dapo\" charges length already; leave one of the two out", t.path("overlong_penalty")));
        }
    }
    ladder::check(t, s, grpo.max_tokens);
    if let Some(rule) = s.collapse {
        let fits = (5..s.steps).contains(&rule.window);
        t.check("collapse.window", fits, "at least 5, and less than steps", rule.window);
        t.check("collapse.drop", rule.drop > 0.0 && rule.drop <= 1.0, "above 0 and at most 1", rule.drop);
    }
    check_optimizer(t, s.adam_beta1, s.adam_beta2, s.weight_decay, s.max_grad_norm);
    grpo
}
