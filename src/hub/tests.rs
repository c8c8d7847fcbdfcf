use super::*;
use sha2::Digest;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

/// A Hub on this machine: one model, its files under any revision.
#[derive(Default)]
struct Server {
    sha: String,
    files: HashMap<String, Vec<u8>>,
    /// Instead of a file or of the listing (`""`), and how often.
    status: HashMap<String, (u16, usize)>,
    /// As a network's login page does it: HTML instead of these, with status 200.
    pages: Vec<String>,
    /// Downloads of this file to cut in the middle.
    cuts: HashMap<String, usize>,
    /// Downloads of this file that fall silent in the middle.
    stalls: HashMap<String, usize>,
    silent: Vec<TcpStream>,
    /// Whether ranges are answered with the whole file.
    is_plain: bool,
    /// What the listing says of a file's hash, where it differs.
    hashes: HashMap<String, String>,
    /// Method and path of each request, and the range asked for.
    requests: Vec<String>,
}

fn small_model() -> Server {
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}"#;
    let files = [
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"tokens".to_vec()),
        ("tokenizer_config.json", b"{}".to_vec()),
        ("special_tokens_map.json", b"{}".to_vec()),
        ("chat_template.jinja", b"chat".to_vec()),
        ("README.md", b"not needed".to_vec()),
        ("../escape.json", b"bad".to_vec()),
        ("model.safetensors.index.json", index.as_bytes().to_vec()),
        ("model-00001-of-00002.safetensors", vec![7; 40_000]),
        ("model-00002-of-00002.safetensors", vec![9; 30_000]),
    ];
    Server { sha: FIRST.into(), files: files.map(|(name, bytes)| (name.to_string(), bytes)).into(), ..Server::default() }
}

/// Serves until the process ends; returns the address.
fn serve(server: Server) -> (String, Arc<Mutex<Server>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Mutex::new(server));
    let state = shared.clone();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| _ = answer(stream, &mut state.lock().unwrap())));
    (address, shared)
}

