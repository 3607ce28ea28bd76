//! Page-table walkers behind a pending-translation buffer.

use crate::time::{Admission, Ps, Station};

/// Names a walk until it is finished.
pub type WalkId = u32;

/// End of a list.
const NONE: u32 = u32::MAX;
/// Lists of walks by page: several times the usual pending-translation buffer.
const BUCKETS: usize = 1 << 10;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Its walk starts now.
    Started(WalkId),
    /// Its walk waits for a walker.
    Waiting,
    /// It waits for a walk of the same page.
    Coalesced,
    /// The pending-translation buffer is full; it waits outside.
    Stalled,
}

/// A request that came back from [`Walkers::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The caller's token.
    pub token: u32,
    /// The page.
    pub page: u64,
    /// Time from the request to the start of the walk that served it (zero if
    /// that had started before).
    pub waited: Ps,
    /// Time from then, or from the request if it came later, to the end.
    pub walked: Ps,
    /// Another request had asked for the walk.
    pub coalesced: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    page: u64,
    started: Ps,
    /// The request that asked for it: most walks serve no other.
    token: u32,
    reads: u32,
    came: Ps,
    /// Requests that joined it, first to last.
    joined: u32,
    last: u32,
    /// Next walk of the bucket, if requests find it by its page.
    next: WalkId,
    found: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    token: u32,
    came: Ps,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    page: u64,
    reads: u32,
    token: u32,
    came: Ps,
}

/// `k` walkers with miss coalescing and a pending-translation buffer.
///
/// The buffer holds walks that run and walks that wait for a walker. A request
/// for a page that is in it joins that walk, if coalescing is on. Requests that
/// find it full wait outside in order of arrival and look again when an entry
/// is freed, as gem5's SMMUv3 model does with its translation slots.
pub struct Walkers {
    station: Station<WalkId>,
    walks: Vec<Walk>,
    free_walks: Vec<WalkId>,
    waiters: Vec<Waiter>,
    free_waiters: Vec<u32>,
    /// First walk by a hash of the page: requests look here for walks to join.
    buckets: Box<[WalkId; BUCKETS]>,
    outside: std::collections::VecDeque<Request>,
    room: usize,
    coalescing: bool,
    /// Requests that joined another's walk.
    pub coalesced: u64,
    /// Requests that found the buffer full.
    pub stalled: u64,
    /// Walks finished.
    pub finished: u64,
    /// Requests that came and have not come back.
    pub inside: u64,
}

impl Walkers {
    /// `walkers` and `pending`: 0 = no limit.
    pub fn new(walkers: u64, pending: u64, coalescing: bool) -> Walkers {
        Walkers {
            station: Station::new(walkers, None),
            walks: Vec::new(),
            free_walks: Vec::new(),
            waiters: Vec::new(),
            free_waiters: Vec::new(),
            buckets: Box::new([NONE; BUCKETS]),
            outside: std::collections::VecDeque::new(),
            room: if pending == 0 { usize::MAX } else { pending as usize },
            coalescing,
            coalesced: 0,
            stalled: 0,
            finished: 0,
            inside: 0,
        }
    }

    /// A request for `page` whose walk reads `reads` entries. Requests that do
    /// not need a walk of their own (`reads` = `None`) wait for a pending walk
    /// of the page only; `None` is returned if there is none.
    pub fn request(
        &mut self,
        now: Ps,
        page: u64,
        reads: Option<u32>,
        token: u32,
    ) -> Option<Requested> {
        let Some(reads) = reads else {
            let walk = self.find(page)?;
            self.inside += 1;
            return Some(self.join(walk, now, token));
        };
        self.inside += 1;
        let request = Request { page, reads, token, came: now };
        let outcome = if self.outside.is_empty() { self.enter(now, request) } else { None };
        Some(outcome.unwrap_or_else(|| {
            self.stalled += 1;
            self.outside.push_back(request);
            Requested::Stalled
        }))
    }

    fn join(&mut self, walk: WalkId, came: Ps, token: u32) -> Requested {
        self.coalesced += 1;
        self.add_waiter(walk, Waiter { token, came, next: NONE });
        Requested::Coalesced
    }

