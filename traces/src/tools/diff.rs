//! Where two traces differ.
//!
//! Event by event: what is added or missing in the middle makes all that
//! follows differ, and the first difference tells where. Memory: a few chunks.

use std::collections::BTreeMap;

use ioasim_events::Event;
use serde::Serialize;

use crate::Result;
use crate::file::TraceReader;
use crate::generate::Control;

/// One event that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// 0-based number of the event.
    pub event: u64,
    /// The columns.
    pub columns: Vec<&'static str>,
    /// The event in the first trace.
    pub left: String,
    /// In the second.
    pub right: String,
}

/// The comparison of two traces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Events of the first and of the second.
    pub events: [u64; 2],
    /// Events that both have and that differ.
    pub different: u64,
    /// Of those, how many differ in each column.
    pub columns: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub first: Vec<Difference>,
    /// Facts of the metadata that differ: name, first, second.
    pub facts: Vec<(String, String, String)>,
}

impl Differences {
    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.different == 0 && self.events[0] == self.events[1] && self.facts.is_empty()
    }
}

/// Compares two traces; `most` differences are described. Provenance (sources,
/// notes, counts) is not compared: it tells where a trace comes from, not what
/// is in it.
///
/// # Errors
/// The readers'; [`Error::Import`](crate::Error::Import) if the run is
/// interrupted.
pub fn diff(
    left: &TraceReader,
    right: &TraceReader,
    most: usize,
    control: &mut Control<'_>,
) -> Result<Differences> {
    let (a, b) = (left.meta(), right.meta());
    let mut found =
        Differences { events: [a.totals.events, b.totals.events], ..Differences::default() };
    let facts = [
        ("output_space", format!("{:?}", a.output_space), format!("{:?}", b.output_space)),
        ("caching_mode", format!("{:?}", a.caching_mode), format!("{:?}", b.caching_mode)),
        ("child_levels", a.child_levels.to_string(), b.child_levels.to_string()),
    ];
    let different = facts.into_iter().filter(|f| f.1 != f.2);
    found.facts = different.map(|(n, a, b)| (n.to_lowercase(), a, b)).collect();
    let (mut lefts, mut rights) = (left.chunks(), right.chunks());
    let (mut l, mut r) = (None, None);
    let (mut i, mut j) = (0, 0);
    let (mut left_texts, mut right_texts) = (left.markers(), right.markers());
    let mut texts = (left_texts.next().transpose()?, right_texts.next().transpose()?);
    let total = found.events[0].min(found.events[1]);
    for event in 0..total {
        if event % 65_536 == 0 {
            control.tick(left.path(), event, total)?;
        }
        while l.as_ref().is_none_or(|c: &std::sync::Arc<ioasim_events::Chunk>| i >= c.len()) {
            (l, i) = (lefts.next().transpose()?, 0);
        }
        while r.as_ref().is_none_or(|c: &std::sync::Arc<ioasim_events::Chunk>| j >= c.len()) {
            (r, j) = (rights.next().transpose()?, 0);
        }
        let (Some(lc), Some(rc)) = (&l, &r) else { break };
        let (a, b) = (lc.event(i), rc.event(j));
        (i, j) = (i + 1, j + 1);
        let mut columns = columns(&a, &b);
        let take = |t: &mut Option<(u64, String)>| t.take_if(|t| t.0 == event).map(|t| t.1);
        let (p, q) = (take(&mut texts.0), take(&mut texts.1));
        if p != q {
            columns.push("text");
        }
        if p.is_some() {
            texts.0 = left_texts.next().transpose()?;
        }
        if q.is_some() {
            texts.1 = right_texts.next().transpose()?;
        }
        if columns.is_empty() {
            continue;
        }
        found.different += 1;
        for column in &columns {
            *found.columns.entry(column).or_default() += 1;
        }
        if found.first.len() < most {
            let (left, right) = (describe(&a, p.as_deref()), describe(&b, q.as_deref()));
            found.first.push(Difference { event, columns, left, right });
        }
    }
    Ok(found)
}

fn columns(a: &Event, b: &Event) -> Vec<&'static str> {
    let all = [
        ("time_ns", a.time_ns != b.time_ns),
        ("kind", a.kind != b.kind),
        ("flags", a.flags != b.flags),
        ("cpu", a.cpu != b.cpu),
        ("domain", a.domain != b.domain),
        ("requester", a.requester != b.requester),
        ("pasid", a.pasid != b.pasid),
        ("addr", a.addr != b.addr),
        ("size", a.size != b.size),
        ("out", a.out != b.out),
        ("aux", a.aux != b.aux),
    ];
    all.into_iter().filter(|c| c.1).map(|c| c.0).collect()
}

/// An event on one line.
fn describe(e: &Event, text: Option<&str>) -> String {
    let mut line = format!(
        "{} ns {} {} domain {} [{:#x}, +{:#x}) -> {:#x} flags {:#x} cpu {}",
        e.time_ns,
        e.kind.name(),
        e.requester,
        e.domain.0 as i32,
        e.addr,
        e.size,
        e.out,
        e.flags.0,
        e.cpu
    );
    if e.aux != 0 {
        line += &format!(" aux {:#x}", e.aux);
    }
    if e.pasid != ioasim_events::Pasid::NONE {
        line += &format!(" pasid {}", e.pasid.0);
    }
    if let Some(text) = text {
        line += &format!(" \"{}\"", text.escape_debug());
    }
    line
}
