//! One producer, several consumers that each need every item, in order.
//!
//! Consumers differ in speed, so none waits for the others after each item:
//! they may be apart by a window of items, which bounds memory.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items between the slowest consumer and the producer: enough that a worker
/// stays with a consumer for milliseconds, few enough that all of them stay in
/// the last-level cache.
const WINDOW: usize = 6;

/// Consumers `C` that are to be given items `T`.
pub struct FanOut<C, T, E> {
    state: Mutex<State<C, T, E>>,
    changed: Condvar,
}

struct State<C, T, E> {
    /// Items that some consumer still needs.
    items: VecDeque<T>,
    /// Number of the first of them.
    first: usize,
    consumers: Vec<Consumer<C>>,
    /// No more items will come.
    ended: bool,
    error: Option<E>,
    /// A worker panicked: the others must not wait for its consumer.
    panicked: bool,
}

impl<C, T, E> State<C, T, E> {
    fn failed(&self) -> bool {
        self.error.is_some() || self.panicked
    }
}

/// Tells of a panic while a worker has a consumer.
struct Panics<'a, C: Send, T: Clone + Send, E: Send>(&'a FanOut<C, T, E>);

impl<C: Send, T: Clone + Send, E: Send> Drop for Panics<'_, C, T, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

struct Consumer<C> {
    /// `None` while a worker has it.
    idle: Option<C>,
    /// Number of the item that it needs next.
    next: usize,
}

impl<C: Send, T: Clone + Send, E: Send> FanOut<C, T, E> {
    /// Nothing given yet.
    pub fn new(consumers: impl IntoIterator<Item = C>) -> Self {
        let consumers = consumers.into_iter().map(|c| Consumer { idle: Some(c), next: 0 });
        FanOut {
            state: Mutex::new(State {
                items: VecDeque::with_capacity(WINDOW),
                first: 0,
                consumers: consumers.collect(),
                ended: false,
                error: None,
                panicked: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<C, T, E>> {
        // Workers panic without the lock only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<C, T, E>>) -> MutexGuard<'a, State<C, T, E>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers an item, once the slowest consumer is near enough; false if a
    /// consumer failed and nothing more is wanted.
    pub fn push(&self, item: T) -> bool {
        let mut state = self.lock();
        while state.items.len() >= WINDOW && !state.failed() {
            state = self.wait(state);
        }
        state.items.push_back(item);
        self.changed.notify_all();
        !state.failed()
    }

    /// No more items will come; must be called, or workers wait for ever.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Gives items to consumers until each has had all, or one failed. To be
    /// called by as many threads as may work, at most one per consumer.
    pub fn work(&self, give: impl Fn(&mut C, &T) -> Result<(), E>) {
        // The consumer worked for last: what it needs is in this core's caches.
        let mut last = 0;
        let mut state = self.lock();
        loop {
            let end = state.first + state.items.len();
            let ready = |c: &Consumer<C>| c.idle.is_some() && c.next < end;
            let chosen = if state.consumers.get(last).is_some_and(ready) {
                Some(last)
            } else {
                let ready = state.consumers.iter().enumerate().filter(|(_, c)| ready(c));
                ready.min_by_key(|(_, c)| c.next).map(|(at, _)| at)
            };
            if state.failed() || state.ended && state.consumers.iter().all(|c| c.next == end) {
                self.changed.notify_all();
                return;
            }
            let Some(at) = chosen else {
                state = self.wait(state);
                continue;
            };
            last = at;
            let item = state.items[state.consumers[at].next - state.first].clone();
            let Some(mut consumer) = state.consumers[at].idle.take() else { continue };
            drop(state);
            let panics = Panics(self);
            let result = give(&mut consumer, &item);
            drop(panics);
            drop(item);
            state = self.lock();
            let back = &mut state.consumers[at];
            back.idle = Some(consumer);
            back.next += 1;
            if let Err(e) = result {
                state.error.get_or_insert(e);
            }
            while state.consumers.iter().all(|c| c.next > state.first) && !state.items.is_empty() {
                state.items.pop_front();
                state.first += 1;
            }
            self.changed.notify_all();
        }
    }

    /// The consumers in their order, or the first error.
    ///
    /// # Errors
    /// What `give` returned.
    pub fn finish(self) -> Result<Vec<C>, E> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.error {
            Some(e) => Err(e),
            None => Ok(state.consumers.into_iter().filter_map(|c| c.idle).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every consumer gets every item in order, on any number of threads.
    #[test]
    fn all_get_all() {
        for threads in [1, 2, 5] {
            let all = FanOut::<Vec<usize>, usize, ()>::new(vec![Vec::new(); 5]);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        all.work(|seen, item| {
                            seen.push(*item);
                            Ok(())
                        })
                    });
                }
                assert!((0..1000).all(|i| all.push(i)));
                all.end();
            });
            let expected: Vec<usize> = (0..1000).collect();
            assert_eq!(all.finish(), Ok(vec![expected; 5]));
        }
    }

    /// The first error ends all, also for a producer that waits.
    #[test]
    fn an_error_ends_all() {
        let all = FanOut::<usize, usize, &str>::new([0, 1]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    all.work(|me, item| if (*me, *item) == (1, 40) { Err("no") } else { Ok(()) })
                });
            }
            assert!(!(0..100_000).all(|i| all.push(i)));
            all.end();
        });
        assert_eq!(all.finish(), Err("no"));
    }

    /// A worker that panics takes the program with it: nobody waits.
    #[test]
    fn a_panic_ends_all() {
        let all = FanOut::<usize, usize, ()>::new([0, 1]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        all.work(|me, item| {
                            assert!((*me, *item) != (0, 10), "the test's panic");
                            Ok(())
                        })
                    });
                }
                assert!(!(0..100_000).all(|i| all.push(i)));
                all.end();
            });
        }));
        assert!(result.is_err());
    }

    #[test]
    fn nothing_to_do() {
        let all = FanOut::<u8, u8, ()>::new([7]);
        all.end();
        all.work(|_, _| Err(()));
        assert_eq!(all.finish(), Ok(vec![7]));
    }
}
