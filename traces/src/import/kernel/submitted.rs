//! The descriptors that a kernel submitted, as the log of the IOMMU that
//! carried them out.

use std::path::Path;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::desc::{Descriptor, kind};
use super::super::ftrace_line::{self, Event};
use super::super::lines::LineSource;
use crate::Result;
use crate::input::Line;

/// Lines of QEMU's `vtd_inv_desc`, one for each `qi_submit` of a kernel's
/// trace, with its time.
#[derive(Debug)]
pub(super) struct Submitted<L> {
    lines: L,
    text: Vec<u8>,
}

impl<L: LineSource> Submitted<L> {
    pub(super) fn new(lines: L) -> Self {
        Submitted { lines, text: Vec::with_capacity(128) }
    }
}

impl<L: LineSource> LineSource for Submitted<L> {
    fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        while let Some(line) = self.lines.next_line()? {
            if !tells_submit(line.bytes) {
                continue;
            }
            let ftrace_line::Line::Event(prefix, Event::QiSubmit { qw0, qw1 }) =
                ftrace_line::parse(line.bytes)
            else {
                continue;
            };
            if (Descriptor { qw0, qw1 }).kind() == kind::WAIT {
                continue;
            }
            let (seconds, ns) = (prefix.time / 1_000_000_000, prefix.time % 1_000_000_000);
            let text = &mut self.text;
            text.clear();
            decimal(text, u64::from(prefix.cpu) + 1, 1);
            text.push(b'@');
            decimal(text, seconds.unsigned_abs(), 1);
            text.push(b'.');
            decimal(text, ns.unsigned_abs(), 9);
            text.extend_from_slice(b":vtd_inv_desc invalidate desc type submitted high 0x");
            hexadecimal(text, qw1);
            text.extend_from_slice(b" low 0x");
            hexadecimal(text, qw0);
            return Ok(Some(Line { number: line.number, bytes: &self.text, truncated: false }));
        }
        Ok(None)
    }

    fn path(&self) -> &Path {
        self.lines.path()
    }

    fn progress(&self) -> (u64, u64) {
        self.lines.progress()
    }
}

/// The event's name. Most lines of a trace are others, which need not be taken
/// apart here.
static SUBMIT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("qi_submit"));

/// True if a line may be a `qi_submit`.
#[inline]
pub(super) fn tells_submit(line: &[u8]) -> bool {
    SUBMIT.find(line).is_some()
}

/// Appends a number of `least` digits or more.
fn decimal(text: &mut Vec<u8>, mut n: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while n > 0 {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text.extend_from_slice(&digits[at.min(digits.len() - least)..]);
}

/// Appends a number.
fn hexadecimal(text: &mut Vec<u8>, n: u64) {
    let digits = (u64::BITS - n.leading_zeros()).div_ceil(4).max(1);
    text.extend((0..digits).rev().map(|i| b"0123456789abcdef"[(n >> (4 * i) & 15) as usize]));
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn numbers_as_the_library_prints_them(n: u64, shift in 0..64u32, ns in 0..1_000_000_000u64) {
            let n = n >> shift;
            let mut text = Vec::new();
            decimal(&mut text, n, 1);
            text.push(b' ');
            decimal(&mut text, ns, 9);
            text.push(b' ');
            hexadecimal(&mut text, n);
            proptest::prop_assert_eq!(text, format!("{n} {ns:09} {n:x}").into_bytes());
        }
    }
}
