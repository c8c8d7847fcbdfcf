//! The one resumable state of a training phase: weights, moments, and a cursor that says what comes next.
//!
//! A state is a folder, published whole; two exist only while a new one takes the old one's place. Since every draw is keyed by the step, the
//! cursor is a few numbers and no generator's state; what was sampled ahead of the next step is in it too.

use super::optimizer::AdamW;
use crate::publish;
use anyhow::{Context, Result, ensure};
use candle_core::{Tensor, safetensors};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::HashMap;
use std::path::PathBuf;

/// Where a phase keeps its state.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Saved<C> {
    optimizer_steps: usize,
    /// Of the tensors.
    sha256: String,
    cursor: C,
}

impl State {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Publishes the state. `extra` are further tensors, such as a reference that was reset.
    pub fn save(&self, optimizer: &AdamW, extra: &[(String, Tensor)], cursor: &impl Serialize) -> Result<()> {
        publish::folder(&self.folder, |folder| {
            let mut tensors: HashMap<String, Tensor> = optimizer.tensors().map(|(n, t)| (n, t.clone())).collect();
            tensors.extend(extra.iter().cloned());
            let path = folder.join("state.safetensors");
            safetensors::save(&tensors, &path)?;
            let sha256 = publish::sha256_file(&path)?;
            publish::json(folder.join("cursor.json"), &Saved { optimizer_steps: optimizer.steps(), sha256, cursor })
        })
        .with_context(|| format!("cannot save the training state in {}", self.folder.display()))
    }

    /// The saved cursor without the tensors; `None` where there is no state yet.
    pub fn cursor<C: DeserializeOwned>(&self) -> Result<Option<C>> {
        Ok(self.saved()?.map(|s| s.cursor))
    }

    /// Refuses a cursor at a step that a phase of `steps` does not have.
    pub fn check_step(&self, step: usize, steps: usize) -> Result<()> {
        ensure!(
            step <= steps,
            "{} is damaged: it says step {step} of a phase of {steps} steps; remove {} to take the phase from its start",
            self.folder.join("cursor.json").display(),
            self.folder.display()
        );
        Ok(())
    }

    fn saved<C: DeserializeOwned>(&self) -> Result<Option<Saved<C>>> {
        publish::recover(&self.folder)?;
        let path = self.folder.join("cursor.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?))
    }

    /// Puts a saved state into the optimiser and its weights; returns the cursor and the extra tensors.
    pub fn restore<C: DeserializeOwned>(&self, optimizer: &mut AdamW) -> Result<Option<(C, HashMap<String, Tensor>)>> {
        let Some(saved) = self.saved()? else { return Ok(None) };
        let path = self.folder.join("state.safetensors");
        ensure!(
            publish::sha256_file(&path)? == saved.sha256,
            "{} is damaged: its bytes are not those that were written; remove {} to take the phase from its start",
            path.display(),
            self.folder.display()
        );
        let device = optimizer.parameters().first().context("a model without parameters cannot be resumed")?.var.device().clone();
        let mut tensors = safetensors::load(&path, &device).with_context(|| format!("{} is damaged", path.display()))?;
        optimizer.restore(saved.optimizer_steps, |name, like| {
            let tensor = tensors.remove(name).with_context(|| format!("{} has no tensor {name}", path.display()))?;
            ensure!(tensor.dims() == like.dims(), "{}: {name} has shape {:?}, expected {:?}", path.display(), tensor.dims(), like.dims());
            Ok(tensor)
        })?;
        Ok(Some((saved.cursor, tensors)))
    }

    /// Removes the state once the phase's model is published.
    pub fn clear(&self) -> Result<()> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        Ok(())
    }
}