    /// Into the buffer; `None` if it is full.
    fn enter(&mut self, now: Ps, r: Request) -> Option<Requested> {
        if self.coalescing
            && let Some(walk) = self.find(r.page)
        {
            return Some(self.join(walk, r.came, r.token));
        }
        if self.walks.len() - self.free_walks.len() >= self.room {
            return None;
        }
        // Without coalescing the latest walk of a page stands for it.
        if !self.coalescing
            && let Some(older) = self.find(r.page)
        {
            self.unlink(older);
        }
        let id = self.free_walks.pop().unwrap_or(self.walks.len() as WalkId);
        let (started, outcome) = match self.station.arrive(now, id) {
            Admission::Started(id) => (now, Requested::Started(id)),
            Admission::Queued => (Ps::NEVER, Requested::Waiting),
            Admission::Refused(_) => unreachable!("the station's queue is unlimited"),
        };
        let Request { page, reads, token, came } = r;
        let next = std::mem::replace(&mut self.buckets[Self::bucket(page)], id);
        let (joined, last, found) = (NONE, NONE, true);
        let walk = Walk { page, started, token, reads, came, joined, last, next, found };
        match self.walks.get_mut(id as usize) {
            Some(place) => *place = walk,
            None => self.walks.push(walk),
        }
        Some(outcome)
    }

