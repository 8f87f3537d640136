//! Bad input, end to end: a typed error that says what to do, and nothing lost. Names and paths are in `tools/suites/bad-input`.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use data::{KIND, client, container, fill, look, unopened};
use support::{ALONE, Options, PATIENCE, SECRET, SYSTEM, Server, config, directory, spawn};
use talea_client::{Condition, EntryFetch, EntryUpdate, ErrorKind, Object, Write};
use talea_fabric::handshake::{ANSWER_BYTES, Connecting, HandshakeError, PROTOCOL_VERSION, fresh_nonce};
use talea_fabric::stream::STREAM_CHANNEL;
use talea_fabric::{Address, Clock, Credentials, FabricError, Hello, RealClock};
use talea_model::limit::MAX_KEY_BYTES;
use talea_model::{Extent, ObjectClass, Step, View};

fn put(object: &Object, dkey: &[u8], data: &[u8]) -> talea_client::Result<()> {
    let extents = [Extent::new(0, data.len() as u64).unwrap()];
    let entry = EntryUpdate { dkey, akey: b"data", kind: KIND, condition: Condition::None, extents: &extents, data };
    object.update(&Write::Auto, &[entry])
}

fn get(object: &Object, dkey: &[u8], bytes: usize) -> talea_client::Result<Vec<u8>> {
    let mut out = vec![0xee; bytes];
    let extents = [Extent::new(0, bytes as u64).unwrap()];
    object.fetch(&View::Latest, &mut [EntryFetch::array(dkey, b"data", 1, &extents, &mut out)])?;
    Ok(out)
}

#[test]
fn a_wrong_secret_is_told_as_that_and_disturbs_nobody() {
    let (_outer, path) = directory();
    let mut server = Server::start(&path, &ALONE);
    server.wait_ready();
    let right = client(&server, 20_000);
    let object = container(&right).object(right.new_oid(ObjectClass::SX));
    put(&object, b"key", b"value").unwrap();
    let error = unopened(&server, [9; 32], 20_000).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error}");
    assert!(error.to_string().contains("wrong secret") && error.to_string().contains("talea status"), "{error}");
    assert_eq!(get(&object, b"key", 5).unwrap(), b"value");
}

#[test]
fn a_foreign_protocol_version_is_told_to_both_sides_and_disturbs_nobody() {
    let (_outer, path) = directory();
    let mut server = Server::start(&path, &ALONE);
    server.wait_ready();
    for address in [&server.control[0], &server.rings[0]] {
        let (path, channel) = match address.parse().unwrap() {
            Address::Unix { path, .. } => (path, STREAM_CHANNEL),
            Address::Ring { path, .. } => (path, &b"ring"[..]),
            other => panic!("{other}"),
        };
        let credentials = Credentials::new(SYSTEM, SECRET);
        let (nonce, now_us) = (fresh_nonce().unwrap(), RealClock.unix_us());
        let foreign = PROTOCOL_VERSION + 6;
        let (connecting, bytes) =
            Connecting::start_as_version(foreign, &credentials, channel, &Hello::default(), nonce, now_us);
        let mut socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&bytes).unwrap();
        let mut answer = [0; ANSWER_BYTES];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(connecting.answer(&answer), Err(HandshakeError::Version { theirs: PROTOCOL_VERSION }), "{address}");
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "{address}: the connection goes on");
    }
    // What the user reads.
    let text = FabricError::Version { address: "a".into(), theirs: 7, ours: 1 }.to_string();
    assert!(text.contains('7') && text.contains("same Talea release"), "{text}");
    client(&server, 20_000).status().unwrap();
}

#[test]
fn an_over_long_key_is_refused_with_its_limit() {
    let (_outer, path) = directory();
    let mut server = Server::start(&path, &ALONE);
    server.wait_ready();
    let client = client(&server, 20_000);
    let object = container(&client).object(client.new_oid(ObjectClass::SX));
    let longest = vec![b'k'; MAX_KEY_BYTES];
    put(&object, &longest, b"value").unwrap();
    let error = put(&object, &vec![b'k'; MAX_KEY_BYTES + 1], b"other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong, "{error}");
    assert!(error.to_string().contains(&MAX_KEY_BYTES.to_string()), "{error}");
    assert_eq!(get(&object, &longest, 5).unwrap(), b"value");
}

#[test]
fn a_full_pool_refuses_the_write_fails_the_commit_and_keeps_what_was_committed() {
    let (_outer, path) = directory();
    let mut server = Server::start(&path, &Options { tier: "ram:8M", ..ALONE });
    server.wait_ready();
    let client = client(&server, 20_000);
    let run = container(&client);
    let object = run.object(client.new_oid(ObjectClass::SX));
    let epoch = run.begin(true).unwrap();
    fill(&object, &Write::Inside(&epoch), 8, 1).unwrap();
    assert_eq!(epoch.commit(&epoch.summary(), b"", false).committed.unwrap().step, Step(1));
    let epoch = run.begin(true).unwrap();
    let other = run.object(client.new_oid(ObjectClass::SX));
    let error = fill(&other, &Write::Inside(&epoch), 1000, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("larger tier"), "no remedy: {error}");
    let error = epoch.commit(&epoch.summary(), b"", false).committed.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("is aborted") && error.to_string().contains("capacity"), "{error}");
    assert_eq!(look(&object, &View::Latest, 8), Ok(1));
    // The space of what was aborted is there again, without help.
    let epoch = run.begin(true).unwrap();
    fill(&object, &Write::Inside(&epoch), 8, 3).unwrap();
    assert_eq!(epoch.commit(&epoch.summary(), b"", false).committed.unwrap().step, Step(2));
    assert_eq!(look(&object, &View::Latest, 8), Ok(3));
}

