//! The IOTLB: final translations, their invalidation, and why requests miss.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::prefetched::Prefetched;
use super::replacement::{NoConfig, Replacement};
use super::{Associative, FlushWhenFull, History, Key, Seen, SetAssoc, Sizes, Tag};
use crate::events::{PAGE_SHIFT, PageSize, Perm};
use crate::results::{MissCauses, PrefetchCounters};

/// Input addresses of five levels; larger ones are never cached.
const ADDRESS_BITS: u32 = 57;

/// A cached translation: output page and rights in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached(u64);

impl Cached {
    /// A translation to the page at `out` (4 KiB aligned).
    #[inline(always)]
    pub fn new(out: u64, perm: Perm) -> Cached {
        Cached(out & !0xfff | perm.0 as u64)
    }

    /// Output address of the page.
    #[inline(always)]
    pub fn out(self) -> u64 {
        self.0 & !0xfff
    }

    /// Rights.
    #[inline(always)]
    pub fn perm(self) -> Perm {
        Perm((self.0 & 3) as u8)
    }
}

/// A page-selective invalidation of one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First byte, aligned to the range's size.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
    /// The address in the descriptor, which QEMU also compares.
    pub descriptor: u64,
}

impl PageRange {
    /// The range `[start, end)` as one would ask for it.
    pub fn new(start: u64, end: u64) -> PageRange {
        PageRange { start, end, descriptor: start }
    }
}

/// Storage behind an [`Iotlb`].
pub trait Store: Send {
    /// Its fully associative counterpart.
    type Reference: Store;
    /// [`Replacement::COUNTS_HITS`] of the policy.
    const COUNTS_HITS: bool = false;
    /// Looks up the page of `size` that holds `addr`.
    fn get(&mut self, key: Key) -> Option<Cached>;
    /// Looks up without a trace.
    fn peek(&self, key: Key) -> Option<Cached>;
    /// Sizes of the entries present.
    fn sizes(&self) -> Sizes;
    /// Inserts; returns how many entries were displaced.
    fn insert(&mut self, key: Key, value: Cached) -> usize;
    /// Inserts a key that is not present; returns how many entries were
    /// displaced.
    fn insert_absent(&mut self, key: Key, value: Cached) -> usize {
        self.insert(key, value)
    }
    /// Inserts; tells `displaced` of the entries that had to make room, and
    /// returns how many. Stores that empty themselves need not tell of them:
    /// nothing is prefetched into those.
    fn insert_telling(&mut self, key: Key, value: Cached, displaced: &mut dyn FnMut(Key)) -> usize {
        let _ = displaced;
        self.insert(key, value)
    }
    /// Invalidates pages of one tag; tells `removed` of what architecture did
    /// not ask for but the implementation drops all the same.
    fn invalidate(&mut self, tag: Tag, range: PageRange, removed: &mut dyn FnMut(Key)) -> usize;
    /// Invalidates all of one tag.
    fn invalidate_tag(&mut self, tag: Tag) -> usize;
    /// Empties the store.
    fn clear(&mut self) -> usize;
    /// Calls `f` for every entry.
    fn for_each(&self, f: &mut dyn FnMut(Key, Cached));
    /// A fully associative store of the same size and policy, or `None` if
    /// this one is fully associative.
    fn reference(&self) -> Option<Self::Reference>;
}

/// A cache as a store.
#[derive(Clone, Debug)]
pub struct CacheStore<C> {
    cache: C,
}

/// A set-associative store.
pub type SetAssocStore<P> = CacheStore<SetAssoc<P, Cached>>;

impl<C> CacheStore<C> {
    /// A store of what `cache` keeps.
    pub fn of(cache: C) -> Self {
        CacheStore { cache }
    }
}

impl<P: Replacement<Config = NoConfig>> SetAssocStore<P> {
    /// `entries` in sets of `ways` (which divides `entries`), in one part.
    pub fn new(entries: usize, ways: usize, seed: u64) -> Self {
        CacheStore::of(SetAssoc::new(entries, ways, &(), seed))
    }

    /// As [`SetAssoc::partitioned`].
    pub fn partitioned(entries: usize, ways: usize, partitions: usize, seed: u64) -> Self {
        CacheStore::of(SetAssoc::partitioned(entries, ways, partitions, &(), seed))
    }
}

impl<C: Associative<Cached>> Store for CacheStore<C> {
    type Reference = CacheStore<C::Full>;
    const COUNTS_HITS: bool = C::COUNTS_HITS;

    #[inline(always)]
    fn get(&mut self, key: Key) -> Option<Cached> {
        self.cache.get(key)
    }

