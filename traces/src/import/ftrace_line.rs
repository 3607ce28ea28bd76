//! One line of the kernel's ftrace text (`trace`, `trace_pipe`), or of what
//! `trace-cmd report` or `perf script` print of the same events.
//!
//! `TASK-PID [CPU] FLAGS SECONDS: EVENT: TEXT`; perf has `TASK PID [CPU]` and
//! `SYSTEM:EVENT`. Task names hold any character, so a line is read from its
//! ` [CPU] ` on.

use super::bytes::{Cursor, find_near};

/// What stands before the event's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// The guest's clock in ns.
    pub(crate) time: i64,
    /// CPU that wrote the event.
    pub(crate) cpu: u32,
    /// Process id of the task, 0 for the idle task or if unknown.
    pub(crate) pid: u32,
}

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// An event that importers use.
    Event(Prefix, Event<'a>),
    /// An event of another kind; its name.
    Other(&'a [u8]),
    /// The kernel's note that its buffer overflowed; number of events.
    Lost(u64),
    /// A comment or nothing.
    Blank,
    /// Damaged, and why.
    Damaged(&'static str),
}

/// An event that importers use (Linux 6.1 to 7.2,
/// `include/trace/events/iommu.h` and `drivers/iommu/intel/trace.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// `iommu:map`: `[iova, iova+size)` to `out`.
    Map { iova: u64, size: u64, out: u64 },
    /// `iommu:unmap`: `[iova, iova+size)`, the size really unmapped.
    Unmap { iova: u64, size: u64 },
    /// `intel_iommu:qi_submit`: a descriptor for the invalidation queue.
    QiSubmit { qw0: u64, qw1: u64 },
    /// `tracing_mark_write`: a text from user space.
    Marker(&'a [u8]),
    /// `iommu:attach_device_to_domain`.
    AttachDevice,
}

/// Takes a line apart.
pub(crate) fn parse(bytes: &[u8]) -> Line<'_> {
    let (prefix, name, mut args) = match split(bytes) {
        Ok(parts) => parts,
        Err(line) => return line,
    };
    let event = match name {
        b"map" => map(&mut args),
        b"unmap" => unmap(&mut args),
        b"qi_submit" => qi_submit(&mut args),
        b"tracing_mark_write" | b"print" => Some(Event::Marker(marker(args.rest()))),
        b"attach_device_to_domain" => Some(Event::AttachDevice),
        _ => return Line::Other(name),
    };
    match event {
        Some(event) => Line::Event(prefix, event),
        None => Line::Damaged("arguments of a known event cannot be read"),
    }
}

/// What stands before the event, its name without the system's, and its text.
///
/// # Errors
/// What the line is instead of an event.
pub(crate) fn split(bytes: &[u8]) -> Result<(Prefix, &[u8], Cursor<'_>), Line<'_>> {
    let Some((cpu, pid, rest)) = find_cpu(bytes) else {
        return Err(without_cpu(bytes));
    };
    let mut t = Cursor::new(rest);
    t.skip_spaces();
    // The flags' column is absent with `irq-info` off and in older trace-cmd's
    // report; a stamp begins with a digit and a flag column may, too
    // (preempt depth), so try the stamp first.
    let begins = t;
    let time = stamp(&mut t).or_else(|| {
        t = begins;
        t.skip_past(b' ')?;
        t.skip_spaces();
        stamp(&mut t)
    });
    let Some(time) = time else { return Err(Line::Damaged("time stamp cannot be read")) };
    t.skip_spaces();
    let (name, end) = event_name(t.rest()).map_err(Line::Damaged)?;
    let mut args = Cursor::new(t.rest().get(end..).unwrap_or_default());
    args.skip_spaces();
    Ok((Prefix { time, cpu, pid }, name, args))
}

/// The name before the first `: ` (or a colon at the end), without the
/// system's, and where the event's text begins.
///
/// # Errors
/// What is wrong with it.
#[inline]
fn event_name(text: &[u8]) -> Result<(&[u8], usize), &'static str> {
    // Those that most lines have, with the system's name as perf prints it.
    let mut known = Cursor::new(text);
    let _ = known.try_lit(b"iommu:") || known.try_lit(b"intel_iommu:");
    let rest = known.rest();
    let length = match rest.first() {
        Some(b'm') if rest.starts_with(b"map: ") => 3,
        Some(b'u') if rest.starts_with(b"unmap: ") => 5,
        Some(b'q') if rest.starts_with(b"qi_submit: ") => 9,
        _ => return any_event_name(text),
    };
    Ok((&rest[..length], text.len() - rest.len() + length + 2))
}

fn any_event_name(text: &[u8]) -> Result<(&[u8], usize), &'static str> {
    let mut start = 0;
    for at in memchr::memchr_iter(b':', text) {
        let graphic = text[start..at].iter().fold(true, |all, b| all & b.is_ascii_graphic());
        if !graphic {
            return Err("no event name");
        }
        match text.get(at + 1) {
            Some(b' ') | None if at > start => return Ok((&text[start..at], at + 2)),
            Some(b' ') | None => return Err("event name cannot be read"),
            Some(_) => start = at + 1,
        }
    }
    Err("no event name")
}

