//! The Hub as this machine sees it: whether it answers, whether there is a token and it is taken, and where the cache lies.
//!
//! One short request, not tried again; nothing comes into the cache. The token stays in here: what is told is where it was found.

use super::download::{Fault, Patience, with_client};
use super::{Access, Hub, environment, token};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For a name to be resolved, and for a connection to be there.
const CONNECT: Duration = Duration::from_secs(3);
/// For the whole answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What was seen.
pub struct Look {
    /// The Hub's address, without a name and password that may stand in it.
    pub endpoint: String,
    pub answer: Answer,
    /// What the token is from: the name of a variable or the path of a file.
    pub token: Option<String>,
    pub cache: PathBuf,
    /// Models that the cache holds, whole or in part.
    pub models: usize,
}

/// How the Hub has answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was not asked: `HF_HUB_OFFLINE` is set.
    Offline,
    /// It is there; there is no token, or a mirror knows nothing of tokens.
    Reached,
    TokenTaken,
    TokenRefused,
    /// It is there, and says this status instead of an answer.
    Status(u16),
    /// Why nothing came.
    Unreachable(String),
}

/// Looks at the cache and asks the Hub, for some seconds at most.
pub fn look() -> Look {
    of(environment)
}

pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Look {
    let hub = Hub::from_variables(&variable, Access { offline: false, ..Access::CACHE });
    let hub = Hub { patience: Patience { connect: CONNECT, stall: ANSWER, tries: 1, ..hub.patience }, ..hub };
    let login = login(&hub.endpoint);
    let hide = |text: &str| if login.is_empty() { text.to_owned() } else { text.replace(login, "") };
    let answer = match ask(&hub) {
        Answer::Unreachable(reason) => Answer::Unreachable(hide(&reason)),
        answer => answer,
    };
    let token = token(&variable).map(|(_, place)| place);
    Look { endpoint: hide(&hub.endpoint), answer, token, models: models(&hub.cache), cache: hub.cache.clone() }
}

/// Asks who the token belongs to, or without one for a list of a single model.
fn ask(hub: &Hub) -> Answer {
    if hub.access.offline {
        return Answer::Offline;
    }
    let question = if hub.token.is_some() { "whoami-v2" } else { "models?limit=1" };
    let url = format!("{}/api/{question}", hub.endpoint);
    match with_client(hub, |client| client.status(&url, ANSWER)) {
        Ok(200..300) if hub.token.is_some() => Answer::TokenTaken,
        Ok(200..300) => Answer::Reached,
        Ok(401) if hub.token.is_some() => Answer::TokenRefused,
        Ok(404) if hub.token.is_some() => Answer::Reached,
        Ok(status) | Err(Fault::Status(status)) => Answer::Status(status),
        Err(Fault::Transport(reason)) => Answer::Unreachable(reason),
        Err(Fault::Other(error)) => Answer::Unreachable(format!("{error:#}")),
        Err(Fault::Stopped) => Answer::Unreachable("stopped".into()),
    }
}

/// The name and password in an address, with the `@` behind them.
fn login(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    host.rfind('@').map_or("", |at| &host[..=at])
}

fn models(cache: &Path) -> usize {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("models--")).count()
}
