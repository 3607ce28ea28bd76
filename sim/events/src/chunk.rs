//! A run of consecutive events as a structure of arrays.

use crate::event::{DomainId, Event, Flags, Kind, Pasid, Requester};

/// Consecutive events of a trace, one vector per column, all of equal length.
///
/// Column types are the integer types of the Parquet file, so that decoding
/// writes straight into them; unsigned values keep their bits.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Number of the first event in the trace (0-based).
    pub first: u64,
    /// [`Event::time_ns`].
    pub time_ns: Vec<i64>,
    /// [`Kind`] codes; readers have checked that they are known.
    pub kind: Vec<i32>,
    /// [`Flags`] bits.
    pub flags: Vec<i32>,
    /// [`Event::cpu`].
    pub cpu: Vec<i32>,
    /// [`DomainId`] bits.
    pub domain: Vec<i32>,
    /// [`Requester`] bits.
    pub requester: Vec<i32>,
    /// [`Pasid`] bits.
    pub pasid: Vec<i32>,
    /// [`Event::addr`].
    pub addr: Vec<i64>,
    /// [`Event::size`].
    pub size: Vec<i64>,
    /// [`Event::out`].
    pub out: Vec<i64>,
    /// [`Event::aux`].
    pub aux: Vec<i64>,
}

impl Chunk {
    /// Number of events.
    #[inline]
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// True if there is no event.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    /// Removes all events and keeps the memory.
    pub fn clear(&mut self) {
        self.time_ns.clear();
        self.kind.clear();
        self.flags.clear();
        self.cpu.clear();
        self.domain.clear();
        self.requester.clear();
        self.pasid.clear();
        self.addr.clear();
        self.size.clear();
        self.out.clear();
        self.aux.clear();
    }

    /// Appends one event.
    pub fn push(&mut self, e: &Event) {
        self.time_ns.push(e.time_ns as i64);
        self.kind.push(e.kind as i32);
        self.flags.push(e.flags.0 as i32);
        self.cpu.push(e.cpu);
        self.domain.push(e.domain.0 as i32);
        self.requester.push(e.requester.0 as i32);
        self.pasid.push(e.pasid.0 as i32);
        self.addr.push(e.addr as i64);
        self.size.push(e.size as i64);
        self.out.push(e.out as i64);
        self.aux.push(e.aux as i64);
    }

    /// Kind of event `i`.
    ///
    /// # Panics
    /// If `i` is out of range or the code is unknown (readers refuse those).
    #[inline]
    pub fn kind(&self, i: usize) -> Kind {
        Kind::from_code(self.kind[i]).expect("readers check kinds")
    }

    /// Event `i` as one value.
    ///
    /// # Panics
    /// As [`Chunk::kind`].
    #[inline]
    pub fn event(&self, i: usize) -> Event {
        Event {
            time_ns: self.time_ns[i] as u64,
            kind: self.kind(i),
            flags: Flags(self.flags[i] as u32),
            cpu: self.cpu[i],
            domain: DomainId(self.domain[i] as u32),
            requester: Requester(self.requester[i] as u32),
            pasid: Pasid(self.pasid[i] as u32),
            addr: self.addr[i] as u64,
            size: self.size[i] as u64,
            out: self.out[i] as u64,
            aux: self.aux[i] as u64,
        }
    }
}

impl FromIterator<Event> for Chunk {
    fn from_iter<T: IntoIterator<Item = Event>>(events: T) -> Self {
        let mut chunk = Chunk::default();
        for e in events {
            chunk.push(&e);
        }
        chunk
    }
}