/// A marker's text: trace-cmd and perf put the function's address or name before it.
fn marker(text: &[u8]) -> &[u8] {
    let writes = [&b"tracing_mark_write: "[..], b"tracing_mark_write+"];
    match writes.iter().find_map(|w| text.strip_prefix(*w)) {
        Some(rest) => match memchr::memmem::find(rest, b": ") {
            // "tracing_mark_write+0x0: text"
            Some(at) if rest.starts_with(b"0x") => &rest[at + 2..],
            _ => rest,
        },
        None => text,
    }
}

/// Finds ` [CPU] `; gives the CPU, the pid before it and what follows.
#[inline]
fn find_cpu(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let mut at = 0;
    loop {
        at += find_near(b'[', &bytes[at..])?;
        let mut c = Cursor::new(&bytes[at + 1..]);
        if let Some(cpu) = c.dec()
            && at > 0
            && bytes[at - 1] == b' '
            && c.try_lit(b"] ")
            && let Ok(cpu) = u32::try_from(cpu)
            && let Some(pid) = pid(&bytes[..at])
        {
            return Some((cpu, pid, c.rest()));
        }
        at += 1;
    }
}

/// `TASK-PID` with an optional `(TGID)` behind it; perf: `TASK PID` or
/// `TASK PID/TID`.
#[inline]
fn pid(head: &[u8]) -> Option<u32> {
    let mut head = head.trim_ascii_end();
    if let Some(inner) = head.strip_suffix(b")") {
        let open = memchr::memrchr(b'(', inner)?;
        head = head[..open].trim_ascii_end();
    }
    // From the last digit on; more than ten with zeros before them are read again.
    let (mut pid, mut power) = (0u64, 1u64);
    for (i, b) in head.iter().rev().take(11).enumerate() {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            // perf shows an unknown task's id as -1.
            let known = i > 0 && matches!(b, b'-' | b' ' | b'/');
            return known.then_some(pid).and_then(|pid| u32::try_from(pid).ok());
        }
        pid += u64::from(digit) * power;
        power *= 10;
    }
    long_pid(head)
}

/// [`pid`] of any number of digits, with nothing behind them.
fn long_pid(head: &[u8]) -> Option<u32> {
    let digits = head.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, digits) = head.split_at(head.len() - digits);
    let pid = Cursor::new(digits).dec().and_then(|pid| u32::try_from(pid).ok())?;
    matches!(before.last(), Some(b'-' | b' ' | b'/')).then_some(pid)
}

/// `SEC.FRACTION:`.
#[inline]
fn stamp(c: &mut Cursor<'_>) -> Option<i64> {
    let time = c.seconds_ns()?;
    c.lit(b":")?;
    Some(time)
}

/// Comments, the "lost events" note, blank lines, and damage.
fn without_cpu(bytes: &[u8]) -> Line<'_> {
    let line = bytes.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Line::Blank;
    }
    // "CPU:1 [LOST 1234 EVENTS]" (ftrace), "CPU:1 [1234 EVENTS DROPPED]"
    // (trace-cmd), "CPU 1 is empty", "cpus=2" (trace-cmd).
    if line.starts_with(b"CPU") || line.starts_with(b"cpus=") {
        let mut lost = None;
        if let Some(at) = memchr::memchr(b'[', line) {
            let mut c = Cursor::new(&line[at + 1..]);
            c.try_lit(b"LOST ");
            lost = c.dec().or(Some(1));
        }
        return lost.map_or(Line::Blank, Line::Lost);
    }
    if line.iter().any(|b| *b < 0x20 && *b != b'\t') {
        return Line::Damaged("not text");
    }
    Line::Damaged("no [CPU] column")
}

