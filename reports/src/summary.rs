//! The results in plain words, generated from the numbers.

mod timing;

pub(crate) use timing::timing;

use std::borrow::Cow;

use ioasim_sim::results::{MissCauses, RunResult};

use crate::config::{self, Nesting};
use crate::document::Document;
use crate::format::{factor, list, percent_sign, plural, rate, thousands, truncate};
use crate::measure::{Measures, ratio};

/// One finding: a few words that name the subject, then sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Subject, with its full stop.
    pub lead: String,
    /// Sentences.
    pub text: String,
}

/// A run with its name and rates.
pub(crate) struct Named<'a> {
    pub name: String,
    pub run: &'a RunResult,
    pub m: Measures,
}

/// The runs of a document with names and rates.
pub(crate) fn named(document: &Document) -> Vec<Named<'_>> {
    config::names(document)
        .into_iter()
        .zip(&document.runs)
        .map(|(name, run)| Named { name, run, m: Measures::of(&run.counters) })
        .collect()
}

/// The runs that share the largest or smallest value of a measure.
pub(crate) struct Extreme {
    /// Names, `a and b` if tied as printed.
    pub names: String,
    /// How many they are.
    pub count: usize,
    /// Each name.
    tied: Vec<String>,
    pub value: f64,
    /// The value as printed.
    pub text: String,
}

/// Largest (`most`) or smallest value among the runs that have one.
pub(crate) fn extreme(
    runs: &[Named<'_>],
    most: bool,
    measure: impl Fn(&Named<'_>) -> Option<f64>,
) -> Option<Extreme> {
    let values = || runs.iter().filter_map(|r| Some((r, measure(r).filter(|v| v.is_finite())?)));
    let value = values().map(|(_, v)| v).reduce(|a, b| if most { a.max(b) } else { a.min(b) })?;
    let text = rate(Some(value));
    let tied: Vec<String> =
        values().filter(|(_, v)| rate(Some(*v)) == text).map(|(r, _)| r.name.clone()).collect();
    Some(Extreme { names: list(&tied), count: tied.len(), tied, value, text })
}

/// The findings of one document, for readers who never saw the tool.
pub(crate) fn findings(document: &Document) -> Vec<Finding> {
    let runs = named(document);
    let finding = |lead: &str, text: String| Finding { lead: lead.to_owned(), text };
    if runs.is_empty() {
        return vec![finding(
            "No runs.",
            "This result holds no run, so there is nothing to compare.".into(),
        )];
    }
    let mut out = vec![finding("IOTLB hits.", hits(&runs))];
    if runs.iter().any(|r| r.m.requests > 0) {
        out.push(finding("Table reads by the IOMMU.", walks(&runs)));
    }
    out.push(finding("Work for the VMM.", vmm(&runs)));
    out.push(finding("Faults.", faults(document, &runs)));
    let no_time = "The replay is functional: it counts events and simulates no time. Which \
                   configuration is faster depends on what a table read, a trap and a shadow \
                   change cost on a given machine.";
    let time = "Times are simulated from constants, some of which are assumptions; none was \
                recorded. Which configuration is faster on a given machine depends on that \
                machine's constants.";
    let timed: Vec<_> =
        runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.timing.as_ref()?))).collect();
    out.extend(timing::how_long(&timed).map(|text| finding("Simulated time.", text)));
    let limits = if simulates_time(&runs) { time } else { no_time };
    out.push(finding("What this does not say.", limits.into()));
    out
}

