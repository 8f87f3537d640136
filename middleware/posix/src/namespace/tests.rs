//! Names over the in-memory seam.

use super::*;
use crate::backing::memory::Memory;

fn names(path: &str) -> Vec<Vec<u8>> {
    path.split('/').filter(|part| !part.is_empty()).map(|part| part.as_bytes().to_vec()).collect()
}

fn new_file() -> NewFile {
    NewFile { mode: 0o644, uid: 1, gid: 2, class: ObjectClass::SX, chunk_bytes: 4096 }
}

fn code<T: std::fmt::Debug>(result: Result<T, Fault>) -> Code {
    result.unwrap_err().code
}

fn fresh() -> (Memory, Namespace) {
    let memory = Memory::default();
    let namespace = Namespace::new(Arc::new(memory.clone()), memory.latest());
    (memory, namespace)
}

#[test]
fn makes_finds_lists_and_removes() {
    let (_, space) = fresh();
    space.mkdir(&names("d"), 0o755, 1, 2).unwrap();
    assert_eq!(code(space.mkdir(&names("d"), 0o755, 1, 2)), Code::Exists);
    assert_eq!(code(space.mkdir(&names("x/y"), 0o755, 1, 2)), Code::NotFound);
    let directory = space.directory(&names("d")).unwrap();
    let made = space.create(directory, b"f", &new_file(), None).unwrap();
    assert_eq!(code(space.create(directory, b"f", &new_file(), None)), Code::Exists);
    assert_eq!(space.lookup(&names("d/f")).unwrap(), Some(made));
    assert_eq!(code(space.lookup(&names("d/f/g"))), Code::Kind);
    assert_eq!(code(space.directory(&names("d/f"))), Code::Kind);
    assert_eq!(space.list(directory, None, 10).unwrap(), (vec![b"f".to_vec()], false));
    assert_eq!(code(space.rmdir(&names("d"))), Code::NotEmpty);
    assert_eq!(code(space.unlink(&names("d"))), Code::Kind);
    space.unlink(&names("d/f")).unwrap();
    assert_eq!(code(space.unlink(&names("d/f"))), Code::NotFound);
    space.rmdir(&names("d")).unwrap();
    assert_eq!(space.list(inode::root(), None, 10).unwrap().0.len(), 0);
    assert_eq!(space.stat(&[]).unwrap().kind, Kind::Directory);
}

#[test]
fn a_tree_goes_whole_or_not_at_all() {
    let (memory, space) = fresh();
    for path in ["d", "d/e", "d/empty"] {
        space.mkdir(&names(path), 0o755, 1, 2).unwrap();
    }
    let below = space.directory(&names("d/e")).unwrap();
    for name in [&b"f"[..], b"g"] {
        space.create(below, name, &new_file(), None).unwrap();
    }
    space.symlink(&names("d/l"), b"e/f", 1, 2).unwrap();
    let before = memory.snapshot(crate::backing::SnapshotAt::Latest).unwrap();
    // What an open epoch has made in it keeps all of it.
    let epoch = memory.begin(true).unwrap();
    space.create(below, b"h", &new_file(), Some(&*epoch)).unwrap();
    assert_eq!(code(space.remove_tree(&names("d"))), Code::NotEmpty);
    assert!(space.lookup(&names("d/e/f")).unwrap().is_some());
    epoch.abort("test").unwrap();
    assert_eq!(space.remove_tree(&names("d")).unwrap(), 3, "two files and a link");
    assert_eq!(space.list(inode::root(), None, 10).unwrap().0.len(), 0);
    assert_eq!(code(space.remove_tree(&names("d"))), Code::NotFound);
    assert_eq!(code(space.remove_tree(&[])), Code::Argument);
    let then = Namespace::new(Arc::new(memory.clone()), before.view());
    assert!(then.lookup(&names("d/e/g")).unwrap().is_some(), "a snapshot keeps it");
}

#[test]
fn a_tied_name_lives_and_dies_with_its_epoch() {
    let (memory, space) = fresh();
    for commit in [true, false] {
        let epoch = memory.begin(true).unwrap();
        space.create(inode::root(), b"f", &new_file(), Some(&*epoch)).unwrap();
        assert!(space.lookup(&names("f")).unwrap().is_some(), "the latest view sees it at once");
        let before = memory.snapshot(crate::backing::SnapshotAt::Latest).unwrap();
        let then = Namespace::new(Arc::new(memory.clone()), before.view());
        assert_eq!(code(then.lookup(&names("f"))), Code::NotFound);
        if commit {
            epoch.commit(&epoch.summary().unwrap(), None, false).ok().unwrap();
            space.unlink(&names("f")).unwrap();
        } else {
            epoch.abort("test").unwrap();
        }
        assert_eq!(code(space.lookup(&names("f"))), Code::NotFound);
    }
}

#[test]
fn renames_replace_and_follow_posix() {
    let (memory, space) = fresh();
    let a = space.create(inode::root(), b"a", &new_file(), None).unwrap();
    space.create(inode::root(), b"b", &new_file(), None).unwrap();
    space.mkdir(&names("d"), 0o755, 0, 0).unwrap();
    space.mkdir(&names("e"), 0o755, 0, 0).unwrap();
    let before = memory.snapshot(crate::backing::SnapshotAt::Latest).unwrap();
    space.rename(&names("a"), &names("b")).unwrap();
    assert_eq!(space.lookup(&names("b")).unwrap(), Some(a));
    assert_eq!(code(space.lookup(&names("a"))), Code::NotFound);
    assert_eq!(code(space.rename(&names("a"), &names("c"))), Code::NotFound);
    assert_eq!(code(space.rename(&names("b"), &names("d"))), Code::Kind);
    assert_eq!(code(space.rename(&names("d"), &names("b"))), Code::Kind);
    space.rename(&names("d"), &names("e")).unwrap();
    space.rename(&names("b"), &names("b")).unwrap();
    let then = Namespace::new(Arc::new(memory.clone()), before.view());
    assert_eq!(then.lookup(&names("a")).unwrap(), Some(a), "a snapshot keeps the old names");
    assert_eq!(memory.open_epochs(), 0);
}

