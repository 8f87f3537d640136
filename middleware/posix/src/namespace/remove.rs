//! The end of a whole tree, in one transaction.

use std::cell::Cell;
use std::collections::BTreeSet;

use talea_abi::Code;
use talea_model::View;

use super::{NAMES_A_ROUND, Namespace};
use crate::Fault;
use crate::backing::{Epoch, Punch};
use crate::inode::{Inode, Kind};

impl Namespace {
    /// Removes a file or link, or a directory with all that is in it, in one transaction: nobody ever sees half of it gone.
    /// Returns how many files and links went. Snapshots and steps keep what they show.
    pub fn remove_tree(&self, names: &[Vec<u8>]) -> Result<u64, Fault> {
        let (name, parents) = names
            .split_last()
            .ok_or_else(|| Fault::new(Code::Argument, "a container's root goes with its container only"))?;
        let gone = Cell::new(0);
        self.in_transaction(|inside, tx| {
            gone.set(0);
            let directory = inside.directory(parents)?;
            let inode = inside.present(directory, name, names)?;
            inside.remove_below(tx, &inode, names, &gone)?;
            tx.punch(directory, Punch::Dkey(name))
        })
        .map_err(|fault| fault.at(self.shown(names)))?;
        Ok(gone.get())
    }

    fn remove_below(&self, tx: &dyn Epoch, inode: &Inode, names: &[Vec<u8>], gone: &Cell<u64>) -> Result<(), Fault> {
        if inode.kind != Kind::Directory {
            gone.set(gone.get() + 1);
            return match inode.kind {
                Kind::File => tx.punch(inode.oid, Punch::Object),
                _ => Ok(()),
            };
        }
        let mut removed = BTreeSet::new();
        loop {
            let (portion, more) = self.list(inode.oid, removed.last().map(Vec::as_slice), NAMES_A_ROUND)?;
            let empty = portion.is_empty();
            for name in portion {
                let mut inner = names.to_vec();
                inner.push(name.clone());
                let below = self.present(inode.oid, &name, &inner)?;
                self.remove_below(tx, &below, &inner, gone)?;
                tx.punch(inode.oid, Punch::Dkey(&name))?;
                removed.insert(name);
            }
            if !more || empty {
                break;
            }
        }
        self.check_no_others(inode, &removed, names)
    }

    /// What an open epoch has made in a directory would be in no directory.
    fn check_no_others(&self, directory: &Inode, known: &BTreeSet<Vec<u8>>, names: &[Vec<u8>]) -> Result<(), Fault> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let portion = self.backing.dkeys(View::Latest, directory.oid, after.as_deref(), NAMES_A_ROUND)?;
            if let Some(other) = portion.names.iter().find(|name| !known.contains(*name)) {
                let text = format!("{}: '{}' is just being made in it", self.shown(names), other.escape_ascii());
                return Err(Fault::new(Code::NotEmpty, text));
            }
            after = portion.names.last().cloned();
            if !portion.more || after.is_none() {
                return Ok(());
            }
        }
    }
}
