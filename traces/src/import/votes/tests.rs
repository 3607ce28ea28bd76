use proptest::prelude::*;

use super::*;

/// Causes at random times whose effects come after a delay on a clock that is
/// `offset` ahead; some effects are missing, some have no cause.
fn feed(
    votes: &mut Votes,
    offset: i64,
    events: &[(u64, u64, i64, i64, u8)],
) -> Vec<(i64, i64, bool)> {
    let (mut causes, mut effects, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let mut now = 0;
    for (page, out, gap, delay, what) in events {
        now += gap;
        if *what != 0 {
            causes.push((now, *page, *out));
        }
        if *what != 1 {
            effects.push((now + offset + delay, *page, *out));
        }
        all.push((now, now + offset + delay, *what > 1));
    }
    effects.sort_unstable();
    for (i, (time, page, out)) in effects.iter().enumerate() {
        votes.push_effect(1, *page, *out, (*time, i as u64));
    }
    for (i, (time, page, out)) in causes.iter().enumerate() {
        votes.push_cause(*page, *out, (*time, i as u64));
    }
    votes.timed = true;
    votes.end_first();
    votes.end_second();
    votes.poll();
    all
}

proptest! {
    #[test]
    fn the_difference_is_found(
        offset in -1_000_000_000_000i64..1_000_000_000_000,
        events in proptest::collection::vec(
            (0..200u64, 0..1000u64, 1_000..300_000i64, 20_000..300_000i64, 0..8u8), 100..600),
    ) {
        let mut votes = Votes::default();
        let all = feed(&mut votes, offset, &events);
        let both = all.iter().filter(|e| e.2).count() as u64;
        let mut n = 0;
        while let Some(pair) = votes.next_pair() {
            n += 1;
            // Delays are positive; the smallest is at least 20 us.
            prop_assert!(pair.offset - offset <= 300_000, "{} {offset}", pair.offset);
            prop_assert!(pair.offset - offset >= 20_000 - SLACK_NS, "{} {offset}", pair.offset);
        }
        prop_assert!(n * 10 >= both * 9, "{n} of {both}");
    }

    #[test]
    fn strangers_are_not_joined(seed: u64) {
        let mut votes = Votes::default();
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x >> 33
        };
        for i in 0..2000 {
            votes.push_effect(1, next() % 64, next() % 64, (i * 50_000, i as u64));
            votes.push_cause(next() % 64, next() % 64, (i * 50_000, i as u64));
        }
        votes.timed = true;
        votes.end_first();
        votes.end_second();
        votes.poll();
        prop_assert_eq!(votes.matched, 0);
    }
}

proptest! {
    // Two of 9,000 cases found less than four in five pairs: the search decides
    // by samples, and such a join says how much it left out. That is not mended
    // yet; IOASIM_CASES looks for more of them.
    #![proptest_config(ProptestConfig::with_cases(ring_cases()))]

    /// Pages wait in a ring for their turn; a few are used at once.
    #[test]
    fn a_ring_of_buffers(
        offset in -1_000_000_000_000i64..1_000_000_000_000,
        ring in 60_000_000..80_000_000i64,
        events in proptest::collection::vec((0..20u8, 0.0..1.0f64, 200_000..1_800_000i64), 2500..3000),
    ) {
        let events: Vec<_> = events
            .iter()
            .zip(0u64..)
            .map(|((what, turn, gap), i)| {
                let long = 10_000_000 + (ring as f64 * turn) as i64;
                let delay = if *what == 0 { 60_000 } else { long };
                // Pages repeat, with other contents.
                (i % 600, i, *gap, delay, 2)
            })
            .collect();
        let mut votes = Votes::default();
        feed(&mut votes, offset, &events);
        let mut n = 0;
        while let Some(pair) = votes.next_pair() {
            n += 1;
            prop_assert!((pair.offset - offset).abs() <= EDGE_NS, "{}", pair.offset - offset);
        }
        prop_assert!(n * 10 >= events.len() * 8, "{n}");
    }
}

fn ring_cases() -> u32 {
    std::env::var("IOASIM_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(32)
}
