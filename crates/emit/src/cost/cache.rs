//! The L2 cache of a device, seen from far: whole limbs come and go, the least recently used first, and before all others those
//! of keys, which are loaded with that hint.

use std::collections::{BTreeMap, HashMap};

use cerium_artifact::WeightId;
use cerium_artifact::kernel::Half;
use cerium_ckks::basis::PrimeIndex;

/// Something that is read or written as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    /// A slot of the pool.
    Slot(u64),
    /// A limb of an encoded plaintext: the function that declares it, its index there, the limb, and the weight.
    Plain(u32, u32, u16, WeightId),
    /// A limb of a key.
    Key(u32, u8, Half, PrimeIndex),
    /// Factors of a transform modulo a prime; whether of the inverse one.
    Factors(PrimeIndex, bool),
}

/// What is in the cache.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: u64,
    used: u64,
    clock: u64,
    entries: HashMap<Object, Entry>,
    /// Objects in the order in which they leave: keys before others, then by their last use.
    order: BTreeMap<(bool, u64), Object>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    used_at: u64,
    bytes: u64,
    /// Memory has an older value.
    dirty: bool,
}

impl Cache {
    /// An empty cache of so many bytes.
    pub(super) fn new(capacity: u64) -> Cache {
        Cache { capacity, used: 0, clock: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    /// Reads an object; the bytes that memory moves.
    pub(super) fn read(&mut self, object: Object, bytes: u64) -> u64 {
        let known = self.entries.get(&object).copied();
        let fetched = if known.is_some() { 0 } else { bytes };
        fetched + self.put(object, bytes, known.is_some_and(|entry| entry.dirty))
    }

    /// Writes an object as a whole, which memory need not be asked for; the bytes that it moves.
    pub(super) fn write(&mut self, object: Object, bytes: u64) -> u64 {
        self.put(object, bytes, true)
    }

    /// Forgets an object that somebody else overwrites in memory.
    pub(super) fn forget(&mut self, object: Object) {
        if let Some(old) = self.entries.remove(&object) {
            self.order.remove(&(stays(object), old.used_at));
            self.used -= old.bytes;
        }
    }

    /// Forgets everything, as if something else had run; the bytes written back.
    pub(super) fn clear(&mut self) -> u64 {
        let dirty = self.entries.values().filter(|entry| entry.dirty).map(|entry| entry.bytes).sum();
        *self = Cache::new(self.capacity);
        dirty
    }

    fn put(&mut self, object: Object, bytes: u64, dirty: bool) -> u64 {
        self.clock += 1;
        if let Some(old) = self.entries.insert(object, Entry { used_at: self.clock, bytes, dirty }) {
            self.order.remove(&(stays(object), old.used_at));
            self.used -= old.bytes;
        }
        self.order.insert((stays(object), self.clock), object);
        self.used += bytes;
        let mut written = 0;
        while self.used > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            let entry = self.entries.remove(&oldest).expect("what is ordered is there");
            self.used -= entry.bytes;
            written += if entry.dirty { entry.bytes } else { 0 };
        }
        written
    }
}

/// Whether an object is worth its place for longer than a launch.
fn stays(object: Object) -> bool {
    !matches!(object, Object::Key(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves_and_is_written_back_once() {
        let mut cache = Cache::new(30);
        let [a, b, c, d] = [0, 1, 2, 3].map(Object::Slot);
        assert_eq!(cache.write(a, 10), 0, "nothing is fetched to be overwritten");
        assert_eq!(cache.read(b, 10), 10);
        assert_eq!(cache.read(a, 10), 0, "what was just written is there");
        assert_eq!(cache.read(c, 10), 10);
        assert_eq!(cache.read(d, 10), 10, "b leaves, which memory has");
        assert_eq!(cache.read(b, 10), 10 + 10, "a leaves, which memory has not");
        assert_eq!(cache.read(a, 10), 10);
        cache.forget(a);
        assert_eq!(cache.read(a, 10), 10, "what was forgotten is fetched");
        assert_eq!(cache.clear(), 0);
    }

    #[test]
    fn keys_leave_first() {
        let mut cache = Cache::new(30);
        let key = Object::Key(0, 0, Half::A, PrimeIndex(0));
        let [a, b, c] = [0, 1, 2].map(Object::Slot);
        let reads = |cache: &mut Cache, objects: &[Object]| -> Vec<u64> {
            objects.iter().map(|&object| cache.read(object, 10)).collect()
        };
        assert_eq!(reads(&mut cache, &[a, key, key, b, c]), [10, 10, 0, 10, 10]);
        assert_eq!(reads(&mut cache, &[a, b, c, key]), [0, 0, 0, 10]);
    }

    #[test]
    fn what_is_larger_than_the_cache_passes_through() {
        let mut cache = Cache::new(30);
        let pass = |cache: &mut Cache| (0..8).map(|i| cache.read(Object::Slot(i), 10)).sum::<u64>();
        assert_eq!([pass(&mut cache), pass(&mut cache)], [80, 80]);
        assert_eq!(cache.write(Object::Slot(9), 100), 100, "and is written at once");
    }
}
