//! Linux's IOVA allocator: a cache of magazines per CPU and size class, a
//! depot of full magazines per size class, and the tree behind them.
//!
//! After drivers/iommu/iova.c of Linux 6.0 and 6.12 (R).

use super::tree::{PAGES_32, Tree};

/// Size classes: 2^0 to 2^5 pages (R: `IOVA_RANGE_CACHE_MAX_SIZE` = 6).
const CLASSES: usize = 6;

/// What differs between kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// 6.0 to 6.5: magazines of 128, a depot of at most 32 magazines per size
    /// class; what does not fit goes back to the tree (R: `IOVA_MAG_SIZE`,
    /// `MAX_GLOBAL_MAGS`).
    V6_0,
    /// 6.6 and later: magazines of 127, a depot without a limit, from which a
    /// magazine is taken every 100 ms while there are more than CPUs (R:
    /// `IOVA_MAG_SIZE`, `IOVA_DEPOT_DELAY`).
    V6_12,
}

impl Kernel {
    /// Ranges that a magazine holds.
    pub fn magazine(self) -> usize {
        match self {
            Kernel::V6_0 => 128,
            Kernel::V6_12 => 127,
        }
    }

    /// Magazines that a depot holds, if there is a limit.
    pub fn depot_limit(self) -> Option<usize> {
        match self {
            Kernel::V6_0 => Some(32),
            Kernel::V6_12 => None,
        }
    }

    /// Its name in options and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::V6_0 => "6.0",
            Kernel::V6_12 => "6.12",
        }
    }
}

/// Nanoseconds between two looks at a depot (R: `IOVA_DEPOT_DELAY`).
const DEPOT_DELAY_NS: u64 = 100_000_000;

/// The two magazines of one CPU and size class; a stack each.
#[derive(Clone, Debug, Default)]
struct CpuCache {
    loaded: Vec<u64>,
    previous: Vec<u64>,
}

/// One size class.
#[derive(Clone, Debug)]
struct Class {
    cpus: Vec<CpuCache>,
    depot: Vec<Vec<u64>>,
    /// Empty magazines, to use their memory again.
    empty: Vec<Vec<u64>>,
}

/// The allocator of one domain. Page numbers are those of 4 KiB pages.
#[derive(Clone, Debug)]
pub struct IovaDomain {
    kernel: Kernel,
    classes: Vec<Class>,
    tree: Tree,
    /// Last page that the device can address.
    limit: u64,
    /// PCI devices get addresses below 4 GiB as long as there are some.
    prefer_32: bool,
    next_trim_ns: u64,
}

impl IovaDomain {
    /// An empty domain of a PCI device that can address `bits` bits (32 to
    /// 57), used by `cpus` CPUs.
    pub fn new(kernel: Kernel, cpus: usize, bits: u32) -> IovaDomain {
        let class = Class { cpus: vec![CpuCache::default(); cpus], depot: vec![], empty: vec![] };
        let mut tree = Tree::new(1);
        // Interrupts: VT-d 3.14, reserved by every x86 IOMMU driver (R).
        tree.reserve(0xfee00, 0x100);
        IovaDomain {
            kernel,
            classes: vec![class; CLASSES],
            tree,
            limit: (1 << (bits - 12)) - 1,
            prefer_32: bits > 32,
            next_trim_ns: DEPOT_DELAY_NS,
        }
    }

    /// Hands out `pages` pages on `cpu`; the first page's number, or nothing
    /// if the space is full.
    pub fn alloc(&mut self, cpu: usize, pages: u64) -> Option<u64> {
        if self.prefer_32
            && let Some(page) = self.alloc_below(cpu, pages, PAGES_32 - 1)
        {
            return Some(page);
        }
        self.alloc_below(cpu, pages, self.limit).or_else(|| {
            self.flush();
            self.tree.alloc(rounded(pages), self.limit + 1)
        })
    }

    fn alloc_below(&mut self, cpu: usize, pages: u64, limit: u64) -> Option<u64> {
        if let Some(order) = class_of(pages)
            && let Some(page) = self.pop(order, cpu, limit)
        {
            return Some(page);
        }
        self.tree.alloc(rounded(pages), limit + 1)
    }

    /// Gives a range back on `cpu`; `pages` as it was asked for.
    pub fn free(&mut self, cpu: usize, page: u64, pages: u64) {
        let Some(order) = class_of(pages) else {
            return self.tree.free(page, pages);
        };
        let magazine = self.kernel.magazine();
        let class = &mut self.classes[order];
        let cache = &mut class.cpus[cpu];
        if cache.loaded.len() == magazine {
            if cache.previous.len() < magazine {
                std::mem::swap(&mut cache.loaded, &mut cache.previous);
            } else {
                let empty = class.empty.pop().unwrap_or_default();
                let mut full = std::mem::replace(&mut cache.loaded, empty);
                if self.kernel.depot_limit().is_none_or(|most| class.depot.len() < most) {
                    class.depot.push(full);
                } else {
                    full.iter().for_each(|&p| self.tree.free(p, 1 << order));
                    full.clear();
                    class.empty.push(full);
                }
            }
        }
        class.cpus[cpu].loaded.push(page);
    }

    #[inline]
    fn pop(&mut self, order: usize, cpu: usize, limit: u64) -> Option<u64> {
        let class = &mut self.classes[order];
        let cache = &mut class.cpus[cpu];
        if cache.loaded.is_empty() {
            if !cache.previous.is_empty() {
                std::mem::swap(&mut cache.loaded, &mut cache.previous);
            } else if let Some(full) = class.depot.pop() {
                class.empty.push(std::mem::replace(&mut cache.loaded, full));
            } else {
                return None;
            }
        }
        // The topmost that fits; its place is taken by the topmost of all.
        let at = cache.loaded.iter().rposition(|&p| p <= limit)?;
        Some(cache.loaded.swap_remove(at))
    }

    /// The clock begins at 0 again.
    pub fn restart(&mut self) {
        self.next_trim_ns = DEPOT_DELAY_NS;
    }

    /// Lets time pass: the depot's worker of [`Kernel::V6_12`].
    pub fn tick(&mut self, now_ns: u64) {
        if now_ns < self.next_trim_ns {
            return;
        }
        self.next_trim_ns = now_ns + DEPOT_DELAY_NS;
        if self.kernel.depot_limit().is_some() {
            return;
        }
        for (order, class) in self.classes.iter_mut().enumerate() {
            if class.depot.len() > class.cpus.len()
                && let Some(full) = class.depot.pop()
            {
                full.iter().for_each(|&p| self.tree.free(p, 1 << order));
            }
        }
    }

    /// Empties all caches into the tree: the last resort when it is full.
    fn flush(&mut self) {
        for (order, class) in self.classes.iter_mut().enumerate() {
            let caches = class.cpus.iter_mut().flat_map(|c| [&mut c.loaded, &mut c.previous]);
            for magazine in caches.chain(&mut class.depot) {
                magazine.drain(..).for_each(|p| self.tree.free(p, 1 << order));
            }
            class.depot.clear();
        }
    }
}

/// The size class of so many pages, if they are cached.
fn class_of(pages: u64) -> Option<usize> {
    let order = pages.next_power_of_two().trailing_zeros() as usize;
    (order < CLASSES).then_some(order)
}

/// What is taken for so many pages: sizes that are cached become powers of two.
fn rounded(pages: u64) -> u64 {
    if class_of(pages).is_some() { pages.next_power_of_two() } else { pages }
}
