//! The outcome of verification in words.

use ioasim_sim::results::{RunResult, Verify};

use super::paragraph;
use crate::config;
use crate::format::{clean, thousands};

/// Mismatches shown per run; `result.json` has all that were kept.
const SHOWN: usize = 5;

/// One check: what was compared, how often, how often it differed.
pub(crate) struct Check {
    /// What was compared.
    pub what: &'static str,
    /// What the comparison is against, for the page.
    pub against: &'static str,
    pub compared: u64,
    pub different: u64,
}

/// The checks of a verification, those that compared nothing included.
pub(crate) fn checks(v: &Verify) -> [Check; 6] {
    let check = |what, against, compared, different| Check { what, against, compared, different };
    [
        check("outputs", "the recorded output addresses", v.translations, v.target_mismatches),
        check(
            "reference checks",
            "a fresh walk of all tables and its legal stale results (I1, I2)",
            v.reference_checks,
            v.reference_mismatches,
        ),
        check(
            "hit/miss labels",
            "the recorded IOTLB's labels",
            v.hit_labels,
            v.hit_label_mismatches,
        ),
        check(
            "walks' reads",
            "the recorded page-table reads of each walk",
            v.walk_reads,
            v.walk_read_mismatches,
        ),
        check(
            "shadow operations",
            "the recorded shadow maps and unmaps",
            v.shadow_ops,
            v.shadow_op_mismatches,
        ),
        check(
            "invariant checks",
            "the model's invariants (I3, I5, I6, I7)",
            v.invariant_checks,
            v.invariant_violations,
        ),
    ]
}

/// The outcome of a run's verification: one line, then the first mismatches
/// with their event numbers. Empty if the run did not verify.
pub fn render_verify(run: &RunResult) -> String {
    section(&clean(config::text(run, "name").unwrap_or("run")), run)
}

/// As [`render_verify`], under a given name.
pub(super) fn section(name: &str, run: &RunResult) -> String {
    let mut out = String::new();
    let name = crate::summary::short_name(name);
    let Some(v) = &run.verify else { return out };
    let done: Vec<Check> =
        checks(v).into_iter().filter(|c| c.compared > 0 || c.different > 0).collect();
    if done.is_empty() {
        let why = "nothing to compare: the trace records no outputs, labels or shadow operations";
        paragraph(&mut out, &format!("verify {name}: {why}"), 2);
        return out;
    }
    let parts: Vec<String> = done
        .iter()
        .map(|c| match c.different {
            0 => format!("{} {}", thousands(c.compared), c.what),
            n => format!("{} {} ({} DIFFER)", thousands(c.compared), c.what, thousands(n)),
        })
        .collect();
    let verdict = if v.passed() { "passed" } else { "FAILED" };
    let stale = match v.stale_legal {
        0 => String::new(),
        n => format!("; {} outputs legally stale", thousands(n)),
    };
    paragraph(&mut out, &format!("verify {name}: {verdict}: {}{stale}", parts.join(", ")), 2);
    for m in v.first_mismatches.iter().take(SHOWN) {
        paragraph(&mut out, &format!("  event {}, {}: {}", m.event, m.check, m.detail), 4);
    }
    if v.first_mismatches.len() > SHOWN {
        let more = thousands((v.first_mismatches.len() - SHOWN) as u64);
        paragraph(&mut out, &format!("  and {more} more in result.json"), 4);
    }
    out
}
