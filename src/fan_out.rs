//! One producer, several consumers that each need every item, in order.
//!
//! Every worker does what is there to do: it makes the next item, or gives one
//! to a consumer. So one worker alone does all of it, two workers share one
//! producer and one consumer, and no core has more threads than it can run.
//! Consumers differ in speed, so none waits for the others after each item:
//! they may be apart by a window of items, which bounds memory.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items between the slowest consumer and the producer: enough that a worker
/// stays with a consumer for milliseconds, few enough that all of them stay in
/// the last-level cache.
const WINDOW: usize = 6;

/// Consumers `C` that are to be given items `T` that `P` makes.
pub struct FanOut<P, C, T, E> {
    state: Mutex<State<P, C, T, E>>,
    changed: Condvar,
}

struct State<P, C, T, E> {
    /// `None` while a worker has it.
    producer: Option<P>,
    /// Items that some consumer still needs.
    items: VecDeque<T>,
    /// Number of the first of them.
    first: usize,
    consumers: Vec<Consumer<C>>,
    /// No more items will come.
    ended: bool,
    error: Option<E>,
    /// A worker panicked: the others must not wait for what it had.
    panicked: bool,
    /// Workers that wait for a change.
    waiting: usize,
}

struct Consumer<C> {
    /// `None` while a worker has it.
    idle: Option<C>,
    /// Number of the item that it needs next.
    next: usize,
}

/// What a worker does next.
enum Task<P, C, T> {
    /// Make an item.
    Make(P),
    /// Give an item to the consumer at a place.
    Give(usize, C, T),
}

impl<P, C, T: Clone, E> State<P, C, T, E> {
    /// Number of the item that will be made next.
    fn end(&self) -> usize {
        self.first + self.items.len()
    }

    /// Nothing is left to do, or nothing more is wanted.
    fn is_over(&self) -> bool {
        let failed = self.error.is_some() || self.panicked;
        let ended = self.ended || self.consumers.is_empty();
        failed || (ended && self.consumers.iter().all(|c| c.next == self.end()))
    }

    /// A consumer that has no worker, and whose next item is made: the one at
    /// `last` if possible, as what it needs is in this core's caches, or the
    /// slowest.
    fn ready(&self, last: usize) -> Option<usize> {
        let end = self.end();
        let ready = |c: &Consumer<C>| c.idle.is_some() && c.next < end;
        if self.consumers.get(last).is_some_and(ready) {
            return Some(last);
        }
        let all = self.consumers.iter().enumerate().filter(|(_, c)| ready(c));
        all.min_by_key(|(_, c)| c.next).map(|(at, _)| at)
    }

    /// Fewer than `ahead` items are made that nobody has asked for.
    fn is_short_of(&self, ahead: usize) -> bool {
        let fastest = self.consumers.iter().map(|c| c.next).max();
        fastest.is_some_and(|next| self.end() < next + ahead)
    }

    /// What there is to do for a worker that was last with the consumer at
    /// `last`. One of several workers makes items `ahead` of their need.
    fn take(&mut self, last: usize, ahead: usize) -> Option<Task<P, C, T>> {
        let ready = self.ready(last);
        if (ready.is_none() || self.is_short_of(ahead))
            && !self.ended
            && self.items.len() < WINDOW
            && let Some(producer) = self.producer.take()
        {
            return Some(Task::Make(producer));
        }
        let at = ready?;
        let item = self.items[self.consumers[at].next - self.first].clone();
        self.consumers[at].idle.take().map(|consumer| Task::Give(at, consumer, item))
    }

    /// Takes the producer back, and what it made.
    fn made(&mut self, producer: P, made: Result<Option<T>, E>) {
        self.producer = Some(producer);
        match made {
            Ok(Some(item)) => self.items.push_back(item),
            Ok(None) => self.ended = true,
            Err(e) => self.fail(e),
        }
    }

    /// Takes a consumer back, and forgets the items that all have had.
    fn gave(&mut self, at: usize, consumer: C, result: Result<(), E>) {
        let back = &mut self.consumers[at];
        back.idle = Some(consumer);
        back.next += 1;
        if let Err(e) = result {
            self.fail(e);
        }
        while self.consumers.iter().all(|c| c.next > self.first) && self.items.pop_front().is_some()
        {
            self.first += 1;
        }
    }

    fn fail(&mut self, error: E) {
        self.error.get_or_insert(error);
    }
}

/// Tells of a panic while a worker has the producer or a consumer.
struct Panics<'a, P, C, T, E>(&'a FanOut<P, C, T, E>);

impl<P, C, T, E> Drop for Panics<'_, P, C, T, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

