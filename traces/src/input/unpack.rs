//! Decompression, and the digest of what was read.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use sha2::{Digest as _, Sha256};

use super::printer::{Printer, Tool};
use super::simple::{self, SimpleText};
use crate::{Error, Result};

/// Bytes of the compressed file read at once.
const READ_BYTES: usize = 256 << 10;

/// Largest zstd window accepted, log2 of bytes: all that the format allows
/// (`zstd --long=31`). The memory is what the file's header asks for, 128 MiB
/// with `--long=27`, and only as much of it is touched as there is text.
const ZSTD_WINDOW_LOG: u32 = 31;

/// Memory that an xz stream may ask for; `xz -9` needs 65 MiB, and a larger
/// dictionary than 1 GiB is rarer than a damaged header.
const XZ_MEMORY_BYTES: u64 = 1 << 30;

/// Size and hash of a file as stored.
#[derive(Debug)]
pub(super) struct Digest {
    pub bytes: u64,
    pub sha256: String,
}

/// The file with its bytes counted and hashed as they pass.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(to)?;
        self.hash.update(&to[..n]);
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// First bytes, already read, before the rest; all of it hashed once.
type Raw = Hashed<io::Chain<Cursor<Vec<u8>>, File>>;

enum Format {
    Plain(Raw),
    /// What a program prints of the file; the file itself for its digest.
    Printed(Box<Printer>, Raw),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Raw>>>),
    Gzip(Box<MultiGzDecoder<BufReader<Raw>>>),
    Xz(Box<XzDecoder<BufReader<Raw>>>),
}

/// A file being decompressed.
pub(super) struct Unpacker {
    path: PathBuf,
    format: Format,
    /// What its first bytes say has been seen.
    begun: bool,
    /// Not text, but QEMU's binary trace.
    simple: Option<SimpleText>,
    text_bytes: u64,
    /// Met after some text; decoders need not repeat their errors.
    pending: Option<io::Error>,
}

impl Unpacker {
    pub fn new(path: &Path, mut file: File, read: Arc<AtomicU64>) -> Result<Unpacker> {
        let mut magic = Vec::with_capacity(10);
        file.by_ref().take(10).read_to_end(&mut magic).map_err(|e| Error::io("read", path, e))?;
        if magic.starts_with(b"PAR1") {
            return Err(Error::NotText {
                path: path.to_owned(),
                what: "a Parquet file",
                remedy: "if it is an ioasim trace, use it without importing",
            });
        }
        let start = magic.clone();
        let raw = Hashed { inner: Cursor::new(start).chain(file), hash: Sha256::new(), read };
        let buffered = |raw| BufReader::with_capacity(READ_BYTES, raw);
        let starting = |e| Error::io("decompress", path, e);
        let format = match magic[..] {
            // A frame, or a skippable one (as pzstd writes first).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(buffered(raw));
                let mut decoder = decoder.map_err(starting)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(starting)?;
                Format::Zstd(Box::new(decoder))
            }
            [0x1f, 0x8b, ..] => Format::Gzip(Box::new(MultiGzDecoder::new(buffered(raw)))),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)
                    .map_err(|e| starting(e.into()))?;
                Format::Xz(Box::new(XzDecoder::new_stream(buffered(raw), stream)))
            }
            _ => match Tool::of(&magic) {
                Some(tool) => Format::Printed(Box::new(Printer::start(tool, path)?), raw),
                None => Format::Plain(raw),
            },
        };
        Ok(Unpacker {
            path: path.to_owned(),
            format,
            begun: false,
            simple: None,
            text_bytes: 0,
            pending: None,
        })
    }

    /// Fills `block`, or as much of it as there is text left.
    pub fn fill(&mut self, block: &mut [u8]) -> Result<usize> {
        if let Some(error) = self.pending.take() {
            return Err(self.failed(error));
        }
        let stored = matches!(self.format, Format::Plain(_) | Format::Printed(..));
        let reader: &mut dyn Read = match &mut self.format {
            Format::Plain(r) => r,
            Format::Printed(r, _) => &mut **r,
            Format::Zstd(r) => r,
            Format::Gzip(r) => r,
            Format::Xz(r) => r,
        };
        let mut filled = 0;
        while filled < block.len() {
            let read = match &mut self.simple {
                Some(simple) => simple.read(reader, &mut block[filled..]),
                None => reader.read(&mut block[filled..]),
            };
            match read {
                Ok(0) => break,
                Ok(n) => {
                    filled += n;
                    if !self.begun && filled >= simple::MAGIC_BYTES {
                        self.begun = true;
                        if !stored && let Some(tool) = Tool::of(block) {
                            // It is handed the file itself.
                            let (what, remedy) = (tool.compressed(), "decompress it first");
                            return Err(Error::NotText { path: self.path.clone(), what, remedy });
                        }
                        if simple::is_simple(block) {
                            self.simple = Some(SimpleText::new(block[..filled].to_vec()));
                            filled = 0;
                        }
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The text before the damage is handed out first.
                Err(e) if filled > 0 => {
                    self.pending = Some(e);
                    break;
                }
                Err(e) => return Err(self.failed(e)),
            }
        }
        self.text_bytes += filled as u64;
        Ok(filled)
    }

    /// Size and hash of the whole file, once `fill` has returned 0.
    pub fn digest(self) -> Result<Digest> {
        let path = self.path;
        let mut raw = match self.format {
            Format::Plain(raw) | Format::Printed(_, raw) => raw,
            Format::Zstd(r) => r.finish().into_inner(),
            Format::Gzip(r) => r.into_inner().into_inner(),
            Format::Xz(r) => r.into_inner().into_inner(),
        };
        // Whatever the decoder has no use for still belongs to the file.
        io::copy(&mut raw, &mut io::sink()).map_err(|e| Error::io("read", &path, e))?;
        let hash = raw.hash.finalize();
        let sha256 = hash.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Digest { bytes: raw.read.load(Ordering::Relaxed), sha256 })
    }

    fn failed(&self, error: io::Error) -> Error {
        if let Some(simple::Broken(why)) = error.get_ref().and_then(|e| e.downcast_ref()) {
            return Error::Damaged { path: self.path.clone(), why: why.clone() };
        }
        let (format, check) = match self.format {
            Format::Plain(_) | Format::Printed(..) => {
                return Error::io("read", &self.path, error);
            }
            Format::Zstd(_) => ("zstd", "zstd -t"),
            Format::Gzip(_) => ("gzip", "gzip -t"),
            Format::Xz(_) => ("xz", "xz -t"),
        };
        let what = if error.kind() == io::ErrorKind::UnexpectedEof {
            "the file is truncated".to_owned()
        } else {
            format!("the compressed stream is damaged: {error}")
        };
        Error::Compressed {
            path: self.path.clone(),
            format,
            why: format!("{what}, after {} bytes of text", self.text_bytes),
            check: format!("{check} {}", self.path.display()),
        }
    }
}
