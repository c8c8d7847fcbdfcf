//! Files over HTTP into the cache that all Hugging Face tools share: resumed, tried again, checked, and given up on where nothing moves.
//!
//! Knows the cache's layout (blobs named by content, snapshots that point to them, locks) and no models, no command and no remedy.

use super::files::{File, check};
use super::{Hub, Place, Temporary};
use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

/// How long to wait for what.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// For a name to be resolved, and for a connection to be there.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// Before the first new try; doubled for each further one.
    pub pause: Duration,
    /// Tries in a row that bring nothing.
    pub tries: u32,
    /// For another process that downloads the same file.
    pub lock: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), stall: seconds(30), pause: seconds(1), tries: 5, lock: seconds(5) }
    }
}

/// Why a request has brought nothing.
pub(super) enum Fault {
    /// What the server says instead.
    Status(u16),
    /// No connection, a break, silence, or another's page.
    Transport(String),
    /// The person asked to stop.
    Stopped,
    Other(anyhow::Error),
}

impl Fault {
    /// Whether the next try may fare better.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Status(408 | 429 | 500..) | Self::Transport(_))
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// A connection to the Hub.
pub(super) struct Client<'a> {
    hub: &'a Hub,
    agent: Agent,
}

/// Does some work with a connection, which is cut within a moment when the person asks to stop.
pub(super) fn with_client<T>(hub: &Hub, work: impl FnOnce(&Client) -> T) -> T {
    let patience = hub.patience;
    let config = Agent::config_builder()
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.stall))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        .http_status_as_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .user_agent(concat!("distill/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = Client { hub, agent: config.into() };
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let agent = client.agent.clone();
        scope.spawn(move || {
            while is_done.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
                if (hub.access.stopped)() {
                    return agent.shutdown();
                }
            }
        });
        let result = work(&client);
        drop(done);
        result
    })
}

