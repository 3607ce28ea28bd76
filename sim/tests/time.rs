//! The discrete-event engine against obvious models and closed forms.

#[path = "common/queueing.rs"]
mod queueing;

use ioasim_sim::time::{Admission, EventQueue, LANES, Ps, Station, Uniform};
use proptest::prelude::*;
use queueing::{crommelin, mean_and_error};

/// Script for the event queue.
#[derive(Clone, Debug)]
enum Step {
    Schedule(u64),
    Post(u64),
    PostIn(usize, u64),
    /// Cancel the n-th event that was ever scheduled (modulo).
    Cancel(usize),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Few distinct times, so that ties are common.
        3 => (0u64..20).prop_map(Step::Schedule),
        2 => (0u64..20).prop_map(Step::Post),
        4 => (0..LANES, 0u64..20).prop_map(|(lane, after)| Step::PostIn(lane, after)),
        2 => any::<usize>().prop_map(Step::Cancel),
        4 => Just(Step::Pop),
    ]
}

proptest! {
    /// Against a list that is searched for the least (time, number).
    #[test]
    fn the_queue_pops_what_a_list_would(steps in prop::collection::vec(step(), 0..300)) {
        let mut queue = EventQueue::default();
        let mut list: Vec<(u64, usize)> = Vec::new();
        let (mut ids, mut now) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Schedule(after) => {
                    let number = ids.len();
                    ids.push(Some(queue.schedule(Ps(now + after), number)));
                    list.push((now + after, number));
                }
                Step::Post(after) => {
                    queue.post(Ps(now + after), ids.len());
                    list.push((now + after, ids.len()));
                    ids.push(None);
                }
                Step::PostIn(lane, after) => {
                    queue.post_in(lane, Ps(now + after), ids.len());
                    list.push((now + after, ids.len()));
                    ids.push(None);
                }
                Step::Cancel(_) if ids.is_empty() => {}
                Step::Cancel(n) => {
                    let n = n % ids.len();
                    let Some(id) = ids[n] else { continue };
                    let at = list.iter().position(|(_, number)| *number == n);
                    prop_assert_eq!(queue.cancel(id), at.map(|at| list.remove(at).1));
                }
                Step::Pop => {
                    let least = list.iter().min().copied();
                    list.retain(|e| Some(*e) != least);
                    prop_assert_eq!(queue.peek(), least.map(|(t, _)| Ps(t)));
                    prop_assert_eq!(queue.pop(), least.map(|(t, n)| (Ps(t), n)));
                    now = least.map_or(now, |(t, _)| t);
                }
            }
            prop_assert_eq!(queue.len(), list.len());
        }
    }

    /// A station against Lindley's recursion for k servers: job i starts when
    /// it has come and the earliest server is free, in order of arrival.
    #[test]
    fn a_station_serves_as_lindley_says(
        jobs in prop::collection::vec((0u64..30, 1u64..40), 1..80),
        servers in 1u64..5,
    ) {
        let mut free = vec![0u64; servers as usize];
        let mut expected = Vec::new();
        let mut came = 0;
        let mut arrivals = Vec::new();
        for (gap, service) in &jobs {
            came += gap;
            arrivals.push(came);
            let first = free.iter_mut().min().unwrap();
            *first = came.max(*first) + service;
            expected.push(*first);
        }
        let (ends, station) = serve(&arrivals, &jobs, servers);
        prop_assert_eq!(&ends, &expected);
        let end = Ps(*ends.iter().max().unwrap());
        let mut usage = station.usage.clone();
        usage.settle(end);
        prop_assert_eq!(usage.littles_residual(end), 0);
        let sojourn: u64 = ends.iter().zip(&arrivals).map(|(e, a)| e - a).sum();
        prop_assert_eq!(usage.sojourn(end), sojourn as u128);
        prop_assert_eq!(usage.busy.area(), jobs.iter().map(|j| j.1 as u128).sum::<u128>());
        prop_assert!(usage.utilisation(end, servers).unwrap() <= 1.0);
    }
}

#[derive(Clone, Copy)]
enum Happens {
    Arrive(usize),
    Depart(usize),
}

