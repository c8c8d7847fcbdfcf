//! Writes that fail or are killed at every step, and what a reader then sees.

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/a.json");
    json(&path, &[1, 2]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
    let error = file_with(&path, |out| -> Result<()> {
        out.write_all(b"half")?;
        bail!("stop here")
    });
    assert_eq!(format!("{:#}", error.unwrap_err()), format!("{} was not written: stop here", path.display()));
    file_with(dir.path().join("sub/b"), |_| -> Result<()> { bail!("never") }).unwrap_err();
    assert_eq!(names(&dir.path().join("sub")), ["a.json"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_said_and_publishes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = |_: &mut BufWriter<Pending>| Ok(OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")?);
    let error = format!("{:#}", file_with(dir.path().join("a"), full).unwrap_err());
    assert!(error.contains("a was not written: the disk is full") && error.contains("No space left"), "{error}");
    let error = folder(dir.path().join("b"), |tmp| file_with(tmp.join("inside"), full)).unwrap_err();
    assert!(format!("{error:#}").contains("b was not written: the disk is full"), "{error:#}");
    assert_eq!(names(dir.path()), [""; 0]);
}

/// The limit on file sizes stops real writes of a real file in mid-way. The test starts itself again under that limit.
#[test]
#[cfg(target_os = "linux")]
fn a_write_that_stops_half_way_publishes_nothing() {
    const CHILD: &str = "DISTILL_TEST_SIZE_LIMIT";
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = PathBuf::from(dir);
        let mut lines = Lines::open(dir.join("lines")).unwrap();
        lines.append(&"kept").unwrap();
        let error = format!("{:#}", file(dir.join("big"), &vec![7; 1 << 20]).unwrap_err());
        assert!(error.contains("big was not written: the disk is full or a size limit"), "{error}");
        lines.append(&"x".repeat(1 << 20)).unwrap_err();
        lines.append(&"also").unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "publish::tests::a_write_that_stops_half_way_publishes_nothing";
    let child = std::process::Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 64; exec "$0" --exact "$1" --nocapture"#])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert_eq!(names(dir.path()), ["lines"], "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(fs::read_to_string(dir.path().join("lines")).unwrap(), "\"kept\"\n\"also\"\n");
}

/// A process number says nothing: 1 is always taken, and a leftover of it stayed for ever.
#[test]
fn leftovers_that_nobody_holds_are_swept_whoever_has_their_number_now() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.tmp-4294967295", "a.tmp-1", "a.tmp-2", "a.tmp-x", "a.tmp-", "b.tmp-1"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let held = File::open(dir.path().join("a.tmp-2")).unwrap();
    held.lock().unwrap();
    file(dir.path().join("a"), b"new").unwrap();
    assert_eq!(names(dir.path()), ["a", "a.tmp-", "a.tmp-2", "a.tmp-x", "b.tmp-1"]);
    drop(held);
    file(dir.path().join("a"), b"newer").unwrap();
    assert_eq!(names(dir.path()), ["a", "a.tmp-", "a.tmp-x", "b.tmp-1"]);
}

#[test]
fn a_file_that_is_being_written_is_not_swept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut open = Pending::create(&path).unwrap();
    open.write_all(b"slow").unwrap();
    sweep(dir.path(), &OsString::from("a.tmp-"));
    open.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"slow");
    // Whoever opened the temporary name before it was renamed has the published file in hand, and leaves it alone.
    let published = File::open(&path).unwrap();
    assert!(is_at(&published, &path) && !is_at(&published, &dir.path().join("a.tmp-1")));
}

#[test]
fn every_new_folder_is_flushed_in_the_one_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    let mut flushed = Vec::new();
    let mut flush = |folder: &Path| {
        flushed.push((folder.to_owned(), names(folder)));
        Ok(())
    };
    make_each(&path, &mut flush).unwrap();
    make_each(&path, &mut flush).unwrap();
    let [a, b] = [dir.path().join("a"), dir.path().join("a/b")];
    assert_eq!(flushed, [(dir.path().to_owned(), vec!["a".into()]), (a, vec!["b".into()]), (b, vec!["c".into()])]);
    fs::write(path.join("plain"), "").unwrap();
    assert!(make_folders(&path.join("plain")).is_err() && make_folders(&path.join("plain/d")).is_err());
    let moved = dir.path().join("x/y");
    move_folder(&path, &moved).unwrap();
    assert_eq!(names(&moved), ["plain"]);
}

