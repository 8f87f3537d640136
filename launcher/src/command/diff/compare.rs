//! Two states' names side by side, with what was written below them.

use std::collections::{BTreeMap, HashMap};

use talea_model::Oid;
use talea_posix::{Inode, Kind, Namespace};

use super::Sizes;
use super::report::{FileChange, How, ObjectChange};
use super::writes::{Writes, Written};
use crate::failure::Failure;

type Path = Vec<Vec<u8>>;

/// All names of one state.
#[derive(Default)]
pub(super) struct Tree {
    by_path: BTreeMap<Path, Inode>,
    by_oid: HashMap<Oid, Path>,
}

impl Tree {
    pub(super) fn of(namespace: &Namespace) -> Result<Self, Failure> {
        let mut tree = Self::default();
        namespace.walk(&[], &mut |path, inode| tree.add(path.to_vec(), *inode))?;
        Ok(tree)
    }

    fn add(&mut self, path: Path, inode: Inode) {
        self.by_oid.insert(inode.oid, path.clone());
        self.by_path.insert(path, inode);
    }

    /// The file whose data are in an object.
    pub(super) fn inode(&self, oid: Oid) -> Option<&Inode> {
        let inode = self.by_path.get(self.by_oid.get(&oid)?)?;
        (inode.kind == Kind::File).then_some(inode)
    }

    fn is_named(&self, oid: Oid) -> bool {
        self.by_oid.contains_key(&oid)
    }
}

/// How each name differs, in order, and each object that has none.
pub(super) fn changes(
    before: &Tree,
    after: &Tree,
    mut writes: Writes,
    sizes: &Sizes,
) -> Result<(Vec<FileChange>, Vec<ObjectChange>), Failure> {
    let mut files = Vec::new();
    let mut paths: Vec<&Path> = before.by_path.keys().chain(after.by_path.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let (old, new) = (before.by_path.get(path), after.by_path.get(path));
        let written = new.or(old).and_then(|inode| writes.0.remove(&inode.oid)).unwrap_or_default();
        let Some(how) = how_differs(before, after, (old, new), &written) else { continue };
        files.push(change(before, (path, how), (old, new), written, sizes)?);
    }
    let is_file_or_directory =
        |oid: Oid| oid == talea_posix::inode::root() || before.is_named(oid) || after.is_named(oid);
    let objects = writes.0.into_iter().filter(|(oid, _)| !is_file_or_directory(*oid));
    let objects = objects.map(|(oid, written)| ObjectChange::new(oid, written)).collect();
    Ok((files, objects))
}

/// How a name differs, if it does.
fn how_differs(before: &Tree, after: &Tree, sides: (Option<&Inode>, Option<&Inode>), written: &Written) -> Option<How> {
    match sides {
        (None, None) => None,
        // It has another name now, where it is told.
        (Some(old), None) => (!after.is_named(old.oid)).then_some(How::Removed),
        (Some(old), Some(new)) if old.oid == new.oid => {
            let has_data = new.kind == Kind::File && (written.has_size || !written.ranges.is_empty());
            (old != new || has_data).then_some(How::Changed)
        }
        (old, Some(new)) => Some(match (before.is_named(new.oid), old) {
            (true, _) => How::Renamed,
            (false, Some(_)) => How::Replaced,
            (false, None) => How::Added,
        }),
    }
}

fn change(
    before: &Tree,
    (path, how): (&Path, How),
    (old, new): (Option<&Inode>, Option<&Inode>),
    written: Written,
    sizes: &Sizes,
) -> Result<FileChange, Failure> {
    let from = new.filter(|_| how == How::Renamed).and_then(|new| before.by_oid.get(&new.oid));
    let size = |inode: Option<&Inode>, namespace, path| match inode {
        Some(inode) if inode.kind == Kind::File => Sizes::of(namespace, path).map(Some),
        _ => Ok(None),
    };
    let kind = new.or(old).map_or(Kind::File, |inode| inode.kind);
    let was = from.unwrap_or(path);
    let bytes_before = size(before.by_path.get(was), &sizes.from, was)?;
    Ok(FileChange {
        path: shown(path),
        how,
        kind: match kind {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
        },
        from: from.map(shown),
        bytes_before,
        bytes: size(new, &sizes.to, path)?,
        written_bytes: written.bytes(),
        ranges: written.ranges,
    })
}

fn shown(path: &Path) -> String {
    path.iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::diff::writes::Range;
    use talea_client::Differs;
    use talea_model::ObjectClass;

    fn inode(kind: Kind, user: u128) -> Inode {
        let oid = Oid::new(ObjectClass::SX, user);
        Inode { kind, mode: 0o644, uid: 0, gid: 0, oid, chunk_bytes: 4096, created_ns: 1 }
    }

    fn tree(entries: &[(&str, Inode)]) -> Tree {
        let mut tree = Tree::default();
        entries.iter().for_each(|(path, inode)| tree.add(vec![path.as_bytes().to_vec()], *inode));
        tree
    }

    #[test]
    fn a_name_is_new_gone_another_ones_or_changed() {
        let file = |user| inode(Kind::File, user);
        let before = tree(&[("a", file(1)), ("b", file(2)), ("c", file(3)), ("d", file(4)), ("e", file(5))]);
        let mut chmod = file(5);
        chmod.mode = 0o600;
        let after = tree(&[("a", file(1)), ("b", file(9)), ("d2", file(4)), ("e", chmod), ("new", file(8))]);
        let written =
            || Written { ranges: vec![Range { offset: 0, bytes: 1, how: Differs::Changed }], ..Written::default() };
        let how = |path: &str, written: &Written| {
            let path = vec![path.as_bytes().to_vec()];
            how_differs(&before, &after, (before.by_path.get(&path), after.by_path.get(&path)), written)
        };
        let nothing = Written::default();
        assert_eq!(how("a", &nothing), None);
        assert_eq!(how("a", &written()), Some(How::Changed));
        assert_eq!(how("b", &nothing), Some(How::Replaced));
        assert_eq!(how("c", &nothing), Some(How::Removed));
        assert_eq!((how("d", &nothing), how("d2", &nothing)), (None, Some(How::Renamed)));
        assert_eq!(how("e", &nothing), Some(How::Changed));
        assert_eq!(how("new", &nothing), Some(How::Added));
    }
}
