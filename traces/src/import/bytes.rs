//! Reading numbers and fixed words out of a line's bytes, without allocation.

/// A position in a line. Every method that returns `Option` leaves the
/// position undefined on `None`; callers give the line up then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Steps over `word`, which must be next.
    #[inline]
    pub(crate) fn lit(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// Steps over `word` if it is next, and tells whether it was.
    #[inline]
    pub(crate) fn try_lit(&mut self, word: &[u8]) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    #[inline]
    pub(crate) fn skip_spaces(&mut self) {
        while let Some(rest) = self.rest.strip_prefix(b"        ") {
            self.rest = rest;
        }
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Steps behind the next `byte`, which is expected to be near; `None` if there is none.
    #[inline]
    pub(crate) fn skip_past(&mut self, byte: u8) -> Option<()> {
        let at = find_near(byte, self.rest)?;
        self.rest = &self.rest[at + 1..];
        Some(())
    }

    /// 1 to 16 hexadecimal digits.
    #[inline]
    pub(crate) fn hex(&mut self) -> Option<u64> {
        // 16 at once, as the kernel pads addresses.
        if let Some((digits, rest)) = self.rest.split_first_chunk::<16>()
            && digits[15].is_ascii_hexdigit()
            && !rest.first().is_some_and(u8::is_ascii_hexdigit)
            && let ([high, low], []) = digits.as_chunks::<8>()
            && let Some(high) = eight_hex_digits(u64::from_le_bytes(*high))
            && let Some(low) = eight_hex_digits(u64::from_le_bytes(*low))
        {
            self.rest = rest;
            return Some(high << 32 | low);
        }
        let (value, used) = hex_prefix(self.rest);
        if used == 0 || used > 16 {
            return None;
        }
        self.rest = &self.rest[used..];
        Some(value)
    }

    /// Hexadecimal digits that fit in 32 bits.
    #[inline]
    pub(crate) fn hex32(&mut self) -> Option<u32> {
        u32::try_from(self.hex()?).ok()
    }

    /// Decimal digits that fit in 64 bits.
    #[inline]
    pub(crate) fn dec(&mut self) -> Option<u64> {
        let mut value = 0u64;
        let mut used = 0;
        for &b in self.rest {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            used += 1;
        }
        if used == 0 {
            return None;
        }
        // Only 20 digits and more can be too large.
        if used >= 20 {
            let digits = std::str::from_utf8(&self.rest[..used]).ok()?;
            value = digits.parse().ok()?;
        }
        self.rest = &self.rest[used..];
        Some(value)
    }

    /// A decimal fraction of a second (the digits behind the point), in ns.
    /// Digits beyond nine are cut off.
    #[inline]
    pub(crate) fn fraction_ns(&mut self) -> Option<u64> {
        let mut value = 0u64;
        let mut used = 0;
        for &b in self.rest {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            if used < 9 {
                value = value * 10 + u64::from(digit);
            }
            used += 1;
        }
        if used == 0 {
            return None;
        }
        self.rest = &self.rest[used..];
        Some(value * POWERS[9 - used.min(9)])
    }

    /// `SEC.FRACTION` in ns.
    #[inline]
    pub(crate) fn seconds_ns(&mut self) -> Option<i64> {
        // Ten digits, a point, six digits: seconds since 1970 and us.
        if let Some((stamp, rest)) = self.rest.split_first_chunk::<17>()
            && rest.first().is_none_or(|b| !b.is_ascii_digit())
            && stamp[10] == b'.'
            && let Some(a) = eight_digits(*stamp.first_chunk()?)
            && let Some(b) = eight_digits([
                stamp[8], stamp[9], stamp[11], stamp[12], stamp[13], stamp[14], stamp[15],
                stamp[16],
            ])
        {
            self.rest = rest;
            let (sec, us) = (a * 100 + b / 1_000_000, b % 1_000_000);
            return Some((sec * 1_000_000_000 + us * 1000) as i64);
        }
        let sec = self.dec()?;
        self.lit(b".")?;
        let ns = self.fraction_ns()?;
        i64::try_from(sec).ok()?.checked_mul(1_000_000_000)?.checked_add(ns as i64)
    }

    /// True if nothing but blanks is left.
    pub(crate) fn at_end(&self) -> bool {
        self.rest.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'))
    }
}

/// In each byte of a word.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Where `byte` stands first; fast if that is near.
#[inline]
pub(crate) fn find_near(byte: u8, bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks();
    for (i, word) in words.iter().take(8).enumerate() {
        let v = u64::from_le_bytes(*word) ^ each(byte);
        // The lowest byte of 0 is told, and perhaps higher ones that are 1.
        let marks = v.wrapping_sub(each(1)) & !v & each(0x80);
        if marks != 0 {
            return Some(8 * i + marks.trailing_zeros() as usize / 8);
        }
    }
    let seen = 8 * words.len().min(8);
    if seen < bytes.len() - rest.len() {
        return memchr::memchr(byte, &bytes[seen..]).map(|at| seen + at);
    }
    rest.iter().position(|b| *b == byte).map(|at| seen + at)
}

/// Eight hexadecimal digits, letters small, the first one in the lowest byte.
#[inline]
fn eight_hex_digits(v: u64) -> Option<u64> {
    let digits = (v & each(0x0f)) + (v >> 6 & each(1)) * 9;
    // Printed again they are the same.
    let letters = (digits + each(0x80 - 10)) >> 7 & each(1);
    let printed = digits + each(b'0') + letters * u64::from(b'a' - b'0' - 10);
    if printed != v || digits & each(0xf0) != 0 {
        return None;
    }
    // The first digit to the top, then half of each piece closed up three times.
    let v = digits.swap_bytes();
    let v = (v | v >> 4) & 0x00ff_00ff_00ff_00ff;
    let v = (v | v >> 8) & 0x0000_ffff_0000_ffff;
    Some((v | v >> 16) & 0xffff_ffff)
}

/// Eight decimal digits at once (Lemire's method: neighbours are joined
/// three times).
#[inline]
fn eight_digits(bytes: [u8; 8]) -> Option<u64> {
    let v = u64::from_le_bytes(bytes);
    // Every byte is 0x30..=0x39.
    let low = v.wrapping_sub(0x3030_3030_3030_3030);
    let high = v.wrapping_add(0x4646_4646_4646_4646);
    if (low | high) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let v = low.wrapping_mul(10).wrapping_add(low >> 8);
    let a = (v & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let b = (v >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(a.wrapping_add(b) >> 32)
}

/// Powers of ten.
const POWERS: [u64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Value of a byte as a hexadecimal digit, 0xff if it is none.
static HEX: [u8; 256] = {
    let mut t = [0xffu8; 256];
    let mut i = 0;
    while i < 16 {
        t[b"0123456789abcdef"[i] as usize] = i as u8;
        t[b"0123456789ABCDEF"[i] as usize] = i as u8;
        i += 1;
    }
    t
};

/// Value and length of the hexadecimal digits that `bytes` begin with. The
/// value is meaningful up to 16 digits.
#[inline]
fn hex_prefix(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0u64;
    for (i, &b) in bytes.iter().enumerate() {
        let digit = HEX[b as usize];
        if digit == 0xff {
            return (value, i);
        }
        value = value << 4 | u64::from(digit);
    }
    (value, bytes.len())
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Howard
/// Hinnant's `days_from_civil`, public domain).
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = i64::from((month + 9) % 12);
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// `YYYY-MM-DDTHH:MM:SS[.FRACTION]Z` in ns since 1970; the zone may also be
/// `+HH:MM`. Steps behind it.
pub(crate) fn iso8601_ns(c: &mut Cursor<'_>) -> Option<i64> {
    let two = |c: &mut Cursor<'_>| -> Option<u32> {
        let [a, b, ..] = c.rest else { return None };
        let (a, b) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
        if a > 9 || b > 9 {
            return None;
        }
        c.rest = &c.rest[2..];
        Some(u32::from(a) * 10 + u32::from(b))
    };
    let year = i64::from(two(c)? * 100 + two(c)?);
    c.lit(b"-")?;
    let month = two(c)?;
    c.lit(b"-")?;
    let day = two(c)?;
    c.lit(b"T")?;
    let hour = two(c)?;
    c.lit(b":")?;
    let minute = two(c)?;
    c.lit(b":")?;
    let second = two(c)?;
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let ns = if c.try_lit(b".") { c.fraction_ns()? } else { 0 };
    let zone = if c.try_lit(b"Z") {
        0
    } else {
        let sign = if c.try_lit(b"+") {
            1
        } else {
            c.lit(b"-")?;
            -1
        };
        let h = two(c)?;
        c.try_lit(b":");
        sign * i64::from(h * 60 + two(c)?)
    };
    let minutes = days_from_civil(year, month, day) * 1440 + i64::from(hour * 60 + minute) - zone;
    Some((minutes * 60 + i64::from(second)) * 1_000_000_000 + ns as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(Cursor::new(b"ffff0000ffff0000 x").hex(), Some(0xffff_0000_ffff_0000));
        assert_eq!(Cursor::new(b"1ffff0000ffff0000").hex(), None, "17 digits");
        assert_eq!(Cursor::new(b"x").hex(), None);
        assert_eq!(Cursor::new(b"18446744073709551615").dec(), Some(u64::MAX));
        assert_eq!(Cursor::new(b"18446744073709551616").dec(), None);
        assert_eq!(
            Cursor::new(b"1795404603.327398:").seconds_ns(),
            Some(1_795_404_603_327_398_000)
        );
        assert_eq!(Cursor::new(b"5.123456789:").seconds_ns(), Some(5_123_456_789));
        assert_eq!(Cursor::new(b"5.:").seconds_ns(), None);
        assert_eq!(
            Cursor::new(b"1795404603.3273981:").seconds_ns(),
            Some(1_795_404_603_327_398_100)
        );
        assert_eq!(
            Cursor::new(b"1795404603.32739x:").seconds_ns(),
            Some(1_795_404_603_327_390_000)
        );
        assert_eq!(eight_digits(*b"12345678"), Some(12_345_678));
        assert_eq!(eight_digits(*b"99999999"), Some(99_999_999));
        assert_eq!(eight_digits(*b"00000000"), Some(0));
        for bad in [*b"1234567/", *b":2345678", *b"1234 678"] {
            assert_eq!(eight_digits(bad), None);
        }
    }

    #[test]
    fn dates() {
        let ns = |s: &str| iso8601_ns(&mut Cursor::new(s.as_bytes()));
        assert_eq!(ns("1970-01-01T00:00:00Z"), Some(0));
        // 2026-11-23 04:33:23.327398 UTC = 1795408403.327398
        assert_eq!(ns("2026-11-23T04:33:23.327398Z"), Some(1_795_408_403_327_398_000));
        assert_eq!(ns("2026-11-23T05:33:23.327398+01:00"), Some(1_795_408_403_327_398_000));
        assert_eq!(ns("2000-02-29T23:59:59.5Z"), Some(951_868_799_500_000_000));
        assert_eq!(ns("2026-13-23T04:33:23Z"), None);
        assert_eq!(ns("2026-11-23 04:33:23Z"), None);
    }

    proptest::proptest! {
        /// Against the library, with any byte among the digits or behind them.
        #[test]
        fn sixteen_digits(n: u64, at in 0..17usize, byte: u8, large: bool) {
            let text = if large { format!("{n:016X} ") } else { format!("{n:016x} ") };
            let mut text = text.into_bytes();
            proptest::prop_assert_eq!(Cursor::new(&text).hex(), Some(n));
            text[at] = byte;
            let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let wanted = u64::from_str_radix(std::str::from_utf8(&text[..digits]).unwrap(), 16);
            let wanted = wanted.ok().filter(|_| digits <= 16);
            let mut c = Cursor::new(&text);
            proptest::prop_assert_eq!(c.hex(), wanted);
            proptest::prop_assert!(wanted.is_none() || c.rest() == &text[digits..]);
        }

        #[test]
        fn near_is_first(bytes in proptest::collection::vec(b'a'..b'd', 0..100), more: Vec<u8>) {
            for bytes in [[&bytes[..], &more[..]].concat(), more] {
                for byte in b'a'..b'e' {
                    let first = bytes.iter().position(|b| *b == byte);
                    proptest::prop_assert_eq!(find_near(byte, &bytes), first);
                }
            }
        }

        /// Against the library's numbers, with anything behind.
        #[test]
        fn numbers_of_any_length(text in "[0-9a-fA-F]{0,20}", behind: Vec<u8>) {
            let line = [text.as_bytes(), &behind].concat();
            let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
            let dec = std::str::from_utf8(&line[..digits]).unwrap().parse().ok();
            let mut c = Cursor::new(&line);
            proptest::prop_assert_eq!(c.dec(), dec);
            proptest::prop_assert!(dec.is_none() || c.rest() == &line[digits..]);
            let mut ns = String::from_utf8_lossy(&line[..digits]).into_owned();
            ns.truncate(9);
            let ns = (digits > 0).then(|| format!("{ns:0<9}").parse().unwrap());
            let mut c = Cursor::new(&line);
            proptest::prop_assert_eq!(c.fraction_ns(), ns);
            proptest::prop_assert!(ns.is_none() || c.rest() == &line[digits..]);
            let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let hex = std::str::from_utf8(&line[..digits]).unwrap();
            let hex = u64::from_str_radix(hex, 16).ok().filter(|_| digits <= 16);
            let mut c = Cursor::new(&line);
            proptest::prop_assert_eq!(c.hex(), hex);
            proptest::prop_assert!(hex.is_none() || c.rest() == &line[digits..]);
        }
    }
}
