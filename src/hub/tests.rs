use super::*;
use sha2::Digest;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

/// A Hub on this machine: one model, its files under any revision.
#[derive(Default)]
struct Server {
    sha: String,
    files: HashMap<String, Vec<u8>>,
    /// Instead of a file or of the listing (`""`).
    status: HashMap<String, u16>,
    /// Downloads of this file to cut in the middle.
    cuts: HashMap<String, usize>,
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
    if let Some(status) = server.status.get(name) {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if path.starts_with("/api/") {
        let listing = server.listing();
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{listing}", listing.len());
    }
    let Some(bytes) = server.files.get(name) else {
        return write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (start, end) = range.as_deref().and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap();
    let part = &bytes[start..end.parse::<usize>().map_or(bytes.len(), |end| (end + 1).min(bytes.len()))];
    write!(
        stream,
        "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {}\r\nConnection: close\r\n\r\n",
        part.len(),
        start + part.len(),
        bytes.len(),
        name.replace(['/', '.'], "-"),
        server.sha
    )?;
    let cut = server.cuts.get_mut(name).filter(|cuts| end.is_empty() && **cuts > 0);
    let sent = if let Some(cuts) = cut {
        *cuts -= 1;
        part.len() / 2
    } else {
        part.len()
    };
    stream.write_all(&part[..sent])
}

impl Server {
    fn listing(&self) -> String {
        let sibling = |(name, bytes): (&String, &Vec<u8>)| {
            let hash = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let hash = self.hashes.get(name).cloned().unwrap_or(hash);
            let lfs = if name.ends_with(".safetensors") { serde_json::json!({"sha256": hash}) } else { serde_json::Value::Null };
            serde_json::json!({"rfilename": name, "size": bytes.len(), "lfs": lfs})
        };
        serde_json::json!({"sha": self.sha, "siblings": self.files.iter().map(sibling).collect::<Vec<_>>()}).to_string()
    }
}

fn hub(cache: &Path, endpoint: &str, offline: bool) -> Hub {
    Hub { cache: cache.to_path_buf(), endpoint: endpoint.to_string(), token: None, offline }
}

fn find(hub: &Hub, revision: Option<&str>) -> Result<PathBuf> {
    hub.find(RepoType::Model, "org/name", revision, &model_files)
}

fn message(result: Result<PathBuf>) -> String {
    format!("{:#}", result.expect_err("this was to fail"))
}

#[test]
fn a_model_is_fetched_once_and_then_found_without_network() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(small_model());
    let folder = find(&hub(cache.path(), &address, false), Some(FIRST)).unwrap();
    assert_eq!(snapshot_revision(&folder).as_deref(), Some(FIRST));
    let expected = ["chat_template.jinja", "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(files_below(&folder).unwrap(), [&expected[..], &["model.safetensors.index.json", "tokenizer.json"]].concat());
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
    assert_eq!(find(&Hub { offline: true, ..hub }, None).unwrap(), second);
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    for (cuts, is_enough) in [(1, true), (4, false)] {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve(Server { cuts: HashMap::from([(SHARD.to_string(), cuts)]), ..small_model() });
        let hub = hub(cache.path(), &address, false);
        let found = find(&hub, None);
        let folder = if is_enough {
            found.unwrap()
        } else {
            let message = message(found);
            assert!(
                message.contains(&format!("org/name: {SHARD}: the download broke off")) && message.contains("run the same command again"),
                "{message}"
            );
            let offline = format!("{:#}", find(&Hub { offline: true, ..hub }, Some(FIRST)).unwrap_err());
            assert!(offline.contains(&format!("{SHARD} is not in the cache")), "{offline}");
            find(&self::hub(cache.path(), &address, false), None).unwrap()
        };
        assert_eq!(fs::read(folder.join(SHARD)).unwrap(), vec![9; 30_000]);
        let resumed = |request: &&String| request.contains(SHARD) && request.ends_with(" 15000-");
        assert_eq!(server.lock().unwrap().requests.iter().filter(resumed).count(), 1);
    }
}

#[test]
fn bytes_that_differ_from_the_listing_do_not_stay() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(Server { hashes: HashMap::from([(SHARD.to_string(), "0".repeat(64))]), ..small_model() });
    let hub = hub(cache.path(), &address, false);
    let message = message(find(&hub, None));
    assert!(message.contains(SHARD) && message.contains("(40000 bytes) is not what the Hub lists"), "{message}");
    server.lock().unwrap().hashes.clear();
    assert_eq!(fs::read(find(&hub, None).unwrap().join(SHARD)).unwrap(), vec![7; 40_000]);
}

#[test]
fn a_refusal_names_the_reason_and_the_remedy() {
    for (file, status, token, expected) in [
        ("", 404, None, ["org/name: not found on", "at revision main (404); check the spelling"]),
        ("", 401, None, ["org/name: not found, private or gated (401)", "set HF_TOKEN"]),
        ("", 401, Some("t"), ["does not take the token in HF_TOKEN (401)", "renew it"]),
        ("", 503, None, ["answered 503", "try again later"]),
        ("config.json", 403, Some("t"), ["org/name: config.json: this token has no access (403)", "accept its terms at"]),
        ("tokenizer.json", 401, None, ["org/name: tokenizer.json: not found, private or gated (401)", "/org/name and set HF_TOKEN"]),
        ("config.json", 429, None, ["too many requests (429)", "some minutes"]),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (address, _) = serve(Server { status: HashMap::from([(file.to_string(), status)]), ..small_model() });
        let message = message(find(&Hub { token: token.map(str::to_string), ..hub(cache.path(), &address, false) }, None));
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_refused_before_its_weights_are_fetched() {
    for (missing, expected) in
        [("tokenizer.json", "there is no tokenizer.json"), ("model.safetensors.index.json", "there are no safetensors weights")]
    {
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
fn without_network_the_cache_stands_in() {
    let cache = tempfile::tempdir().unwrap();
    let closed = "http://127.0.0.1:9";
    let message_of = |hub: &Hub| message(find(hub, None));
    let unreachable = message_of(&hub(cache.path(), closed, false));
    assert!(unreachable.contains("org/name: http://127.0.0.1:9 cannot be reached") && unreachable.contains("HTTPS_PROXY"), "{unreachable}");
    let offline = message_of(&hub(cache.path(), closed, true));
    assert!(offline.contains("org/name@main is not in the cache") && offline.contains("hf download org/name --revision main"), "{offline}");
    let (address, _) = serve(small_model());
    let folder = find(&hub(cache.path(), &address, false), None).unwrap();
    assert_eq!(find(&hub(cache.path(), closed, false), None).unwrap(), folder);
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
    assert_eq!(model(path, None, true).unwrap(), folder.path());
    assert_eq!(snapshot_revision(folder.path()), None);
    let file = folder.path().join("x.jsonl");
    fs::write(&file, "").unwrap();
    assert_eq!(dataset(file.to_str().unwrap(), None, |_| true, true).unwrap(), file);
    assert!(message(model(file.to_str().unwrap(), None, true)).contains("is a file; name the folder"));
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
    let message = format!("{:#}", model("./student", None, false).unwrap_err());
    assert!(message.contains("./student: no such folder, and not a Hub id"), "{message}");
}

#[test]
fn the_environment_is_read_as_other_tools_read_it() {
    let hub = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Hub::from_variables(|name| variables.get(name).map(|value| value.to_string()), false)
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
        assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
    }
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), " stored\n").unwrap();
    let home = home.path().to_str().unwrap();
    assert_eq!(hub(&[("HF_HOME", home)]).token.as_deref(), Some("stored"));
    assert_eq!(hub(&[("HF_HOME", home), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
    assert_eq!(hub(&[("HF_HOME", "/nowhere"), ("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
}