fn simulates_time(runs: &[Named<'_>]) -> bool {
    runs.iter().any(|r| r.run.timing.is_some())
}

fn hits(runs: &[Named<'_>]) -> String {
    let with_dma: Vec<&Named> = runs.iter().filter(|r| r.m.requests > 0).collect();
    let Some(first) = with_dma.first() else {
        return "The trace holds no device access, so there are no hit rates and no costs per \
                access; only the work of mapping and unmapping is compared."
            .into();
    };
    let requests = thousands(first.m.requests);
    let (Some(low), Some(high)) =
        (extreme(runs, false, |r| r.m.hit_rate), extreme(runs, true, |r| r.m.hit_rate))
    else {
        return format!("No IOTLB look-up was made for the {requests} translation requests.");
    };
    let (low_text, high_text) = (percent_sign(Some(low.value)), percent_sign(Some(high.value)));
    let mut text = if runs.len() == 1 {
        format!("The IOTLB answered {high_text} of {requests} translation requests from its cache.")
    } else if low_text == high_text {
        format!(
            "In every configuration the IOTLB answered {high_text} of {requests} translation \
             requests from its cache: the configurations differ in what a miss and a change of \
             the tables cost, not in how often it happens."
        )
    } else {
        let names = |wanted: &str| {
            let tied: Vec<&str> = with_dma
                .iter()
                .filter(|r| percent_sign(r.m.hit_rate) == wanted)
                .map(|r| r.name.as_str())
                .collect();
            list(&tied)
        };
        format!(
            "The IOTLB answered between {low_text} ({}) and {high_text} ({}) of {requests} \
             translation requests from its cache.",
            names(&low_text),
            names(&high_text),
        )
    };
    if let Some((share, cause)) =
        with_dma.iter().max_by_key(|r| r.run.counters.iotlb.misses).and_then(|r| main_cause(r.run))
    {
        let whose =
            if runs.len() > 1 && low_text != high_text { " where they are most" } else { "" };
        text.push_str(&format!(
            " The main cause of misses{whose}: {cause} ({}).",
            percent_sign(Some(share))
        ));
    }
    text
}

/// The most frequent miss cause in words, with its share of the misses.
fn main_cause(run: &RunResult) -> Option<(f64, &'static str)> {
    let MissCauses { cold, capacity, conflict, invalidation } = run.counters.iotlb.miss_causes;
    let (n, words) = [
        (cold, "pages touched for the first time"),
        (capacity, "too few entries for the working set"),
        (conflict, "limited associativity"),
        (invalidation, "entries that an invalidation had removed"),
    ]
    .into_iter()
    .max_by_key(|(n, _)| *n)?;
    ratio(n, run.counters.iotlb.misses).filter(|s| *s > 0.0).map(|share| (share, words))
}

fn walks(runs: &[Named<'_>]) -> String {
    let per_dma = |r: &Named<'_>| r.m.reads_per_dma;
    let per_miss = |r: &Named<'_>| r.m.reads_per_miss;
    let (Some(few), Some(many)) = (extreme(runs, false, per_dma), extreme(runs, true, per_dma))
    else {
        return "No request was translated.".into();
    };
    let faulted = |names: &str| {
        let hit = runs.iter().any(|r| r.name == names && r.m.faults > 0);
        if hit { "; some of its requests faulted instead of being translated" } else { "" }
    };
    let mut text = if runs.len() == 1 {
        format!("A translation request cost {} table reads on average.", few.text)
    } else if few.text == many.text {
        format!("All configurations read {} table entries per request.", few.text)
    } else {
        format!(
            "{} {} fewest table entries per request ({}{}); {} {} most ({}{}).",
            few.names,
            if few.count == 1 { "reads" } else { "read" },
            few.text,
            faulted(&few.names),
            many.names,
            if many.count == 1 { "reads" } else { "read" },
            many.text,
            if few.value > 0.0 {
                format!(", {} times as many", factor(many.value / few.value))
            } else {
                String::new()
            },
        )
    };
    let nests = |r: &Named<'_>| config::nesting(r.run) != Nesting::None;
    let no_nesting_wins = runs.iter().filter(|r| rate(per_dma(r)) == few.text).all(|r| !nests(r));
    if few.text != many.text
        && no_nesting_wins
        && let Some(nested) = extreme(runs, false, |r| per_dma(r).filter(|_| nests(r)))
        && nested.text != many.text
    {
        text.push_str(&format!(
            " Of the configurations that nest, {} {} fewest ({}{}).",
            nested.names,
            if nested.count == 1 { "reads" } else { "read" },
            nested.text,
            faulted(&nested.names)
        ));
    }
    let of = |kind: Nesting| {
        runs.iter()
            .filter(|r| config::nesting(r.run) == kind)
            .filter_map(per_miss)
            .fold(None, range)
    };
    if let (Some(hw), Some(sw)) = (of(Nesting::Hardware), of(Nesting::Software)) {
        text.push_str(&format!(
            " Per miss, hardware nesting, which walks two tables, reads {} entries and software \
             nesting, which walks one, the shadow, {}; the walk caches of each configuration \
             save the rest.",
            span(hw),
            span(sw)
        ));
    }
    text
}

fn range(acc: Option<(f64, f64)>, v: f64) -> Option<(f64, f64)> {
    Some(acc.map_or((v, v), |(a, b)| (a.min(v), b.max(v))))
}

fn span((low, high): (f64, f64)) -> String {
    let (low, high) = (rate(Some(low)), rate(Some(high)));
    if low == high { low } else { format!("{low} to {high}") }
}

type Pick = fn(&Named<'_>) -> Option<f64>;

/// What makes the VMM work: what it is called, and where it stands.
const VMM_WORK: [(&str, Pick); 3] = [
    ("traps", |r| r.m.traps),
    ("shadow changes", |r| r.m.shadow_changes()),
    ("table entries read by the VMM", |r| r.m.vmm_pte_reads),
];

/// The largest of each kind of VMM work, without the kinds that are all zero.
fn vmm_extremes(runs: &[Named<'_>]) -> Vec<(&'static str, Extreme)> {
    VMM_WORK
        .iter()
        .filter_map(|(what, pick)| Some((*what, extreme(runs, true, pick)?)))
        .filter(|(_, e)| e.value > 0.0)
        .collect()
}

fn vmm(runs: &[Named<'_>]) -> String {
    let most = vmm_extremes(runs);
    let Some((_, first)) = most.first() else {
        return if runs.iter().any(|r| r.m.requests > 0) {
            "No configuration made the VMM do anything: no traps, no shadow table.".into()
        } else {
            "Without device accesses there is nothing to relate the work to; the totals stand in \
             the table of all counters."
                .into()
        };
    };
    let amounts = || {
        let v: Vec<String> = most.iter().map(|(what, e)| format!("{} {what}", e.text)).collect();
        list(&v)
    };
    let same = most.iter().all(|(_, e)| e.names == first.names);
    let mut text = if runs.len() == 1 {
        format!("Per 1,000 requests the VMM had {}.", amounts())
    } else if same && first.count == 1 {
        format!(
            "{} makes the VMM work most{}: {} per 1,000 requests.",
            first.names,
            if most.len() > 1 { " by every count" } else { "" },
            amounts()
        )
    } else {
        let v: Vec<String> = most
            .iter()
            .map(|(what, e)| {
                let verb = if e.count == 1 { "has" } else { "have" };
                format!("{} {verb} most {what} ({})", e.names, e.text)
            })
            .collect();
        format!("Counted per 1,000 requests, {}.", v.join("; "))
    };
    let without: Vec<&str> = runs
        .iter()
        .filter(|r| {
            config::nesting(r.run) != Nesting::Software && r.m.shadow_changes() == Some(0.0)
        })
        .map(|r| r.name.as_str())
        .collect();
    if !without.is_empty() && runs.len() > 1 {
        let verb = if without.len() == 1 { "keeps" } else { "keep" };
        text.push_str(&format!(" {} {verb} no shadow table.", list(&without)));
    }
    text
}

fn faults(document: &Document, runs: &[Named<'_>]) -> String {
    let faulty: Vec<&Named> = runs.iter().filter(|r| r.m.faults > 0).collect();
    let Some(first) = faulty.first() else {
        return match runs.len() {
            1 => "No request faulted.".into(),
            _ => "No request faulted in any configuration.".into(),
        };
    };
    if runs.len() > 1 && runs.iter().all(|r| r.m.faults == first.m.faults) {
        let trace = if document.trace.all_made_up() { "trace" } else { "recording" };
        return format!(
            "{} in every configuration alike, so the cause lies in the {trace} or in what was \
             assumed about it, not in how the tables are nested.",
            requests_faulted(first)
        );
    }
    let mut text = String::new();
    for r in &faulty {
        let why = fault_reason(document, r.run).map_or_else(
            || "no policy explains this: see the diagnostics among the counters".to_owned(),
            |(_, long)| long,
        );
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&format!("{}: {} ({why}).", r.name, requests_faulted(r)));
    }
    let clean = runs.len() - faulty.len();
    if clean > 0 {
        let which = if clean == 1 { "the other configuration" } else { "the other configurations" };
        text.push_str(&format!(" No request faulted in {which}."));
    }
    text
}

fn requests_faulted(r: &Named<'_>) -> String {
    let share = percent_sign(ratio(r.m.faults, r.m.requests));
    format!("{} faulted, {share}", plural(r.m.faults as usize, "request", "requests"))
}

/// Why requests of a run fault, short and long, where its policy explains it.
pub(crate) fn fault_reason(document: &Document, run: &RunResult) -> Option<(&'static str, String)> {
    if config::nesting(run) != Nesting::Software {
        return None;
    }
    let policy = config::text(run, "sync.policy").unwrap_or("");
    let caching_mode = match config::text(run, "guest.caching_mode") {
        Some(mode @ ("on" | "off")) => mode,
        _ => document.trace.caching_mode.as_str(),
    };
    if policy.starts_with("invalidate") && caching_mode == "off" {
        Some((
            "invalidation-driven shadow without caching mode",
            "its shadow is driven by invalidations, and without caching mode the guest sends none \
             when a page becomes present, so the shadow misses new pages"
                .to_owned(),
        ))
    } else {
        None
    }
}

/// A name for a line of a terminal.
pub(crate) fn short_name(name: &str) -> Cow<'_, str> {
    truncate(name, 28)
}

/// At most two names, then how many more there are.
fn short_names(e: &Extreme) -> String {
    let names: Vec<Cow<'_, str>> = e.tied.iter().map(|n| short_name(n)).collect();
    match names.as_slice() {
        [a, _, _, ..] => format!("{a} and {} more", names.len() - 1),
        few => list(few),
    }
}

/// Two to four lines for a terminal (not wrapped).
pub(crate) fn brief(document: &Document) -> Vec<String> {
    let runs = named(document);
    if runs.is_empty() {
        return vec!["No runs, so nothing to compare.".into()];
    }
    let mut out = Vec::new();
    let per_dma = |r: &Named<'_>| r.m.reads_per_dma;
    if let (Some(few), Some(many)) = (extreme(&runs, false, per_dma), extreme(&runs, true, per_dma))
    {
        out.push(if few.text == many.text {
            format!("Walk reads per DMA: {} in all.", few.text)
        } else {
            format!(
                "Walk reads per DMA: fewest {} ({}), most {} ({}).",
                short_names(&few),
                few.text,
                short_names(&many),
                many.text
            )
        });
    } else {
        out.push("The trace holds no DMA: rates are undefined (-).".into());
    }
    let most = vmm_extremes(&runs);
    if !most.is_empty() {
        let what = ["traps", "shadow changes", "PTE reads"];
        let v: Vec<String> = VMM_WORK
            .iter()
            .zip(what)
            .filter_map(|((long, _), short)| {
                Some((short, &most.iter().find(|(w, _)| w == long)?.1))
            })
            .map(|(short, e)| format!("most {short} {} ({})", short_names(e), e.text))
            .collect();
        out.push(format!("VMM, per 1,000 DMA: {}.", v.join("; ")));
    } else if runs.iter().any(|r| r.m.requests > 0) {
        out.push("VMM: no traps and no shadow work.".into());
    }
    let faulty: Vec<String> = runs
        .iter()
        .filter(|r| r.m.faults > 0)
        .map(|r| match fault_reason(document, r.run) {
            Some((why, _)) => format!("{} {} ({why})", short_name(&r.name), thousands(r.m.faults)),
            None => format!("{} {}", short_name(&r.name), thousands(r.m.faults)),
        })
        .collect();
    let mut line = match faulty.as_slice() {
        [] => "No faults.".to_owned(),
        faulty => format!("Faults: {}.", faulty.join("; ")),
    };
    if !simulates_time(&runs) {
        line += " Events are counted; no time is simulated.";
    }
    out.push(line);
    out
}
