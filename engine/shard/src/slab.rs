//! A table of things by index that remembers, for each index, how often it was reused: a [`Key`] of a thing that is gone
//! finds nothing, even when another has its place. Grows by doubling, so that a warm shard allocates nothing.

use std::marker::PhantomData;

/// The name of an entry: its place and the place's reuse count. 24 bits of count: a key would have to survive 16 million
/// reuses of one place to be mistaken, and keys live no longer than one operation of the kernel.
pub struct Key<T> {
    index: u32,
    reuse: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Bits that [`Key::to_bits`] needs.
    pub const BITS: u32 = 56;

    /// The key as a number below 2^56, for the tag of an operation.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.reuse) << 32 | u64::from(self.index)
    }

    /// The key that [`Key::to_bits`] gave.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a 64-bit number are taken apart")]
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, reuse: (bits >> 32) as u32 & REUSE_MASK, kind: PhantomData }
    }

    /// The key of nothing: no table has it.
    #[must_use]
    pub fn nobody() -> Self {
        Self { index: u32::MAX, reuse: 0, kind: PhantomData }
    }

    /// The place, for tables that run beside the slab.
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}
impl<T> Eq for Key<T> {}
impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.reuse)
    }
}

/// The table.
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    reuse: u32,
    /// Whether `value` is an entry; else it is what [`Slab::leave`] left.
    taken: bool,
    value: Option<T>,
}

const REUSE_MASK: u32 = 0x00FF_FFFF;

impl<T> Slab<T> {
    /// An empty table with room for `capacity`.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { places: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    /// Puts `value` into a free place.
    ///
    /// # Panics
    /// When the table has 2^32 entries.
    #[inline]
    pub fn insert(&mut self, value: T) -> Key<T> {
        let index = self.free_place();
        let place = &mut self.places[index as usize];
        place.taken = true;
        place.value = Some(value);
        Key { index, reuse: place.reuse, kind: PhantomData }
    }

    /// Takes a free place with what [`Slab::leave`] left there, or with what `make` makes: the caller makes an entry of it.
    /// Where entries are large, this moves nothing.
    ///
    /// # Panics
    /// As [`Slab::insert`].
    #[inline]
    pub fn renew(&mut self, make: impl FnOnce() -> T) -> (Key<T>, &mut T) {
        let index = self.free_place();
        let place = &mut self.places[index as usize];
        place.taken = true;
        let key = Key { index, reuse: place.reuse, kind: PhantomData };
        (key, place.value.get_or_insert_with(make))
    }

    /// The key that the next entry gets.
    ///
    /// # Panics
    /// As [`Slab::insert`].
    #[inline]
    pub fn upcoming(&mut self) -> Key<T> {
        let index = self.free_place();
        self.free.push(index);
        Key { index, reuse: self.places[index as usize].reuse, kind: PhantomData }
    }

    #[inline]
    fn free_place(&mut self) -> u32 {
        match self.free.pop() {
            Some(index) => index,
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.places.push(Place { reuse: 0, taken: false, value: None });
        // `free` never reallocates on removal: there is always room for every place.
        self.free.reserve(self.places.len());
        u32::try_from(self.places.len() - 1).expect("a table of less than 2^32 places")
    }

    /// Takes the entry out.
    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place =
            self.places.get_mut(key.index()).filter(|place| place.taken && place.reuse == key.reuse)?;
        let value = place.value.take();
        self.leave(key);
        value
    }

    /// Ends the entry. What it owns stays in its place, for the next one ([`Slab::renew`]).
    #[inline]
    pub fn leave(&mut self, key: Key<T>) {
        if let Some(place) = self.places.get_mut(key.index())
            && place.taken
            && place.reuse == key.reuse
        {
            place.taken = false;
            place.reuse = (place.reuse + 1) & REUSE_MASK;
            self.free.push(key.index);
        }
    }

    /// The entry, if it is still there.
    #[must_use]
    #[inline]
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.places.get(key.index())?;
        if place.taken && place.reuse == key.reuse { place.value.as_ref() } else { None }
    }

    /// The entry, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let place = self.places.get_mut(key.index())?;
        if place.taken && place.reuse == key.reuse { place.value.as_mut() } else { None }
    }

    /// Every entry with its key.
    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.places.iter().zip(0u32..).filter(|(place, _)| place.taken).filter_map(|(place, index)| {
            let key = Key { index, reuse: place.reuse, kind: PhantomData };
            place.value.as_ref().map(|value| (key, value))
        })
    }

    /// Every entry with its key.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key<T>, &mut T)> {
        self.places.iter_mut().zip(0u32..).filter(|(place, _)| place.taken).filter_map(|(place, index)| {
            let key = Key { index, reuse: place.reuse, kind: PhantomData };
            place.value.as_mut().map(|value| (key, value))
        })
    }

    /// The key of the entry at `index`, if there is one.
    #[must_use]
    pub fn key_at(&self, index: usize) -> Option<Key<T>> {
        let place = self.places.get(index).filter(|place| place.taken)?;
        Some(Key { index: u32::try_from(index).ok()?, reuse: place.reuse, kind: PhantomData })
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places, used or free: indices are below this.
    #[must_use]
    pub fn places(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_outlives_its_entry_and_finds_nothing() {
        let mut slab = Slab::with_capacity(2);
        let first = slab.insert("first");
        let second = slab.insert("second");
        assert_eq!(slab.remove(first), Some("first"));
        let third = slab.insert("third");
        assert_eq!(third.index(), first.index(), "the place is used again");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(third), Some(&"third"));
        assert_eq!(Key::from_bits(second.to_bits()), second);
        let fourth = slab.upcoming();
        assert_eq!(slab.get(fourth), None);
        assert_eq!(slab.insert("fourth"), fourth);
        assert_eq!(slab.remove(fourth), Some("fourth"));
        assert_eq!(slab.len(), 2);
        assert!(slab.iter().map(|(_, value)| *value).eq(["third", "second"]));
    }

    #[test]
    fn what_an_entry_leaves_is_nobodys_until_the_next_one_takes_it_over() {
        let mut slab = Slab::with_capacity(2);
        let (first, list) = slab.renew(|| Vec::with_capacity(7));
        list.push(1);
        slab.leave(first);
        slab.leave(first);
        assert_eq!((slab.get(first), slab.key_at(0), slab.len()), (None, None, 0));
        assert_eq!((slab.remove(first), slab.iter().count(), slab.iter_mut().count()), (None, 0, 0));
        let (second, list) = slab.renew(Vec::new);
        assert_eq!((&list[..], list.capacity()), (&[1][..], 7), "as it was left");
        assert_ne!(second, first);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(second), Some(vec![1]));
        let (_, list) = slab.renew(Vec::new);
        assert!(list.is_empty(), "what was taken out is not there any more");
    }
}