#[test]
fn a_folder_is_replaced_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/");
    let put = |name: &'static str| move |tmp: &Path| file(tmp.join("deep").join(name), b"1");
    folder(&path, put("first")).unwrap();
    folder(&path, put("second")).unwrap();
    assert_eq!(names(&path.join("deep")), ["second"]);
    folder(&path, |tmp| -> Result<()> {
        put("third")(tmp)?;
        bail!("killed")
    })
    .unwrap_err();
    assert_eq!((names(&path.join("deep")), names(dir.path())), (vec!["second".into()], vec!["state".into()]));
    file(dir.path().join("plain"), b"").unwrap();
    assert!(folder(dir.path().join("plain"), put("x")).unwrap_err().to_string().contains("is a file"));
}

/// Rows: which of the three names exist when the process dies, and what the folder holds after recovery.
#[test]
fn a_kill_between_any_two_steps_is_recovered() {
    for (left, expected) in [
        (vec!["state", ".state.tmp"], "state"),
        (vec![".state.old", ".state.tmp"], ".state.tmp"),
        (vec![".state.old"], ".state.old"),
        (vec!["state", ".state.old"], "state"),
        (vec!["state"], "state"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for name in &left {
            file(dir.path().join(name).join("from"), name.as_bytes()).unwrap();
        }
        recover(dir.path().join("state")).unwrap();
        assert_eq!(names(dir.path()), ["state"], "{left:?}");
        assert_eq!(fs::read_to_string(dir.path().join("state/from")).unwrap(), expected, "{left:?}");
    }
}

#[test]
fn a_run_directory_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let lock = Lock::take(&run).unwrap();
    let busy = Lock::take(&run).unwrap_err();
    assert!(matches!(&busy, Busy::Locked { holder, .. } if *holder == format!("process {}", std::process::id())), "{busy}");
    drop(lock);
    Lock::take(&run).unwrap();
    file(dir.path().join("plain"), b"").unwrap();
    assert!(matches!(Lock::take(dir.path().join("plain")), Err(Busy::Io { .. })));
}

#[test]
fn a_stage_is_done_when_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(done(dir.path()).unwrap(), None);
    mark_done(dir.path(), &serde_json::json!({"traces": 3})).unwrap();
    assert_eq!(done(dir.path()).unwrap().unwrap()["traces"], 3);
    fs::write(dir.path().join("DONE"), "{").unwrap();
    assert!(done(dir.path()).unwrap_err().to_string().contains("DONE is not JSON"));
}

#[test]
fn lines_survive_a_cut_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let long = "x".repeat(5000);
    let whole = format!("{{\"step\":1}}\n{{\"step\":2,\"note\":\"{long}\"}}\n");
    // The search goes back in chunks of 4096 bytes; the first line ends at byte 11.
    for cut in (0..40).chain(4090..4120).chain(whole.len() - 5..=whole.len()) {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        lines.append(&serde_json::json!({"step": 9})).unwrap();
        let expected = whole[..cut].rfind('\n').map_or("", |end| &whole[..=end]).to_owned() + "{\"step\":9}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{cut}");
    }
}

#[test]
fn lines_after_a_step_are_dropped_and_the_rest_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    fs::write(&path, "{\"step\": 1}\n{\"step\":2}\n{\"step\":3}\n").unwrap();
    let mut lines = Lines::open(&path).unwrap();
    lines.keep_lines(|line| line["step"].as_u64() <= Some(2)).unwrap();
    lines.append(&serde_json::json!({"step": 3, "again": true})).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\": 1}\n{\"step\":2}\n{\"step\":3,\"again\":true}\n");
    fs::write(&path, "{}\nnot\n").unwrap();
    assert!(Lines::open(&path).unwrap().keep_lines(|_| true).unwrap_err().to_string().contains("metrics.jsonl:2: not JSON"));
}

#[test]
fn hashes_are_sha256() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path().join("a"), b"abc").unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, appendix B.1
    assert_eq!((sha256_file(dir.path().join("a")).unwrap(), sha256(b"abc")), (abc.into(), abc.into()));
}

#[test]
fn a_withdrawn_folder_is_gone_and_so_is_what_a_kill_had_left_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    withdraw(&path).unwrap();
    folder(&path, |new| file(new.join("a"), b"x")).unwrap();
    fs::create_dir_all(dir.path().join(".model.gone/deep")).unwrap();
    withdraw(&path).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
