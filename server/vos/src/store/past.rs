//! What a target knows of media that it had before this one: which containers held something there that is lost.

use std::collections::BTreeSet;

use talea_model::ContainerId;

use crate::log::bytes::{Reader, Writer};
use crate::log::record::BadRecord;

/// Containers, and who they were made under.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Under which incarnation the pool knows this target; 0 before it said so.
    incarnation: u64,
    /// Containers made since.
    pub(super) made: BTreeSet<ContainerId>,
    /// Containers that an earlier incarnation may have held something of.
    lost: BTreeSet<ContainerId>,
}

impl Past {
    /// The pool says under which incarnation it knows the target.
    pub(super) fn came_back(&mut self, incarnation: u64) {
        if self.incarnation != 0 && self.incarnation != incarnation {
            self.lost.append(&mut self.made);
        }
        self.incarnation = incarnation;
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether something of a container may be lost here.
    pub(super) fn has_lost(&self, container: ContainerId) -> bool {
        self.lost.contains(&container)
    }

    /// A container is gone, and what it lost with it.
    pub(super) fn forget(&mut self, container: ContainerId) {
        self.made.remove(&container);
        self.lost.remove(&container);
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u64(self.incarnation);
        for containers in [&self.made, &self.lost] {
            out.u32(containers.len() as u32);
            containers.iter().for_each(|container| out.u64(container.0));
        }
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, BadRecord> {
        let incarnation = from.u64()?;
        let mut containers =
            || (0..from.count(8)?).map(|_| from.u64().map(ContainerId)).collect::<Result<_, BadRecord>>();
        Ok(Self { incarnation, made: containers()?, lost: containers()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_keeps_it() {
        let mut past = Past::default();
        past.came_back(1);
        past.made.extend([ContainerId(1), ContainerId(2)]);
        past.came_back(2);
        past.made.insert(ContainerId(3));
        past.forget(ContainerId(2));
        let mut out = Writer::default();
        past.encode(&mut out);
        let read = Past::decode(&mut Reader::new(out.as_slice())).unwrap();
        assert_eq!(read, past);
        assert!(read.has_lost(ContainerId(1)) && !read.has_lost(ContainerId(2)) && !read.has_lost(ContainerId(3)));
    }
}
