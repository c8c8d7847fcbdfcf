//! `manifest.json`: what the shards of a folder hold and where it came from; written last, so a folder without it is not finished.
//!
//! No clock, host or path of this machine goes in: equal content gives equal bytes, and the manifest's hash names the content.

use crate::publish::{json_bytes, sha256};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The format this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Name of the manifest in its folder.
pub const FILE: &str = "manifest.json";

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
    /// Reads the manifest of a folder.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(FILE);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} is missing: the folder holds no finished shards; let the stage that writes it end first", path.display())
            }
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
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
}