    #[inline(always)]
    fn peek(&self, key: Key) -> Option<Cached> {
        self.cache.peek(key)
    }

    #[inline(always)]
    fn sizes(&self) -> Sizes {
        self.cache.sizes()
    }

    #[inline(always)]
    fn insert(&mut self, key: Key, value: Cached) -> usize {
        self.cache.insert(key, value).is_some() as usize
    }

    #[inline(always)]
    fn insert_absent(&mut self, key: Key, value: Cached) -> usize {
        self.cache.insert_absent(key, value).is_some() as usize
    }

    fn insert_telling(&mut self, key: Key, value: Cached, displaced: &mut dyn FnMut(Key)) -> usize {
        let old = self.cache.insert(key, value);
        old.into_iter().for_each(&mut *displaced);
        old.is_some() as usize
    }

    fn invalidate(&mut self, tag: Tag, range: PageRange, _: &mut dyn FnMut(Key)) -> usize {
        self.cache.remove_range(tag, range.start, range.end)
    }

    fn invalidate_tag(&mut self, tag: Tag) -> usize {
        self.cache.remove_if(|k| k.tag() == tag)
    }

    fn clear(&mut self) -> usize {
        self.cache.remove_if(|_| true)
    }

    fn for_each(&self, f: &mut dyn FnMut(Key, Cached)) {
        self.cache.for_each(f);
    }

    fn reference(&self) -> Option<Self::Reference> {
        self.cache.full().map(CacheStore::of)
    }
}

/// How page-selective invalidations match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageMatch {
    /// The pages that the command covers.
    Exact,
    /// By the low 8 bits of the page number (QEMU's VT-d).
    Low8,
    /// All of the domain, whatever the range (QEMU's AMD-Vi).
    Domain,
}

/// QEMU's store.
#[derive(Clone, Debug)]
pub struct FlushWhenFullStore {
    cache: FlushWhenFull<Cached>,
    page_match: PageMatch,
}

impl FlushWhenFullStore {
    /// `entries`, and how page-selective invalidations match.
    pub fn new(entries: usize, page_match: PageMatch) -> Self {
        FlushWhenFullStore { cache: FlushWhenFull::new(entries), page_match }
    }
}

impl Store for FlushWhenFullStore {
    type Reference = Self;

    #[inline(always)]
    fn get(&mut self, key: Key) -> Option<Cached> {
        self.cache.get(key)
    }

    #[inline(always)]
    fn peek(&self, key: Key) -> Option<Cached> {
        self.cache.get(key)
    }

    #[inline(always)]
    fn sizes(&self) -> Sizes {
        self.cache.sizes()
    }

    #[inline(always)]
    fn insert(&mut self, key: Key, value: Cached) -> usize {
        self.cache.insert(key, value)
    }

    fn invalidate(&mut self, tag: Tag, range: PageRange, removed: &mut dyn FnMut(Key)) -> usize {
        let before = self.cache.len();
        match self.page_match {
            PageMatch::Low8 => {
                // log2 of the smallest aligned power of two of pages that covers
                // the range: the range itself if it came from one descriptor.
                let (first, last) = (range.start >> PAGE_SHIFT, (range.end - 1) >> PAGE_SHIFT);
                let am = u64::BITS - (first ^ last).leading_zeros();
                self.cache.remove_low8(range.descriptor, am, |t| t == tag, removed);
            }
            PageMatch::Exact => {
                let PageRange { start, end, .. } = range;
                self.cache.remove_if(|k| k.tag() == tag && k.overlaps(start, end), removed);
            }
            PageMatch::Domain => self.cache.remove_if(|k| k.tag() == tag, removed),
        }
        before - self.cache.len()
    }

    fn invalidate_tag(&mut self, tag: Tag) -> usize {
        let before = self.cache.len();
        self.cache.remove_if(|k| k.tag() == tag, |_| ());
        before - self.cache.len()
    }

    fn clear(&mut self) -> usize {
        self.cache.clear()
    }

    fn for_each(&self, f: &mut dyn FnMut(Key, Cached)) {
        self.cache.for_each(f);
    }

    fn reference(&self) -> Option<Self> {
        None
    }
}

/// Why a request missed; definitions in `docs/miss-causes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissCause {
    /// First reference.
    Cold,
    /// An infinitely large cache would miss too: invalidated since.
    Invalidation,
    /// A fully associative cache of the same size and policy would miss too.
    Capacity,
    /// Only the limited associativity explains it.
    Conflict,
}