#[inline]
fn map(c: &mut Cursor<'_>) -> Option<Event<'static>> {
    let (iova, end) = iova_range(c)?;
    c.lit(b" paddr=0x")?;
    let out = c.hex()?;
    c.lit(b" size=")?;
    let size = c.dec()?;
    check(iova, size, end)?;
    out.checked_add(size - 1)?;
    Some(Event::Map { iova, size, out })
}

#[inline]
fn unmap(c: &mut Cursor<'_>) -> Option<Event<'static>> {
    let (iova, end) = iova_range(c)?;
    c.lit(b" size=")?;
    let size = c.dec()?;
    check(iova, size, end)?;
    let size = if c.try_lit(b" unmapped_size=") { c.dec()? } else { size };
    Some(Event::Unmap { iova, size })
}

/// `IOMMU: iova=0xSTART[ - 0xEND]`, the end exclusive.
#[inline]
fn iova_range(c: &mut Cursor<'_>) -> Option<(u64, Option<u64>)> {
    c.lit(b"IOMMU: iova=0x")?;
    let iova = c.hex()?;
    let end = if c.try_lit(b" - 0x") { Some(c.hex()?) } else { None };
    Some((iova, end))
}

/// A size agrees with the printed end, does not run over the top, and leaves
/// room for its number of pages in bytes.
fn check(iova: u64, size: u64, end: Option<u64>) -> Option<()> {
    let last = iova.checked_add(size.checked_sub(1)?).filter(|_| size <= 1 << 63)?;
    end.is_none_or(|e| e == last.wrapping_add(1)).then_some(())
}

fn qi_submit(c: &mut Cursor<'_>) -> Option<Event<'static>> {
    // "iotlb_inv dmar0: 0x600f2 0xfff76000 0x0 0x0"
    let mut c = *c;
    while !c.try_lit(b": 0x") {
        let at = memchr::memchr(b':', c.rest().get(1..)?)?;
        c = Cursor::new(&c.rest()[at + 1..]);
    }
    let qw0 = c.hex()?;
    c.lit(b" 0x")?;
    Some(Event::QiSubmit { qw0, qw1: c.hex()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        let at = |time, cpu, pid| Prefix { time, cpu, pid };
        for (text, expected) in [
            (
                "              ip-120     [000] .N...     9.587119: map: IOMMU: iova=0x00000000fff74000 - 0x00000000fff76000 paddr=0x0000000117840000 size=8192",
                Line::Event(
                    at(9_587_119_000, 0, 120),
                    Event::Map { iova: 0xfff7_4000, size: 8192, out: 0x1_1784_0000 },
                ),
            ),
            (
                "a - b [7] [x]-77 (   77) [123] d.h2.  5.123456789: iommu:unmap: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 size=4096 unmapped_size=4096",
                Line::Event(
                    at(5_123_456_789, 123, 77),
                    Event::Unmap { iova: 0xffff_f000, size: 4096 },
                ),
            ),
            (
                "  <idle>-0  [001]  12.5: qi_submit: iotlb_inv dmar0: 0x600f2 0xfff76000 0x0 0x0",
                Line::Event(
                    at(12_500_000_000, 1, 0),
                    Event::QiSubmit { qw0: 0x600f2, qw1: 0xfff7_6000 },
                ),
            ),
            (
                "   init-1  [001] .....  17.311398: tracing_mark_write: work begin: x",
                Line::Event(at(17_311_398_000, 1, 1), Event::Marker(b"work begin: x")),
            ),
            // perf script, with and without the process.
            (
                "kworker/u4:0     9 [001]    11.082444:             iommu:unmap: IOMMU: iova=0x0000000000001000 - 0x0000000000002000 size=4096 unmapped_size=4096",
                Line::Event(at(11_082_444_000, 1, 9), Event::Unmap { iova: 0x1000, size: 4096 }),
            ),
            (
                "fio   77/78 [001]    11.082444:             iommu:unmap: IOMMU: iova=0x0000000000001000 - 0x0000000000002000 size=4096 unmapped_size=4096",
                Line::Event(at(11_082_444_000, 1, 78), Event::Unmap { iova: 0x1000, size: 4096 }),
            ),
            (
                "   init-1  [001] .....  17.311398: print: tracing_mark_write: work end",
                Line::Event(at(17_311_398_000, 1, 1), Event::Marker(b"work end")),
            ),
            ("   init-1  [001] .....  17.3: sched_switch: a", Line::Other(b"sched_switch")),
            ("CPU:1 [LOST 1234 EVENTS]", Line::Lost(1234)),
            ("# tracer: nop", Line::Blank),
            ("", Line::Blank),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn damage() {
        for text in [
            "19823@1795404603.327398:vtd_context_cache_reset ",
            "   init-1  [001] .....  17: map: x",
            "   init-1  [001] .....  17.3: map: IOMMU: iova=0x1000 - 0x3000 paddr=0x0 size=4096",
            "   init-1  [001] .....  17.3: map: IOMMU: iova=0xfffffffffffff000 - 0x1000 paddr=0x0 size=8192",
            "   init-1  [001] .....  17.3: map: IOMMU: iova=0x1000 - 0x1000 paddr=0x0 size=0",
            "   init-1  [001] .....  17.3: unmap: IOMMU: iova=0x1000 - 0x20",
            "   init-1  [001] .....  17.3: qi_submit: iotlb_inv dmar0: 0x600f2",
            "\u{0}\u{1}",
        ] {
            assert!(matches!(parse(text.as_bytes()), Line::Damaged(_)), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn printed_events_read_back(
            iova in 0..u64::MAX / 2,
            pages in 1..1024u64,
            out in 0..u64::MAX / 2,
            cpu in 0..4096u32,
            pid: u32,
            task in "[ -~]{1,16}",
            us in 0..1_000_000u64,
        ) {
            let size = pages << 12;
            let text = format!(
                "{task:>16}-{pid:<7} [{cpu:03}] d.h1.  {:>5}.{us:06}: map: IOMMU: \
                 iova=0x{iova:016x} - 0x{:016x} paddr=0x{out:016x} size={size}",
                77, iova + size
            );
            let prefix = Prefix { time: 77_000_000_000 + us as i64 * 1000, cpu, pid };
            proptest::prop_assert_eq!(
                parse(text.as_bytes()),
                Line::Event(prefix, Event::Map { iova, size, out })
            );
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&[b"a-1 [000] 1.5: map: IOMMU: iova=0x", &bytes[..]].concat());
        }
    }
}
