//! Round numbers for axes.

/// Ticks from 0 up to the first round number that is at least `max`, about
/// `target` of them.
pub(super) fn from_zero(max: f64, target: usize) -> Vec<f64> {
    between(0.0, if max > 0.0 && max.is_finite() { max } else { 1.0 }, target)
}

/// Ticks of a round step that enclose `[low, high]`.
pub(super) fn between(low: f64, high: f64, target: usize) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let raw = span / target.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= raw * 0.999)
        .unwrap_or(power * 10.0);
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil().max(first + 1.0);
    let count = (last - first).round() as usize;
    (0..=count).map(|i| (first + i as f64) * step).collect()
}

/// Labels of ticks with as many decimals as their step needs.
pub(super) fn labels(ticks: &[f64]) -> Vec<String> {
    let step = ticks.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let top = ticks.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let (scale, suffix) = match top {
        t if t >= 1e9 => (1e9, "G"),
        t if t >= 1e6 => (1e6, "M"),
        t if t >= 1e5 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let step = step / scale;
    let decimals = (0..4).find(|d| {
        let s = step * 10f64.powi(*d);
        (s - s.round()).abs() < 1e-6 * s.max(1.0)
    });
    let decimals = decimals.unwrap_or(3) as usize;
    ticks
        .iter()
        .map(|t| {
            let v = t / scale;
            if v == 0.0 {
                "0".to_owned()
            } else if decimals == 0 {
                format!("{}{suffix}", crate::format::thousands(v.round() as u64))
            } else {
                format!("{v:.decimals$}{suffix}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose() {
        assert_eq!(from_zero(97.2, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(between(91.3, 99.8, 4), [90.0, 92.5, 95.0, 97.5, 100.0]);
        assert_eq!(labels(&between(91.3, 99.8, 4)), ["90.0", "92.5", "95.0", "97.5", "100.0"]);
        assert_eq!(labels(&from_zero(1.8e6, 4)), ["0", "0.5M", "1.0M", "1.5M", "2.0M"]);
        assert_eq!(from_zero(0.0, 4).first(), Some(&0.0));
    }
}
