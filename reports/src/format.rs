//! Numbers and names as people read them.

use std::borrow::Cow;

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A count in at most about 10 characters: exact below ten million, then
/// `12.3M`.
pub(crate) fn short_count(n: u64) -> String {
    if n < 10_000_000 { thousands(n) } else { magnitude(n as f64) }
}

/// A rate with about three significant digits: `0.042`, `87.1`, `1,234`,
/// `5.67M`; `-` for `None`.
pub(crate) fn rate(value: Option<f64>) -> String {
    let Some(v) = value.filter(|v| v.is_finite()) else { return "-".to_owned() };
    if v == 0.0 {
        "0".to_owned()
    } else if v.abs() < 0.0005 {
        "<0.001".to_owned()
    } else if v.abs() < 0.9995 {
        format!("{v:.3}")
    } else if v.abs() < 9.995 {
        format!("{v:.2}")
    } else if v.abs() < 999.95 {
        format!("{v:.1}")
    } else if v.abs() < 999_999.5 {
        thousands(v.round() as u64)
    } else {
        magnitude(v)
    }
}

/// A factor between two quantities, `2.4` or `31`.
pub(crate) fn factor(v: f64) -> String {
    if v < 9.95 { format!("{v:.1}") } else { thousands(v.round() as u64) }
}

fn magnitude(v: f64) -> String {
    match v {
        v if v < 999.5e6 => format!("{:.*}M", usize::from(v < 99.95e6), v / 1e6),
        v if v < 999.5e9 => format!("{:.*}G", usize::from(v < 99.95e9), v / 1e9),
        v if v < 999.5e12 => format!("{:.*}T", usize::from(v < 99.95e12), v / 1e12),
        v => format!("{v:.1e}"),
    }
}

/// A share (0 to 1) in per cent without the sign. Never says 100.00 or 0.00
/// unless that is exact: one miss in a million requests stays visible.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share.filter(|s| s.is_finite()) {
        None => "-".to_owned(),
        Some(s) if s < 1.0 && s > 0.999_95 => ">99.99".to_owned(),
        Some(s) if s > 0.0 && s < 0.000_05 => "<0.01".to_owned(),
        Some(s) => format!("{:.2}", s * 100.0),
    }
}

/// A share in per cent with its sign, for prose.
pub(crate) fn percent_sign(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        some => format!("{}\u{a0}%", percent(some)),
    }
}

/// Time units, largest first: (name, ns).
const TIME_UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000), ("ns", 1)];

/// The unit in which a time of this length reads best, and its length in ns.
pub(crate) fn time_unit(ns: u64) -> (&'static str, u64) {
    let unit = TIME_UNITS.iter().find(|(name, len)| ns >= *len * if *name == "h" { 3 } else { 1 });
    unit.copied().unwrap_or(("ns", 1))
}

/// A duration with three digits: `12.3 s`, `850 ms`.
pub(crate) fn duration(ns: u64) -> String {
    let (unit, len) = time_unit(ns);
    let v = ns as f64 / len as f64;
    let text = match v {
        v if v.fract() == 0.0 => thousands(v as u64),
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => thousands(v.round() as u64),
    };
    format!("{text}\u{a0}{unit}")
}

/// A file size: `812 B`, `12.3 MB` (powers of ten).
pub(crate) fn bytes(n: u64) -> String {
    match n as f64 {
        v if v < 1e3 => format!("{n}\u{a0}B"),
        v if v < 1e6 => format!("{:.1}\u{a0}kB", v / 1e3),
        v if v < 1e9 => format!("{:.1}\u{a0}MB", v / 1e6),
        v => format!("{:.1}\u{a0}GB", v / 1e9),
    }
}

/// `1 device`, `2 devices`.
pub(crate) fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", thousands(n as u64), if n == 1 { one } else { many })
}

/// A number with words in the plural, `3 maps`; the first of them that is known
/// is made singular after 1.
pub(crate) fn counted(n: u64, many: &str) -> String {
    const WORDS: [(&str, &str); 9] = [
        ("maps", "map"),
        ("unmaps", "unmap"),
        ("attachments", "attachment"),
        ("detachments", "detachment"),
        ("markers", "marker"),
        ("invalidations", "invalidation"),
        ("accesses", "access"),
        ("operations", "operation"),
        ("domains", "domain"),
    ];
    let one = |word: &str| WORDS.iter().find(|w| w.0 == word).map(|w| w.1);
    let mut words: Vec<&str> = many.split(' ').collect();
    if n == 1
        && let Some((at, word)) = words.iter().enumerate().find_map(|(i, w)| Some((i, one(w)?)))
    {
        words[at] = word;
    }
    format!("{} {}", thousands(n), words.join(" "))
}