fn answer(mut stream: TcpStream, server: &mut Server) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap().to_string();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        range = line.strip_prefix("range: bytes=").map(str::to_string).or(range);
        if line.is_empty() {
            break;
        }
    }
    server.requests.push(format!("{path} {}", range.as_deref().unwrap_or("-")));
    let name = path.split_once("/resolve/").map_or("", |(_, rest)| rest.split_once('/').unwrap().1);
    if let Some((status, times)) = server.status.get_mut(name).filter(|(_, times)| *times > 0) {
        *times -= 1;
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if server.pages.iter().any(|page| page == name) {
        let page = "<html>Welcome to our network</html>";
        let kind = "Content-Type: text/html; charset=utf-8";
        return write!(stream, "HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
    }
    if path.starts_with("/api/") {
        let listing = server.listing();
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{listing}", listing.len());
    }
    let Some(bytes) = server.files.get(name) else {
        return write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let start = range.as_deref().and_then(|range| range.strip_suffix('-')).map_or(0, |start| start.parse::<usize>().unwrap());
    let (status, start) = if server.is_plain { ("200 OK", 0) } else { ("206 Partial", start) };
    let part = &bytes[start..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nConnection: close\r\n\r\n",
        part.len(),
        start + part.len(),
        bytes.len()
    )?;
    let take = |from: &mut HashMap<String, usize>| from.get_mut(name).filter(|times| **times > 0).map(|times| *times -= 1).is_some();
    let (is_cut, is_stalled) = (take(&mut server.cuts), take(&mut server.stalls));
    stream.write_all(if is_cut || is_stalled { &part[..part.len() / 2] } else { part })?;
    if is_stalled {
        server.silent.push(stream);
    }
    Ok(())
}

impl Server {
    fn listing(&self) -> String {
        let sibling = |(name, bytes): (&String, &Vec<u8>)| {
            let hash = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let hash = self.hashes.get(name).cloned().unwrap_or(hash);
            let lfs = if name.ends_with(".safetensors") { serde_json::json!({"sha256": hash}) } else { serde_json::Value::Null };
            serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": &hash[..40], "lfs": lfs})
        };
        serde_json::json!({"sha": self.sha, "siblings": self.files.iter().map(sibling).collect::<Vec<_>>()}).to_string()
    }
}

thread_local! {
    static SAID: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

const ONLINE: Access = Access { offline: false, stopped: || false, say: |text| SAID.with_borrow_mut(|said| said.push(text.to_string())) };
const ALWAYS: usize = usize::MAX;

fn hub(cache: &Path, endpoint: &str, offline: bool) -> Hub {
    let milliseconds = Duration::from_millis;
    let (pause, lock) = (milliseconds(1), milliseconds(300));
    let patience = Patience { connect: milliseconds(2000), stall: milliseconds(300), pause, tries: 3, lock };
    Hub { cache: cache.to_path_buf(), endpoint: endpoint.to_string(), token: None, access: Access { offline, ..ONLINE }, patience }
}

fn offline(hub: Hub) -> Hub {
    Hub { access: Access { offline: true, ..hub.access }, ..hub }
}

fn find(hub: &Hub, revision: Option<&str>) -> Result<PathBuf> {
    hub.find(RepoType::Model, "org/name", revision, &model_files)
}

fn message(result: Result<PathBuf>) -> String {
    format!("{:#}", result.expect_err("this was to fail"))
}

/// The message of a failure that a later run may not see.
fn passing(result: Result<PathBuf>) -> String {
    let error = result.expect_err("this was to fail");
    assert!(error.is::<Temporary>(), "{error:#}");
    format!("{error:#}")
}

/// Requests for a file, and where each begins.
fn requests(server: &Mutex<Server>, name: &str) -> Vec<String> {
    let server = server.lock().unwrap();
    server.requests.iter().filter_map(|request| request.split_once(name).map(|(_, range)| range.trim().to_string())).collect()
}

#[test]
fn a_model_is_fetched_once_and_then_found_without_network() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(small_model());
    let folder = find(&hub(cache.path(), &address, false), Some(FIRST)).unwrap();
    assert_eq!(snapshot_revision(&folder).as_deref(), Some(FIRST));
    let weights = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"];
    let text = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(files_below(&folder).unwrap(), [&["chat_template.jinja", "config.json"][..], &weights, &text].concat());
    assert_eq!(fs::read(folder.join("model-00001-of-00002.safetensors")).unwrap(), vec![7; 40_000]);
    let n_requests = server.lock().unwrap().requests.len();
    assert_eq!(find(&hub(cache.path(), &address, false), Some(FIRST)).unwrap(), folder);
    assert_eq!(find(&hub(cache.path(), &address, true), Some(FIRST)).unwrap(), folder);
    assert_eq!(server.lock().unwrap().requests.len(), n_requests);
}

#[test]
fn a_branch_that_moved_gives_a_new_snapshot_and_no_mixture() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(small_model());
    let hub = hub(cache.path(), &address, false);
    let first = find(&hub, None).unwrap();
    // The branch is asked for once; every file is asked for by commit, so that it may move meanwhile.
    assert!(server.lock().unwrap().requests.iter().skip(1).all(|request| request.contains(&format!("/resolve/{FIRST}/"))));
    {
        let mut server = server.lock().unwrap();
        server.sha = SECOND.into();
        server.files.remove("chat_template.jinja");
    }
    let second = find(&hub, None).unwrap();
    assert_eq!(snapshot_revision(&second).as_deref(), Some(SECOND));
    assert!(first.join("chat_template.jinja").exists() && !second.join("chat_template.jinja").exists());
    assert_eq!(find(&offline(hub), None).unwrap(), second);
}

#[test]
fn a_download_that_breaks_off_or_falls_silent_goes_on_where_it_stopped() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let once = || HashMap::from([(SHARD.to_string(), 1)]);
    let five = HashMap::from([(SHARD.to_string(), 5)]);
    for (cuts, stalls, starts) in [
        (once(), HashMap::new(), &["-", "15000-"][..]),
        (HashMap::new(), once(), &["-", "15000-"]),
        // Whatever brings something may be done again and again.
        (five, HashMap::new(), &["-", "15000-", "22500-", "26250-", "28125-", "29062-"]),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve(Server { cuts, stalls, ..small_model() });
        let folder = find(&hub(cache.path(), &address, false), None).unwrap();
        assert_eq!(fs::read(folder.join(SHARD)).unwrap(), vec![9; 30_000]);
        assert_eq!(requests(&server, SHARD), starts);
    }
}

#[test]
fn a_server_that_sends_no_parts_sends_the_whole_again() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(Server { cuts: HashMap::from([(SHARD.to_string(), 1)]), is_plain: true, ..small_model() });
    let folder = find(&hub(cache.path(), &address, false), None).unwrap();
    assert_eq!(fs::read(folder.join(SHARD)).unwrap(), vec![9; 30_000]);
    assert_eq!(requests(&server, SHARD), ["-", "15000-"]);
}

