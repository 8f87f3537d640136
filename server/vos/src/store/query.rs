//! Questions about keys and ends of arrays.

use talea_model::{Key, View};

use super::Store;
use super::walk::{LOOKS, Walk};
use crate::index::lens::Lens;
use crate::index::look::{Looks, Paused};
use crate::index::node::{Dkey, Object};
use crate::{Answer, ObjectRef, Query, StoreError};

impl Store {
    /// Answers a question about keys. Goes through everything on its way; a server takes [`query_some`](Self::query_some).
    pub fn query(&self, at: ObjectRef, view: View, what: Query) -> Result<Answer, StoreError> {
        let mut walk = Walk::default();
        while !self.query_some(at, view, what, LOOKS, &mut walk)? {}
        Ok(walk.into_answer())
    }

    /// Goes on with a question about keys, looking at no more than `looks` things; the same arguments each time. Returns whether
    /// the walk has the answer.
    pub fn query_some(
        &self,
        at: ObjectRef,
        view: View,
        what: Query,
        looks: usize,
        walk: &mut Walk,
    ) -> Result<bool, StoreError> {
        let lens = self.lens(at.container, view)?;
        let Some(object) = self.memory.index.object(at) else { return Ok(true) };
        let mut left = Looks::new(looks);
        let found = match what {
            Query::MaxDkey => self.find_dkey(object, &lens, true, &mut left, walk),
            Query::MinDkey => self.find_dkey(object, &lens, false, &mut left, walk),
            Query::ArrayEnd { dkey, akey } => self.find_end(object, &lens, (dkey, akey), &mut left, walk),
            Query::MaxDkeyArrayEnd { akey } => self.find_last_end(object, &lens, akey, &mut left, walk),
        };
        walk.note(&left);
        match found {
            Err(Paused) => Ok(false),
            Ok(None) => Ok(true),
            Ok(Some((node, end))) => {
                let dkey = match what {
                    Query::ArrayEnd { .. } => None,
                    _ => Some(Key::new(node.key.bytes())?),
                };
                walk.answer = Answer { dkey, end };
                Ok(true)
            }
        }
    }

    /// Dkeys from where the walk is, the last one first if it goes backwards.
    fn dkeys_from<'a>(
        &'a self,
        object: &'a Object,
        walk: &Walk,
        backwards: bool,
    ) -> impl Iterator<Item = &'a Dkey> + use<'a> {
        let index = &self.memory.index;
        let mut pos = match (&walk.cursor.dkey, backwards) {
            (None, false) => Some(Default::default()),
            (None, true) => object.dkeys.back(object.dkeys.end()),
            (Some(key), false) => Some(index.seek(object, key.bytes()).0),
            (Some(key), true) => match index.seek(object, key.bytes()) {
                (pos, Some(_)) => Some(pos),
                (pos, None) => object.dkeys.back(pos),
            },
        };
        std::iter::from_fn(move || {
            let at = pos?;
            let (dkey, ()) = object.dkeys.entry(at)?;
            pos = if backwards { object.dkeys.back(at) } else { Some(object.dkeys.step(at)) };
            index.dkeys.get(dkey.id)
        })
    }

    fn find_dkey<'a>(
        &'a self,
        object: &'a Object,
        lens: &Lens,
        backwards: bool,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<Option<(&'a Dkey, u64)>, Paused> {
        let index = &self.memory.index;
        let above = index.hidden_object(object, lens);
        for node in self.dkeys_from(object, walk, backwards) {
            walk.cursor.enter_dkey(&node.key);
            if index.dkey_seen(node, lens, above, &mut walk.cursor, looks)? {
                return Ok(Some((node, 0)));
            }
        }
        Ok(None)
    }

    fn find_end<'a>(
        &'a self,
        object: &'a Object,
        lens: &Lens,
        (dkey, akey): (&[u8], &[u8]),
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<Option<(&'a Dkey, u64)>, Paused> {
        let index = &self.memory.index;
        let Some(node) = index.seek(object, dkey).1.and_then(|id| index.dkeys.get(id)) else { return Ok(None) };
        let hidden = index.hidden_dkey(node, lens, index.hidden_object(object, lens));
        let Some(akey) = node.akey(akey) else { return Ok(None) };
        Ok(Some((node, index.array_end(akey, lens, hidden, &mut walk.cursor, looks)?)))
    }

    fn find_last_end<'a>(
        &'a self,
        object: &'a Object,
        lens: &Lens,
        akey: &[u8],
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<Option<(&'a Dkey, u64)>, Paused> {
        let index = &self.memory.index;
        let above = index.hidden_object(object, lens);
        for node in self.dkeys_from(object, walk, true) {
            walk.cursor.enter_dkey(&node.key);
            looks.take()?;
            let Some(akey) = node.akey(akey).filter(|_| node.key.bytes().len() == 8) else { continue };
            let hidden = index.hidden_dkey(node, lens, above);
            let end = index.array_end(akey, lens, hidden, &mut walk.cursor, looks)?;
            if end > 0 {
                return Ok(Some((node, end)));
            }
        }
        Ok(None)
    }
}
