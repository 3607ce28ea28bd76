//! What differs between reverse maps: how the entries of one page are kept.

/// For every head, the slots that lead to its page.
pub(super) trait Lists: Clone + std::fmt::Debug + Default {
    /// Child changes that are put off at most; 0 = each is carried out at once.
    const LOG: usize;

    /// Makes room for this many slots and heads.
    fn grow(&mut self, slots: usize, heads: usize);

    /// True if the slot is in a list.
    fn holds(&self, slot: u32) -> bool;

    /// Puts a slot that is in no list into a head's; true if it is the first.
    fn add(&mut self, slot: u32, head: u32) -> bool;

    /// Takes a slot out of its list; returns the head if it was the last.
    fn remove(&mut self, slot: u32) -> Option<u32>;

    /// Reads what [`Lists::add`] or [`Lists::remove`] of this slot will need,
    /// so that it is in the cache by then; the value means nothing. Calls do
    /// not depend on each other, so their misses overlap.
    fn touch(&self, _slot: u32, _head: Option<u32>) -> u32 {
        0
    }

    /// As [`Lists::touch`], for what lies behind its memory.
    fn touch_behind(&self, _slot: u32, _head: Option<u32>) -> u32 {
        0
    }

    /// Calls `f` for every slot of a head; adds the lines touched to `lines`.
    fn visit(&self, head: u32, lines: &mut u64, f: impl FnMut(u32));

    /// Bytes.
    fn memory_bytes(&self) -> u64;
}

/// Resizes to at least `len` with an eighth of slack: the arrays grow with
/// the shadow, and doubling would make the memory per entry a matter of luck.
pub(super) fn grow_to<T: Clone>(array: &mut Vec<T>, len: usize, value: T) {
    if array.len() < len {
        if array.capacity() < len {
            array.reserve_exact(len + len / 8 - array.len());
        }
        array.resize(len, value);
    }
}
