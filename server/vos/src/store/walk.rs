//! Enumerations, queries and conditions in portions.

use std::collections::BTreeSet;

use talea_model::{Extent, TxId};

use crate::index::look::{Cursor, Looks};
use crate::{Answer, Listed};

/// Things of the index that an enumeration or a query looks at, at most, when it may stop and go on later.
pub const LOOKS: usize = 1024;

/// An enumeration or a query that may not have come to its end: what it found, and where it is.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    pub(super) begun: bool,
    pub(super) listed: Vec<Listed>,
    pub(super) cursor: Cursor,
    /// Records that follow each other, seen so far.
    pub(super) run: Option<Extent>,
    pub(super) answer: Answer,
    /// Conditions, or parts of what was read, that were found to hold.
    pub(super) judged: usize,
    /// Transactions met on the way whose fate is not known.
    pub(super) named: BTreeSet<TxId>,
    /// For whoever keeps it between two portions: what it may want to know when it goes on.
    pub mark: u64,
    looked: u64,
}

impl Walk {
    /// What was found, in order.
    pub fn into_listed(self) -> Vec<Listed> {
        self.listed
    }

    /// Things found so far.
    pub fn found(&self) -> usize {
        self.listed.len()
    }

    /// The answer of a query that has come to its end.
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    /// Transactions that have written what was read and whose fate is not known.
    pub fn into_named(self) -> Vec<TxId> {
        self.named.into_iter().collect()
    }

    /// Things of the index that were looked at.
    pub fn looked(&self) -> u64 {
        self.looked
    }

    pub(super) fn note(&mut self, looks: &Looks) {
        self.looked += looks.taken() as u64;
    }
}
