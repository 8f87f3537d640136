//! Questions about keys and ends of arrays.

use talea_model::{Key, View};

use super::Store;
use crate::index::lens::{Lens, Rank};
use crate::index::node::{Akey, Dkey, DkeyRef};
use crate::{Answer, ObjectRef, Query, StoreError};

impl Store {
    /// Answers a question about keys.
    pub fn query(&self, at: ObjectRef, view: View, what: Query) -> Result<Answer, StoreError> {
        let lens = self.lens(at.container, view)?;
        let Some(object) = self.memory.index.object(at) else { return Ok(Answer::default()) };
        let above = self.memory.index.hidden_object(object, &lens);
        let index = &self.memory.index;
        let node = |dkey: DkeyRef| index.dkeys.get(dkey.id);
        let exists = |node: &&Dkey| index.dkey_exists(node, &lens, above);
        let answer = |node: &Dkey, end: u64| Ok(Answer { dkey: Some(Key::new(node.key.bytes())?), end });
        let found = match what {
            Query::MaxDkey => {
                let last = object.dkeys.iter_back().filter_map(|(dkey, ())| node(dkey)).find(exists);
                last.map(|node| answer(node, 0))
            }
            Query::MinDkey => {
                let first = object.dkeys.iter().filter_map(|(dkey, ())| node(dkey)).find(exists);
                first.map(|node| answer(node, 0))
            }
            Query::ArrayEnd { dkey, akey } => {
                let node = index.seek(object, dkey).1.and_then(|id| index.dkeys.get(id));
                let end = node.and_then(|node| {
                    let hidden = index.hidden_dkey(node, &lens, above);
                    node.akey(akey).map(|akey| self.array_end(akey, &lens, hidden))
                });
                return Ok(Answer { dkey: None, end: end.unwrap_or(0) });
            }
            Query::MaxDkeyArrayEnd { akey } => {
                let nodes = object.dkeys.iter_back().filter_map(|(dkey, ())| node(dkey));
                let mut ends = nodes.filter(|node| node.key.bytes().len() == 8).filter_map(|node| {
                    let hidden = index.hidden_dkey(node, &lens, above);
                    let end = self.array_end(node.akey(akey)?, &lens, hidden);
                    (end > 0).then(|| answer(node, end))
                });
                ends.next()
            }
        };
        found.unwrap_or_else(|| Ok(Answer::default()))
    }

    fn array_end(&self, akey: &Akey, lens: &Lens, above: Option<Rank>) -> u64 {
        let hidden = self.memory.index.hidden_akey(akey, lens, above);
        let mut columns = akey.array.iter().flat_map(|array| array.columns_back());
        let last = columns.find(|(_, column)| self.memory.index.seen(&column.stack, lens, hidden).is_some());
        last.map_or(0, |(_, column)| column.end)
    }
}
