//! The event queue: lanes for events that come in order, and a binary heap with
//! insertion tie-break and cancellation for all others.

use std::collections::VecDeque;

use super::Ps;

/// Lanes of an [`EventQueue`]. Each costs every event a comparison.
pub const LANES: usize = 2;
/// The heap's place among the first keys.
const HEAP: usize = LANES;
/// Key of nothing: after all others.
const NOTHING: u128 = u128::MAX;

/// Names a scheduled event until it is taken or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy)]
struct Node<E> {
    /// Time, then the number of the insertion, which breaks ties.
    key: u128,
    event: E,
    /// [`FIXED`] if it cannot be cancelled.
    slot: u32,
}

/// An event in a lane.
#[derive(Clone, Copy)]
struct Posted<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Posted<E> {
    #[inline(always)]
    fn key(&self) -> u128 {
        u128::from(self.at) << 64 | u128::from(self.number)
    }
}

/// No slot.
const FIXED: u32 = u32::MAX;

impl<E> Node<E> {
    #[inline(always)]
    fn before(&self, other: &Node<E>) -> bool {
        self.key < other.key
    }

    #[inline(always)]
    fn at(&self) -> Ps {
        Ps((self.key >> 64) as u64)
    }
}

struct Slot<E> {
    generation: u32,
    /// `None`: cancelled (its node is still in the heap) or free.
    event: Option<E>,
}

/// Events in order of time; equal times in order of insertion.
///
/// | operation | cost |
/// |---|---|
/// | [`EventQueue::post`], [`EventQueue::schedule`], [`EventQueue::pop`] | O(log n); `post` is cheaper than `schedule` and cannot be taken back |
/// | [`EventQueue::post_in`] | O(1), or that of `post` for an event before the lane's last |
/// | [`EventQueue::cancel`] | O(1); the place in the heap is freed when its time comes, or at once for all when half of the heap is cancelled |
///
/// Most events of one kind are posted in the order in which they happen, such
/// as the ends of what a single server does. [`EventQueue::post_in`] appends
/// them to a lane, a queue that is sorted by construction, in O(1). The next
/// event is the least of the lanes' first and the heap's.
///
/// Memory grows to the largest number of events waiting at one time and is
/// reused: nothing is allocated per event in the steady state.
pub struct EventQueue<E> {
    lanes: [VecDeque<Posted<E>>; LANES],
    /// Least keys: of the lanes, of the heap.
    first: [u128; LANES + 1],
    heap: Vec<Node<E>>,
    slots: Vec<Slot<E>>,
    free: Vec<u32>,
    cancelled: usize,
    inserted: u64,
    now: Ps,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        EventQueue {
            lanes: Default::default(),
            first: [NOTHING; LANES + 1],
            heap: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            cancelled: 0,
            inserted: 0,
            now: Ps::ZERO,
        }
    }
}

impl<E: Copy> EventQueue<E> {
    /// Time of the event taken last.
    #[inline]
    pub fn now(&self) -> Ps {
        self.now
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        let posted: usize = self.lanes.iter().map(VecDeque::len).sum();
        posted + self.heap.len() - self.cancelled
    }

    /// True if no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places for events that can be cancelled, as many as were ever needed at
    /// one time.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Events scheduled so far: what the run has cost.
    pub fn scheduled(&self) -> u64 {
        self.inserted
    }

