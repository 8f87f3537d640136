//! Things by number; numbers of removed things are used again.

/// A slab.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds a thing and gives its number.
    pub(crate) fn add(&mut self, thing: T) -> u32 {
        match self.vacant.pop() {
            Some(id) => {
                self.slots[id as usize] = Some(thing);
                id
            }
            None => {
                self.slots.push(Some(thing));
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// The thing, if it is there.
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// The thing, if it is there.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    /// A thing that is known to be there: its number was just looked up. Panics if it is not.
    pub(crate) fn must(&mut self, id: u32) -> &mut T {
        match self.slots[id as usize].as_mut() {
            Some(thing) => thing,
            None => unreachable!("number {id} names nothing"),
        }
    }

    /// Takes a thing out.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let thing = self.slots.get_mut(id as usize)?.take()?;
        self.vacant.push(id);
        Some(thing)
    }

    /// Takes a thing out for a while: its number stays taken until [`put_back`](Self::put_back).
    pub(crate) fn remove_for_work(&mut self, id: u32) -> Option<T> {
        self.slots.get_mut(id as usize)?.take()
    }

    /// Puts a thing back.
    pub(crate) fn put_back(&mut self, id: u32, thing: T) {
        self.slots[id as usize] = Some(thing);
    }

    /// One past the largest number.
    pub(crate) fn bound(&self) -> u32 {
        self.slots.len() as u32
    }
}
