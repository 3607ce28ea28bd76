//! Laying out text: numbers, sections and tables of a given width.

use std::fmt::Write as _;

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12345.67` as `12,345.7`.
pub fn decimal(value: f64) -> String {
    let text = format!("{value:.1}");
    match text.split_once('.') {
        Some((whole, tenths)) => match whole.parse() {
            Ok(whole) => format!("{}.{tenths}", grouped(whole)),
            Err(_) => text,
        },
        None => text,
    }
}

/// A share of a whole as "12.3 %", "-" if there is no whole.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |s| format!("{:.1} %", 100.0 * s))
}

/// A duration with the unit that leaves one to three digits before the point.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// A size with a binary unit; exact multiples without decimals.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (n.max(1).ilog2() / 10) as usize;
    let scale = 1u64 << (10 * unit);
    if n.is_multiple_of(scale) {
        format!("{} {}", n / scale, UNITS[unit])
    } else {
        format!("{:.1} {}", n as f64 / scale as f64, UNITS[unit])
    }
}

/// Text under construction, never wider than `width`.
pub struct Page {
    out: String,
    width: usize,
}

impl Page {
    pub fn new(width: usize) -> Page {
        Page { out: String::new(), width }
    }

    pub fn finish(self) -> String {
        self.out
    }

    /// A heading with an empty line before it.
    pub fn section(&mut self, title: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.line(title);
    }

    /// One line, cut at the width.
    pub fn line(&mut self, text: &str) {
        if text.chars().count() > self.width {
            self.out.extend(text.chars().take(self.width - 3));
            self.out.push_str("...");
        } else {
            self.out.push_str(text);
        }
        self.out.push('\n');
    }

    /// Words broken into lines with an indent.
    pub fn paragraph(&mut self, indent: usize, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            let used = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && indent + used > self.width {
                self.line(&format!("{:indent$}{line}", ""));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    /// A label, a right-aligned value and a remark.
    pub fn value(&mut self, label: &str, value: &str, remark: &str) {
        let text = format!("  {label:<34}{value:>16}  {remark}");
        self.line(text.trim_end());
    }

    /// Labels and values in two columns, wide enough for the longest label.
    pub fn values(&mut self, rows: &[(&str, String)]) {
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let label = longest(&mut rows.iter().map(|r| r.0.chars().count())).max(34);
        let value = longest(&mut rows.iter().map(|r| r.1.len() + 2));
        let value = value.max(50usize.saturating_sub(label));
        let label = label.min(self.width.saturating_sub(2 + value));
        for row in rows {
            let name: String = row.0.chars().take(label).collect();
            self.line(&format!("  {name:<label$}{:>value$}", row.1));
        }
    }

    /// A table: the first column to the left, the others to the right, each
    /// as wide as its widest cell.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
        for row in std::iter::once(&head).chain(rows) {
            let mut text = String::from(" ");
            for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a String cannot fail.
                let _ = if i == 0 {
                    write!(text, " {cell:<width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
            }
            self.line(text.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(decimal(18_926.04), "18,926.0");
        assert_eq!(decimal(0.05), "0.1");
        assert_eq!(percent(Some(0.987_65)), "98.8 %");
        assert_eq!(percent(None), "-");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500_000), "1.5 ms");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(5000), "4.9 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn long_labels_keep_the_column() {
        let mut page = Page::new(80);
        let long = "ignored.vfio_listener_region_add_skip";
        page.values(&[("dma", "18,926".into()), (long, "24".into())]);
        let text = page.finish();
        let ends: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(ends[0], ends[1], "{text}");
        assert!(text.contains("_skip  "), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_the_page() {
        let mut page = Page::new(20);
        page.section(&"x".repeat(40));
        page.paragraph(4, "one two three four five six seven eight");
        page.table(&["a", "b"], &[vec!["y".repeat(30), "1".into()]]);
        let text = page.finish();
        assert!(text.lines().all(|l| l.chars().count() <= 20), "{text}");
    }
}
