//! Listing names, merged over targets.

use std::collections::BTreeSet;

use talea_model::limit::MAX_ENUMERATED;
use talea_model::{TargetId, View};
use talea_wire::data::{Body, EnumerateKind, ReadOf, ReplyBody};

use crate::client::gather;
use crate::core::exchange::{Answer, Question};
use crate::error::{ClientError, Result};
use crate::object::Object;

/// Names in order, and whether there are more: ask again after the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Names, ascending, each once.
    pub names: Vec<Vec<u8>>,
    /// Whether more follow.
    pub more: bool,
}

/// What to list.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// Kind of names.
    pub kind: EnumerateKind,
    /// Of akeys and extents: where they are.
    pub dkey: &'a [u8],
    /// Of extents: whose they are.
    pub akey: &'a [u8],
    /// Names after this one; empty: from the first.
    pub after: &'a [u8],
    /// At most so many.
    pub limit: usize,
}

impl Object {
    /// Lists the object's dkeys after `after` (empty: from the first), at most `limit`.
    pub fn dkeys(&self, view: &View, after: &[u8], limit: usize) -> Result<Page> {
        self.enumerate(view, Listing { kind: EnumerateKind::Dkeys, dkey: &[], akey: &[], after, limit })
    }

    /// The same on the targets that the pool's map shows as serving, and whether these are all: where some are lost, names that lie
    /// on them are missing.
    pub fn dkeys_at_hand(&self, view: &View, after: &[u8], limit: usize) -> Result<(Page, bool)> {
        let layout = self.layout()?;
        let map = self.container().client.shared.map();
        let here: Vec<TargetId> = layout.targets().iter().copied().filter(|target| map.is_up(*target)).collect();
        let is_all = here.len() == layout.targets().len();
        let listing = Listing { kind: EnumerateKind::Dkeys, dkey: &[], akey: &[], after, limit };
        let page = self.container().client.block_on(self.enumerate_on(&here, view, listing))??;
        Ok((page, is_all))
    }

    /// Lists the akeys of a dkey.
    pub fn akeys(&self, view: &View, dkey: &[u8], after: &[u8], limit: usize) -> Result<Page> {
        self.enumerate(view, Listing { kind: EnumerateKind::Akeys, dkey, akey: &[], after, limit })
    }

    /// Lists dkeys, akeys of a dkey, or extents of an array (see [`EnumerateKind`]).
    pub fn enumerate(&self, view: &View, listing: Listing<'_>) -> Result<Page> {
        self.container().client.block_on(self.enumerate_async(view, listing))?
    }

    /// Asynchronous [`enumerate`](Self::enumerate).
    pub async fn enumerate_async(&self, view: &View, listing: Listing<'_>) -> Result<Page> {
        let layout = self.layout()?;
        match listing.kind {
            EnumerateKind::Objects => {
                Err(ClientError::Argument("objects are listed by their container: Container::objects".to_owned()))
            }
            EnumerateKind::Dkeys => self.enumerate_on(layout.targets(), view, listing).await,
            EnumerateKind::Akeys | EnumerateKind::Extents => {
                self.enumerate_on(&[layout.leader_of(listing.dkey)], view, listing).await
            }
        }
    }

    pub(crate) async fn enumerate_on(&self, targets: &[TargetId], view: &View, listing: Listing<'_>) -> Result<Page> {
        let Listing { kind, dkey, akey, after, limit } = listing;
        let limit = limit.clamp(1, MAX_ENUMERATED);
        let question = self.container().question("listing", TargetId(0), self.oid(), None, *view);
        let asked = targets.iter().map(|target| {
            let question = Question { target: *target, ..question };
            self.names(question, Body::Enumerate { kind, dkey, akey, after, limit: limit as u16 })
        });
        let pages = gather(asked.collect()).await.into_iter().collect::<Result<Vec<_>>>()?;
        let page = merge(pages, limit);
        self.note_listing(view, &listing, &page)?;
        Ok(page)
    }

    /// What was listed must stay so (rule 15): up to the last name, if there are more.
    fn note_listing(&self, view: &View, listing: &Listing<'_>, page: &Page) -> Result<()> {
        let reads = &self.container().client.shared.reads;
        if !reads.wants(view) {
            return Ok(());
        }
        let (dkey, akey, after) = (listing.dkey.to_vec(), listing.akey.to_vec(), listing.after.to_vec());
        let of = match listing.kind {
            EnumerateKind::Objects => {
                return Err(ClientError::Unsupported("listing a container's objects in a transaction"));
            }
            EnumerateKind::Dkeys => {
                let last = page.names.last().cloned().unwrap_or_else(|| after.clone());
                ReadOf::Dkeys { after, through: page.more.then_some(last) }
            }
            EnumerateKind::Akeys => ReadOf::Dkey(dkey),
            EnumerateKind::Extents => ReadOf::Akey { dkey, akey, extents: vec![] },
        };
        reads.note(view, self.oid(), of);
        Ok(())
    }

    async fn names(&self, question: Question, body: Body<'_>) -> Result<Page> {
        let mut request = question.request(body);
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Names { names, more } => {
                Ok(Page { names: names.into_iter().map(<[u8]>::to_vec).collect(), more })
            }
            _ => Err(ClientError::unexpected("listing")),
        };
        match self.container().client.shared.exchange(question, &mut request, |_| false, read).await? {
            Answer::Done(page, _) => Ok(page),
            Answer::Moved => Err(ClientError::unexpected("listing")),
        }
    }
}

/// Merges targets' pages. Beyond the last name of a page with more to come nothing is known to be complete.
fn merge(pages: Vec<Page>, limit: usize) -> Page {
    let complete_to = pages.iter().filter(|page| page.more).filter_map(|page| page.names.last()).min().cloned();
    let mut more = pages.iter().any(|page| page.more);
    let all: BTreeSet<Vec<u8>> = pages.into_iter().flat_map(|page| page.names).collect();
    let known = all.len();
    let names: Vec<_> =
        all.into_iter().take_while(|name| complete_to.as_ref().is_none_or(|last| name <= last)).take(limit).collect();
    more |= names.len() < known;
    Page { names, more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_of_several_targets_make_the_whole_list(
            placed in prop::collection::btree_map(0u8..200, 0usize..3, 0..60), limit in 1usize..9, per_target in 1usize..9,
        ) {
            let mut listed = vec![];
            let mut after: Option<Vec<u8>> = None;
            loop {
                let pages = (0..3).map(|target| {
                    let here = placed.iter().filter(|(_, at)| **at == target).map(|(name, _)| vec![*name]);
                    let mut names: Vec<_> = here.filter(|name| after.as_ref().is_none_or(|after| name > after)).collect();
                    let more = names.len() > limit.min(per_target);
                    names.truncate(limit.min(per_target));
                    Page { names, more }
                });
                let page = merge(pages.collect(), limit);
                prop_assert!(page.names.len() <= limit);
                prop_assert!(!page.names.is_empty() || !page.more);
                listed.extend(page.names);
                after = listed.last().cloned();
                if !page.more {
                    break;
                }
            }
            prop_assert_eq!(listed, placed.keys().map(|name| vec![*name]).collect::<Vec<_>>());
        }
    }
}
