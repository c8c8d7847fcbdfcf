//! Numbers that are not finite, in the one place where training has to stop for them: before a gradient is made of them, or a step.
//!
//! What a step was made of and where its state lies is known to the loops; what a person can do about it, to the stages.

use anyhow::{Error, Result, ensure};

/// A log-probability, a derivative of the loss or a gradient that is not finite; nothing was done with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFinite(pub String);

/// Refuses numbers of which one is not finite; `what` names one of them.
pub(super) fn check(what: &str, numbers: &[f32]) -> Result<()> {
    let wrong = numbers.iter().find(|x| !x.is_finite());
    ensure!(wrong.is_none(), NotFinite(format!("{what} is {}", wrong.copied().unwrap_or_default())));
    Ok(())
}

/// A step that cannot be taken, since something in it is not finite.
#[derive(Debug, thiserror::Error)]
#[error("step {step} cannot be taken: {what}; {batch}; {}", state(.not_saved.as_deref()))]
pub struct Broken {
    /// From 0.
    pub step: usize,
    pub what: String,
    /// What the step was made of, in words.
    pub batch: String,
    /// Why the state before the step could not be saved; `None` where it was.
    pub not_saved: Option<String>,
}

impl Broken {
    /// What an error of a step becomes: where something was not finite the state before the step is saved, which `save` does, and step and batch are named. Any other
    /// error is given back as it is.
    pub(super) fn of(error: Error, step: usize, batch: impl FnOnce() -> String, save: impl FnOnce() -> Result<()>) -> Error {
        match error.downcast_ref::<NotFinite>() {
            None => error,
            Some(NotFinite(what)) => {
                let not_saved = save().err().map(|why| format!("{why:#}"));
                Self { step, what: what.clone(), batch: batch(), not_saved }.into()
            }
        }
    }
}

fn state(not_saved: Option<&str>) -> String {
    match not_saved {
        None => "no weight was changed, and the state before the step is saved".to_owned(),
        Some(why) => format!("the state before the step is not saved ({why}): the one before it stays"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::model::Decoder;
    use crate::model::{Parameter, Shape};
    use crate::train::Part;
    use crate::train::{Batching, Decay, Example, Learner, Optim, Sft, SftLoss, SftObserver, SftRecord, SftSettings, State};
    use candle_core::Device;
    use serde_json::Value;
    use std::ops::ControlFlow;

    /// Damages a weight after the step with this number, in the memory of the model that is trained.
    struct Damage {
        after: usize,
        weight: Parameter,
        synced: usize,
    }

    impl SftObserver for Damage {
        fn record(&mut self, record: &SftRecord) -> Result<ControlFlow<()>> {
            if record.step == self.after {
                self.weight.var.set(&(self.weight.var.as_tensor() * f64::NAN)?)?;
            }
            Ok(ControlFlow::Continue(()))
        }

        fn best(&mut self, _: &Learner, _: crate::train::Best) -> Result<()> {
            Ok(())
        }

        fn sync(&mut self) -> Result<()> {
            self.synced += 1;
            Ok(())
        }
    }

    fn settings() -> SftSettings {
        SftSettings {
            steps: 6,
            epochs: 0.0,
            batch_size: 3,
            learning_rate: 1e-3,
            schedule: Decay::Constant,
            warmup_ratio: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            optim: Optim::Adamw,
            loss_type: SftLoss::Nll,
            neftune_noise_alpha: None,
            held_out: None,
            kd: None,
        }
    }

    #[test]
    fn a_step_of_sft_that_is_not_finite_is_named_and_changes_nothing() {
        let shape = Shape { hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, positions: 64 };
        let start = Decoder::fresh(&shape, 50, 1, 0, Key::new(5, "finite"), &Device::Cpu).unwrap();
        let examples: Vec<Example> = (0..4u32).map(|i| Example { tokens: (i..i + 9).collect(), completion: 2 }).collect();
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path().join("state"));
        let settings = settings();
        let sft = Sft {
            settings: &settings,
            examples: &examples,
            parts: &[Part { rows: examples.len(), weight: 1.0 }],
            held_out: &[],
            key: Key::new(5, "order"),
            state: &state,
            save_steps: 2,
            kd: None,
        };
        let mut learner = Learner::new(&start, settings.optimizer(), Batching { micro_batch_tokens: 64, recompute: None }).unwrap();
        // The last norm: every log-probability is made of it.
        let weight = learner.optimizer().parameters().iter().find(|p| p.name == "model.norm.weight").unwrap().clone();
        let mut observer = Damage { after: 2, weight, synced: 0 };
        let bits = |learner: &Learner| -> Vec<Vec<u32>> {
            let of = |p: &Parameter| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            learner.optimizer().parameters().iter().map(|p| of(p).into_iter().map(f32::to_bits).collect()).collect()
        };
        let error = sft.run(&mut learner, &mut observer).unwrap_err();
        let broken = error.downcast_ref::<Broken>().unwrap_or_else(|| panic!("{error:#}"));
        assert_eq!((broken.step, broken.not_saved.as_deref(), observer.synced), (3, None, 1));
        assert!(broken.what.contains("log-probability of a token is NaN"), "{broken}");
        assert_eq!(broken.batch, "a batch of 3 sequences with 21 target tokens");
        // The state is that after three steps, one later than the last that was due, and has the weights as they still are.
        assert_eq!(state.cursor::<Value>().unwrap().unwrap()["step"], 3);
        let kept = bits(&learner);
        let mut again = Learner::new(&start, settings.optimizer(), Batching { micro_batch_tokens: 64, recompute: None }).unwrap();
        state.restore::<Value>(again.optimizer_mut()).unwrap().unwrap();
        assert!(kept == bits(&again) && again.optimizer().steps() == 3);
        // The same again is the same error.
        let error = sft.run(&mut learner, &mut observer).unwrap_err();
        assert_eq!(error.downcast_ref::<Broken>().unwrap().step, 3);
    }

    #[test]
    fn other_errors_pass_and_a_state_that_is_not_saved_is_admitted() {
        let other = Broken::of(anyhow::anyhow!("the disk is full"), 3, || unreachable!(), || unreachable!());
        assert_eq!(other.to_string(), "the disk is full");
        let context = || check("a derivative", &[0.0, f32::INFINITY]).unwrap_err().context("in a micro-batch");
        let saved = Broken::of(context(), 3, || "a batch".into(), || Ok(()));
        assert_eq!(
            saved.to_string(),
            "step 3 cannot be taken: a derivative is inf; a batch; no weight was changed, and the state before the step is saved"
        );
        let lost = Broken::of(context(), 3, || "a batch".into(), || anyhow::bail!("no room")).to_string();
        assert!(lost.ends_with("; the state before the step is not saved (no room): the one before it stays"), "{lost}");
        assert!(check("a derivative", &[f32::MAX, -1.0, 0.0]).is_ok());
    }
}