    /// Schedules `event`. A time in the past is now: nothing happens before
    /// what has happened.
    #[inline]
    pub fn schedule(&mut self, at: Ps, event: E) -> EventId {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize].event = Some(event);
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 events wait");
                self.slots.push(Slot { generation: 0, event: Some(event) });
                slot
            }
        };
        self.insert(at, event, slot);
        EventId { slot, generation: self.slots[slot as usize].generation }
    }

    /// Schedules `event` for good: it cannot be cancelled. A time in the past
    /// is now.
    #[inline]
    pub fn post(&mut self, at: Ps, event: E) {
        self.insert(at, event, FIXED);
    }

    /// Posts `event`, which most often is not earlier than those posted before
    /// in the same lane (below [`LANES`]). As [`EventQueue::post`] otherwise.
    #[inline]
    pub fn post_in(&mut self, lane: usize, at: Ps, event: E) {
        let at = at.max(self.now);
        let number = self.inserted;
        let posted = Posted { at: at.0, number, event };
        let in_lane = &mut self.lanes[lane];
        match in_lane.back() {
            Some(last) if last.at > at.0 => return self.insert(at, event, FIXED),
            Some(_) => {}
            None => self.first[lane] = posted.key(),
        }
        self.inserted += 1;
        in_lane.push_back(posted);
    }

    fn insert(&mut self, at: Ps, event: E, slot: u32) {
        let at = at.max(self.now);
        let key = u128::from(at.0) << 64 | u128::from(self.inserted);
        self.inserted += 1;
        self.heap.push(Node { key, event, slot });
        self.up(self.heap.len() - 1);
        self.first[HEAP] = self.heap[0].key;
    }

    /// Takes an event back; `None` if it has happened or was cancelled.
    pub fn cancel(&mut self, id: EventId) -> Option<E> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let event = slot.event.take()?;
        self.cancelled += 1;
        if self.cancelled * 2 > self.heap.len() {
            self.sweep();
        }
        Some(event)
    }

    /// Time of the next event.
    #[inline]
    pub fn peek(&mut self) -> Option<Ps> {
        self.drop_cancelled();
        let least = self.first[self.least()];
        (least != NOTHING).then_some(Ps((least >> 64) as u64))
    }

    /// Where the next event is.
    #[inline(always)]
    fn least(&self) -> usize {
        let mut least = HEAP;
        for lane in 0..LANES {
            if self.first[lane] < self.first[least] {
                least = lane;
            }
        }
        least
    }

    /// Takes the next event and moves the clock to it.
    #[inline]
    pub fn pop(&mut self) -> Option<(Ps, E)> {
        self.drop_cancelled();
        let least = self.least();
        if least != HEAP {
            let lane = &mut self.lanes[least];
            let posted = lane.pop_front()?;
            self.first[least] = lane.front().map_or(NOTHING, Posted::key);
            self.now = Ps(posted.at);
            return Some((self.now, posted.event));
        }
        let first = self.remove_first()?;
        if first.slot != FIXED {
            self.release(first.slot);
        }
        self.now = first.at();
        Some((self.now, first.event))
    }

    /// Moves the clock forward to `to`, which no event is earlier than.
    #[inline]
    pub fn advance(&mut self, to: Ps) {
        self.now = self.now.max(to);
    }

    #[inline(always)]
    fn drop_cancelled(&mut self) {
        if self.cancelled > 0 {
            self.drop_cancelled_first();
        }
    }

    #[inline(never)]
    fn drop_cancelled_first(&mut self) {
        while self.cancelled > 0 {
            let Some(first) = self.heap.first() else { return };
            let slot = first.slot;
            if !self.is_cancelled(slot) {
                return;
            }
            self.cancelled -= 1;
            self.remove_first();
            self.release(slot);
        }
    }

    fn is_cancelled(&self, slot: u32) -> bool {
        slot != FIXED && self.slots[slot as usize].event.is_none()
    }

    /// Frees the places of all cancelled events.
    fn sweep(&mut self) {
        let mut kept = std::mem::take(&mut self.heap);
        kept.retain(|n| {
            let cancelled = self.is_cancelled(n.slot);
            if cancelled {
                self.release(n.slot);
            }
            !cancelled
        });
        self.heap = kept;
        self.cancelled = 0;
        for at in (0..self.heap.len() / 2).rev() {
            self.down(at);
        }
        self.first[HEAP] = self.heap.first().map_or(NOTHING, |n| n.key);
    }

    fn release(&mut self, slot: u32) {
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.event = None;
        self.free.push(slot);
    }

    #[inline]
    fn remove_first(&mut self) -> Option<Node<E>> {
        let first = *self.heap.first()?;
        let last = self.heap.pop()?;
        if !self.heap.is_empty() {
            self.heap[0] = last;
            self.down(0);
        }
        self.first[HEAP] = self.heap.first().map_or(NOTHING, |n| n.key);
        Some(first)
    }

    #[inline]
    fn up(&mut self, mut at: usize) {
        let heap = self.heap.as_mut_slice();
        let node = heap[at];
        while at > 0 {
            let above = (at - 1) / 2;
            if !node.before(&heap[above]) {
                break;
            }
            heap[at] = heap[above];
            at = above;
        }
        heap[at] = node;
    }

    #[inline]
    fn down(&mut self, mut at: usize) {
        let heap = self.heap.as_mut_slice();
        let node = heap[at];
        loop {
            let mut below = at * 2 + 1;
            if below >= heap.len() {
                break;
            }
            let right = below + 1;
            if right < heap.len() && heap[right].before(&heap[below]) {
                below = right;
            }
            if !heap[below].before(&node) {
                break;
            }
            heap[at] = heap[below];
            at = below;
        }
        heap[at] = node;
    }
}
