//! Memory for twiddle factors.
//!
//! Transforms by many primes in turn read the factors of each from memory, a dozen streams at once. In pages of the usual size
//! that costs a tenth of their time for translating addresses. A huge page holds the tables of more than one prime: so there
//! is one mapping for all of them, of which pages are provided when a table is made.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

use super::Line;

/// Least size for which huge pages are wished for.
const HUGE_PAGE: usize = 2 << 20;

/// Room for the tables of several primes.
#[derive(Debug)]
pub(crate) struct TableMemory {
    map: Arc<Map>,
    /// Lines that are handed out, possibly more than there are.
    taken: AtomicUsize,
}

/// The mapping. Each line belongs to one of the [`Lines`] at most.
#[derive(Debug)]
struct Map {
    start: *mut Line,
    lines: usize,
    /// Keeps the memory alive; it is only reached through `start`.
    _map: MmapMut,
}

// SAFETY: the mapping is plain memory. It is only reached through `Lines`, which do not overlap and follow the usual rules
// for shared and exclusive references each.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl TableMemory {
    /// Memory for `tables` tables of degree `2^log_n`.
    ///
    /// # Panics
    /// When the operating system gives no address space.
    pub(crate) fn new(tables: usize, log_n: u32) -> TableMemory {
        let lines = (tables * super::table_lines(log_n)).max(1);
        let bytes = lines * size_of::<Line>();
        let mut map = MmapMut::map_anon(bytes).expect("there is address space for the tables of transforms");
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            // Only a wish: kernels without huge pages refuse it.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let start = map.as_mut_ptr().cast();
        TableMemory { map: Arc::new(Map { start, lines, _map: map }), taken: AtomicUsize::new(0) }
    }

    /// Lines of zeros, which nobody else has.
    ///
    /// # Panics
    /// When there are no more.
    pub(super) fn take(&self, count: usize) -> Lines {
        let first = self.taken.fetch_add(count, Ordering::Relaxed);
        assert!(first + count <= self.map.lines, "there is memory for every table");
        Lines { map: Arc::clone(&self.map), first, count }
    }
}

/// Lines of the memory, owned like a boxed slice.
#[derive(Debug)]
pub(super) struct Lines {
    map: Arc<Map>,
    first: usize,
    count: usize,
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the lines are within the mapping, which is aligned to pages and zeroed, and they are nobody else's.
        unsafe { std::slice::from_raw_parts(self.map.start.add(self.first), self.count) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.map.start.add(self.first), self.count) }
    }
}
