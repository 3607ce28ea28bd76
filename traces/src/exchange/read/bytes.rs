//! Bytes of a file or of memory, and lines of them as they stand.

use std::io::Read;
use std::path::Path;

use crate::exchange::refuse;
use crate::input::ByteInput;
use crate::{Error, Result};

/// Longest line, in bytes.
pub(super) const MAX_LINE: usize = 1 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 18;

/// Bytes of a file, read once.
pub trait ByteSource: Read {
    /// Name for messages.
    fn path(&self) -> &Path;
    /// Bytes of the stored file read so far, and its size (0 for a pipe).
    fn progress(&self) -> (u64, u64);
    /// What a failed read was in truth.
    fn error(&mut self, e: std::io::Error) -> Error {
        Error::io("read", self.path(), e)
    }
}

impl ByteSource for ByteInput {
    fn path(&self) -> &Path {
        ByteInput::path(self)
    }

    fn progress(&self) -> (u64, u64) {
        (self.raw_bytes_read(), self.raw_bytes_total())
    }

    fn error(&mut self, e: std::io::Error) -> Error {
        ByteInput::error(self, e)
    }
}

impl<R: ByteSource> ByteSource for &mut R {
    fn path(&self) -> &Path {
        (**self).path()
    }

    fn progress(&self) -> (u64, u64) {
        (**self).progress()
    }

    fn error(&mut self, e: std::io::Error) -> Error {
        (**self).error(e)
    }
}

/// A file in memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBytes<'a> {
    name: &'a Path,
    rest: &'a [u8],
    total: u64,
}

impl<'a> MemoryBytes<'a> {
    /// The bytes of a file; `name` is for messages.
    pub fn new(name: &'a str, bytes: &'a [u8]) -> Self {
        MemoryBytes { name: Path::new(name), rest: bytes, total: bytes.len() as u64 }
    }
}

impl Read for MemoryBytes<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.rest.read(into)
    }
}

impl ByteSource for MemoryBytes<'_> {
    fn path(&self) -> &Path {
        self.name
    }

    fn progress(&self) -> (u64, u64) {
        (self.total - self.rest.len() as u64, self.total)
    }
}

/// Lines of bounded length; what is longer is an error. A line is without its
/// LF, but with a CR before it.
pub(super) struct Lines<R> {
    pub input: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are filled.
    filled: usize,
    /// Where the line handed out begins, and where the next one does.
    start: usize,
    at: usize,
    ended: bool,
    /// 1-based number of the line handed out; its last one if it was grown.
    number: u64,
}

impl<R: ByteSource> Lines<R> {
    pub fn new(input: R) -> Self {
        let buffer = vec![0; READ_BYTES];
        Lines { input, buffer, filled: 0, start: 0, at: 0, ended: false, number: 0 }
    }

    /// The next line and its number from 1, `None` at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        self.start = self.at;
        self.number += 1;
        if let Some(i) = memchr::memchr(b'\n', &self.buffer[self.at..self.filled]) {
            let end = self.at + i;
            self.at = end + 1;
            return Ok(Some((self.number, &self.buffer[self.start..end])));
        }
        let number = self.number;
        Ok(self.find(self.at)?.map(|line| (number, line)))
    }

    /// What stands behind the line handed out last, from its LF on to the end of
    /// the next one; `None` if there is none, or all of it would be more than
    /// `limit` bytes.
    pub fn grow(&mut self, limit: usize) -> Result<Option<&[u8]>> {
        let had = self.at - self.start;
        self.number += 1;
        let grown = self.find(self.at)?;
        Ok(grown.filter(|line| line.len() <= limit).map(|line| &line[had - 1..]))
    }

    /// Takes back what [`grow`](Lines::grow) added to a line of `length` bytes.
    pub fn take_back(&mut self, number: u64, length: usize) {
        self.number = number;
        self.at = (self.start + length + 1).min(self.filled);
    }

    /// The line from `start` to the first end at or behind `searched`.
    fn find(&mut self, mut searched: usize) -> Result<Option<&[u8]>> {
        let first = searched - self.start;
        loop {
            if let Some(i) = memchr::memchr(b'\n', &self.buffer[searched..self.filled]) {
                let end = searched + i;
                self.at = end + 1;
                return Ok(Some(&self.buffer[self.start..end]));
            }
            if self.filled - self.start > MAX_LINE {
                let why = format!("line {} is longer than {MAX_LINE} bytes", self.number);
                return Err(refuse(self.input.path(), why));
            }
            searched = self.filled - self.start;
            if !self.ended {
                self.fill()?;
            }
            if self.ended {
                self.at = self.filled;
                let some = searched > first;
                return Ok(some.then(|| &self.buffer[self.start..self.filled]));
            }
        }
    }

    /// Moves the line to the buffer's beginning and reads behind it.
    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.buffer.len() - self.filled < READ_BYTES / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.input.read(&mut self.buffer[self.filled..]) {
            Ok(0) => self.ended = true,
            Ok(n) => self.filled += n,
            Err(e) => return Err(self.input.error(e)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn lines_are_those_of_the_text(
            lines in proptest::collection::vec("[a-c\r]{0,9}", 0..40), ended: bool,
        ) {
            let mut text = lines.join("\n");
            if ended && !lines.is_empty() {
                text.push('\n');
            }
            let wanted: Vec<&str> = text.split_terminator('\n').collect();
            let mut read = Lines::new(MemoryBytes::new("x", text.as_bytes()));
            // As if the buffer were full again and again.
            read.buffer.truncate(2);
            for (i, line) in wanted.iter().enumerate() {
                let next = read.next().unwrap();
                proptest::prop_assert_eq!(next, Some((i as u64 + 1, line.as_bytes())));
            }
            proptest::prop_assert_eq!(read.next().unwrap(), None);
        }
    }

    #[test]
    fn a_line_grows() {
        let mut lines = Lines::new(MemoryBytes::new("x", b"a\nb\n\nc"));
        assert_eq!(lines.next().unwrap(), Some((1, &b"a"[..])));
        assert_eq!(lines.grow(9).unwrap(), Some(&b"\nb"[..]));
        assert_eq!(lines.grow(9).unwrap(), Some(&b"\n"[..]));
        assert_eq!(lines.grow(4).unwrap(), None, "too long");
        lines.take_back(1, 1);
        assert_eq!(lines.next().unwrap(), Some((2, &b"b"[..])));
        assert_eq!(lines.next().unwrap(), Some((3, &b""[..])));
        assert_eq!(lines.next().unwrap(), Some((4, &b"c"[..])));
        assert_eq!(lines.grow(9).unwrap(), None);
        lines.take_back(4, 1);
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn a_long_line_is_refused() {
        let text = vec![b'x'; MAX_LINE + READ_BYTES];
        let mut lines = Lines::new(MemoryBytes::new("x", &text));
        let text = lines.next().unwrap_err().to_string();
        assert!(text.contains("line 1 is longer than 1048576 bytes"), "{text}");
        assert!(lines.buffer.len() <= 4 * MAX_LINE);
    }
}