impl<P, C, T, E> FanOut<P, C, T, E> {
    /// Nothing made yet.
    pub fn new(producer: P, consumers: impl IntoIterator<Item = C>) -> Self {
        let consumers = consumers.into_iter().map(|c| Consumer { idle: Some(c), next: 0 });
        FanOut {
            state: Mutex::new(State {
                producer: Some(producer),
                items: VecDeque::with_capacity(WINDOW),
                first: 0,
                consumers: consumers.collect(),
                ended: false,
                error: None,
                panicked: false,
                waiting: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<P, C, T, E>> {
        // Workers panic without the lock only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes items, until `make` returns `None`, and gives them to consumers,
    /// until each has had all or one failed. To be called by `workers` threads,
    /// of which more than one per consumer and one for the producer find
    /// nothing to do.
    pub fn work(
        &self,
        workers: usize,
        make: impl Fn(&mut P) -> Result<Option<T>, E>,
        give: impl Fn(&mut C, &T) -> Result<(), E>,
    ) where
        T: Clone,
    {
        let mut last = 0;
        let mut state = self.lock();
        while !state.is_over() {
            let Some(task) = state.take(last, workers) else {
                state.waiting += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
                continue;
            };
            drop(state);
            let panics = Panics(self);
            match task {
                Task::Make(mut producer) => {
                    let made = make(&mut producer);
                    drop(panics);
                    state = self.lock();
                    state.made(producer, made);
                }
                Task::Give(at, mut consumer, item) => {
                    let result = give(&mut consumer, &item);
                    drop(item);
                    drop(panics);
                    last = at;
                    state = self.lock();
                    state.gave(at, consumer, result);
                    // This worker goes on with the consumer. Who waits could
                    // make items, and is not woken for each.
                    if state.items.len() > WINDOW / 2 && !state.is_over() {
                        continue;
                    }
                }
            }
            if state.waiting > 0 {
                self.changed.notify_all();
            }
        }
    }

    /// The producer, and the consumers in their order; or the first error.
    ///
    /// # Errors
    /// What `make` or `give` returned.
    pub fn finish(self) -> Result<(P, Vec<C>), E> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.error {
            Some(e) => Err(e),
            None => {
                let producer = state.producer.expect("no worker panicked with the producer");
                Ok((producer, state.consumers.into_iter().filter_map(|c| c.idle).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread::{self, ThreadId};

    /// Makes numbers below a limit.
    fn below(limit: usize) -> impl Fn(&mut usize) -> Result<Option<usize>, &'static str> {
        move |next| {
            let item = (*next < limit).then_some(*next);
            *next += 1;
            Ok(item)
        }
    }

    fn on_threads(threads: usize, work: impl Fn() + Sync) {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(&work);
            }
        });
    }

    /// Every consumer gets every item in order, on any number of threads.
    #[test]
    fn all_get_all() {
        for threads in [1, 2, 5, 9] {
            let all = FanOut::new(0, vec![Vec::new(); 5]);
            on_threads(threads, || {
                all.work(threads, below(1000), |seen, item| {
                    seen.push(*item);
                    Ok(())
                });
            });
            let expected: Vec<usize> = (0..1000).collect();
            assert_eq!(all.finish(), Ok((1001, vec![expected; 5])));
        }
    }

    /// Nobody is further ahead of another, or of the producer, than the window.
    #[test]
    fn all_stay_in_the_window() {
        for threads in [1, 3] {
            let at = Mutex::new([0; 4]);
            let note = |who: usize, n: usize| {
                let mut at = at.lock().unwrap();
                at[who] = n;
                let (least, most) = (at.iter().min().unwrap(), at.iter().max().unwrap());
                assert!(most - least <= WINDOW, "{at:?}");
            };
            let all = FanOut::<_, _, _, &str>::new(0, [1, 2, 3]);
            let make = |next: &mut usize| {
                let item = below(300)(next)?;
                item.inspect(|n| note(0, n + 1));
                Ok(item)
            };
            let give = |who: &mut usize, item: &usize| {
                note(*who, *item + 1);
                Ok(())
            };
            on_threads(threads, || all.work(threads, make, give));
            assert_eq!(all.finish(), Ok((301, vec![1, 2, 3])));
        }
    }

    /// One worker makes and gives; the items of a second one are made by it
    /// while the first gives them away.
    #[test]
    fn workers_do_all_the_work() {
        let me = |ids: &mut Vec<ThreadId>| ids.push(thread::current().id());
        let all = FanOut::new((0, Vec::new()), [Vec::new()]);
        let make = |(next, by): &mut (usize, Vec<ThreadId>)| {
            me(by);
            below(40)(next)
        };
        let give = |by: &mut Vec<ThreadId>, _: &usize| {
            me(by);
            Ok(())
        };
        all.work(1, make, give);
        let ((_, makers), givers) = all.finish().unwrap();
        let here = thread::current().id();
        assert_eq!((makers, givers), (vec![here; 41], vec![vec![here; 40]]));
    }

    /// The first error ends all, whoever has it.
    #[test]
    fn an_error_ends_all() {
        let all = FanOut::new(0, [0, 1]);
        on_threads(2, || {
            all.work(2, below(usize::MAX), |me, item| {
                if (*me, *item) == (1, 40) { Err("no") } else { Ok(()) }
            });
        });
        assert_eq!(all.finish(), Err("no"));
        let all = FanOut::new(0, [(); 2]);
        let make = |next: &mut usize| if *next == 7 { Err("damaged") } else { below(9)(next) };
        on_threads(2, || all.work(2, make, |(), _| Ok(())));
        assert_eq!(all.finish(), Err("damaged"));
    }

    /// A worker that panics takes the program with it: nobody waits.
    #[test]
    fn a_panic_ends_all() {
        for bad in [0, 1] {
            let all = FanOut::new(0, [0, 1]);
            let make = |next: &mut usize| {
                assert!((bad, *next) != (0, 10), "the test's panic");
                below(usize::MAX)(next)
            };
            let give = |me: &mut i32, item: &usize| {
                assert!((bad, *me, *item) != (1, 0, 10), "the test's panic");
                Ok(())
            };
            let run = || on_threads(2, || all.work(2, make, give));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
    }

    #[test]
    fn nothing_to_do() {
        let all = FanOut::new(0, [7]);
        all.work(1, below(0), |_, _| Err("never called"));
        assert_eq!(all.finish(), Ok((1, vec![7])));
        let nobody = FanOut::<_, (), _, _>::new(0, []);
        nobody.work(1, below(3), |_, _| Ok(()));
        assert_eq!(nobody.finish(), Ok((0, Vec::new())));
    }
}
