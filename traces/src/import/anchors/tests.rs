use super::*;

/// Feeds both sides fully and gives the pairs as indexes.
fn align(first: &[(u64, i64)], second: &[(u64, i64)]) -> (Vec<(u64, u64)>, Aligner) {
    let mut a = Aligner::new(true);
    for (i, (hash, time)) in first.iter().enumerate() {
        a.push_first(Token { hash: *hash, time: *time, index: i as u64 });
    }
    for (i, (hash, time)) in second.iter().enumerate() {
        a.push_second(Token { hash: *hash, time: *time, index: i as u64 });
    }
    a.end_first();
    a.end_second();
    a.poll();
    let mut pairs = Vec::new();
    while let Some(p) = a.next_pair() {
        pairs.push((p.first.index, p.second.index));
    }
    (pairs, a)
}

fn sequence(n: u64) -> Vec<(u64, i64)> {
    let mut time = 0;
    (0..n)
        .map(|i| {
            let r = crate::import::desc::mix(i, 7);
            time += 1_000 + (r % 100_000) as i64;
            (r >> 40 & 0x1f, time)
        })
        .collect()
}

#[test]
fn late_start_early_end_and_gaps() {
    let first = sequence(3000);
    // The second side starts at 100, ends at 2500, lacks 700..760 and 1500.
    let kept: Vec<usize> = (100..2500).filter(|i| !(700..760).contains(i) && *i != 1500).collect();
    let second: Vec<_> =
        kept.iter().map(|&i| (first[i].0, first[i].1 - 5_000_000_000 - 20_000)).collect();
    let (pairs, a) = align(&first, &second);
    let wrong = pairs.iter().filter(|(p, s)| kept[*s as usize] as u64 != *p).count();
    assert_eq!(wrong, 0);
    assert!(pairs.len() >= kept.len() - 8, "{} of {}", pairs.len(), kept.len());
    assert_eq!(a.offset(), Some(5_000_020_000));
}

#[test]
fn first_side_lacks_some() {
    let second = sequence(2000);
    let kept: Vec<usize> = (50..1900).filter(|i| i % 97 != 0).collect();
    let first: Vec<_> = kept.iter().map(|&i| (second[i].0, second[i].1 + 77)).collect();
    let (pairs, _) = align(&first, &second);
    // "A A B" against "A B" can be paired in two ways.
    assert!(pairs.iter().filter(|(p, s)| kept[*p as usize] as u64 != *s).count() <= 2);
    assert!(pairs.len() >= kept.len() - 20, "{} of {}", pairs.len(), kept.len());
}

#[test]
fn periodic_tokens_are_told_apart_by_the_clocks() {
    let mut time = 0;
    let first: Vec<_> = (0..400u64)
        .map(|i| {
            time += 10_000 + (crate::import::desc::mix(i, 1) % 5_000_000) as i64;
            (i % 2, time)
        })
        .collect();
    let second: Vec<_> = first[37..300].iter().map(|(h, t)| (*h, t - 1_000)).collect();
    let (pairs, _) = align(&first, &second);
    assert_eq!(pairs.first(), Some(&(37, 0)));
    assert_eq!(pairs.len(), 263);
}

#[test]
fn strangers_do_not_match() {
    let first = sequence(500);
    let second: Vec<_> = first.iter().map(|(h, t)| (h + 1000, *t)).collect();
    let (pairs, a) = align(&first, &second);
    assert!(pairs.is_empty() && !a.locked);
}
