//! An own writer of the format (`trace/simple.c` of QEMU 7.2.0) and what is
//! read back.

use super::*;

/// Writes such a file; `big` as a big-endian machine does.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    big: bool,
}

enum Arg<'a> {
    Word(u64),
    Text(&'a str),
}

impl Writer {
    fn new(big: bool, version: u64) -> Writer {
        let mut w = Writer { bytes: Vec::new(), big };
        for word in [u64::MAX, MAGIC, version] {
            w.word(word);
        }
        w
    }

    fn word(&mut self, value: u64) {
        self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn half(&mut self, value: u32) {
        self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn name(&mut self, id: u64, name: &str) {
        self.word(0);
        self.word(id);
        self.half(name.len() as u32);
        self.bytes.extend_from_slice(name.as_bytes());
    }

    fn event(&mut self, id: u64, ns: u64, pid: u32, args: &[Arg<'_>]) {
        let size: usize = args
            .iter()
            .map(|a| match a {
                Arg::Word(_) => 8,
                Arg::Text(t) => 4 + t.len(),
            })
            .sum();
        self.word(1);
        self.word(id);
        self.word(ns);
        self.half((RECORD_HEAD + size) as u32);
        self.half(pid);
        for arg in args {
            match arg {
                Arg::Word(w) => self.word(*w),
                Arg::Text(t) => {
                    self.half(t.len() as u32);
                    self.bytes.extend_from_slice(t.as_bytes());
                }
            }
        }
    }
}

/// Hands out a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(to.len()).min(self.0.len());
        to[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

fn text(bytes: &[u8], step: usize) -> Result<String, String> {
    let (start, rest) = bytes.split_at(bytes.len().min(MAGIC_BYTES));
    assert!(is_simple(start));
    let mut simple = SimpleText::new(start.to_vec());
    let mut from = Slow(rest, step);
    let (mut all, mut block) = (Vec::new(), [0; 100]);
    loop {
        match simple.read(&mut from, &mut block) {
            Ok(0) => return Ok(String::from_utf8(all).unwrap()),
            Ok(n) => all.extend_from_slice(&block[..n]),
            Err(e) => return Err(e.to_string()),
        }
    }
}

fn sample(big: bool) -> Vec<u8> {
    let mut w = Writer::new(big, 4);
    w.name(7, "vtd_dmar_translate");
    w.name(8, "vtd_inv_desc");
    w.name(900, "vtd_reg_read");
    w.name(901, "smmu_iotlb_insert");
    let (word, string) = (Arg::Word, Arg::Text);
    let translate = [0, 3, 1, 0x1000, 0x50_1000, 0xfff].map(word);
    w.event(7, 5_000_000_123, 77, &translate);
    w.event(8, 5_000_000_124, 77, &[string("iotlb"), Arg::Word(0xfff7_4001), Arg::Word(0x6_00f2)]);
    w.event(900, 5_000_000_125, 77, &[Arg::Word(8), Arg::Word(4)]);
    w.event(901, 5_000_000_126, 77, &[3, 0x1000, 1, 3].map(Arg::Word));
    w.event(901, 5_000_000_127, 77, &[3, u64::MAX, 0x1000, 1, 3].map(Arg::Word));
    w.event(DROPPED, 5_000_000_128, 77, &[Arg::Word(12)]);
    w.event(901, 5_000_000_129, 77, &[Arg::Word(3)]);
    w.event(1234, 5_000_000_130, 77, &[]);
    w.bytes
}

const SAMPLE: &str = "\
77@5.000000123:vtd_dmar_translate dev 00:03.01 iova 0x1000 -> gpa 0x501000 mask 0xfff
77@5.000000124:vtd_inv_desc invalidate desc type iotlb high 0xfff74001 low 0x600f2
77@5.000000125:vtd_reg_read 
77@5.000000126:smmu_iotlb_insert IOTLB ++ asid=3 addr=0x1000 tg=1 level=3
77@5.000000127:smmu_iotlb_insert IOTLB ++ asid=3 vmid=-1 addr=0x1000 tg=1 level=3
77@5.000000128:#simpletrace dropped 12
77@5.000000129:smmu_iotlb_insert ?
77@5.000000130:#simpletrace unnamed
";

#[test]
fn lines_of_a_log() {
    for step in [1, 7, 1 << 20] {
        assert_eq!(text(&sample(false), step).unwrap(), SAMPLE);
        assert_eq!(text(&sample(true), step).unwrap(), SAMPLE, "of a big-endian machine");
    }
}

/// A string of the file can neither end its line nor be no text.
#[test]
fn strings_stay_in_their_line() {
    let mut w = Writer::new(false, 4);
    w.name(8, "vtd_inv_desc");
    let forged = "iotlb\nx@1.0:\u{7f}\u{d8}";
    w.event(8, 1, 1, &[Arg::Text(forged), Arg::Word(1), Arg::Word(2)]);
    let line = "1@0.000000001:vtd_inv_desc invalidate desc type iotlb?x@1.0:??? high 0x1 low 0x2\n";
    assert_eq!(text(&w.bytes, 64).unwrap(), line);
}

#[test]
fn cut_anywhere() {
    let whole = sample(false);
    let mut lines = 0;
    for end in MAGIC_BYTES..whole.len() {
        match text(&whole[..end], 64) {
            Ok(text) => {
                let (whole_lines, cut) = match text.strip_suffix("#simpletrace cut\n") {
                    Some(lines) => (lines, true),
                    None => (text.as_str(), false),
                };
                assert!(SAMPLE.starts_with(whole_lines), "{end}");
                lines += u32::from(cut);
            }
            Err(e) => assert!(end < HEADER && e.contains("within its header"), "{e}"),
        }
    }
    assert!(lines > 200, "most cuts are within a record");
}

#[test]
fn other_versions_and_damage() {
    let old = text(&Writer::new(false, 3).bytes, 64).unwrap_err();
    assert!(old.contains("version 3") && old.contains("QEMU 2.8"), "{old}");
    let mut w = Writer::new(false, 4);
    w.word(2);
    let e = text(&w.bytes, 64).unwrap_err();
    assert!(e.contains("at byte 24") && e.contains("type 0x2"), "{e}");
    for length in [0, 23, 1 << 20, u32::MAX] {
        let mut w = Writer::new(false, 4);
        for word in [1, 7, 0] {
            w.word(word);
        }
        w.half(length);
        w.half(0);
        let e = text(&w.bytes, 64).unwrap_err();
        assert!(e.contains(&format!("{length} bytes")), "{e}");
    }
    for name in ["", "two words", &"x".repeat(300)] {
        let mut w = Writer::new(false, 4);
        w.name(1, name);
        assert!(text(&w.bytes, 64).unwrap_err().contains("name"));
    }
    let mut w = Writer::new(false, 4);
    for id in 0..=MAX_NAMES as u64 {
        w.name(id, "x");
    }
    assert!(text(&w.bytes, 1 << 20).unwrap_err().contains("names more than"));
    assert!(!is_simple(&[0xff; 16]) && !is_simple(b"short"));
}

proptest::proptest! {
    #[test]
    fn damage_never_panics(at in 0..2000usize, byte: u8, tail: Vec<u8>) {
        let mut bytes = sample(false);
        let at = MAGIC_BYTES + at % (bytes.len() - MAGIC_BYTES);
        bytes[at] = byte;
        bytes.extend(tail);
        if let Ok(text) = text(&bytes, 100) {
            proptest::prop_assert!(text.is_ascii());
        }
    }
}

/// One record and the line that the `log` backend prints for it.
fn record(w: &mut Writer, kind: usize, a: u64, b: u64, c: u32) -> String {
    let word = Arg::Word;
    let half = u64::from(c);
    // A signed 32-bit value is widened with its sign.
    let signed = i64::from(c as i32) as u64;
    match kind {
        0 => {
            w.event(0, a, c, &[half & 0xff, 3, 1, a, b, 0xfff].map(word));
            format!(
                "vtd_dmar_translate dev {:02x}:03.01 iova 0x{a:x} -> gpa 0x{b:x} mask 0xfff",
                c & 0xff
            )
        }
        1 => {
            let kind = ["iotlb", "context-cache", ""][c as usize % 3];
            w.event(1, a, c, &[Arg::Text(kind), word(a), word(b)]);
            format!("vtd_inv_desc invalidate desc type {kind} high 0x{a:x} low 0x{b:x}")
        }
        2 => {
            w.event(2, a, c, &[half & 0xffff, a, b, 0xfff, signed].map(word));
            format!(
                "vtd_page_walk_one domain 0x{:x} iova 0x{a:x} -> gpa 0x{b:x} mask 0xfff perm {}",
                c & 0xffff,
                c as i32
            )
        }
        3 => {
            w.event(3, a, c, &[signed, b, 1, 3].map(word));
            format!("smmu_iotlb_insert IOTLB ++ asid={} addr=0x{b:x} tg=1 level=3", c as i32)
        }
        4 => {
            w.event(3, a, c, &[signed, u64::MAX, b, 1, 3].map(word));
            format!(
                "smmu_iotlb_insert IOTLB ++ asid={} vmid=-1 addr=0x{b:x} tg=1 level=3",
                c as i32
            )
        }
        5 => {
            w.event(4, a, c, &[18, half, a, b, b | 1, 0, signed].map(word));
            format!(
                "iommufd_backend_map_dma  iommufd=18 ioas={} iova=0x{a:x} size=0x{b:x} addr={:#x} readonly=0 ({})",
                c as i32,
                b | 1,
                c as i32
            )
        }
        6 => {
            w.event(
                5,
                a,
                c,
                &[
                    Arg::Text("smmuv3-iommu-memory-region-0"),
                    word(8),
                    word(a),
                    word(b),
                    word(3),
                    word(1),
                ],
            );
            format!(
                "smmuv3_translate_success smmuv3-iommu-memory-region-0 sid=0x8 iova=0x{a:x} translated=0x{b:x} perm=0x3 stage=1"
            )
        }
        7 => {
            w.event(DROPPED, a, c, &[word(b)]);
            format!("#simpletrace dropped {b}")
        }
        _ => {
            w.event(6, a, c, &[word(a), word(b)]);
            "vtd_reg_write ".to_owned()
        }
    }
}

proptest::proptest! {
    #[test]
    fn printed_records_read_back(
        all in proptest::collection::vec((0..9usize, proptest::num::u64::ANY, proptest::num::u64::ANY, proptest::num::u32::ANY), 0..200),
        big: bool,
        step in 1..5000usize,
    ) {
        let mut w = Writer::new(big, 4);
        let names = [
            "vtd_dmar_translate", "vtd_inv_desc", "vtd_page_walk_one", "smmu_iotlb_insert",
            "iommufd_backend_map_dma", "smmuv3_translate_success", "vtd_reg_write",
        ];
        for (id, name) in names.into_iter().enumerate() {
            w.name(id as u64, name);
        }
        let mut expected = String::new();
        for (kind, a, b, c) in all {
            let line = record(&mut w, kind, a, b, c);
            expected += &format!("{c}@{}.{:09}:{line}\n", a / 1_000_000_000, a % 1_000_000_000);
        }
        proptest::prop_assert_eq!(text(&w.bytes, step).unwrap(), expected);
    }
}