#[test]
fn a_download_that_brings_nothing_is_given_up_for_now() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let page = || Server { pages: vec![SHARD.to_string()], ..small_model() };
    let refused = |status, times| Server { status: HashMap::from([(SHARD.to_string(), (status, times))]), ..small_model() };
    for (server, expected) in [
        (page(), "the download broke off (a page of HTML came in its place); run the same command"),
        (refused(503, ALWAYS), "answered 503"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve(server);
        let message = passing(find(&hub(cache.path(), &address, false), None));
        assert!(message.contains(&format!("org/name: {SHARD}")) && message.contains(expected), "{message}");
        assert_eq!(requests(&server, SHARD).len(), 3);
        let message = self::message(find(&hub(cache.path(), &address, true), Some(FIRST)));
        assert!(message.contains(&format!("{SHARD} is not in the cache")), "{message}");
        server.lock().unwrap().pages.clear();
        server.lock().unwrap().status.clear();
        find(&hub(cache.path(), &address, false), None).unwrap();
    }
    for status in [429, 500] {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve(refused(status, 2));
        find(&hub(cache.path(), &address, false), None).unwrap();
        assert_eq!(requests(&server, SHARD).len(), 3);
    }
}

#[test]
fn a_stop_is_noticed_in_a_silent_download_and_keeps_what_came() {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(Server { stalls: HashMap::from([(SHARD.to_string(), 1)]), ..small_model() });
    let blobs = cache.path().join("models--org--name/blobs");
    let patient = |hub: Hub| Hub { patience: Patience { stall: Duration::from_secs(60), ..hub.patience }, ..hub };
    let asking = Access { stopped: || STOPPED.load(Ordering::SeqCst), ..ONLINE };
    let begin = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let came = |file: &fs::DirEntry| {
                file.path().extension().is_some_and(|kind| kind == "part") && file.metadata().unwrap().len() == 15_000
            };
            let all_came = || fs::read_dir(&blobs).is_ok_and(|mut files| files.any(|file| came(&file.unwrap())));
            while !all_came() && begin.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(10));
            }
            STOPPED.store(true, Ordering::SeqCst);
        });
        find(&patient(Hub { access: asking, ..hub(cache.path(), &address, false) }), None).unwrap_err()
    });
    assert!(error.is::<Stopped>(), "{error:#}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    find(&hub(cache.path(), &address, false), None).unwrap();
    assert_eq!(requests(&server, SHARD), ["-", "15000-"]);
}

#[test]
fn a_file_that_another_process_downloads_is_left_to_it() {
    let cache = tempfile::tempdir().unwrap();
    let (address, _) = serve(small_model());
    let hash = sha2::Sha256::digest(b"tokens").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let blobs = cache.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let lock = fs::File::create(blobs.join(format!("{}.lock", &hash[..40]))).unwrap();
    lock.lock().unwrap();
    let message = passing(find(&hub(cache.path(), &address, false), None));
    assert!(message.contains("tokenizer.json: another process is downloading it (lock "), "{message}");
    drop(lock);
    find(&hub(cache.path(), &address, false), None).unwrap();
}

#[test]
fn blobs_have_the_names_that_all_tools_give_them_and_are_fetched_once() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(small_model());
    let first = find(&hub(cache.path(), &address, false), None).unwrap();
    let hash = sha2::Sha256::digest(vec![7; 40_000]).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let target = fs::canonicalize(first.join("model-00001-of-00002.safetensors")).unwrap();
    assert!(target.ends_with(format!("models--org--name/blobs/{hash}")), "{}", target.display());
    assert_eq!(fs::read_to_string(cache.path().join("models--org--name/refs/main")).unwrap(), FIRST);
    server.lock().unwrap().sha = SECOND.into();
    let second = find(&hub(cache.path(), &address, false), None).unwrap();
    assert_eq!(snapshot_revision(&second).as_deref(), Some(SECOND));
    assert_eq!(fs::canonicalize(second.join("model-00001-of-00002.safetensors")).unwrap(), target);
    assert_eq!(requests(&server, "model-00001-of-00002.safetensors").len(), 1);
}

