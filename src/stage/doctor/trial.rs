//! A model at work for a moment: every variable gets a gradient, and sampler and trainer agree about what was sampled.

use super::super::models::Loaded;
use super::finding::Finding;
use super::model::Patient;
use super::recipe::has_fault;
use crate::key::Key;
use crate::report::text::size;
use crate::sampler::{LocalSampler, Next, Prompt, Sampler, SamplingParams};
use crate::train::{AdamWSettings, Batching, Example, Learner, NotFinite, Optim, Seeds, Values};
use anyhow::{Result, anyhow};
use std::sync::Arc;

/// Tokens that are sampled.
const TOKENS: usize = 16;
/// The most by which a log-probability may differ in f32.
const TOLERANCE: f64 = 1e-4;

pub(super) fn findings(patient: &Patient, loaded: &Loaded, example: &Example, part: Option<usize>) -> Result<Vec<Finding>> {
    let config = loaded.decoder.config();
    // Weights, a copy of them, their gradients, and those laid out for sampling.
    let needed = 4 * 4 * config.parameters();
    if needed > patient.room() {
        let says = format!(
            "{}: not tried, it takes {} for a moment and half of what is free is {}",
            patient.role,
            size(needed),
            size(patient.room())
        );
        return Ok(vec![Finding::note("gradient", says)]);
    }
    let adapted = match &patient.model.lora {
        Some(lora) if loaded.decoder.lora().is_none() => loaded.decoder.with_adapter(lora, Key::new(0, "doctor"))?,
        _ => loaded.decoder.clone(),
    };
    let settings = AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
    let mut learner = Learner::new(&adapted, settings, Batching { micro_batch_tokens: 4096, recompute: None })?;
    drop(adapted);
    let mut all = Vec::new();
    if !patient.model.phases.is_empty() {
        all.push(gradients(patient.role, &mut learner, example)?);
    }
    if !has_fault(&all) {
        all.push(agreement(patient.role, loaded, &learner, example)?);
    }
    if let Some(layers) = part {
        all.iter_mut().for_each(|finding| finding.says += &format!(" (in the first {layers} layers)"));
    }
    Ok(all)
}

fn gradients(role: &str, learner: &mut Learner, example: &Example) -> Result<Finding> {
    let mut seeds = |_: &[usize], values: Values| {
        let n = values.logprobs.len();
        Ok(Seeds { logprobs: vec![-1.0 / n as f32; n], entropy: None, divergence: None })
    };
    let damaged = "the checkpoint holds numbers that are not finite, or too large ones: fetch it again";
    if let Err(error) = learner.accumulate(std::slice::from_ref(example), 1.0, None, &mut seeds) {
        return if error.is::<NotFinite>() { Ok(Finding::fault("gradient", format!("{role}: {error:#}"), damaged)) } else { Err(error) };
    }
    let norms = learner.gradient_norms()?;
    let named = |what: &dyn Fn(f64) -> bool| norms.iter().find(|(_, norm)| what(*norm)).map(|(name, _)| name.clone());
    // The second factor of a new adapter is zero, so that the first one's gradient is.
    let is_still = |name: &str| learner.decoder().lora().is_some() && name.ends_with("lora_A.weight");
    let without = norms.iter().find(|(name, norm)| *norm == 0.0 && !is_still(name)).map(|(name, _)| name);
    Ok(if let Some(name) = named(&|norm: f64| !norm.is_finite()) {
        Finding::fault("gradient", format!("{role}: the gradient of {name} is not finite"), damaged)
    } else if let Some(name) = without {
        let remedy = "its weights are all zero, or what stands behind it is: fetch the checkpoint again";
        Finding::fault("gradient", format!("{role}: {name} gets no gradient"), remedy)
    } else {
        Finding::good("gradient", format!("{role}: all {} variables get a finite gradient", norms.len()))
    })
}

/// Samples a few tokens and asks the trainer for their log-probabilities.
fn agreement(role: &str, loaded: &Loaded, learner: &Learner, example: &Example) -> Result<Finding> {
    let decoder = learner.decoder();
    let prompt = example.tokens[..example.completion].to_vec();
    let room = (prompt.len() + TOKENS).min(decoder.config().max_positions);
    let mut sampler = LocalSampler::new(decoder, loaded.text.clone(), 1, room)?;
    let asked =
        Arc::new(Prompt { index: 0, name: "doctor".into(), text: String::new(), tokens: prompt.clone(), key: Key::new(0, "doctor") });
    let (mut is_asked, mut found) = (false, None);
    sampler.run(
        &SamplingParams::at(1.0, TOKENS),
        &mut || {
            let first = !std::mem::replace(&mut is_asked, true);
            Ok(if first { Next::Request { prompt: asked.clone(), attempt: 0 } } else { Next::End })
        },
        &mut |attempt| {
            found = Some(attempt.completion);
            Ok(())
        },
    )?;
    let completion = found.filter(|completion| !completion.tokens.is_empty()).ok_or_else(|| anyhow!("{role}: nothing was sampled"))?;
    let row = Example { tokens: [&prompt[..], &completion.tokens].concat(), completion: prompt.len() };
    let values = learner.values(decoder, std::slice::from_ref(&row), 1.0)?;
    let differences = values.logprobs.iter().zip(&completion.logprobs).map(|(a, b)| f64::from(a - b).abs());
    let most = differences.fold(0.0, f64::max);
    let says = format!(
        "{role}: sampler and trainer differ by at most {most:.0e} in the log-probability of {} sampled tokens",
        completion.tokens.len()
    );
    Ok(if most <= TOLERANCE {
        Finding::good("agreement", says)
    } else {
        Finding::fault("agreement", says, "report this with the model's name: GRPO on it would be off its own policy")
    })
}