/// A miss that filled the IOTLB, kept until its cause is asked for.
///
/// The history of a page is seldom in the processor's caches; asked for many
/// pages in a row, the reads overlap.
#[derive(Clone, Copy, Debug)]
#[must_use = "the history has to learn of the reference"]
pub struct Filled {
    /// What the caller wants to know of it later: a device;
    /// [`Filled::NO_MISS`] if it is the first use of a prefetched page.
    pub device: u32,
    key: Key,
    /// Where its history is.
    place: usize,
    needed: Perm,
    rights: Perm,
    /// The fully associative reference held the page.
    reference_held: bool,
}

impl Filled {
    /// The request did not miss; the history has to learn of it all the same.
    pub const NO_MISS: u32 = u32::MAX;
}

impl MissCauses {
    /// Adds one miss.
    #[inline(always)]
    pub fn add(&mut self, cause: MissCause) {
        match cause {
            MissCause::Cold => self.cold += 1,
            MissCause::Invalidation => self.invalidation += 1,
            MissCause::Capacity => self.capacity += 1,
            MissCause::Conflict => self.conflict += 1,
        }
    }
}

/// An IOTLB.
///
/// Beside the modelled store it keeps two others to tell why a request
/// misses: an infinitely large one ([`History`]) and, if the modelled one is
/// not fully associative, a fully associative one. All three see the same
/// references and invalidations.
pub struct Iotlb<S: Store> {
    store: S,
    history: History,
    reference: Option<S::Reference>,
    /// What the last look-up needed.
    needed: Perm,
    /// The last look-up found an entry without the rights.
    denied: bool,
    /// Follows what was fetched before it was asked for; `None` without
    /// prefetching.
    prefetched: Option<Box<Prefetched>>,
    /// Entries displaced.
    pub evictions: u64,
    /// Entries removed by invalidations.
    pub invalidated: u64,
}

impl<S: Store> Iotlb<S> {
    /// An empty IOTLB over `store`.
    pub fn new(store: S) -> Self {
        let reference = store.reference();
        Iotlb {
            store,
            history: History::default(),
            reference,
            needed: Perm::NONE,
            denied: false,
            prefetched: None,
            evictions: 0,
            invalidated: 0,
        }
    }

    /// Translations will be put in before they are asked for.
    pub fn expect_prefetches(&mut self) {
        self.prefetched = Some(Box::default());
    }

    /// What became of prefetched translations so far.
    pub fn prefetch_counters(&self) -> PrefetchCounters {
        self.prefetched.as_ref().map_or_else(Default::default, |p| p.counters())
    }

    /// True if a page of any size at `addr` is present, without a trace.
    pub fn covers(&self, tag: Tag, addr: u64) -> bool {
        addr >> ADDRESS_BITS == 0 && self.store.sizes().any(|s| self.holds(Key::new(tag, s, addr)))
    }

    /// Puts in a translation that nobody asked for; the page must be absent
    /// ([`Iotlb::expect_prefetches`] came before).
    pub fn prefetch(&mut self, key: Key, value: Cached) {
        let Some(prefetched) = &mut self.prefetched else { return };
        let displaced = self.store.insert_telling(key, value, &mut |k| prefetched.displaced(k));
        self.evictions += displaced as u64;
        prefetched.issued(key);
    }

    /// The latest look-up was the first use of a prefetched page: to be given
    /// to [`Iotlb::causes`] with the misses.
    #[inline]
    pub fn first_use(&mut self, device: u32) -> Option<Filled> {
        let (key, rights) = self.prefetched.as_mut()?.take_first_use()?;
        let needed = self.needed;
        Some(Filled { device, key, place: 0, needed, rights, reference_held: false })
    }

    /// Looks `addr` up in all page sizes present, smallest first. An entry
    /// without the rights that are `needed` is no hit: the walk decides.
    #[inline(always)]
    pub fn lookup(&mut self, tag: Tag, addr: u64, needed: Perm) -> Option<u64> {
        self.needed = needed;
        self.denied = false;
        if addr >> ADDRESS_BITS != 0 {
            return None;
        }
        let mut sizes = self.store.sizes();
        if sizes.is_4k_only() {
            return self.lookup_size(tag, PageSize::Size4K, addr, needed);
        }
        sizes.find_map(|size| self.lookup_size(tag, size, addr, needed))
    }

    /// As [`Iotlb::lookup`], among pages of one size.
    #[inline(always)]
    fn lookup_size(&mut self, tag: Tag, size: PageSize, addr: u64, needed: Perm) -> Option<u64> {
        let key = Key::new(tag, size, addr);
        let entry = self.store.get(key)?;
        if !entry.perm().allows(needed) {
            self.denied = true;
            return None;
        }
        if let Some(reference) = &mut self.reference
            && reference.get(key).is_none()
        {
            reference.insert_absent(key, entry);
        }
        if let Some(prefetched) = &mut self.prefetched {
            prefetched.used(key, entry.perm());
        }
        Some(entry.out() | addr & (size.bytes() - 1))
    }

