//! Models and data sets by folder or by Hub id, in the cache that all Hugging Face tools share (`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`).
//!
//! A name is first resolved to a commit, and every file is taken from that commit, so that a snapshot is never a mixture; what was downloaded is checked
//! against the size and the hash that the Hub lists. What the files mean is not known here.

mod download;
mod files;
mod look;

use anyhow::{Context, Result, anyhow, bail};
use download::{Client, Fault, Patience, with_client};
use files::{File, dataset_files, files_below, model_files};
use hf_hub::{Cache, Repo, RepoType};
pub use look::{Answer, Look, look};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// The network or the Hub is out of order: the same command may succeed later (exit code 75).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Temporary(pub(crate) String);

/// The cache does not hold what was asked for, and the Hub was not to be asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotCached(String);

/// The person asked to stop during a download; what has arrived is kept (exit code 143).
#[derive(Debug, thiserror::Error)]
#[error("stopped while downloading; the same command goes on from here")]
pub struct Stopped;

/// What a look-up may do, and what the program around it lends.
#[derive(Clone, Copy)]
pub struct Access {
    /// Whether only the cache may be used.
    pub offline: bool,
    /// Asked between reads: whether to give up.
    pub stopped: fn() -> bool,
    /// Takes a remark for the person.
    pub say: fn(&str),
}

impl Access {
    /// The cache alone.
    pub const CACHE: Self = Self { offline: true, stopped: || false, say: |_| {} };
}

/// The folder of a model: an existing folder as it is, or the files of `org/name[@revision]`, fetched where the cache lacks them.
///
/// # Errors
/// Name the model, the file, what was wrong and the remedy; [`Temporary`] and [`Stopped`] are what they say.
pub fn model(id_or_path: &str, revision: Option<&str>, access: Access) -> Result<PathBuf> {
    Hub::from_env(access).find(RepoType::Model, id_or_path, revision, &model_files)
}

/// A model's folder that holds at least `config.json`, where no download is needed for it; the weights may be missing.
pub fn cached_config(id_or_path: &str, revision: Option<&str>) -> Option<PathBuf> {
    Hub::from_env(Access::CACHE).find(RepoType::Model, id_or_path, revision, &|_, take| take("config.json").map(drop)).ok()
}

/// The folder (or file) of a data set: an existing path as it is, or those files of `org/name[@revision]` that `wanted` accepts by name.
pub fn dataset(id_or_path: &str, revision: Option<&str>, wanted: impl Fn(&str) -> bool, access: Access) -> Result<PathBuf> {
    Hub::from_env(access).find(RepoType::Dataset, id_or_path, revision, &|names, take| dataset_files(names, take, &wanted))
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
    access: Access,
    patience: Patience,
}

/// A variable of the environment; an empty one is none.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folder in which the Hub's tools keep what is theirs.
fn home(variable: &impl Fn(&str) -> Option<String>) -> PathBuf {
    variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let user = || variable("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from).join(".cache");
        variable("XDG_CACHE_HOME").map_or_else(user, PathBuf::from).join("huggingface")
    })
}