impl Client<'_> {
    /// The text at an address of the Hub.
    pub fn text(&self, url: &str, tries: u32) -> Result<String, Fault> {
        const LARGEST: u64 = 256 << 20;
        self.persist(tries, &|| 0, &mut || {
            let mut response = self.get(url, 0)?;
            match response.status().as_u16() {
                200 => response.body_mut().with_config().limit(LARGEST).read_to_string().map_err(|error| self.fault(error)),
                status => Err(Fault::Status(status)),
            }
        })
    }

    /// The status that an address of the Hub answers with, asked once and within this time.
    pub fn status(&self, url: &str, within: Duration) -> Result<u16, Fault> {
        self.go_on()?;
        let request = self.request(url).config().timeout_global(Some(within)).build();
        let response = request.call().map_err(|error| self.fault(error))?;
        if response.status().is_success() && is_page(&response) {
            return Err(page());
        }
        Ok(response.status().as_u16())
    }

    /// Brings a file of a commit into the cache and gives its place in the snapshot.
    pub fn file(&self, place: Place, commit: &str, listed: &File) -> Result<PathBuf, Fault> {
        let name = &listed.rfilename;
        let folder = self.hub.cache.join(place.repo(commit).folder_name());
        let blobs = folder.join("blobs");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
        let content = listed.content().unwrap_or_else(|| {
            let named = Sha256::digest(format!("{commit}/{name}"));
            named.iter().map(|byte| format!("{byte:02x}")).collect()
        });
        let (blob, part) = (blobs.join(&content), blobs.join(format!("{content}.part")));
        let _lock = self.lock(&blobs.join(format!("{content}.lock")))?;
        if blob.is_file() {
            check(&blob, listed)?;
        } else {
            let url = format!("{}/{}/resolve/{commit}/{}", self.hub.endpoint, place.url(), escaped(name));
            let bar = bar(name, listed.size);
            let held = || fs::metadata(&part).map_or(0, |metadata| metadata.len());
            let filled = self.persist(self.hub.patience.tries, &held, &mut || self.append(&url, &part, listed, &bar));
            bar.finish_and_clear();
            filled?;
            check(&part, listed)?;
            fs::rename(&part, &blob).with_context(|| format!("cannot rename {}", part.display()))?;
        }
        let pointer = folder.join("snapshots").join(commit).join(name);
        point(&pointer, &blob, name.split('/').count()).with_context(|| format!("cannot write {}", pointer.display()))?;
        Ok(pointer)
    }

    /// Fetches what a partial file lacks.
    fn append(&self, url: &str, part: &Path, listed: &File, bar: &ProgressBar) -> Result<(), Fault> {
        let disk = |error: io::Error| Fault::Other(anyhow!("cannot write {}: {error}", part.display()));
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(disk)?;
        let mut held = file.metadata().map_err(disk)?.len();
        if listed.size.is_some_and(|size| held > size) {
            file.set_len(0).map_err(disk)?;
            held = 0;
        }
        if listed.size == Some(held) {
            return Ok(());
        }
        let mut response = self.get(url, held)?;
        let status = response.status().as_u16();
        if matches!(status, 200 | 206) && is_page(&response) && !listed.rfilename.ends_with(".html") {
            return Err(page());
        }
        match status {
            200 => {
                // The server does not continue files.
                file.set_len(0).map_err(disk)?;
                held = 0;
            }
            206 if continues(&response, held) => {}
            206 | 416 => {
                file.set_len(0).map_err(disk)?;
                return Err(Fault::Transport("the server sent another part than the one asked for".into()));
            }
            status => return Err(Fault::Status(status)),
        }
        bar.set_position(held);
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = body.read(&mut buffer).map_err(|error| self.fault(error.into()))?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(disk)?;
            held += n as u64;
            bar.inc(n as u64);
            self.go_on()?;
            if listed.size.is_some_and(|size| held > size) {
                break;
            }
        }
        file.sync_all().map_err(disk)?;
        if listed.size.is_some_and(|size| held < size) {
            return Err(Fault::Transport("the connection was closed".into()));
        }
        Ok(())
    }

    /// One request for a file from a byte on; the answer may have any status.
    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Fault> {
        self.go_on()?;
        let mut request = self.request(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| self.fault(error))
    }

    fn request(&self, url: &str) -> RequestBuilder<WithoutBody> {
        let request = self.agent.get(url);
        // A token goes to the Hub only; what it redirects to has addresses that are signed.
        match &self.hub.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn fault(&self, error: ureq::Error) -> Fault {
        use ureq::Error::{BadUri, Http, InvalidProxyUrl};
        if (self.hub.access.stopped)() {
            return Fault::Stopped;
        }
        match error {
            error @ (BadUri(_) | Http(_) | InvalidProxyUrl) => Fault::Other(anyhow!("{error}; check HF_ENDPOINT and HTTPS_PROXY")),
            error => Fault::Transport(error.to_string()),
        }
    }

    /// Tries until `tries` attempts in a row have failed without moving `held` on.
    fn persist<T>(&self, tries: u32, held: &dyn Fn() -> u64, attempt: &mut dyn FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
        let (mut failed, mut reached) = (0, held());
        loop {
            let fault = match attempt() {
                Err(fault) if fault.is_passing() => fault,
                other => return other,
            };
            let now = held();
            failed = if now > reached { 1 } else { failed + 1 };
            reached = now;
            if failed >= tries {
                return Err(fault);
            }
            self.rest(self.hub.patience.pause * 2u32.saturating_pow(failed - 1))?;
        }
    }

    fn rest(&self, time: Duration) -> Result<(), Fault> {
        let begin = Instant::now();
        while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            self.go_on()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        self.go_on()
    }

    fn go_on(&self) -> Result<(), Fault> {
        if (self.hub.access.stopped)() { Err(Fault::Stopped) } else { Ok(()) }
    }

    /// The right to write a blob, until dropped.
    fn lock(&self, path: &Path) -> Result<fs::File, Fault> {
        let failed = |error: io::Error| Fault::Other(anyhow!("cannot lock {}: {error}", path.display()));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begin.elapsed() < self.hub.patience.lock => self.rest(Duration::from_millis(200))?,
                Err(TryLockError::WouldBlock) => {
                    let busy = format!("another process is downloading it (lock {}); wait for it", path.display());
                    return Err(Fault::Other(Temporary(busy).into()));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

/// Whether a partial answer begins at this byte.
fn continues(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()) == Some(from)
}

/// What a network's login page looks like from here.
fn page() -> Fault {
    Fault::Transport("a page of HTML came in its place".into())
}

fn is_page(response: &Response<Body>) -> bool {
    response.body().mime_type().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
}

/// Makes a name in a snapshot, `depth` parts long, point to a blob.
fn point(pointer: &Path, blob: &Path, depth: usize) -> io::Result<()> {
    if let Some(folder) = pointer.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(pointer) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    {
        let name = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new(&"../".repeat(depth + 1)).join("blobs").join(name), pointer)
    }
    #[cfg(not(unix))]
    {
        let _ = depth;
        fs::hard_link(blob, pointer)
    }
}

/// A name as a part of an address.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Bytes of a download on stderr; nothing where that is not a terminal.
fn bar(name: &str, size: Option<u64>) -> ProgressBar {
    let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template("{prefix:<32} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec} (left {eta})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name.to_owned());
    bar
}
