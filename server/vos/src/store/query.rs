//! Questions about keys and ends of arrays.

use talea_model::{Key, View};

use super::Store;
use crate::index::lens::{Lens, Rank};
use crate::index::node::Akey;
use crate::{Answer, ObjectRef, Query, StoreError};

impl Store {
    /// Answers a question about keys.
    pub fn query(&self, at: ObjectRef, view: View, what: Query) -> Result<Answer, StoreError> {
        let lens = self.lens(at.container, view)?;
        let Some(object) = self.memory.index.object(at) else { return Ok(Answer::default()) };
        let above = self.memory.index.hidden_object(object, &lens);
        let exists =
            |id: &u32| self.memory.index.dkeys.get(*id).is_some_and(|n| self.memory.index.dkey_exists(n, &lens, above));
        let found = |key: &Key| Answer { dkey: Some(key.clone()), end: 0 };
        Ok(match what {
            Query::MaxDkey => {
                object.dkeys.iter().rev().find(|(_, id)| exists(id)).map_or(Answer::default(), |(key, _)| found(key))
            }
            Query::MinDkey => {
                object.dkeys.iter().find(|(_, id)| exists(id)).map_or(Answer::default(), |(key, _)| found(key))
            }
            Query::ArrayEnd { dkey, akey } => {
                let node = object.dkeys.get(dkey).and_then(|id| self.memory.index.dkeys.get(*id));
                let end = node.and_then(|node| {
                    let hidden = self.memory.index.hidden_dkey(node, &lens, above);
                    node.akey(akey).map(|akey| self.array_end(akey, &lens, hidden))
                });
                Answer { dkey: None, end: end.unwrap_or(0) }
            }
            Query::MaxDkeyArrayEnd { akey } => {
                let integers = object.dkeys.iter().rev().filter(|(key, _)| key.as_u64().is_some());
                let ends = integers.filter_map(|(key, id)| {
                    let node = self.memory.index.dkeys.get(*id)?;
                    let hidden = self.memory.index.hidden_dkey(node, &lens, above);
                    let end = self.array_end(node.akey(akey)?, &lens, hidden);
                    (end > 0).then(|| Answer { dkey: Some(key.clone()), end })
                });
                ends.into_iter().next().unwrap_or_default()
            }
        })
    }

    fn array_end(&self, akey: &Akey, lens: &Lens, above: Option<Rank>) -> u64 {
        let hidden = self.memory.index.hidden_akey(akey, lens, above);
        let last = akey.array.columns().rev().find(|(_, c)| self.memory.index.seen(&c.stack, lens, hidden).is_some());
        last.map_or(0, |(_, column)| column.end)
    }
}
