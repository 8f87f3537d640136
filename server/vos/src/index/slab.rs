//! Things by number; numbers of removed things are used again.
//!
//! Kept in blocks of their own, so that growing never copies what is there.

/// Things of a block.
const BLOCK: usize = 1024;

/// A slab.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    blocks: Vec<Vec<Option<T>>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds a thing and gives its number.
    pub(crate) fn add(&mut self, thing: T) -> u32 {
        if let Some(id) = self.vacant.pop() {
            self.put_back(id, thing);
            return id;
        }
        let id = self.bound();
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(Some(thing)),
            _ => {
                // The first block grows as it must: most stores of tests are tiny.
                let mut block = if self.blocks.is_empty() { Vec::new() } else { Vec::with_capacity(BLOCK) };
                block.push(Some(thing));
                self.blocks.push(block);
            }
        }
        id
    }

    fn slot(&mut self, id: u32) -> Option<&mut Option<T>> {
        self.blocks.get_mut(id as usize / BLOCK)?.get_mut(id as usize % BLOCK)
    }

    /// The thing, if it is there.
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.blocks.get(id as usize / BLOCK)?.get(id as usize % BLOCK)?.as_ref()
    }

    /// The thing, if it is there.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slot(id)?.as_mut()
    }

    /// A thing that is known to be there: its number was just looked up. Panics if it is not.
    pub(crate) fn must(&mut self, id: u32) -> &mut T {
        match self.get_mut(id) {
            Some(thing) => thing,
            None => unreachable!("number {id} names nothing"),
        }
    }

    /// Takes a thing out.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let thing = self.slot(id)?.take()?;
        self.vacant.push(id);
        Some(thing)
    }

    /// Takes a thing out for a while: its number stays taken until [`put_back`](Self::put_back).
    pub(crate) fn remove_for_work(&mut self, id: u32) -> Option<T> {
        self.slot(id)?.take()
    }

    /// Puts a thing back.
    pub(crate) fn put_back(&mut self, id: u32, thing: T) {
        if let Some(slot) = self.slot(id) {
            *slot = Some(thing);
        }
    }

    /// One past the largest number.
    pub(crate) fn bound(&self) -> u32 {
        self.blocks.last().map_or(0, |last| ((self.blocks.len() - 1) * BLOCK + last.len()) as u32)
    }
}
