//! Who may read and write a system's directory, and how one is found.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn runtime() -> (tempfile::TempDir, RuntimeDir) {
    let directory = tempfile::Builder::new().prefix("tl").tempdir_in("/tmp").unwrap();
    let runtime = RuntimeDir::at(directory.path().join("r")).unwrap();
    (directory, runtime)
}

#[test]
fn a_system_is_found_by_name_or_alone() {
    let (_guard, runtime) = runtime();
    assert!(matches!(runtime.find_or(None, None), Err(SystemError::None)));
    let mut first = runtime.create("first").unwrap();
    first.file.servers.push(ServerEntry { id: 0, control: vec!["tcp:127.0.0.1:1".into()], process: None });
    first.write().unwrap();
    let found = runtime.find_or(None, None).unwrap();
    assert_eq!((&found.file, found.secret()), (&first.file, first.secret()));
    assert!(matches!(runtime.create("first"), Err(SystemError::Exists { .. })));
    runtime.create("second").unwrap();
    assert!(matches!(runtime.find_or(None, None), Err(SystemError::Several { names }) if names == ["first", "second"]));
    assert_eq!(runtime.find_or(None, Some("second")).unwrap().file.name, "second");
    assert_eq!(runtime.find_or(Some("first"), Some("second")).unwrap().file.name, "first");
    let missing = runtime.find_or(Some("third"), None).unwrap_err();
    assert!(missing.to_string().contains("first, second"), "{missing}");
    first.remove().unwrap();
    assert_eq!(runtime.list().unwrap().len(), 1);
}

#[test]
fn only_private_directories_are_trusted() {
    let (_guard, runtime) = runtime();
    let system = runtime.create("s").unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(system.directory.join("secret")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&system.directory).unwrap().mode() & 0o777, 0o700);
    for path in [system.directory.join("secret"), system.directory.clone(), runtime.path().to_owned()] {
        let before = fs::metadata(&path).unwrap().mode();
        mode(&path, before | 0o040);
        let error = runtime.load("s").unwrap_err();
        assert!(matches!(&error, SystemError::Directory { path: named, .. } if *named == path), "{error}");
        mode(&path, before & 0o777);
    }
    runtime.load("s").unwrap();
    let link = runtime.path().join("link");
    std::os::unix::fs::symlink(&system.directory, &link).unwrap();
    assert!(matches!(runtime.load("link"), Err(SystemError::Directory { .. })));
}

#[test]
fn the_dead_are_removed_and_the_living_stay() {
    let (_guard, runtime) = runtime();
    let alive = runtime.create("alive").unwrap();
    let mut dead = runtime.create("dead").unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let mark = ProcessMark::of_pid(child.id()).unwrap();
    dead.file.launcher = None;
    dead.file.servers = vec![ServerEntry { id: 0, control: vec![], process: Some(mark) }];
    dead.write().unwrap();
    assert!(runtime.gc().unwrap().is_empty());
    child.kill().unwrap();
    // A zombie is dead already; then there is none.
    child.wait().unwrap();
    fs::create_dir(runtime.path().join(format!(".new-x-{}", child.id()))).unwrap();
    assert_eq!(runtime.gc().unwrap(), ["dead"]);
    let left: Vec<_> = fs::read_dir(runtime.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["alive"]);
    alive.remove().unwrap();
    let mut reused = runtime.create("dead").unwrap();
    reused.file.launcher.as_mut().unwrap().start_ticks += 1;
    reused.write().unwrap();
    assert!(!runtime.load("dead").unwrap().file.is_running(), "the same number of another process");
    runtime.create("dead").unwrap();
}

#[test]
fn bad_names_and_files_are_refused() {
    let (_guard, runtime) = runtime();
    for name in ["", ".x", "-x", "a/b", "a b", "..", &"x".repeat(41)] {
        assert!(matches!(runtime.create(name), Err(SystemError::Name { .. })), "{name}");
    }
    assert!(RuntimeDir::at("relative").is_err());
    let system = runtime.create("s").unwrap();
    let path = system.directory.join("system.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(matches!(runtime.load("s"), Err(SystemError::Version { theirs: 2, .. })));
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(matches!(runtime.load("s"), Err(SystemError::BadFile { .. })));
    assert!(runtime.gc().unwrap().is_empty(), "what cannot be read is nobody's to remove");
}

#[test]
fn a_system_of_another_node_is_installed_once() {
    let (_guard, there) = runtime();
    let (_other, here) = runtime();
    let begun = there.create("job-7").unwrap();
    let (system, made) = here.install(begun.file.clone(), *begun.secret()).unwrap();
    assert!(made);
    assert_eq!((system.secret(), &system.file.system), (begun.secret(), &begun.file.system));
    assert_eq!(fs::metadata(system.directory.join("secret")).unwrap().mode() & 0o777, 0o600);
    assert!(!here.install(begun.file.clone(), *begun.secret()).unwrap().1, "it is there already");
    assert!(!there.install(begun.file.clone(), *begun.secret()).unwrap().1, "the launcher's own node has it");
    // Another system of that name that is alive is not taken over.
    let mut foreign = begun.file.clone();
    foreign.system = "0".repeat(32);
    assert!(matches!(here.install(foreign, *begun.secret()), Err(SystemError::Exists { .. })));
}
