//! Arguments about records of simulated time.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ioasim_sim::results::records::Window;
use ioasim_sim::time::Ps;

/// `--histograms`.
#[derive(Debug, Args)]
pub struct Histograms {
    /// Write latencies under simulated time as HdrHistograms: DIR/CONFIG/*.hgrm
    /// (percentiles) and latency.hlog (V2 interval log).
    #[arg(long, value_name = "DIR")]
    pub histograms: Option<PathBuf>,
}

/// `--timeline`.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    /// Write what happens in simulated time for Perfetto (ui.perfetto.dev).
    #[arg(long, value_name = "OUT.pftrace")]
    pub timeline: Option<PathBuf>,
    /// Part of the run that the timeline shows: simulated time (0us..250us;
    /// ns, us, ms, s), or numbers of the trace's events (1000..2000).
    /// Default: all, if it is not too much.
    #[arg(long, value_name = "START..END", requires = "timeline", value_parser = window)]
    pub window: Option<Window>,
}

/// All of a run.
pub const WHOLE: Window = Window::Time { from: Ps::ZERO, to: Ps::NEVER };

/// Parses a window.
fn window(text: &str) -> Result<Window, String> {
    let usage = "give START..END, as in 0us..250us (simulated time) or 1000..2000 (events)";
    let (from, to) = text.split_once("..").ok_or(usage)?;
    let window = match (time(from), time(to)) {
        (Some(from), Some(to)) => Window::Time { from, to },
        _ => match (u64::from_str(from.trim()), u64::from_str(to.trim())) {
            (Ok(from), Ok(to)) => Window::Events { from, to },
            _ => return Err(usage.into()),
        },
    };
    match window {
        Window::Time { from, to } if from >= to => Err(format!("it is empty; {usage}")),
        Window::Events { from, to } if from >= to => Err(format!("it is empty; {usage}")),
        window => Ok(window),
    }
}

/// Parses a time with its unit, exactly.
fn time(text: &str) -> Option<Ps> {
    let text = text.trim();
    // `s` is the end of the others.
    let units = [("ps", 0), ("ns", 3), ("us", 6), ("ms", 9), ("s", 12u32)];
    let (number, digits) =
        units.iter().find_map(|(unit, digits)| Some((text.strip_suffix(unit)?.trim(), *digits)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits_only = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    // Finer than a picosecond: nothing that the engine knows.
    let padding = digits.checked_sub(fraction.len() as u32)?;
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let ps = whole.checked_mul(10u64.pow(digits))?.checked_add(fraction * 10u64.pow(padding))?;
    Some(Ps(ps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_time_and_of_events() {
        let of = |from, to| Ok(Window::Time { from: Ps(from), to: Ps(to) });
        assert_eq!(window("0us..250us"), of(0, 250_000_000));
        assert_eq!(window("1.5ms .. 0.002s"), of(1_500_000_000, 2_000_000_000));
        assert_eq!(window("7ns..8.001ns"), of(7_000, 8_001));
        assert_eq!(window("10..20"), Ok(Window::Events { from: 10, to: 20 }));
        for bad in [
            "",
            "..",
            "5",
            "5..",
            "5..4",
            "2ms..1ms",
            "1ms..5",
            "-1..5",
            "1e3..2e3",
            "0.0001ps..1s",
            "1.2..3",
            ".5ms..1ms",
            "99999999999s..999999999999s",
        ] {
            assert!(window(bad).is_err(), "{bad}");
        }
    }
}
