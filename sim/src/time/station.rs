//! A station: k servers with one first-come, first-served queue.

use std::collections::VecDeque;

use super::{Ps, Usage};

/// What became of a job that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<J> {
    /// A server took it; the caller schedules its departure.
    Started(J),
    /// It waits.
    Queued,
    /// The queue is full; the job is the caller's again.
    Refused(J),
}

/// `k` equal servers and a queue of limited or unlimited room.
///
/// The station knows no service times: it says when a job starts, the caller
/// schedules the end and reports it with [`Station::depart`], which may start
/// the next job.
#[derive(Clone, Debug)]
pub struct Station<J> {
    servers: u64,
    room: usize,
    busy: u64,
    queue: VecDeque<J>,
    /// Use so far.
    pub usage: Usage,
}

impl<J> Station<J> {
    /// A station. `servers` = 0: as many as jobs come (nothing ever waits);
    /// `room` = most jobs that wait, `None` = any number.
    pub fn new(servers: u64, room: Option<usize>) -> Station<J> {
        Station {
            servers: if servers == 0 { u64::MAX } else { servers },
            room: room.unwrap_or(usize::MAX),
            busy: 0,
            queue: VecDeque::new(),
            usage: Usage::default(),
        }
    }

    /// Servers; `None` = any number.
    pub fn servers(&self) -> Option<u64> {
        (self.servers != u64::MAX).then_some(self.servers)
    }

    /// A job comes.
    #[inline]
    pub fn arrive(&mut self, now: Ps, job: J) -> Admission<J> {
        if self.busy < self.servers {
            self.usage.arrive(now);
            self.busy += 1;
            self.usage.busy.add(now, 1);
            return Admission::Started(job);
        }
        if self.queue.len() >= self.room {
            self.usage.refused += 1;
            return Admission::Refused(job);
        }
        self.usage.arrive(now);
        self.usage.waited += 1;
        self.usage.queue.add(now, 1);
        self.queue.push_back(job);
        Admission::Queued
    }

    /// A job's service ends; the next one, which starts now, if any waits.
    #[inline]
    pub fn depart(&mut self, now: Ps) -> Option<J> {
        debug_assert!(self.busy > 0, "a departure needs a job in service");
        self.usage.leave(now);
        match self.queue.pop_front() {
            Some(next) => {
                self.usage.queue.add(now, -1);
                self.usage.busy.settle(now);
                Some(next)
            }
            None => {
                self.busy -= 1;
                self.usage.busy.add(now, -1);
                None
            }
        }
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Jobs in service.
    pub fn in_service(&self) -> u64 {
        self.busy
    }
}