#[test]
fn renames_go_across_directories() {
    let (memory, space) = fresh();
    let a = space.create(inode::root(), b"a", &new_file(), None).unwrap();
    for directory in ["d", "d/e", "f"] {
        space.mkdir(&names(directory), 0o755, 0, 0).unwrap();
    }
    space.rename(&names("a"), &names("d/e/b")).unwrap();
    assert_eq!(space.lookup(&names("d/e/b")).unwrap(), Some(a));
    assert_eq!(code(space.lookup(&names("a"))), Code::NotFound);
    assert_eq!(code(space.rename(&names("d"), &names("d/e/d"))), Code::Argument, "not into itself");
    assert_eq!(code(space.rename(&names("f"), &names("d"))), Code::NotEmpty);
    assert_eq!(code(space.rename(&names("d/e/b"), &names("g/b"))), Code::NotFound, "no such directory");
    space.rename(&names("d/e"), &names("f")).unwrap();
    assert_eq!(space.lookup(&names("f/b")).unwrap(), Some(a), "a directory takes along what is in it");
    assert_eq!(code(space.rmdir(&names("f"))), Code::NotEmpty);
    space.rmdir(&names("d")).unwrap();
    assert_eq!(memory.open_epochs(), 0);
    assert_eq!(memory.steps(), 0, "names make no steps");
}

#[test]
fn of_two_renames_of_one_name_one_comes_too_late() {
    let (memory, space) = fresh();
    let a = space.create(inode::root(), b"a", &new_file(), None).unwrap();
    let (one, two) = (memory.tx_open().unwrap(), memory.tx_open().unwrap());
    let to_b = names("b");
    let to_c = names("c");
    let from = names("a");
    for (tx, to) in [(&one, &to_b), (&two, &to_c)] {
        let inside = Namespace::new(Arc::new(memory.clone()), tx.view());
        inside.move_name(&**tx, (&from, from.split_last().unwrap()), (to, to.split_last().unwrap())).unwrap();
    }
    assert!(two.commit(&two.summary().unwrap(), None, false).is_ok());
    let refused = one.commit(&one.summary().unwrap(), None, false).err().map(|refused| refused.fault.code);
    assert_eq!(refused, Some(Code::Conflict));
    assert_eq!(space.lookup(&to_c).unwrap(), Some(a));
    assert_eq!(code(space.lookup(&to_b)), Code::NotFound);
}

#[test]
fn links_keep_their_target() {
    let (_, space) = fresh();
    space.symlink(&names("l"), b"some/where", 0, 0).unwrap();
    space.rename(&names("l"), &names("m")).unwrap();
    assert_eq!(space.readlink(&names("m")).unwrap(), b"some/where");
    space.create(inode::root(), b"f", &new_file(), None).unwrap();
    assert_eq!(code(space.readlink(&names("f"))), Code::Kind);
}

#[test]
fn bad_classes_chunks_and_names_are_refused() {
    let (_, space) = fresh();
    let file = |class: &str, chunk_bytes| NewFile { class: class.parse().unwrap(), chunk_bytes, ..new_file() };
    assert_eq!(code(space.create(inode::root(), b"f", &file("RP_2G1", 4096), None)), Code::Unsupported);
    assert_eq!(code(space.create(inode::root(), b"f", &file("S1", 5), None)), Code::Argument);
    assert_eq!(code(space.create(inode::root(), b"..", &file("S1", 4096), None)), Code::Path);
    assert_eq!(code(space.create(inode::root(), &[b'x'; 256], &file("S1", 4096), None)), Code::TooLong);
}

#[test]
fn a_walk_tells_of_every_name_once_parents_first() {
    let (_, space) = fresh();
    for path in ["a", "a/b", "c"] {
        space.mkdir(&names(path), 0o755, 1, 2).unwrap();
    }
    let below = space.directory(&names("a/b")).unwrap();
    let many: Vec<String> = (0..NAMES_A_ROUND + 3).map(|number| format!("{number:05}")).collect();
    for name in &many {
        space.create(below, name.as_bytes(), &new_file(), None).unwrap();
    }
    space.symlink(&names("c/l"), b"x", 1, 2).unwrap();
    let mut told: Vec<(Vec<Vec<u8>>, Kind)> = vec![];
    space.walk(&[], &mut |path, inode| told.push((path.to_vec(), inode.kind))).unwrap();
    for at in 1..told.len() {
        let parents = &told[at].0[..told[at].0.len() - 1];
        assert!(parents.is_empty() || told[..at].iter().any(|(path, _)| path == parents));
    }
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected = vec![(names("a"), Kind::Directory), (names("a/b"), Kind::Directory)];
    expected.extend(many.iter().map(|name| (names(&format!("a/b/{name}")), Kind::File)));
    expected.extend([(names("c"), Kind::Directory), (names("c/l"), Kind::Symlink)]);
    assert_eq!(told, expected);
    let mut below = 0;
    space.walk(&names("a/b"), &mut |_, _| below += 1).unwrap();
    assert_eq!(below, many.len());
    assert_eq!(code(space.walk(&names("c/l"), &mut |_, _| ())), Code::Kind);
}
