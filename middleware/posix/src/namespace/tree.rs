//! All names below a directory, a thousand a round trip.

use talea_model::Oid;

use super::{NAMES_A_ROUND, Namespace, single};
use crate::Fault;
use crate::inode::{self, Inode, Kind};

impl Namespace {
    /// Tells of everything below a directory (not of it itself), parents first: its names from the container's root on, and its inode.
    pub fn walk(&self, below: &[Vec<u8>], each: &mut dyn FnMut(&[Vec<u8>], &Inode)) -> Result<(), Fault> {
        let mut open = vec![(below.to_vec(), self.directory(below)?)];
        while let Some((path, directory)) = open.pop() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let (names, more) = self.list(directory, after.as_deref(), NAMES_A_ROUND)?;
                let found = self.entries(directory, &names)?;
                for (name, inode) in names.iter().zip(found) {
                    // A view of the present may have lost it since it was listed.
                    let Some(inode) = inode else { continue };
                    let inner: Vec<Vec<u8>> = path.iter().chain([name]).cloned().collect();
                    each(&inner, &inode);
                    if inode.kind == Kind::Directory {
                        open.push((inner, inode.oid));
                    }
                }
                after = names.last().cloned();
                if !more || after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Several names of a directory.
    fn entries(&self, directory: Oid, names: &[Vec<u8>]) -> Result<Vec<Option<Inode>>, Fault> {
        let mut room = vec![[0; inode::INODE_BYTES]; names.len()];
        let mut fetches: Vec<_> =
            names.iter().zip(&mut room).map(|(name, out)| single(name, inode::INODE, out)).collect();
        self.backing.fetch(self.view, directory, &mut fetches)?;
        let found: Vec<Option<usize>> = fetches.iter().map(|one| one.found.then_some(one.bytes)).collect();
        let decoded = names.iter().zip(found).zip(&room).map(|((name, bytes), out)| {
            let inode = bytes.map(|bytes| Inode::decode(&out[..bytes.min(out.len())]));
            inode.transpose().map_err(|fault| fault.at(name.escape_ascii()))
        });
        decoded.collect()
    }
}
