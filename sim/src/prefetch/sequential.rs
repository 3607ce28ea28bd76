//! The pages behind the one that missed.

use super::Policy;
use crate::events::PageSize;

/// Next-page prefetching: after a miss on a page, the pages at the next higher
/// addresses, in the size of the page that was found.
///
/// Good for buffers of several pages and for rings that are walked upwards.
/// Linux's allocator hands out descending addresses, so that a *series* of
/// buffers is not met by it.
#[derive(Debug)]
pub struct Sequential;

impl Policy for Sequential {
    fn missed(&mut self, _: u32, addr: u64, size: PageSize, pages: usize, wanted: &mut Vec<u64>) {
        let page = addr & !(size.bytes() - 1);
        let next = (1..=pages as u64).map(|n| page.checked_add(n * size.bytes()));
        wanted.extend(next.map_while(|addr| addr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(addr: u64, size: PageSize, pages: usize) -> Vec<u64> {
        let mut wanted = Vec::new();
        Sequential.missed(0, addr, size, pages, &mut wanted);
        wanted
    }

    #[test]
    fn the_next_pages_of_the_same_size() {
        assert_eq!(wanted(0x1234, PageSize::Size4K, 2), [0x2000, 0x3000]);
        assert_eq!(wanted(0x20_1234, PageSize::Size2M, 1), [0x40_0000]);
        assert_eq!(wanted(u64::MAX - 0x1fff, PageSize::Size4K, 9), [u64::MAX - 0xfff], "the end");
    }
}