    #[inline]
    fn bucket(page: u64) -> usize {
        // Fibonacci hashing; the multiplier is 2^64 / golden ratio.
        (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % BUCKETS
    }

    /// The walk of a page that waits or runs.
    #[inline]
    fn find(&self, page: u64) -> Option<WalkId> {
        let mut at = self.buckets[Self::bucket(page)];
        while at != NONE {
            let walk = &self.walks[at as usize];
            if walk.page == page {
                return Some(at);
            }
            at = walk.next;
        }
        None
    }

    /// No request finds the walk any more.
    fn unlink(&mut self, walk: WalkId) {
        let Walk { page, next, .. } = self.walks[walk as usize];
        self.walks[walk as usize].found = false;
        let bucket = Self::bucket(page);
        let mut at = self.buckets[bucket];
        if at == walk {
            self.buckets[bucket] = next;
            return;
        }
        while self.walks[at as usize].next != walk {
            at = self.walks[at as usize].next;
        }
        self.walks[at as usize].next = next;
    }

    fn add_waiter(&mut self, walk: WalkId, waiter: Waiter) {
        let at = match self.free_waiters.pop() {
            Some(at) => {
                self.waiters[at as usize] = waiter;
                at
            }
            None => {
                self.waiters.push(waiter);
                self.waiters.len() as u32 - 1
            }
        };
        let walk = &mut self.walks[walk as usize];
        if walk.joined == NONE {
            walk.joined = at;
        } else {
            self.waiters[walk.last as usize].next = at;
        }
        walk.last = at;
    }

    /// Entries that a walk reads.
    pub fn reads(&self, walk: WalkId) -> u32 {
        self.walks[walk as usize].reads
    }

    /// When a walk started.
    pub fn started(&self, walk: WalkId) -> Ps {
        self.walks[walk as usize].started
    }

    /// A walk ends: `done` receives the requests that it served, `starts` the
    /// walks that start now.
    pub fn finish(
        &mut self,
        now: Ps,
        walk: WalkId,
        done: &mut Vec<Walked>,
        starts: &mut Vec<WalkId>,
    ) {
        let Walk { page, started, token, came, joined, found, .. } = self.walks[walk as usize];
        self.finished += 1;
        if found {
            self.unlink(walk);
        }
        let served = |token: u32, came: Ps, coalesced: bool| {
            let (waited, walked) = (started.since(came), now.since(started.max(came)));
            Walked { token, page, waited, walked, coalesced }
        };
        done.push(served(token, came, false));
        self.inside -= 1;
        let mut at = joined;
        while at != NONE {
            let Waiter { token, came, next } = self.waiters[at as usize];
            done.push(served(token, came, true));
            self.inside -= 1;
            self.free_waiters.push(at);
            at = next;
        }
        self.free_walks.push(walk);
        if let Some(next) = self.station.depart(now) {
            self.walks[next as usize].started = now;
            starts.push(next);
        }
        if !self.outside.is_empty() {
            self.let_in(now, starts);
        }
    }

    /// Lets requests into the buffer until it is full.
    fn let_in(&mut self, now: Ps, starts: &mut Vec<WalkId>) {
        while let Some(request) = self.outside.front().copied() {
            let Some(outcome) = self.enter(now, request) else { break };
            self.outside.pop_front();
            if let Requested::Started(id) = outcome {
                starts.push(id);
            }
        }
    }

    /// The walkers and their queue (requests outside the buffer not counted).
    pub fn station(&self) -> &Station<WalkId> {
        &self.station
    }

    /// As [`Walkers::station`].
    pub fn station_mut(&mut self) -> &mut Station<WalkId> {
        &mut self.station
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Serves requests `(gap, page)` with walks of a fixed length; returns the
    /// pages walked, in order of their ends, and the requests served.
    fn serve(walkers: &mut Walkers, requests: &[(u64, u64)], length: u64) -> (Vec<u64>, Vec<u32>) {
        let (mut ends, mut now) = (std::collections::BTreeSet::new(), 0);
        let (mut walked, mut served) = (Vec::new(), Vec::new());
        let (mut done, mut starts) = (Vec::new(), Vec::new());
        let mut end = |walkers: &mut Walkers,
                       ends: &mut std::collections::BTreeSet<(u64, WalkId)>,
                       until: u64| {
            while let Some(&(at, walk)) = ends.first().filter(|(at, _)| *at <= until) {
                ends.pop_first();
                walked.push(walkers.walks[walk as usize].page);
                walkers.finish(Ps(at), walk, &mut done, &mut starts);
                served.extend(done.drain(..).map(|w| w.token));
                ends.extend(starts.drain(..).map(|w| (at + length, w)));
            }
        };
        for (token, (gap, page)) in requests.iter().enumerate() {
            now += gap;
            end(walkers, &mut ends, now);
            if let Some(Requested::Started(walk)) =
                walkers.request(Ps(now), *page, Some(1), token as u32)
            {
                ends.insert((now + length, walk));
            }
        }
        end(walkers, &mut ends, u64::MAX);
        (walked, served)
    }

    proptest! {
        /// Coalescing never walks a page more often than it is asked for, never
        /// less often than once per page, and every request comes back once.
        #[test]
        fn coalescing_bounds(
            requests in prop::collection::vec((0u64..5, 0u64..6), 1..100),
            k in 0u64..4,
            room in 0u64..5,
            length in 1u64..20,
        ) {
            let mut pages: Vec<u64> = requests.iter().map(|r| r.1).collect();
            let asked = pages.clone();
            pages.sort_unstable();
            pages.dedup();
            let mut walkers = Walkers::new(k, room, true);
            let (walked, mut served) = serve(&mut walkers, &requests, length);
            served.sort_unstable();
            prop_assert_eq!(served, (0..requests.len() as u32).collect::<Vec<_>>());
            for page in &pages {
                let walks = walked.iter().filter(|p| *p == page).count();
                let asks = asked.iter().filter(|p| *p == page).count();
                prop_assert!((1..=asks).contains(&walks));
            }
            prop_assert_eq!(walkers.coalesced as usize + walked.len(), requests.len());
            prop_assert_eq!(walkers.inside, 0);

            let mut alone = Walkers::new(k, room, false);
            let (walked_alone, _) = serve(&mut alone, &requests, length);
            prop_assert_eq!(walked_alone.len(), requests.len());
            prop_assert!(walked.len() <= walked_alone.len());
        }
    }

    #[test]
    fn requests_at_one_time_for_one_page_share_a_walk() {
        let requests = [(0, 7); 10];
        assert_eq!(serve(&mut Walkers::new(1, 0, true), &requests, 5).0, [7]);
        assert_eq!(serve(&mut Walkers::new(1, 0, false), &requests, 5).0, [7; 10]);
    }

    #[test]
    fn a_full_buffer_stalls_and_looks_again() {
        let mut w = Walkers::new(1, 1, true);
        assert_eq!(w.request(Ps(0), 1, Some(4), 10), Some(Requested::Started(0)));
        assert_eq!(w.request(Ps(1), 2, Some(4), 11), Some(Requested::Stalled));
        assert_eq!(w.request(Ps(2), 2, Some(4), 12), Some(Requested::Stalled));
        let (mut done, mut starts) = (Vec::new(), Vec::new());
        w.finish(Ps(9), 0, &mut done, &mut starts);
        assert_eq!(starts, [0]);
        done.clear();
        w.finish(Ps(20), 0, &mut done, &mut starts);
        let waited: Vec<_> = done.iter().map(|d| (d.token, d.waited, d.walked)).collect();
        // The second joined the first's walk when that entered.
        assert_eq!(waited, [(11, Ps(8), Ps(11)), (12, Ps(7), Ps(11))]);
        assert_eq!((w.coalesced, w.stalled, w.finished), (1, 2, 2));
    }

    #[test]
    fn a_hit_waits_only_for_a_pending_walk() {
        let mut w = Walkers::new(0, 0, true);
        assert_eq!(w.request(Ps(0), 1, None, 5), None);
        assert_eq!(w.request(Ps(0), 1, Some(3), 6), Some(Requested::Started(0)));
        assert_eq!(w.request(Ps(4), 1, None, 7), Some(Requested::Coalesced));
        let (mut done, mut starts) = (Vec::new(), Vec::new());
        w.finish(Ps(10), 0, &mut done, &mut starts);
        assert_eq!(
            done[1],
            Walked { token: 7, page: 1, waited: Ps(0), walked: Ps(6), coalesced: true }
        );
    }
}
