//! Page-aligned memory, and the pool of limb slots in it.

use std::io;

use memmap2::MmapMut;

use crate::device::Address;

/// Zeroed words straight from the operating system, in huge pages where it has them. Pages are provided when
/// they are first touched.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    map: Option<MmapMut>,
    words: usize,
}

impl Pages {
    /// Allocates `words` words.
    pub(crate) fn new(words: usize) -> io::Result<Pages> {
        if words == 0 {
            return Ok(Pages { map: None, words });
        }
        let bytes = words.checked_mul(4).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if bytes >= 2 << 20 {
            // Only a wish: kernels without huge pages refuse it.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Pages { map: Some(map), words })
    }

    /// The words.
    pub(crate) fn words(&self) -> &[u32] {
        self.map.as_ref().map_or(&[], |map| &bytemuck::cast_slice(map)[..self.words])
    }

    /// The words, to be changed.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        self.map.as_mut().map_or(&mut [], |map| &mut bytemuck::cast_slice_mut(map)[..self.words])
    }
}

/// The pool: slots of N words each, shared by the threads of a launch, which agree on who uses which slot when.
///
/// Slots are a little further apart than N words. Limbs are a power of two long; laid end to end, words at the
/// same position of all limbs would compete for the same few cache sets.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Keeps the memory alive; it is only reached through `start`.
    _pages: Pages,
    start: *mut u32,
    n: usize,
    stride: usize,
    limbs: usize,
}

// SAFETY: the pool is plain memory. Threads reach it through `limb` and `limb_mut`, whose callers vouch that
// nobody else uses a slot that they write.
unsafe impl Sync for Pool {}
// SAFETY: `start` points into the pages that move along; it is tied to no thread.
unsafe impl Send for Pool {}

impl Pool {
    /// A pool of `limbs` slots of `n` words.
    pub(crate) fn new(limbs: u64, n: usize) -> io::Result<Pool> {
        // An odd number of cache lines between neighbours spreads them over all sets.
        let stride = n + if n < 1024 { 16 } else { 17 * 16 };
        let limbs = usize::try_from(limbs).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let words = limbs.checked_mul(stride).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut pages = Pages::new(words)?;
        let start = pages.words_mut().as_mut_ptr();
        Ok(Pool { _pages: pages, start, n, stride, limbs })
    }

    /// Bytes that it occupies.
    pub(crate) fn bytes(&self) -> u64 {
        4 * (self.limbs * self.stride) as u64
    }

    /// Words of a slot.
    pub(crate) fn limb_words(&self) -> usize {
        self.n
    }

    /// A slot, for someone who has the whole pool.
    pub(crate) fn words_mut(&mut self, address: Address) -> &mut [u32] {
        // SAFETY: the exclusive borrow of the pool is one of every slot.
        unsafe { self.limb_mut(address) }
    }

    fn offset(&self, address: Address) -> usize {
        let slot = address.0 as usize;
        assert!(slot < self.limbs, "slot {slot} of a pool of {}", self.limbs);
        slot * self.stride
    }

    /// The first of the N words of a slot.
    pub(crate) fn limb_ptr(&self, address: Address) -> *mut u32 {
        // SAFETY: `offset` checks that the slot lies inside the pages.
        unsafe { self.start.add(self.offset(address)) }
    }

    /// The words of a slot, for reading.
    ///
    /// # Safety
    /// While the slice lives, nobody writes the slot.
    pub(crate) unsafe fn limb(&self, address: Address) -> &[u32] {
        // SAFETY: `limb_ptr` points at N words; the caller says that nobody writes it.
        unsafe { std::slice::from_raw_parts(self.limb_ptr(address), self.n) }
    }

    /// The words of a slot, for writing.
    ///
    /// # Safety
    /// While the slice lives, nobody else reads or writes the slot.
    #[allow(clippy::mut_from_ref, reason = "the caller vouches for exclusive use of the slot")]
    pub(crate) unsafe fn limb_mut(&self, address: Address) -> &mut [u32] {
        // SAFETY: `limb_ptr` points at N words; the caller says that it is used by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.limb_ptr(address), self.n) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_apart_and_aligned() {
        let mut pool = Pool::new(3, 1024).unwrap();
        for slot in 0..3 {
            let words = pool.words_mut(Address(slot));
            assert_eq!((words.len(), words.as_ptr() as usize % 64), (1024, 0));
            assert!(words.iter().all(|&word| word == 0));
            words.fill(slot + 1);
        }
        for slot in 0..3 {
            assert!(pool.words_mut(Address(slot)).iter().all(|&word| word == slot + 1));
        }
    }

    #[test]
    fn an_impossible_pool_is_an_error() {
        assert!(Pool::new(u64::MAX, 1 << 17).is_err());
        assert!(Pool::new(1 << 60, 1 << 17).is_err());
        assert_eq!(Pool::new(0, 1 << 17).unwrap().bytes(), 0);
    }
}
