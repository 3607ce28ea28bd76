//! Splitting blocks into lines.

use memchr::memchr;

/// Longest line handed out, in bytes; what follows until the line's end is
/// dropped. Lines of the logs we import have at most a few hundred bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// One line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// 1-based number.
    pub number: u64,
    /// The bytes without the line end (LF or CRLF); any encoding.
    pub bytes: &'a [u8],
    /// True if the line was longer than [`MAX_LINE_BYTES`] and the rest of it
    /// was dropped.
    pub truncated: bool,
}

/// Where the next line is.
#[derive(Debug, Default)]
enum Next {
    /// More text is needed.
    #[default]
    Unknown,
    /// In the block, up to (not including) this offset.
    InBlock(usize),
    /// In the carry buffer, which the block's first line has completed.
    Carried,
}

/// The block being split, and the beginning of a line from blocks before it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    block: Vec<u8>,
    /// Start of the next line in the block.
    at: usize,
    next: Next,
    /// The line before the block's first line end, if it started earlier.
    carry: Vec<u8>,
    /// `carry` holds the start of a line.
    carrying: bool,
    truncated: bool,
    number: u64,
}

impl Lines {
    /// Looks for the next line; false if another block is needed.
    #[inline]
    pub fn ready(&mut self) -> bool {
        if let Next::Unknown = self.next {
            let rest = &self.block[self.at..];
            let Some(length) = memchr(b'\n', rest) else {
                return false;
            };
            if self.carrying {
                self.extend_carry(self.at + length);
                self.at += length + 1;
                self.next = Next::Carried;
            } else {
                self.next = Next::InBlock(self.at + length);
            }
        }
        true
    }

    /// Takes the next block; returns the one before it. To be called only
    /// when `ready` is false: what is left then is the start of a line.
    pub fn feed(&mut self, block: Vec<u8>) -> Vec<u8> {
        let end = self.block.len();
        if self.at < end {
            if !self.carrying {
                self.carrying = true;
                self.carry.clear();
            }
            self.extend_carry(end);
        }
        self.at = 0;
        std::mem::replace(&mut self.block, block)
    }

    /// There are no more blocks: what is left is the last line.
    pub fn end(&mut self) {
        self.feed(Vec::new());
        if self.carrying {
            self.next = Next::Carried;
        }
    }

    /// The line that `ready` (or `end`) found, `None` if there is none.
    #[inline]
    pub fn take(&mut self) -> Option<Line<'_>> {
        let truncated;
        let bytes = match std::mem::take(&mut self.next) {
            Next::Unknown => return None,
            Next::InBlock(end) => {
                let bytes = &self.block[self.at..end];
                self.at = end + 1;
                truncated = bytes.len() > MAX_LINE_BYTES;
                &bytes[..bytes.len().min(MAX_LINE_BYTES)]
            }
            Next::Carried => {
                truncated = std::mem::take(&mut self.truncated);
                self.carrying = false;
                &self.carry[..]
            }
        };
        self.number += 1;
        let bytes = match bytes {
            [text @ .., b'\r'] if !truncated => text,
            text => text,
        };
        Some(Line { number: self.number, bytes, truncated })
    }

    /// The bytes of that line, which is left where it is.
    pub fn peek(&self) -> Option<&[u8]> {
        match self.next {
            Next::Unknown => None,
            Next::InBlock(end) => Some(&self.block[self.at..end]),
            Next::Carried => Some(&self.carry),
        }
    }

    /// Appends the block from `at` to `end` to the carried line.
    fn extend_carry(&mut self, end: usize) {
        let part = &self.block[self.at..end];
        let room = MAX_LINE_BYTES.saturating_sub(self.carry.len());
        self.truncated |= part.len() > room;
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
    }
}
