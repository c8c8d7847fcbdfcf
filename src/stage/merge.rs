//! `distill merge`: an adapter and its base as one model, for programs that load no adapters.
//!
//! It reads the adapter's folder and the model that its configuration names, and writes one folder, published whole.

use super::models;
use super::run::config;
use super::ui::{complain, interrupt_requested};
use crate::model::{self, Precision};
use crate::report::text::{size, thousands};
use crate::{hub, publish};
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What is asked for.
pub struct Ask {
    /// A folder or a Hub id.
    pub adapter: String,
    pub out: Option<PathBuf>,
    pub precision: Precision,
    /// Whether a folder that is there may be replaced.
    pub force: bool,
    pub json: bool,
}

/// Writes the model and says what it is.
///
/// # Errors
/// Where there is no adapter, its base cannot be had, or the folder is there already.
pub fn merge(ask: &Ask) -> Result<String> {
    let out = config(ask.out.as_ref().context("give --out DIR: the folder that the merged model is written to"))?;
    let access = hub::Access { offline: false, stopped: interrupt_requested, say: complain };
    let folder = config(hub::model(&ask.adapter, None, access))?;
    let is_empty = |folder: &Path| folder.read_dir().is_ok_and(|mut files| files.next().is_none());
    config(match () {
        () if !model::is_adapter(&folder) => {
            Err(anyhow!("{} holds no adapter (adapter_config.json): there is nothing to merge", folder.display()))
        }
        () if !out.exists() || is_empty(out) => Ok(()),
        () if !ask.force => Err(anyhow!("{} is there already; --force replaces it", out.display())),
        // What is replaced is gone: a phase's folder, a run or anything else is not.
        () if !out.join("config.json").is_file() || out.join("DONE").exists() => {
            Err(anyhow!("{} holds something else than a merged model, which --force does not replace; choose another --out", out.display()))
        }
        () => Ok(()),
    })?;
    let loaded = config(models::open_folder(&folder, &models::Preparation::default(), 0))?;
    let merged = loaded.decoder.merged()?;
    publish::folder(out, |folder| {
        model::save_as(&merged, folder, ask.precision)?;
        loaded.text.save_into(folder)
    })?;
    let (parameters, hash) = (merged.config().parameters(), model::weights_hash(out)?);
    let bytes = parameters * ask.precision.bytes();
    if ask.json {
        return Ok(format!("{:#}\n", json!({"out": out, "parameters": parameters, "bytes": bytes, "weights_hash": hash})));
    }
    Ok(format!("{}: {} parameters in {}, {}\n", out.display(), thousands(parameters), ask.precision.name(), size(bytes)))
}
