//! Lines as they are exported, read without a JSON parser.

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester};

use super::kind_of;
use crate::import::bytes::Cursor;

/// The event of a line that is an object of this schema without blanks,
/// escapes, signs and repeated keys, and its text. `None` for all others, for
/// which the JSON parser tells the same or what is wrong.
#[inline]
pub(in crate::exchange) fn plain(line: &[u8]) -> Option<(Event, Option<&str>)> {
    let mut e = Event::new(Kind::Dma);
    let mut text = None;
    let mut c = Cursor::new(line);
    let mut seen = 0u32;
    c.lit(b"{\"")?;
    loop {
        let bit = field(&mut c, &mut e, &mut text)?;
        if seen & 1 << bit != 0 {
            return None;
        }
        seen |= 1 << bit;
        if c.try_lit(b"}") {
            break;
        }
        c.lit(b",\"")?;
    }
    // An event must name its kind.
    (c.rest().is_empty() && seen & 1 << KIND != 0).then_some((e, text))
}

/// Number of the key `kind`.
const KIND: u32 = 1;

/// Reads a key behind its first quote, and its value; gives the key's number.
#[inline]
fn field<'a>(c: &mut Cursor<'a>, e: &mut Event, text: &mut Option<&'a str>) -> Option<u32> {
    let int32 = |c: &mut Cursor<'_>| int(c).and_then(|n| u32::try_from(n).ok());
    // No two names of one length begin with the same letter.
    Some(match c.rest() {
        [b't', b'i', ..] => {
            c.lit(b"time_ns\":")?;
            e.time_ns = int(c)?;
            0
        }
        [b'k', ..] => {
            c.lit(b"kind\":\"")?;
            e.kind = kind_of(string(c)?)?;
            KIND
        }
        [b'f', ..] => {
            c.lit(b"flags\":")?;
            e.flags = Flags(int32(c)?);
            2
        }
        [b'd', ..] => {
            c.lit(b"domain\":")?;
            e.domain = DomainId(int32(c)?);
            3
        }
        [b'r', ..] => {
            c.lit(b"requester\":")?;
            e.requester = Requester(int32(c)?);
            4
        }
        [b'p', ..] => {
            c.lit(b"pasid\":")?;
            e.pasid = Pasid(int32(c)?);
            5
        }
        [b'a', b'd', ..] => {
            c.lit(b"addr\":")?;
            e.addr = int(c)?;
            6
        }
        [b's', ..] => {
            c.lit(b"size\":")?;
            e.size = int(c)?;
            7
        }
        [b'o', ..] => {
            c.lit(b"out\":")?;
            e.out = int(c)?;
            8
        }
        [b'a', ..] => {
            c.lit(b"aux\":")?;
            e.aux = int(c)?;
            9
        }
        [b'c', ..] => {
            c.lit(b"cpu\":")?;
            e.cpu = i32::try_from(int(c)?).ok()?;
            10
        }
        _ => {
            c.lit(b"text\":\"")?;
            *text = Some(std::str::from_utf8(string(c)?).ok()?);
            11
        }
    })
}

/// A whole number as JSON has it: no zeros in front.
#[inline]
fn int(c: &mut Cursor<'_>) -> Option<u64> {
    if let [b'0', b'0'..=b'9', ..] = c.rest() {
        return None;
    }
    c.dec()
}

/// A string without escapes, behind its first quote.
#[inline]
fn string<'a>(c: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let rest = c.rest();
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20))?;
    let string = &rest[..end];
    c.lit(string)?;
    c.lit(b"\"")?;
    Some(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::json_lines::Row;

    fn parsed(line: &[u8]) -> Option<(Event, Option<String>)> {
        let row = serde_json::from_slice::<Row>(line).ok()?;
        row.event().ok().map(|(e, text)| (e, text.map(str::to_owned)))
    }

    fn owned(read: Option<(Event, Option<&str>)>) -> Option<(Event, Option<String>)> {
        read.map(|(e, text)| (e, text.map(str::to_owned)))
    }

    #[test]
    fn exported_lines_need_no_parser() {
        for line in [
            r#"{"time_ns":17,"kind":"map","flags":7,"domain":1,"addr":4096,"size":8192,"out":18446744073709551615}"#,
            r#"{"time_ns":0,"kind":"dma","requester":8,"pasid":1048575,"aux":3,"cpu":3}"#,
            r#"{"kind":"marker","text":"werk läuft"}"#,
        ] {
            let read = owned(plain(line.as_bytes()));
            assert!(read.is_some(), "{line}");
            assert_eq!(read, parsed(line.as_bytes()), "{line}");
        }
    }

    proptest::proptest! {
        /// Wherever it reads a line, the parser reads the same.
        #[test]
        fn what_it_reads_is_what_the_parser_reads(
            keys in proptest::collection::vec(
                (proptest::sample::select(vec![
                    "time_ns", "kind", "flags", "domain", "requester", "pasid", "addr", "size", "out",
                    "aux", "cpu", "text", "tex", "timens",
                ]),
                proptest::prop_oneof![
                    proptest::num::u64::ANY.prop_map(|n| n.to_string()),
                    (0..200u32).prop_map(|n| n.to_string()),
                    proptest::sample::select(vec![
                        "\"dma\"", "\"map\"", "\"attach\"", "\"a\\n\"", "null", "-1", "01", "1.5", "\"\"",
                    ]).prop_map(str::to_owned),
                ]),
                0..8,
            ),
            cut in 0..200usize,
            byte: u8,
        ) {
            let fields: Vec<String> =
                std::iter::once("\"kind\":\"unmap\"".to_owned())
                    .chain(keys.iter().map(|(k, v)| format!("\"{k}\":{v}"))).collect();
            let mut line = format!("{{{}}}", fields.join(",")).into_bytes();
            if let Some(read) = owned(plain(&line)) {
                proptest::prop_assert_eq!(Some(read), parsed(&line));
            }
            if let Some(b) = line.get_mut(cut) {
                *b = byte;
            }
            if let Some(read) = owned(plain(&line)) {
                proptest::prop_assert_eq!(Some(read), parsed(&line), "{:?}", String::from_utf8_lossy(&line));
            }
        }
    }

    use proptest::strategy::Strategy as _;
}
