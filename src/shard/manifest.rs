//! `manifest.json`: what the shards of a folder hold and where it came from; written last, so a folder without it is not finished.
//!
//! No clock, host or path of this machine goes in: equal content gives equal bytes, and the manifest's hash names the content. A finished stage
//! binds its manifests by their hashes in `DONE`: what the manifest says of the shards, nobody else could hold against it.

use crate::publish::{self, json_bytes, sha256, sha256_file};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The format this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Name of the manifest in its folder.
pub const FILE: &str = "manifest.json";
/// Key of `DONE` that holds the stage's manifests: their paths in its folder, each with its SHA-256.
pub const BOUND: &str = "manifests";
const REMEDY: &str = "restore it, or make the stage again with --force, which moves what is there to superseded/";

/// The contents of a folder of shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// What the rows are: `traces`, `corpus`, `dropped`, `rollouts`.
    pub kind: String,
    /// Rows of all shards.
    pub rows: u64,
    pub shards: Vec<ShardInfo>,
    /// Where the rows came from; `Trace::source` is an index into this.
    pub sources: Vec<Source>,
}

/// One shard: a file of JSON lines and, from local sampling, the file of token ids beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// `00000.jsonl.zst`.
    pub file: String,
    pub rows: u64,
    pub frames: u64,
    /// Size of the compressed file.
    pub bytes: u64,
    /// Completion tokens of its rows.
    pub tokens: u64,
    pub sha256: String,
    /// `00000.tokens.zst`, where any row has its token ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<TokensInfo>,
}

/// The file of token ids beside a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokensInfo {
    pub file: String,
    pub rows: u64,
    pub frames: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// What made a part of the rows. Hashes are SHA-256 in hexadecimal; what is unknown (a server's weights, an import's seed) is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub distill_version: String,
    /// Name, folder or address of the model.
    pub model: String,
    pub weights_hash: Option<String>,
    pub tokenizer_hash: Option<String>,
    pub template_hash: Option<String>,
    /// Sampling settings, as in the recipe.
    pub sampling: serde_json::Value,
    pub seed: Option<u64>,
    /// Name and version of what judged the rows.
    pub verifier: Option<String>,
    /// Filter settings, as in the recipe; null where nothing was filtered.
    pub filter: serde_json::Value,
    /// [`Manifest::hash`] of the folder the rows were read from.
    pub input_manifest: Option<String>,
}

impl Manifest {
    /// Reads the manifest of a folder. Where a finished stage has bound it, one that is missing or another is an error.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(FILE);
        let bound = bound(dir.as_ref());
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && bound.is_none() => {
                bail!("{} is missing: the folder holds no finished shards; let the stage that writes it end first", path.display())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(missing(&path)),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        ensure!(bound.is_none_or(|hash| hash == sha256(&bytes)), damaged(&path));
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let bad = || format!("{} is not a manifest of shards", path.display());
        let version: Version = serde_json::from_slice(&bytes).with_context(bad)?;
        if version.format > FORMAT {
            bail!("{} has format {}, this program reads up to {FORMAT}: use a newer distill", path.display(), version.format);
        }
        let manifest: Self = serde_json::from_slice(&bytes).with_context(bad)?;
        let rows: u64 = manifest.shards.iter().map(|shard| shard.rows).sum();
        if rows != manifest.rows {
            bail!("{} is damaged: it says {} rows, its shards have {rows}", path.display(), manifest.rows);
        }
        let files = manifest.shards.iter().flat_map(|shard| [Some(&shard.file), shard.ids.as_ref().map(|ids| &ids.file)]).flatten();
        for file in files {
            if Path::new(file).file_name() != Some(file.as_ref()) {
                bail!("{} names {file:?}; shards lie in the manifest's own folder", path.display());
            }
        }
        Ok(manifest)
    }

    /// SHA-256 of the manifest as it is written.
    pub fn hash(&self) -> Result<String> {
        Ok(sha256(&json_bytes(self)?))
    }

    /// Completion tokens of all rows.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(|shard| shard.tokens).sum()
    }
}

