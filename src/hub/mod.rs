//! Models and data sets by folder or by Hub id, in the cache that all Hugging Face tools share (`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`).
//!
//! A name is first resolved to a commit, and every file is taken from that commit, so that a snapshot is never a mixture; what was downloaded is checked
//! against the size and the hash that the Hub lists. What the files mean is not known here.

mod files;

use anyhow::{Context, Result, anyhow, bail};
use files::{File, check, dataset_files, files_below, model_files};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of a model: an existing folder as it is, or the files of `org/name[@revision]`, fetched where the cache lacks them.
///
/// # Errors
/// Name the model, the file, what was wrong and the remedy.
pub fn model(id_or_path: &str, revision: Option<&str>, offline: bool) -> Result<PathBuf> {
    Hub::from_env(offline).find(RepoType::Model, id_or_path, revision, &model_files)
}

/// The folder (or file) of a data set: an existing path as it is, or those files of `org/name[@revision]` that `wanted` accepts by name.
pub fn dataset(id_or_path: &str, revision: Option<&str>, wanted: impl Fn(&str) -> bool, offline: bool) -> Result<PathBuf> {
    Hub::from_env(offline).find(RepoType::Dataset, id_or_path, revision, &|names, take| dataset_files(names, take, &wanted))
}

/// The commit that a folder of the cache holds; `None` for any other folder.
pub fn snapshot_revision(folder: &Path) -> Option<String> {
    let commit = folder.file_name()?.to_str()?;
    (is_commit(commit) && folder.parent()?.file_name()? == "snapshots").then(|| commit.to_string())
}

/// Where things are looked up and whether the network may be used.
struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

/// Picks files by the names there are and takes each: a download, or a look whether it is there.
type Choose<'a> = &'a dyn Fn(&[String], &dyn Fn(&str) -> Result<PathBuf>) -> Result<()>;

/// A repository on the Hub at a revision, which may be a branch, a tag or a commit.
#[derive(Clone, Copy)]
struct Place<'a> {
    kind: RepoType,
    id: &'a str,
    revision: &'a str,
}