/// A durable server with a few values, killed; where its files are.
fn killed_with_values(values: u8) -> (tempfile::TempDir, PathBuf, PathBuf, talea_model::Oid) {
    let outer = tempfile::tempdir_in("/dev/shm").unwrap();
    let (path, data) = (outer.path().join("s"), outer.path().join("data"));
    fs::create_dir(&data).unwrap();
    let mut server = Server::start(&path, &Options { tier: &tier(&data), ..ALONE });
    server.wait_ready();
    let client = client(&server, 20_000);
    let object = container(&client).object(client.new_oid(ObjectClass::SX));
    for value in 0..values {
        put(&object, &key(value), &content(value)).unwrap();
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    (outer, path, data, object.oid())
}

fn tier(data: &Path) -> String {
    format!("pmem:{}:64M", data.display())
}

fn key(value: u8) -> Vec<u8> {
    format!("a-key-that-is-found-{value:03}").into_bytes()
}

fn content(value: u8) -> Vec<u8> {
    format!("a content that is found {value:03} ").repeat(8).into_bytes()
}

/// Changes one byte of the first place in any file below `data` that holds `pattern`.
fn damage(data: &Path, pattern: &[u8]) {
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        let image = fs::read(&path).unwrap();
        if let Some(at) = image.windows(pattern.len()).position(|window| window == pattern) {
            let at = at + pattern.len() / 2;
            // In place: a server may have mapped it.
            let file = fs::File::options().write(true).open(&path).unwrap();
            return file.write_all_at(&[image[at] ^ 1], at as u64).unwrap();
        }
    }
    panic!("the pattern is in no file");
}

#[test]
fn a_corrupted_log_reads_as_lost_and_never_as_a_hole() {
    for what in ["key", "content"] {
        let (_outer, path, data, oid) = killed_with_values(20);
        damage(&data, &if what == "key" { key(7) } else { content(7) });
        let mut server = Server::start(&path, &Options { tier: &tier(&data), ..ALONE });
        server.wait_ready();
        let client = client(&server, 20_000);
        let object = client.container_open("run").unwrap().object(oid);
        let mut lost = 0;
        for value in 0..20 {
            match get(&object, &key(value), content(value).len()) {
                Ok(bytes) => assert!(bytes == content(value), "{what} {value}: wrong bytes look right"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::DataLost, "{what} {value}: {error}");
                    assert!(error.to_string().contains("lost") || error.to_string().contains("checksum"), "{error}");
                    lost += 1;
                }
            }
        }
        assert!(lost >= 1, "{what}: the damage does not show");
        // Writing goes on.
        put(&object, b"new", b"value").unwrap();
        assert_eq!(get(&object, b"new", 5).unwrap(), b"value");
    }
}

#[test]
fn a_corrupted_pool_log_is_named_and_the_server_does_not_start() {
    let (_outer, path, data, _) = killed_with_values(1);
    let log = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("pool") || path.extension().is_some_and(|ext| ext == "redb"))
        .expect("the pool's log is a file beside the tier");
    let mut image = fs::read(&log).unwrap();
    // Both copies of redb's header, and what follows.
    image.iter_mut().take(4096).for_each(|byte| *byte ^= 0x5a);
    fs::write(&log, &image).unwrap();
    let output = spawn(&config(&path, &Options { tier: &tier(&data), ..ALONE })).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&*log.to_string_lossy()), "the file is not named: {text}");
    assert_eq!(fs::read(&log).unwrap(), image, "the damaged log was changed");
}

#[test]
fn a_bit_that_flips_under_a_running_server_is_told_in_its_log() {
    let outer = tempfile::tempdir_in("/dev/shm").unwrap();
    let (path, data) = (outer.path().join("s"), outer.path().join("data"));
    fs::create_dir(&data).unwrap();
    let mut server = Server::start(&path, &Options { tier: &tier(&data), ..ALONE });
    server.wait_ready();
    let log = BufReader::new(server.child.stderr.take().unwrap());
    let client = client(&server, 20_000);
    let object = container(&client).object(client.new_oid(ObjectClass::SX));
    for value in 0..8 {
        put(&object, &key(value), &content(value)).unwrap();
    }
    damage(&data, &content(3));
    let (told, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| drop(told.send(line))));
    let named = std::iter::from_fn(|| lines.recv_timeout(PATIENCE).ok()).find(|line| line.contains("is damaged"));
    let named = named.expect("the scrubber says nothing");
    assert!(named.contains("ERROR") && named.contains("target_id=") && named.contains("at=offset"), "{named}");
    let read = |value: u8| get(&object, &key(value), content(value).len()).map_err(|error| error.kind());
    assert_eq!((read(3), read(4)), (Err(ErrorKind::DataLost), Ok(content(4))));
}