#[test]
fn bytes_that_differ_from_the_listing_do_not_stay() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(Server { hashes: HashMap::from([(SHARD.to_string(), "0".repeat(64))]), ..small_model() });
    let hub = hub(cache.path(), &address, false);
    let message = passing(find(&hub, None));
    assert!(message.contains(SHARD) && message.contains("(40000 bytes) is not what the Hub lists"), "{message}");
    server.lock().unwrap().hashes.clear();
    assert_eq!(files_below(&cache.path().join("models--org--name/blobs")).unwrap().iter().filter(|n| n.ends_with(".part")).count(), 0);
    assert_eq!(fs::read(find(&hub, None).unwrap().join(SHARD)).unwrap(), vec![7; 40_000]);
}

#[test]
fn a_refusal_names_the_reason_and_the_remedy() {
    for (file, status, token, expected) in [
        ("", 404, None, ["org/name: not found on", "at revision main (404); check the spelling"]),
        ("", 401, None, ["org/name: not found, private or gated (401)", "set HF_TOKEN"]),
        ("", 401, Some("t"), ["does not take the token in HF_TOKEN (401)", "renew it"]),
        ("config.json", 403, Some("t"), ["org/name: config.json: this token has no access (403)", "accept its terms at"]),
        ("tokenizer.json", 401, None, ["org/name: tokenizer.json: not found, private or gated (401)", "/org/name and set HF_TOKEN"]),
        ("config.json", 429, None, ["too many requests (429)", "some minutes"]),
        ("config.json", 410, None, ["answered 410", "try again later"]),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (address, _) = serve(Server { status: HashMap::from([(file.to_string(), (status, ALWAYS))]), ..small_model() });
        let error = find(&Hub { token: token.map(str::to_string), ..hub(cache.path(), &address, false) }, None).unwrap_err();
        assert_eq!(error.is::<Temporary>(), status == 429);
        let message = format!("{error:#}");
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_refused_before_its_weights_are_fetched() {
    for (missing, expected) in [
        ("tokenizer.json", "there is no tokenizer.json"),
        ("tokenizer_config.json", "there is no tokenizer_config.json"),
        ("model.safetensors.index.json", "there are no safetensors weights"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let mut server = small_model();
        server.files.remove(missing);
        let (address, server) = serve(server);
        let message = message(find(&hub(cache.path(), &address, false), None));
        assert!(message.contains("org/name") && message.contains(expected), "{message}");
        assert!(!server.lock().unwrap().requests.iter().any(|request| request.contains(".safetensors")));
    }
}

#[test]
fn where_the_hub_does_not_answer_as_it_should_the_cache_stands_in() {
    let closed = || ("http://127.0.0.1:9".to_string(), None);
    let broken = |server: Server| {
        let (address, server) = serve(server);
        (address, Some(server))
    };
    let status = |status| Server { status: HashMap::from([(String::new(), (status, ALWAYS))]), ..small_model() };
    let page = Server { pages: vec![String::new()], ..small_model() };
    let elsewhere = Server { sha: "main".into(), ..small_model() };
    let (good, _) = serve(small_model());
    for ((address, server), expected) in [
        (closed(), "cannot be reached ("),
        (broken(status(503)), "answered 503"),
        (broken(status(429)), "too many requests to "),
        (broken(page), "is not the Hub's listing (expected value"),
        (broken(elsewhere), "is not the Hub's listing (revision main has no commit)"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let hub = |address: &str| hub(cache.path(), address, false);
        let message = passing(find(&hub(&address), None));
        assert!(message.contains("org/name: ") && message.contains(expected), "{message}");
        assert!(
            message.contains("and the cache does not hold it; check the network and HTTPS_PROXY, or run `hf download org/name"),
            "{message}"
        );
        let n_asked = server.as_ref().map(|server| server.lock().unwrap().requests.len());
        let folder = find(&hub(&good), None).unwrap();
        SAID.take();
        assert_eq!(find(&hub(&address), None).unwrap(), folder);
        let said = SAID.take();
        assert!(
            matches!(&said[..], [line] if line.contains(expected) && line.ends_with(&format!("going on with commit {FIRST} from the cache"))),
            "{said:?}"
        );
        // With the cache to fall back on one question is enough.
        assert_eq!(server.map(|server| server.lock().unwrap().requests.len()), n_asked.map(|n| n + 1));
    }
    let cache = tempfile::tempdir().unwrap();
    let offline = message(find(&hub(cache.path(), &good, true), None));
    assert!(offline.contains("org/name@main is not in the cache") && offline.contains("hf download org/name --revision main"), "{offline}");
}

#[test]
fn a_cache_that_cannot_be_read_is_not_one_that_lacks_something() {
    let (good, _) = serve(Server { sha: FIRST.into(), ..Server::default() });
    let nobody = "http://127.0.0.1:1";
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--org--name");
    std::fs::create_dir_all(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), FIRST).unwrap();
    let snapshots = folder.join("snapshots");
    // The commit's snapshot was removed: it can be had again.
    std::fs::create_dir_all(&snapshots).unwrap();
    let gone = find(&hub(cache.path(), &good, true), None).unwrap_err();
    assert!(gone.is::<NotCached>() && gone.to_string().contains("org/name@main is not in the cache"), "{gone:#}");
    passing(find(&hub(cache.path(), nobody, false), None));
    // Something else lies in its place: nothing passes by itself.
    std::fs::write(snapshots.join(FIRST), "a file").unwrap();
    for (address, offline) in [(&good[..], true), (nobody, false)] {
        let error = find(&hub(cache.path(), address, offline), None).unwrap_err();
        assert!(!error.is::<NotCached>() && !error.is::<Temporary>(), "{error:#}");
        assert!(
            format!("{error:#}").contains("the cache cannot be read: ") && format!("{error:#}").contains("Not a directory"),
            "{error:#}"
        );
    }
}

#[test]
fn a_data_set_is_the_wanted_files() {
    let cache = tempfile::tempdir().unwrap();
    let files = ["data/train.jsonl", "data/test.jsonl", "image.png", "../train.jsonl", "data//train", "/train"]
        .map(|name| (name.to_string(), name.as_bytes().to_vec()));
    let (address, server) = serve(Server { sha: FIRST.into(), files: files.into(), ..Server::default() });
    let find = |hub: &Hub, part: &str| {
        hub.find(RepoType::Dataset, "org/name", None, &|names, take| dataset_files(names, take, &|name| name.contains(part)))
    };
    let online = hub(cache.path(), &address, false);
    let folder = find(&online, "train").unwrap();
    assert_eq!(files_below(&folder).unwrap(), ["data/train.jsonl"]);
    assert_eq!(find(&hub(cache.path(), &address, true), "train").unwrap(), folder);
    assert!(server.lock().unwrap().requests[0].starts_with("/api/datasets/org/name/revision/main?blobs=true"));
    let none = message(find(&online, "parquet"));
    assert!(none.contains("org/name") && none.contains("it has data/test.jsonl, data/train.jsonl, image.png"), "{none}");
}

#[test]
fn a_folder_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(model(path, None, Access::CACHE).unwrap(), folder.path());
    assert_eq!(snapshot_revision(folder.path()), None);
    let file = folder.path().join("x.jsonl");
    fs::write(&file, "").unwrap();
    assert_eq!(dataset(file.to_str().unwrap(), None, |_| true, Access::CACHE).unwrap(), file);
    assert!(message(model(file.to_str().unwrap(), None, Access::CACHE)).contains("is a file; name the folder"));
}

#[test]
fn a_missing_folder_is_told_from_a_hub_id() {
    for (name, revision, expected) in [
        ("Qwen/Qwen2.5-1.5B", None, Some(("Qwen/Qwen2.5-1.5B", "main"))),
        ("Qwen/Qwen2.5-1.5B@v1", None, Some(("Qwen/Qwen2.5-1.5B", "v1"))),
        ("a/b", Some("refs/pr/1"), Some(("a/b", "refs/pr/1"))),
        ("a/b@x", Some("x"), Some(("a/b", "x"))),
        ("a/b@x", Some("y"), None),
        ("a/b@", None, None),
        ("a/b@../../x", None, None),
        ("./student", None, None),
        ("../a/b", None, None),
        ("/models/student", None, None),
        ("student", None, None),
        ("runs/x/student", None, None),
        ("~/student", None, None),
        ("a/..", None, None),
        ("a b/c", None, None),
        ("", None, None),
    ] {
        let parsed = parse(name, revision);
        assert_eq!(parsed.as_ref().ok().copied(), expected, "{name}");
    }
    let message = format!("{:#}", model("./student", None, ONLINE).unwrap_err());
    assert!(message.contains("./student: no such folder, and not a Hub id"), "{message}");
}

#[test]
fn the_environment_is_read_as_other_tools_read_it() {
    let hub = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Hub::from_variables(|name| variables.get(name).map(|value| value.to_string()), ONLINE)
    };
    for (variables, cache) in [
        (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
        (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
        (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
        (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
    ] {
        assert_eq!(hub(variables).cache, Path::new(cache));
    }
    for (value, offline) in [("1", true), ("true", true), ("0", false), ("", false)] {
        assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).access.offline, offline, "{value}");
    }
    for (value, seconds) in [("7", 7), ("0", 30), ("soon", 30)] {
        assert_eq!(hub(&[("HF_HUB_DOWNLOAD_TIMEOUT", value)]).patience.stall, Duration::from_secs(seconds), "{value}");
    }
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), " stored\n").unwrap();
    let home = home.path().to_str().unwrap();
    assert_eq!(hub(&[("HF_HOME", home)]).token.as_deref(), Some("stored"));
    assert_eq!(hub(&[("HF_HOME", home), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
    assert_eq!(hub(&[("HF_HOME", home), ("HUGGING_FACE_HUB_TOKEN", "older")]).token.as_deref(), Some("older"));
    assert_eq!(hub(&[("HUGGING_FACE_HUB_TOKEN", "older"), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
    assert_eq!(hub(&[("HF_HOME", "/nowhere"), ("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
}

/// What a look says with these variables, with everything in it that a person could get to see.
fn seen(variables: &[(&str, &str)]) -> (look::Look, String) {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let look = look::of(|name| variables.get(name).map(|value| value.to_string()));
    let told = format!("{} {:?} {:?} {}", look.endpoint, look.answer, look.token, look.cache.display());
    (look, told)
}

#[test]
fn a_look_says_whether_the_hub_answers_and_whether_it_takes_the_token_and_tells_no_secret() {
    let home = tempfile::tempdir().unwrap();
    for folder in ["models--org--name", "models--org--other", "datasets--org--name"] {
        fs::create_dir_all(home.path().join("hub").join(folder)).unwrap();
    }
    let path = home.path().to_str().unwrap();
    for (status, token, expected, question) in [
        (None, false, Answer::Reached, "/api/models?limit=1 -"),
        (None, true, Answer::TokenTaken, "/api/whoami-v2 -"),
        (Some(401), true, Answer::TokenRefused, "/api/whoami-v2 -"),
        (Some(404), true, Answer::Reached, "/api/whoami-v2 -"),
        (Some(404), false, Answer::Status(404), "/api/models?limit=1 -"),
        (Some(503), true, Answer::Status(503), "/api/whoami-v2 -"),
    ] {
        let status = status.map(|status| (String::new(), (status, ALWAYS)));
        let (address, server) = serve(Server { status: status.into_iter().collect(), ..small_model() });
        let (home, address) = (("HF_HOME", path), ("HF_ENDPOINT", &*address));
        let (look, told) = if token { seen(&[home, address, ("HF_TOKEN", "hf_secret")]) } else { seen(&[home, address]) };
        assert_eq!(look.answer, expected, "{told}");
        assert_eq!((look.token.as_deref(), look.models), (token.then_some("HF_TOKEN"), 2), "{told}");
        assert!(!told.contains("secret"), "{told}");
        assert_eq!(server.lock().unwrap().requests, [question]);
        assert_eq!(seen(&[home, address, ("HF_HUB_OFFLINE", "1")]).0.answer, Answer::Offline);
        assert_eq!(server.lock().unwrap().requests.len(), 1, "an offline look asks nobody");
    }
    let (address, _) = serve(Server { pages: vec![String::new()], ..small_model() });
    assert!(matches!(seen(&[("HF_ENDPOINT", &address)]).0.answer, Answer::Unreachable(reason) if reason.contains("a page of HTML")));

    fs::write(home.path().join("token"), "hf_secret\n").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mirror = format!("http://me:secret@{closed}/mirror");
    let (look, told) = seen(&[("HF_HOME", path), ("HF_ENDPOINT", &mirror)]);
    assert_eq!(look.endpoint, format!("http://{closed}/mirror"));
    assert_eq!(look.token, Some(format!("{path}/token")));
    assert!(matches!(look.answer, Answer::Unreachable(_)) && !told.contains("secret"), "{told}");
    let (look, told) = seen(&[("HF_ENDPOINT", "me:secret@mirror"), ("HF_TOKEN", "hf_\nsecret")]);
    assert!(matches!(look.answer, Answer::Unreachable(_)) && !told.contains("secret"), "{told}");
}