/// `a, b and c`.
pub(crate) fn list<S: AsRef<str>>(items: &[S]) -> String {
    let names: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// Text from a file without what would act on a terminal or confuse a reader:
/// control characters and direction overrides become `\u{fffd}`.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(bad) {
        Cow::Owned(text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Columns that a character takes in a terminal (East Asian wide: 2;
/// combining marks: 0).
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Columns that a text takes in a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The text in at most `max` columns, the end replaced by `…` if need be.
pub(crate) fn truncate(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += char_width(c);
        if used + 1 > max {
            break;
        }
        out.push(c);
    }
    out.push('…');
    Cow::Owned(out)
}

/// Wraps `text` at `max` columns, continuation lines indented by `indent`.
/// Words longer than a line are broken.
pub(crate) fn wrap(text: &str, max: usize, indent: usize) -> String {
    let body = text.trim_start_matches(' ');
    let mut column = text.len() - body.len();
    let mut out = " ".repeat(column);
    let pad = " ".repeat(indent);
    let mut at_start = true;
    for mut word in body.split(' ') {
        if !at_start && column + 1 + width(word) > max {
            out.push('\n');
            out.push_str(&pad);
            column = indent;
        } else if !at_start {
            out.push(' ');
            column += 1;
        }
        at_start = false;
        while column + width(word) > max {
            let room = max.saturating_sub(column);
            let mut taken = 0;
            let fits = |(_, c): &(usize, char)| {
                taken += char_width(*c);
                taken > room
            };
            let cut = word.char_indices().find(fits).map_or(word.len(), |(i, _)| i);
            if cut == 0 && column <= indent {
                break;
            }
            out.push_str(&word[..cut]);
            word = &word[cut..];
            out.push('\n');
            out.push_str(&pad);
            column = indent;
        }
        out.push_str(word);
        column += width(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(1, "attachments"), "1 attachment");
        assert_eq!(counted(1, "parent maps"), "1 parent map");
        assert_eq!(counted(1, "domains of maps and unmaps"), "1 domain of maps and unmaps");
        assert_eq!(counted(1, "things"), "1 things");
        assert_eq!(counted(1234, "maps"), "1,234 maps");
    }

    #[test]
    fn percent_never_rounds_to_a_limit() {
        assert_eq!(percent(Some(999_999.0 / 1_000_000.0)), ">99.99");
        assert_eq!(percent(Some(1.0)), "100.00");
        assert_eq!(percent(Some(1e-6)), "<0.01");
        assert_eq!(percent(Some(0.0)), "0.00");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn rates_keep_their_width() {
        for v in [
            0.0, 0.0001, 0.5, 9.996, 99.96, 999.96, 12_345.6, 999_999.7, 4.2e7, 9.99e8, 1e12, 1e300,
        ] {
            assert!(width(&rate(Some(v))) <= 8, "{v} gives {}", rate(Some(v)));
        }
        assert_eq!(rate(Some(9.996)), "10.0");
        assert_eq!(rate(Some(999.96)), "1,000");
        assert_eq!(rate(Some(1_250_000.0)), "1.2M");
        assert_eq!(rate(Some(f64::NAN)), "-");
    }

    #[test]
    fn thousands_and_durations() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(duration(12_340_000_000), "12.3\u{a0}s");
        assert_eq!(duration(40_000_000), "40\u{a0}ms");
        assert_eq!(duration(0), "0\u{a0}ns");
    }

    #[test]
    fn wrapping_respects_the_width_even_for_long_words() {
        let text = wrap(&format!("see {} now", "x".repeat(200)), 30, 2);
        assert!(text.lines().all(|l| width(l) <= 30), "{text}");
        assert_eq!(text.chars().filter(|c| *c == 'x').count(), 200);
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(clean("a\x1b[31mb\u{202e}c"), "a\u{fffd}[31mb\u{fffd}c");
        assert_eq!(truncate("日本語の名前", 5), "日本…");
        assert_eq!(truncate("short", 5), "short");
    }
}
