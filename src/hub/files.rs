//! Which files make a model or a data set, and whether one arrived whole.

use super::Temporary;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
pub(super) struct File {
    pub rfilename: String,
    pub size: Option<u64>,
    /// Of a file that git itself holds.
    #[serde(rename = "blobId")]
    pub blob: Option<String>,
    pub lfs: Option<Lfs>,
}

#[derive(Deserialize)]
pub(super) struct Lfs {
    pub sha256: String,
}

impl File {
    /// The name of the content, as all Hugging Face tools name the blob in their cache; a mirror may not tell it.
    pub fn content(&self) -> Option<String> {
        let name = self.lfs.as_ref().map(|lfs| &lfs.sha256).or(self.blob.as_ref())?;
        ([40, 64].contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| name.to_ascii_lowercase())
    }
}

/// Holds a downloaded file against the listing; one that differs is removed, lest the next run find it in the cache.
///
/// # Errors
/// [`Temporary`] where it differs: what came instead may not come again.
pub(super) fn check(path: &Path, listed: &File) -> Result<()> {
    let size = fs::metadata(path)?.len();
    let hash = match &listed.lfs {
        Some(lfs) => Some((sha256(path)?, &lfs.sha256)),
        None => None,
    };
    if listed.size.is_none_or(|listed| listed == size) && hash.is_none_or(|(found, listed)| found == *listed) {
        return Ok(());
    }
    fs::remove_file(path)?;
    bail!(Temporary(format!("what arrived ({size} bytes) is not what the Hub lists; it was removed, run the same command again")))
}

fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Small files first: a snapshot whose weights are complete is complete, and a model that cannot be used has cost little.
pub(super) fn model_files(names: &[String], take: &dyn Fn(&str) -> Result<PathBuf>) -> Result<()> {
    const NEEDED: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    const TAKEN: [&str; 3] = ["special_tokens_map.json", "generation_config.json", "chat_template.jinja"];
    let has = |name: &str| names.iter().any(|known| known == name);
    const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
    if has(ADAPTER[0]) && !has("config.json") {
        if !has(ADAPTER[1]) {
            bail!("there is no {}; an adapter in another format is not read, write one with save_pretrained in peft", ADAPTER[1]);
        }
        let text = ["tokenizer.json", "tokenizer_config.json"].into_iter().chain(TAKEN).filter(|name| has(name));
        return ADAPTER.into_iter().chain(text).try_for_each(|name| take(name).map(drop));
    }
    if let Some(name) = NEEDED.into_iter().find(|name| !has(name)) {
        bail!("there is no {name}; this is not a model with a fast tokenizer, write one with save_pretrained in transformers");
    }
    for name in NEEDED.into_iter().chain(TAKEN.into_iter().filter(|name| has(name))) {
        take(name)?;
    }
    const INDEX: &str = "model.safetensors.index.json";
    if has("model.safetensors") {
        return take("model.safetensors").map(drop);
    }
    if !has(INDEX) {
        bail!("there are no safetensors weights (model.safetensors or {INDEX}); convert them with save_pretrained in transformers");
    }
    shards(&take(INDEX)?)?.iter().try_for_each(|shard| take(shard).map(drop))
}

/// The files that an index of weights names.
fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index_of = || -> Result<Index> { Ok(serde_json::from_slice(&fs::read(index)?)?) };
    let mut shards: Vec<String> =
        index_of().with_context(|| format!("{}: not an index of weights", index.display()))?.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    if let Some(odd) = shards.iter().find(|name| name.contains(['/', '\\']) || name.contains("..") || !name.ends_with(".safetensors")) {
        bail!("{}: {odd:?} is not the name of a file of weights beside it", index.display());
    }
    Ok(shards)
}

pub(super) fn dataset_files(names: &[String], take: &dyn Fn(&str) -> Result<PathBuf>, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let chosen: Vec<_> = names.iter().filter(|name| wanted(name)).collect();
    if chosen.is_empty() {
        let known: Vec<_> = names.iter().take(8).map(String::as_str).collect();
        bail!("none of its files is a wanted one; it has {}{}", known.join(", "), if names.len() > 8 { ", …" } else { "" });
    }
    chosen.into_iter().try_for_each(|name| take(name).map(drop))
}

/// The files of a folder and below, by relative name with `/`, sorted.
pub(super) fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            names.extend(files_below(&entry.path())?.into_iter().map(|below| format!("{name}/{below}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