/// The manifests in a stage's folder and in the folders inside it, by path, with their hashes: the value of [`BOUND`].
pub fn bind(stage: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let named = || format!("cannot list {}", stage.display());
    for entry in std::fs::read_dir(stage).with_context(named)? {
        let name = entry.with_context(named)?.file_name();
        let name = name.to_string_lossy();
        let file = if name == FILE { FILE.to_owned() } else { format!("{name}/{FILE}") };
        let path = stage.join(&file);
        if path.is_file() {
            found.insert(file, sha256_file(&path)?);
        }
    }
    Ok(found)
}

/// Compares a stage's manifests with what its `DONE` binds; the error names the first that is missing or another, and the remedy.
pub fn check_bound(stage: &Path, done: &Value) -> Result<()> {
    for (file, hash) in done[BOUND].as_object().into_iter().flatten() {
        let path = stage.join(file);
        ensure!(path.exists(), missing(&path));
        ensure!(*hash == sha256_file(&path)?, damaged(&path));
    }
    Ok(())
}

/// The hash by which a finished stage, this folder or the one above it, binds the manifest of `dir`.
pub fn bound(dir: &Path) -> Option<String> {
    let says = |stage: &Path, file: &str| publish::done(stage).ok()??[BOUND][file].as_str().map(str::to_owned);
    let above = || {
        let dir = dir.canonicalize().ok()?;
        says(dir.parent()?, &format!("{}/{FILE}", dir.file_name()?.to_str()?))
    };
    says(dir, FILE).or_else(above)
}

fn missing(path: &Path) -> String {
    format!("{} is missing, though the stage's DONE names it; {REMEDY}", path.display())
}

fn damaged(path: &Path) -> String {
    format!("{} is damaged or edited: its bytes are not those that the stage's DONE names; {REMEDY}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_refused_with_the_reason() {
        let shard = r#"{"file":"../x","rows":1,"frames":1,"bytes":1,"tokens":1,"sha256":""}"#;
        for (text, message) in [
            ("{", "is not a manifest of shards"),
            (r#"{"format":2,"new":[]}"#, "has format 2, this program reads up to 1"),
            (r#"{"format":1}"#, "is not a manifest of shards"),
            (&format!(r#"{{"format":1,"kind":"traces","rows":1,"sources":[],"shards":[{shard}]}}"#), "names \"../x\""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert!(Manifest::load(dir.path()).unwrap_err().to_string().contains("manifest.json is missing"));
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = format!("{:#}", Manifest::load(dir.path()).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn the_hash_is_the_one_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source { sampling: serde_json::json!({"temperature": 0.6, "n": 8}), seed: Some(1), ..Source::default() };
        let manifest = Manifest { format: FORMAT, kind: "traces".into(), rows: 0, shards: vec![], sources: vec![source] };
        crate::publish::json(dir.path().join(FILE), &manifest).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest);
        assert_eq!(manifest.hash().unwrap(), crate::publish::sha256_file(dir.path().join(FILE)).unwrap());
    }

    #[test]
    fn a_bound_manifest_has_every_one_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("corpus");
        let manifest = Manifest { format: FORMAT, kind: "dropped".into(), rows: 0, shards: vec![], sources: vec![Source::default()] };
        let places = [stage.clone(), stage.join("dropped")];
        for place in &places {
            publish::json(place.join(FILE), &manifest).unwrap();
        }
        publish::mark_done(&stage, &serde_json::json!({BOUND: bind(&stage).unwrap()})).unwrap();
        let done = publish::done(&stage).unwrap().unwrap();
        assert_eq!(done[BOUND].as_object().unwrap().keys().collect::<Vec<_>>(), ["dropped/manifest.json", "manifest.json"]);
        for place in &places {
            let (path, whole) = (place.join(FILE), json_bytes(&manifest).unwrap());
            let fails = |part: &str| {
                let name = path.display().to_string();
                for error in [Manifest::load(place).unwrap_err(), check_bound(&stage, &done).unwrap_err()] {
                    assert!(error.to_string().starts_with(&name), "{error}");
                    assert!(error.to_string().contains(part) && error.to_string().contains("--force"), "{error}");
                }
            };
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                fails("is damaged or edited");
            }
            std::fs::remove_file(&path).unwrap();
            fails("is missing, though");
            std::fs::write(&path, &whole).unwrap();
            assert_eq!(Manifest::load(place).unwrap(), manifest);
            check_bound(&stage, &done).unwrap();
        }
    }
}