    /// Inserts the translation that a miss's walk found for the page `key`.
    /// Comes after the [`Iotlb::lookup`] that missed; [`Iotlb::causes`] then
    /// tells why.
    #[inline(always)]
    pub fn fill(&mut self, key: Key, value: Cached, device: u32) -> Filled {
        let reference_held = match &mut self.reference {
            None => false,
            Some(reference) => {
                // As the modelled store, it sees one reference, or two if the
                // look-up found an entry without the rights.
                let held = match self.denied {
                    true => reference.get(key).is_some(),
                    false => reference.peek(key).is_some(),
                };
                match held {
                    true => reference.insert(key, value),
                    false => reference.insert_absent(key, value),
                };
                held
            }
        };
        let displaced = if let Some(prefetched) = &mut self.prefetched {
            prefetched.displaced(key);
            self.store.insert_telling(key, value, &mut |k| prefetched.displaced(k))
        } else if self.denied {
            self.store.insert(key, value)
        } else {
            self.store.insert_absent(key, value)
        };
        self.evictions += displaced as u64;
        let (needed, rights) = (self.needed, value.perm());
        Filled { device, key, place: 0, needed, rights, reference_held }
    }

    /// Calls `f` with the cause of each of these misses. To be asked for every
    /// fill, in order, and before the next invalidation.
    #[inline(always)]
    pub fn causes(&mut self, filled: &mut [Filled], mut f: impl FnMut(&Filled, MissCause)) {
        let mut bits = 0;
        for filled in filled.iter_mut() {
            filled.place = self.history.place(filled.key);
            bits ^= self.history.bits(filled.place);
        }
        black_box(bits);
        for filled in filled {
            let cause = match self.history.reference(filled.place, filled.needed, filled.rights) {
                Seen::Never => MissCause::Cold,
                Seen::Invalidated => MissCause::Invalidation,
                Seen::Held if filled.reference_held => MissCause::Conflict,
                Seen::Held => MissCause::Capacity,
            };
            f(filled, cause);
        }
    }

    /// Cause of a miss that ended in a fault; nothing is inserted. Comes
    /// after the [`Iotlb::lookup`] that missed.
    pub fn fault(&mut self, tag: Tag, addr: u64) -> MissCause {
        if addr >> ADDRESS_BITS != 0 {
            return MissCause::Cold;
        }
        // No walk says which size it would be: the most that is known counts.
        let sizes = PageSize::ALL.into_iter();
        let known = sizes.map(|s| self.history.peek(Key::new(tag, s, addr), self.needed)).max();
        match known.unwrap_or(Seen::Never) {
            Seen::Never => MissCause::Cold,
            Seen::Invalidated => MissCause::Invalidation,
            Seen::Held => MissCause::Capacity,
        }
    }

    /// True if a page is present, without a trace.
    #[inline]
    pub(crate) fn holds(&self, key: Key) -> bool {
        self.store.peek(key).is_some()
    }

    /// Page-selective invalidation; returns how many entries went.
    pub fn invalidate(&mut self, tag: Tag, mut range: PageRange) -> usize {
        range.end = range.end.min(1 << ADDRESS_BITS);
        if range.start >= range.end {
            return 0;
        }
        self.history.invalidate_range(tag, range.start, range.end - 1);
        let history = &mut self.history;
        let gone = self.store.invalidate(tag, range, &mut |key| history.invalidate(key, key));
        if let Some(reference) = &mut self.reference {
            reference.invalidate(tag, range, &mut |_| ());
        }
        if let Some(prefetched) = &mut self.prefetched {
            prefetched.invalidated(|k| k.tag() == tag && k.overlaps(range.start, range.end));
        }
        self.invalidated += gone as u64;
        gone
    }

    /// Invalidation of all of a tag; returns how many entries went.
    pub fn invalidate_tag(&mut self, tag: Tag) -> usize {
        self.history.invalidate_tag(tag);
        let gone = self.store.invalidate_tag(tag);
        if let Some(reference) = &mut self.reference {
            reference.invalidate_tag(tag);
        }
        if let Some(prefetched) = &mut self.prefetched {
            prefetched.invalidated(|k| k.tag() == tag);
        }
        self.invalidated += gone as u64;
        gone
    }

    /// Calls `f` for every entry.
    pub fn for_each(&self, mut f: impl FnMut(Key, Cached)) {
        self.store.for_each(&mut f);
    }
}
