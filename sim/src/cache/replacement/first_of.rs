//! Subsets of the ways of a set, and the first way of each.

use super::Shape;

/// Bits of a word.
const WORD: usize = u64::BITS as usize;

/// For every set, `subsets` subsets of its ways; the first way of one is found
/// without going through the others.
///
/// A subset is a tree of words: the lowest level has a bit for each way, a bit
/// of a higher level says that the word below it is not zero, and the highest
/// level is one word. Up to 64 ways it is that word alone; 2^24 ways take four
/// levels.
#[derive(Clone, Debug)]
pub(super) struct FirstOf {
    subsets: usize,
    /// First word of each level in a subset's words, lowest level first.
    levels: Vec<usize>,
    /// Words of one subset.
    stride: usize,
    words: Vec<u64>,
}

impl FirstOf {
    pub fn new(shape: Shape, subsets: usize) -> FirstOf {
        let (mut levels, mut stride, mut bits) = (Vec::new(), 0, shape.ways);
        loop {
            levels.push(stride);
            bits = bits.div_ceil(WORD);
            stride += bits;
            if bits == 1 {
                break;
            }
        }
        FirstOf { subsets, levels, stride, words: vec![0; shape.sets * subsets * stride] }
    }

    #[inline(always)]
    fn start(&self, set: usize, subset: usize) -> usize {
        (set * self.subsets + subset) * self.stride
    }

    /// Adds a way that is not in the subset.
    #[inline]
    pub fn add(&mut self, set: usize, subset: usize, way: usize) {
        let (start, mut at) = (self.start(set, subset), way);
        for level in &self.levels {
            let word = &mut self.words[start + level + at / WORD];
            let was_empty = *word == 0;
            *word |= 1 << (at % WORD);
            if !was_empty {
                break;
            }
            at /= WORD;
        }
    }

    /// Removes a way that is in the subset.
    #[inline]
    pub fn remove(&mut self, set: usize, subset: usize, way: usize) {
        let (start, mut at) = (self.start(set, subset), way);
        for level in &self.levels {
            let word = &mut self.words[start + level + at / WORD];
            *word &= !(1 << (at % WORD));
            if *word != 0 {
                break;
            }
            at /= WORD;
        }
    }

    /// The first way of the subset.
    #[inline]
    pub fn first(&self, set: usize, subset: usize) -> Option<usize> {
        let start = self.start(set, subset);
        if self.words[start + self.stride - 1] == 0 {
            return None;
        }
        let down = self.levels.iter().rev();
        Some(down.fold(0, |at, level| {
            at * WORD + self.words[start + level + at].trailing_zeros() as usize
        }))
    }
}
