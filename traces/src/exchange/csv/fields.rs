//! The fields of a row with quotes (RFC 4180).

/// A row taken apart. A field in quotes may hold commas, ends of lines, and
/// quotes written twice; quotes elsewhere are characters like others.
#[derive(Debug, Default)]
pub(in crate::exchange) struct Fields {
    bytes: Vec<u8>,
    /// End of each field in `bytes`.
    ends: Vec<usize>,
    at: At,
}

/// Where in a row the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    Plain,
    Quoted,
    /// Behind a quote in quotes: their end, or the first of two.
    Quote,
}

impl Fields {
    /// Reads a row's first line; false if it ends within quotes.
    pub fn begin(&mut self, line: &[u8]) -> bool {
        self.bytes.clear();
        self.ends.clear();
        self.at = At::Start;
        self.go_on(line)
    }

    /// Reads more of it, from the end of the line before on.
    pub fn go_on(&mut self, more: &[u8]) -> bool {
        for &b in more {
            self.at = match (self.at, b) {
                (At::Start, b'"') => At::Quoted,
                (At::Start | At::Plain | At::Quote, b',') => {
                    self.ends.push(self.bytes.len());
                    At::Start
                }
                (At::Quoted, b'"') => At::Quote,
                (At::Quote, b'"') => {
                    self.bytes.push(b);
                    At::Quoted
                }
                (at, b) => {
                    self.bytes.push(b);
                    if at == At::Quoted { At::Quoted } else { At::Plain }
                }
            };
        }
        self.at != At::Quoted
    }

    /// The row is complete. A CR before its end does not belong to it.
    pub fn end(&mut self) {
        if self.at == At::Plain && self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
        }
        self.ends.push(self.bytes.len());
    }

    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.bytes[from..*to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lines: &[&str]) -> (bool, Vec<String>) {
        let mut fields = Fields::default();
        let mut whole = fields.begin(lines[0].as_bytes());
        for line in &lines[1..] {
            whole = fields.go_on(format!("\n{line}").as_bytes());
        }
        fields.end();
        (whole, fields.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect())
    }

    #[test]
    fn rows() {
        let of = |fields: &[&str]| (true, fields.iter().map(ToString::to_string).collect());
        assert_eq!(row(&["a,,b\r"]), of(&["a", "", "b"]));
        assert_eq!(row(&[r#""a,b","c""d",e"f,"""#]), of(&["a,b", "c\"d", "e\"f", ""]));
        assert_eq!(row(&["1,\"a\r", "b\"\r"]), of(&["1", "a\r\nb"]));
        assert!(!row(&["1,\"a"]).0);
        assert_eq!(row(&["\r"]), of(&[""]));
    }

    proptest::proptest! {
        /// The crate that writes rows reads them as this does.
        #[test]
        fn rows_are_read_as_by_the_crate(text in "[a\",\r]{1,40}") {
            // A CR alone is an end of line there, and none here.
            let text = text.replace('\r', " ") + "\r";
            let mut reader = ::csv::ReaderBuilder::new()
                .has_headers(false).flexible(true).from_reader(text.as_bytes());
            let mut record = ::csv::ByteRecord::new();
            reader.read_byte_record(&mut record).unwrap();
            let mut fields = Fields::default();
            if fields.begin(text.as_bytes()) {
                fields.end();
                let (ours, theirs): (Vec<_>, Vec<_>) = (fields.iter().collect(), record.iter().collect());
                proptest::prop_assert_eq!(ours, theirs);
            }
        }
    }
}
