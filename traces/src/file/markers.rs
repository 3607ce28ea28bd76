//! The texts of markers.

use std::collections::VecDeque;
use std::sync::Arc;

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;

use super::decode::{CHUNK_EVENTS, column_reader};
use super::reader::{Shared, guard};
use super::source::PageSource;
use crate::Result;

/// Iterator over markers with a text: event number (0-based) and text.
///
/// Reads only the `text` column, a batch of rows at a time, on the caller's
/// thread. Bytes that are not UTF-8 are replaced. After an error it ends.
pub struct Markers {
    shared: Arc<Shared>,
    group: usize,
    column: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows of the group not yet read.
    left: u64,
    /// Number of the next row.
    row: u64,
    ready: VecDeque<(u64, String)>,
    ended: bool,
}

impl std::fmt::Debug for Markers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Markers").field("row", &self.row).finish_non_exhaustive()
    }
}

impl Markers {
    pub(super) fn new(shared: Arc<Shared>) -> Markers {
        let ended = shared.columns.text.is_none();
        Markers { shared, group: 0, column: None, left: 0, row: 0, ready: VecDeque::new(), ended }
    }

    /// Reads the next batch of rows; false at the end of the trace.
    fn batch(&mut self) -> Result<bool, ParquetError> {
        while self.left == 0 {
            let footer = &self.shared.footer;
            let (Some(text), true) =
                (self.shared.columns.text, self.group < footer.num_row_groups())
            else {
                return Ok(false);
            };
            self.left = footer.row_group(self.group).num_rows() as u64;
            // One small column: not worth reading the group to check its sum.
            let source = PageSource::new(&self.shared.source);
            self.column = Some(column_reader(&self.shared, &source, self.group, text)?);
            self.group += 1;
        }
        let Some(column) = &mut self.column else {
            return Ok(false);
        };
        let wanted = self.left.min(CHUNK_EVENTS as u64) as usize;
        let mut levels = Vec::with_capacity(wanted);
        let mut values = Vec::new();
        let (rows, ..) = column.read_records(wanted, Some(&mut levels), None, &mut values)?;
        if rows != wanted || levels.len() != wanted {
            return Err(ParquetError::General(format!("column text ends near row {}", self.row)));
        }
        let mut values = values.into_iter();
        for (i, _) in levels.iter().enumerate().filter(|(_, level)| **level > 0) {
            let Some(value) = values.next() else {
                return Err(ParquetError::General("column text has too few values".into()));
            };
            let text = String::from_utf8_lossy(value.data()).into_owned();
            self.ready.push_back((self.row + i as u64, text));
        }
        self.row += wanted as u64;
        self.left -= wanted as u64;
        Ok(true)
    }
}

impl Iterator for Markers {
    type Item = Result<(u64, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            let shared = Arc::clone(&self.shared);
            match guard(&shared.path, || self.batch()) {
                Ok(more) => self.ended = !more,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