/// The token, and what it is from: the name of a variable or the path of a file.
fn token(variable: &impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let stored = || {
        let file = variable("HF_TOKEN_PATH").map_or_else(|| home(variable).join("token"), PathBuf::from);
        Some((fs::read_to_string(&file).ok()?, file.display().to_string()))
    };
    // The second is the older name, which the Hub's own tools still take.
    let given = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Some((variable(name)?, name.to_owned())));
    let (token, place) = given.or_else(stored)?;
    let token = token.trim().to_string();
    (!token.is_empty()).then_some((token, place))
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
    fn from_env(access: Access) -> Self {
        Self::from_variables(environment, access)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, access: Access) -> Self {
        let is_on = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str());
        let stall = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let stall = stall.filter(|stall| !stall.is_zero());
        Self {
            cache: variable("HF_HUB_CACHE").map_or_else(|| home(&variable).join("hub"), PathBuf::from),
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()).trim_end_matches('/').to_string(),
            token: token(&variable).map(|(token, _)| token),
            access: Access { offline: access.offline || variable("HF_HUB_OFFLINE").is_some_and(is_on), ..access },
            patience: Patience { stall: stall.unwrap_or(Patience::default().stall), ..Patience::default() },
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
        if self.access.offline || (is_commit(revision) && cached.is_ok()) {
            return cached.map_err(|error| {
                let told = format!(
                    "{id}: {error:#}, and this is an offline run; on a machine with network run `{}` with the same HF_HOME",
                    place.command()
                );
                if error.is::<NotCached>() { NotCached(told).into() } else { anyhow!(told) }
            });
        }
        match with_client(self, |client| self.fetch(client, place, choose, cached.is_ok())) {
            Err(Failure::NoListing(reason)) => match cached {
                Ok(folder) => {
                    let commit = snapshot_revision(&folder).unwrap_or_default();
                    (self.access.say)(&format!("{id}: {reason}; going on with commit {commit} from the cache"));
                    Ok(folder)
                }
                // What is there and cannot be read does not pass by itself.
                Err(error) if error.is::<io::Error>() => Err(error.context(format!("{id}: {reason}"))),
                Err(_) => bail!(Temporary(format!(
                    "{id}: {reason}, and the cache does not hold it; check the network and HTTPS_PROXY, or run `{}` where there is network",
                    place.command()
                ))),
            },
            Err(Failure::Other(error)) => Err(error),
            Ok(folder) => Ok(folder),
        }
    }

    /// The snapshot in the cache, if it holds everything.
    fn cached(&self, place: Place, choose: Choose) -> Result<PathBuf> {
        let folder = self.cache.join(place.repo(place.revision).folder_name());
        let reference = || fs::read_to_string(folder.join("refs").join(place.revision)).map(|commit| commit.trim().to_string());
        let commit = if is_commit(place.revision) { Ok(place.revision.to_string()) } else { reference() };
        let missing = || NotCached(format!("{}@{} is not in the cache {}", place.id, place.revision, self.cache.display()));
        let snapshot = folder.join("snapshots").join(commit.ok().filter(|commit| is_commit(commit)).ok_or_else(missing)?);
        let names = files_below(&snapshot).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing().into(),
            _ => anyhow::Error::new(error).context(format!("the cache cannot be read: {}", snapshot.display())),
        })?;
        choose(&names, &|name| {
            let path = snapshot.join(name);
            let missing = || NotCached(format!("{name} is not in the cache {}", snapshot.display()));
            Ok(path.is_file().then_some(path).ok_or_else(missing)?)
        })?;
        Ok(snapshot)
    }

    fn fetch(&self, client: &Client, place: Place, choose: Choose, is_cached: bool) -> Result<PathBuf, Failure> {
        let cache = Cache::new(self.cache.clone());
        let listing = self.listing(client, place, is_cached)?;
        // All files from the one commit, whatever happens to the branch meanwhile.
        let snapshot = cache.repo(place.repo(&listing.sha)).pointer_path(&listing.sha);
        let names: Vec<String> = listing.files.keys().cloned().collect();
        choose(&names, &|name| {
            let path = snapshot.join(name);
            if path.is_file() {
                return Ok(path);
            }
            let listed = listing.files.get(name).with_context(|| format!("{name} is not in the listing"))?;
            client.file(place, &listing.sha, listed).map_err(|fault| self.explain_download(place, name, fault))
        })
        .with_context(|| place.id.to_string())?;
        if !is_commit(place.revision) {
            cache
                .repo(place.repo(place.revision))
                .create_ref(&listing.sha)
                .with_context(|| format!("{}: cannot write to the cache {}", place.id, self.cache.display()))?;
        }
        Ok(snapshot)
    }

    /// Asks for the commit of a revision and what it holds; once only where the cache can stand in.
    fn listing(&self, client: &Client, place: Place, is_cached: bool) -> Result<Listing, Failure> {
        let url = format!("{}/api/{}?blobs=true", self.endpoint, place.api_url());
        let text = client.text(&url, if is_cached { 1 } else { self.patience.tries.min(3) }).map_err(|fault| match fault {
            Fault::Status(429) => Failure::NoListing(format!("too many requests to {} (429); HF_TOKEN raises the limit", self.endpoint)),
            Fault::Status(status) if fault.is_passing() => Failure::NoListing(format!("{} answered {status}", self.endpoint)),
            Fault::Status(status) => self.explain_status(place, None, status).into(),
            Fault::Transport(reason) => Failure::NoListing(format!("{} cannot be reached ({reason})", self.endpoint)),
            Fault::Stopped => anyhow!(Stopped).into(),
            Fault::Other(error) => error.context(place.id.to_string()).into(),
        })?;
        let odd = |what: String| Failure::NoListing(format!("what {} answered is not the Hub's listing ({what})", self.endpoint));
        let info: Info = serde_json::from_str(&text).map_err(|error| odd(error.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(odd(format!("revision {} has no commit", place.revision)));
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
        let access = format!("accept its terms at {}/{} and set HF_TOKEN (or run `hf auth login`)", self.endpoint, place.url());
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

    fn explain_download(&self, place: Place, file: &str, fault: Fault) -> anyhow::Error {
        let id = place.id;
        match fault {
            Fault::Status(status) => {
                let error = self.explain_status(place, Some(file), status);
                if fault.is_passing() { Temporary(error.to_string()).into() } else { error }
            }
            Fault::Transport(reason) => Temporary(format!(
                "{id}: {file}: the download broke off ({reason}); run the same command again, it continues where it stopped"
            ))
            .into(),
            Fault::Stopped => anyhow!(Stopped),
            Fault::Other(error) => error.context(format!("{id}: {file}")),
        }
    }
}

/// Why nothing came from the Hub.
enum Failure {
    /// It does not say what it holds: the cache may stand in.
    NoListing(String),
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

    /// Its part of an address.
    fn url(&self) -> String {
        format!("{}{}", if matches!(self.kind, RepoType::Dataset) { "datasets/" } else { "" }, self.id)
    }

    fn api_url(&self) -> String {
        let kind = if matches!(self.kind, RepoType::Dataset) { "datasets" } else { "models" };
        format!("{kind}/{}/revision/{}", self.id, self.revision.replace('/', "%2F"))
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
