//! The model that a stage samples from: one in this process, or one behind a server.
//!
//! Sampling and evaluation open it here and are the same from then on.

use super::cache;
use super::collect::capacity;
use super::models::{self, Loaded, Origin};
use super::run::{Run, config};
use super::ui::interrupt_requested;
use crate::model::Decoder;
use crate::model::text::Text;
use crate::problem::Problem;
use crate::recipe::{Model, ServedModel};
use crate::rollout::Rollout;
use crate::sampler::{Endpoint, LocalSampler, Patience, Sampler, ServerSampler};
use crate::shard::Source;
use anyhow::{Context, Result};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// A model that is ready to be sampled from.
pub(super) struct Speaker {
    /// As manifests name it.
    name: String,
    kind: Kind,
}

enum Kind {
    Local { decoder: Box<Decoder>, text: Arc<Text>, hash: String },
    Server(ServedModel),
}

impl Speaker {
    pub fn open(run: &Run, model: &Model, origin: &Origin, role: &str) -> Result<Self> {
        if *origin == Origin::Server {
            let served = model.served.clone().context("a model behind a server has a name there")?;
            return Ok(Self { name: served.name.clone(), kind: Kind::Server(served) });
        }
        let Loaded { decoder, text, hash, name } = models::open(run, model, origin, role)?;
        Ok(Self { name, kind: Kind::Local { decoder: Box::new(decoder), text, hash } })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its tokenizer and template; a server has them itself.
    pub fn text(&self) -> Option<Arc<Text>> {
        match &self.kind {
            Kind::Local { text, .. } => Some(text.clone()),
            Kind::Server(_) => None,
        }
    }

    /// Where attempts of a rollout come from: of a server the model's name there, neither its address nor a key.
    pub fn source(&self, rollout: &Rollout, run: &Run) -> Source {
        match &self.kind {
            Kind::Local { hash, .. } => source(rollout, self.name.clone(), hash.clone(), run),
            Kind::Server(served) => {
                let mut source = Source { weights_hash: None, ..source(rollout, self.name.clone(), String::new(), run) };
                source.sampling["server"] = json!({"api": served.api});
                source
            }
        }
    }

    /// A sampler for attempts at these problems.
    pub fn sampler(self, run: &Run, model: &Model, rollout: &Rollout, problems: &[Arc<Problem>]) -> Result<Box<dyn Sampler>> {
        self.sampler_for(run, model, &|positions| capacity(rollout, problems, positions))
    }

    /// A sampler with the room that is wanted of so many positions; a server is asked whether it has the model.
    pub fn sampler_for(self, run: &Run, model: &Model, room: &dyn Fn(usize) -> Result<usize>) -> Result<Box<dyn Sampler>> {
        match self.kind {
            Kind::Local { decoder, text, .. } => {
                let room = room(decoder.config().max_positions)?;
                let execution = &run.recipe.execution;
                let config = decoder.config().clone();
                Ok(Box::new(cache::sized(LocalSampler::fixed(*decoder, text, execution.slots, room)?, execution, &config)?))
            }
            Kind::Server(served) => {
                let execution = &run.recipe.execution;
                let (request, silence) = (Duration::from_secs(execution.request_seconds), Duration::from_secs(execution.patience_seconds));
                let patience = Patience { requests: execution.requests, request, silence, ..Patience::default() };
                let endpoint = Endpoint { base: model.model.clone(), model: served.name, api: served.api };
                let mut sampler = config(ServerSampler::new(endpoint, patience))?;
                sampler.stop_when(interrupt_requested);
                let checked = config(sampler.check());
                run.check_interrupt()?;
                let positions = checked?.unwrap_or(usize::MAX);
                room(positions)?;
                Ok(Box::new(sampler))
            }
        }
    }
}

/// Where attempts of a rollout come from, for their manifest.
pub(super) fn source(rollout: &Rollout, model: String, weights_hash: String, run: &Run) -> Source {
    Source {
        distill_version: env!("CARGO_PKG_VERSION").to_owned(),
        model,
        weights_hash: Some(weights_hash),
        tokenizer_hash: rollout.text.as_ref().map(|text| text.tokenizer_hash()),
        template_hash: rollout.text.as_ref().and_then(|text| text.template_hash()),
        sampling: json!({"prompt": rollout.prompt, "params": rollout.params}),
        seed: Some(run.seed()),
        verifier: Some(rollout.verifier.name()),
        filter: serde_json::Value::Null,
        input_manifest: None,
    }
}