impl Hub {
    fn from_env(offline: bool) -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), offline)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, offline: bool) -> Self {
        let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let user = || variable("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from).join(".cache");
            variable("XDG_CACHE_HOME").map_or_else(user, PathBuf::from).join("huggingface")
        });
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = variable("HF_TOKEN").or_else(|| fs::read_to_string(token_file).ok());
        let is_on = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str());
        Self {
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()).trim_end_matches('/').to_string(),
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            offline: offline || variable("HF_HUB_OFFLINE").is_some_and(is_on),
        }
    }

    fn find(&self, kind: RepoType, id_or_path: &str, revision: Option<&str>, choose: Choose) -> Result<PathBuf> {
        let path = Path::new(id_or_path);
        match kind {
            RepoType::Model if path.is_file() => bail!("{id_or_path} is a file; name the folder that holds config.json and the weights"),
            _ if path.exists() => return Ok(path.to_path_buf()),
            _ => {}
        }
        let (id, revision) = parse(id_or_path, revision)?;
        let place = Place { kind, id, revision };
        let cached = self.cached(place, choose);
        // A commit never changes, so what is there needs no question to the Hub.
        if self.offline || (is_commit(revision) && cached.is_ok()) {
            return cached.map_err(|error| {
                anyhow!(
                    "{id}: {error:#}, and this is an offline run; on a machine with network run `{}` with the same HF_HOME",
                    place.command()
                )
            });
        }
        match self.fetch(place, choose) {
            Err(Failure::NoNetwork(_)) if cached.is_ok() => cached,
            Err(Failure::NoNetwork(reason)) => Err(anyhow!(
                "{id}: {} cannot be reached ({reason}) and the cache does not hold it; check the network and HTTPS_PROXY, or run `{}` where there is network",
                self.endpoint,
                place.command()
            )),
            Err(Failure::Other(error)) => Err(error),
            Ok(folder) => Ok(folder),
        }
    }

    /// The snapshot in the cache, if it holds everything.
    fn cached(&self, place: Place, choose: Choose) -> Result<PathBuf> {
        let folder = self.cache.join(place.repo(place.revision).folder_name());
        let reference = || fs::read_to_string(folder.join("refs").join(place.revision)).map(|commit| commit.trim().to_string());
        let commit = if is_commit(place.revision) { Ok(place.revision.to_string()) } else { reference() };
        let missing = || format!("{}@{} is not in the cache {}", place.id, place.revision, self.cache.display());
        let snapshot = folder.join("snapshots").join(commit.ok().filter(|commit| is_commit(commit)).with_context(missing)?);
        let names = files_below(&snapshot).with_context(missing)?;
        choose(&names, &|name| {
            let path = snapshot.join(name);
            path.is_file().then_some(path).with_context(|| format!("{name} is not in the cache {}", snapshot.display()))
        })?;
        Ok(snapshot)
    }

    fn fetch(&self, place: Place, choose: Choose) -> Result<PathBuf, Failure> {
        let cache = Cache::new(self.cache.clone());
        let builder =
            ApiBuilder::from_cache(cache.clone()).with_endpoint(self.endpoint.clone()).with_token(self.token.clone()).with_retries(3);
        let api = builder.build().map_err(|error| anyhow!("{}: {error}", place.id))?;
        let listing = self.listing(&api.repo(place.repo(place.revision)), place)?;
        // All files from the one commit, whatever happens to the branch meanwhile.
        let pinned = api.repo(place.repo(&listing.sha));
        let snapshot = cache.repo(place.repo(&listing.sha)).pointer_path(&listing.sha);
        let names: Vec<String> = listing.files.keys().cloned().collect();
        choose(&names, &|name| {
            let path = snapshot.join(name);
            if path.is_file() {
                return Ok(path);
            }
            let path = pinned.download(name).map_err(|error| self.explain_download(place, name, error))?;
            listing.files.get(name).map_or(Ok(()), |file| check(&path, file)).with_context(|| format!("{}: {name}", place.id))?;
            Ok(path)
        })
        .with_context(|| place.id.to_string())?;
        cache
            .repo(place.repo(place.revision))
            .create_ref(&listing.sha)
            .with_context(|| format!("{}: cannot write to the cache {}", place.id, self.cache.display()))?;
        Ok(snapshot)
    }

    /// Asks for the commit of a revision and what it holds.
    fn listing(&self, repo: &ApiRepo, place: Place) -> Result<Listing, Failure> {
        let request =
            repo.info_request().query("blobs", "true").config().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
        let mut response = request.build().call().map_err(|error| Failure::NoNetwork(error.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(self.explain_status(place, None, status).into());
        }
        let info: Info = response
            .body_mut()
            .read_json()
            .map_err(|error| anyhow!("{}: the answer of {} is not the Hub's: {error}", place.id, self.endpoint))?;
        if !is_commit(&info.sha) {
            return Err(anyhow!("{}: {} names no commit for revision {}", place.id, self.endpoint, place.revision).into());
        }
        // A name becomes a path in the cache.
        let is_plain =
            |name: &str| !name.starts_with('/') && !name.contains('\\') && name.split('/').all(|part| !["", ".", ".."].contains(&part));
        let files = info.siblings.into_iter().filter(|file| is_plain(&file.rfilename)).map(|file| (file.rfilename.clone(), file)).collect();
        Ok(Listing { sha: info.sha, files })
    }

    fn explain_status(&self, place: Place, file: Option<&str>, status: u16) -> anyhow::Error {
        let Place { id, revision, .. } = place;
        let what = file.map_or_else(|| id.to_string(), |file| format!("{id}: {file}"));
        let access =
            format!("accept its terms at {}/{} and set HF_TOKEN (or run `hf auth login`)", self.endpoint, place.repo(revision).url());
        match status {
            // Without a token the Hub says 401 also of what does not exist.
            401 if self.token.is_none() => anyhow!("{what}: not found, private or gated (401); check the spelling, or {access}"),
            401 => anyhow!("{what}: the Hub does not take the token in HF_TOKEN (401); renew it, or {access}"),
            403 => anyhow!("{what}: this token has no access (403); {access}"),
            404 => anyhow!("{what}: not found on {} at revision {revision} (404); check the spelling of id and revision", self.endpoint),
            429 => anyhow!("{what}: too many requests (429); try again in some minutes, and set HF_TOKEN for a higher limit"),
            status => anyhow!("{what}: {} answered {status}; try again later", self.endpoint),
        }
    }

    fn explain_download(&self, place: Place, file: &str, error: ApiError) -> anyhow::Error {
        let id = place.id;
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(status) => self.explain_status(place, Some(file), status),
                error => {
                    anyhow!("{id}: {file}: the download broke off ({error}); run the same command again, it continues where it stopped")
                }
            },
            ApiError::LockAcquisition(path) => {
                anyhow!("{id}: {file}: another process is downloading it (lock {}); wait for it", path.display())
            }
            ApiError::InvalidResume => {
                anyhow!("{id}: {file}: the partial download is too long; delete the *.part files in {} and run again", self.cache.display())
            }
            ApiError::TooManyRetries(error) => self.explain_download(place, file, *error),
            error => anyhow!(
                "{id}: {file}: the download broke off ({error}); run the same command again, it continues where it stopped (space in {}?)",
                self.cache.display()
            ),
        }
    }
}

/// Why nothing came from the Hub: only a missing network lets the cache stand in.
enum Failure {
    NoNetwork(String),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Place<'_> {
    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_string(), self.kind, revision.to_string())
    }

    /// What brings it into the cache by hand.
    fn command(&self) -> String {
        let kind = if matches!(self.kind, RepoType::Dataset) { " --repo-type dataset" } else { "" };
        format!("hf download {}{kind} --revision {}", self.id, self.revision)
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<File>,
}

struct Listing {
    sha: String,
    files: BTreeMap<String, File>,
}

/// Takes `org/name` or `org/name@revision` apart.
fn parse<'a>(id_or_path: &'a str, revision: Option<&'a str>) -> Result<(&'a str, &'a str)> {
    let (id, inner) = id_or_path.split_once('@').map_or((id_or_path, None), |(id, revision)| (id, Some(revision)));
    let is_name = |name: &str| {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.len() <= 96 && !name.starts_with(['.', '-']) && name.chars().all(is_known) && !name.contains("..")
    };
    let is_id = id.split_once('/').is_some_and(|(organisation, name)| is_name(organisation) && is_name(name));
    if !is_id {
        bail!("{id_or_path}: no such folder, and not a Hub id (organisation/name, or organisation/name@revision) either; check the path");
    }
    let revision = match (inner, revision) {
        (Some(inner), Some(outer)) if inner != outer => bail!("{id_or_path}: two revisions, {inner} and {outer}; name one"),
        (inner, outer) => inner.or(outer).unwrap_or("main"),
    };
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if revision.is_empty()
        || revision.len() > 200
        || !revision.chars().all(is_known)
        || revision.split('/').any(|part| ["", ".", ".."].contains(&part))
    {
        bail!("{id}: {revision:?} is not a revision; name a branch, a tag or a commit");
    }
    Ok((id, revision))
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