/// Serves jobs `(_, service)` that come at `arrivals`.
fn serve(arrivals: &[u64], jobs: &[(u64, u64)], servers: u64) -> (Vec<u64>, Station<usize>) {
    let mut queue = EventQueue::default();
    let mut station = Station::new(servers, None);
    let mut ends = vec![0; jobs.len()];
    for (i, at) in arrivals.iter().enumerate() {
        queue.schedule(Ps(*at), Happens::Arrive(i));
    }
    while let Some((now, event)) = queue.pop() {
        let started = match event {
            Happens::Arrive(i) => match station.arrive(now, i) {
                Admission::Started(i) => Some(i),
                _ => None,
            },
            Happens::Depart(i) => {
                ends[i] = now.0;
                station.depart(now)
            }
        };
        if let Some(i) = started {
            queue.schedule(now + Ps(jobs[i].1), Happens::Depart(i));
        }
    }
    (ends, station)
}

#[test]
fn a_full_queue_refuses() {
    let mut station = Station::new(1, Some(1));
    assert_eq!(station.arrive(Ps(0), 'a'), Admission::Started('a'));
    assert_eq!(station.arrive(Ps(1), 'b'), Admission::Queued);
    assert_eq!(station.arrive(Ps(2), 'c'), Admission::Refused('c'));
    assert_eq!(station.depart(Ps(3)), Some('b'));
    assert_eq!(station.arrive(Ps(4), 'd'), Admission::Queued);
    assert_eq!((station.usage.arrivals, station.usage.refused), (3, 1));
}

#[test]
fn crommelins_formula_is_that_of_pollaczek_and_khinchine_for_one_server() {
    for rho in [0.3, 0.5, 0.8, 0.9] {
        let exact = rho / (2.0 * (1.0 - rho));
        assert!((crommelin(1, rho) - exact).abs() < 1e-6, "{rho}");
    }
}

/// Mean wait and its standard error by batch means, in units of the service
/// time.
fn simulated_wait(k: u64, rho: f64, seed: u64) -> (f64, f64) {
    const SERVICE: u64 = 1_000_000;
    const BATCHES: usize = 40;
    const BATCH: usize = 10_000;
    let mut random = Uniform::new(seed, 0);
    let gap = Ps((SERVICE as f64 / (rho * k as f64)) as u64);
    let (mut arrivals, mut now) = (Vec::new(), 0);
    for _ in 0..(BATCHES + 1) * BATCH {
        now += random.exponential(gap).0;
        arrivals.push(now);
    }
    let jobs = vec![(0, SERVICE); arrivals.len()];
    let (ends, _) = serve(&arrivals, &jobs, k);
    let waits: Vec<f64> = ends
        .iter()
        .zip(&arrivals)
        .map(|(e, a)| (e - a - SERVICE) as f64 / SERVICE as f64)
        .collect();
    // The first batch warms up.
    let means: Vec<f64> =
        waits[BATCH..].chunks(BATCH).map(|b| b.iter().sum::<f64>() / b.len() as f64).collect();
    mean_and_error(&means)
}

/// The tolerance is four standard errors of the simulated mean: the chance of a
/// correct engine to fail is 6e-5 per case, and the seeds are fixed.
#[test]
fn poisson_arrivals_wait_as_m_d_k_says() {
    for (k, rho) in [(1, 0.5), (1, 0.8), (2, 0.7), (4, 0.6), (4, 0.85), (8, 0.8)] {
        let (wait, error) = simulated_wait(k, rho, 7 * k + (rho * 100.0) as u64);
        let exact = crommelin(k, rho);
        assert!((wait - exact).abs() < 4.0 * error, "k {k} rho {rho}: {wait} +- {error}, {exact}");
        // The error itself is small, so the test can fail.
        assert!(error < 0.05 * exact.max(0.2), "k {k} rho {rho}: error {error}");
    }
}

#[test]
fn nothing_is_allocated_beyond_the_most_that_waited() {
    let mut queue = EventQueue::default();
    for round in 0..1000u64 {
        let ids: Vec<_> = (0..8).map(|i| queue.schedule(Ps(round * 10 + i), i)).collect();
        queue.cancel(ids[3]);
        queue.cancel(ids[5]);
        while queue.pop().is_some() {}
        assert_eq!(queue.len(), 0);
    }
    assert!(queue.places() <= 8, "{} places for 8 events at a time", queue.places());
}
