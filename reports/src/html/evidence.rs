//! What is recorded, what is simulated and what is assumed, in sentences.

use std::collections::BTreeMap;

use ioasim_sim::results::RunResult;
use serde::Serialize;

use crate::config::{self, Nesting};
use crate::document::{Document, TraceSection};
use crate::format::{clean, counted as with_number, list, plural, thousands};
use crate::summary::Named;

/// Sentences under each of the three heads.
#[derive(Serialize, Default)]
pub(super) struct Evidence {
    recorded: Vec<String>,
    simulated: Vec<String>,
    assumed: Vec<String>,
}

impl Evidence {
    /// The evidence of a document.
    pub(super) fn new(document: &Document, runs: &[Named<'_>]) -> Evidence {
        Evidence {
            recorded: recorded(document),
            simulated: simulated(document, runs),
            assumed: assumed(document, runs),
        }
    }
}

fn simulated(document: &Document, runs: &[Named<'_>]) -> Vec<String> {
    let mut out: Vec<String> =
        vec![
        "IOTLB, paging-structure caches, page-table walks, traps and the shadow table of each \
         configuration."
            .into(),
        match document.trace.all_made_up() {
            true => "The events are replayed in the trace's order; its times only place them on \
                     the time axis.",
            false => {
                "The events are replayed in their recorded order; recorded times only place them \
                 on the time axis."
            }
        }
        .into(),
    ];
    if runs.iter().any(|r| r.run.timing.is_some()) {
        out.push(
            "Every duration, latency, throughput, waiting time and utilisation: made from the \
             constants of simulated time, whose sources are listed with them."
                .into(),
        );
    }
    out
}

fn recorded(document: &Document) -> Vec<String> {
    let trace = &document.trace;
    if trace.all_made_up() {
        return vec!["Nothing: the whole trace is made up.".into()];
    }
    let elsewhere = |kind: &str| inferred(trace, kind).saturating_add(added(trace, kind));
    let kinds: BTreeMap<&str, u64> = trace
        .counts
        .iter()
        .map(|(kind, n)| (kind.as_str(), n.saturating_sub(elsewhere(kind))))
        .collect();
    let not: u64 = trace.counts.iter().map(|(kind, n)| elsewhere(kind).min(*n)).sum();
    let mut out = vec![events_and_order(trace.events.saturating_sub(not), &kinds)];
    let also: Vec<String> = trace
        .recorded
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(what, n)| {
            let words = match what.as_str() {
                "outputs" => "device accesses with their output address",
                "labels" => "device accesses with the IOTLB's hit or miss",
                "shadow_ops" => "operations on the shadow table",
                other => return with_number(*n, &clean(&other.replace('_', " "))),
            };
            with_number(*n, words)
        })
        .collect();
    if !also.is_empty() {
        out.push(format!("To check against: {}.", list(&also)));
    }
    out.push(caching_mode(trace).into());
    out
}

/// Events of a kind that the importer inferred.
fn inferred(trace: &TraceSection, kind: &str) -> u64 {
    let name = match kind {
        "map" => "maps",
        "unmap" => "unmaps",
        "attach" => "attachments",
        _ => return 0,
    };
    trace.inferred.get(name).copied().unwrap_or(0)
}

/// Events of a kind that were made up and added to a recording.
fn added(trace: &TraceSection, kind: &str) -> u64 {
    trace.made_up.as_ref().and_then(|m| m.events.get(kind)).copied().unwrap_or(0)
}

fn events_and_order(events: u64, kinds: &BTreeMap<&str, u64>) -> String {
    let kinds = counted(kinds.iter().map(|(kind, n)| (*kind, *n)));
    let events = plural(events as usize, "event", "events");
    match kinds.as_slice() {
        [] => format!("{events} and their order."),
        kinds => format!("{events} and their order: {}.", list(kinds)),
    }
}

/// `3 maps` and so on for the kinds that occur.
fn counted<'a>(kinds: impl Iterator<Item = (&'a str, u64)>) -> Vec<String> {
    kinds.filter(|(_, n)| *n > 0).map(|(kind, n)| with_number(n, &kind_words(kind))).collect()
}

fn caching_mode(trace: &TraceSection) -> &'static str {
    let made_up = trace.all_made_up();
    match trace.caching_mode.as_str() {
        "on" if made_up => {
            "The made-up guest has caching mode on: it also invalidates when a page becomes present."
        }
        "on" => {
            "The guest ran with caching mode on: it also invalidated when a page became present."
        }
        "off" if made_up => {
            "The made-up guest has caching mode off: it sends no invalidation when a page becomes \
             present."
        }
        "off" => {
            "The guest ran with caching mode off: it sent no invalidation when a page became present."
        }
        _ if made_up => "The trace does not tell whether its guest has caching mode.",
        _ => "The recording does not tell whether the guest ran with caching mode.",
    }
}

/// What of the trace was made up.
fn made_up(trace: &TraceSection) -> Vec<String> {
    let Some(made_up) = &trace.made_up else { return Vec::new() };
    let names: Vec<String> = made_up.workloads.iter().map(|n| clean(n).into_owned()).collect();
    let by = match names.len() {
        1 => format!("workload {}", names[0]),
        _ => format!("workloads {}", list(&names)),
    };
    let kinds = counted(made_up.events.iter().map(|(kind, n)| (kind.as_str(), *n)));
    if made_up.all {
        let all = trace.counts.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        let text = events_and_order(trace.events, &all);
        return vec![format!("Made up by {by}: {text}"), caching_mode(trace).into()];
    }
    vec![match kinds.as_slice() {
        [] => format!("The recording was changed by {by}: not all of its events are recorded."),
        kinds => format!("Added by {by}, in no recording: {}.", list(kinds)),
    }]
}

/// An event kind as people say it, in the plural.
fn kind_words(kind: &str) -> String {
    let words = match kind {
        "dma" => "device accesses",
        "map" => "maps",
        "unmap" => "unmaps",
        "invalidate" => "invalidations",
        "parent_map" => "parent maps",
        "parent_unmap" => "parent unmaps",
        "attach" => "attachments",
        "detach" => "detachments",
        "marker" => "markers",
        "shadow_map" => "shadow maps",
        "shadow_unmap" => "shadow unmaps",
        "host_invalidate" => "invalidations by the host",
        other => return clean(&other.replace('_', " ")).into_owned(),
    };
    words.to_owned()
}

fn assumed(document: &Document, runs: &[Named<'_>]) -> Vec<String> {
    let mut out = made_up(&document.trace);
    let inferred: Vec<String> = document
        .trace
        .inferred
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(what, n)| with_number(*n, &clean(&what.replace('_', " "))))
        .collect();
    if !inferred.is_empty() {
        out.push(format!("Inferred by the importer, in no recording: {}.", list(&inferred)));
    }
    // One sentence per parent layout, naming the configurations that share it.
    let mut parents: Vec<(String, Vec<&str>)> = Vec::new();
    for r in runs {
        let p = &r.run.provenance;
        let by_trace = ["changed by workload", "made up by workload"];
        let text = if p.parent_recorded {
            "The parent's table (GPA to HPA) is as recorded".to_owned()
        } else if p.parent_layout.starts_with("recorded") {
            format!("The parent's table (GPA to HPA) is {}", clean(&p.parent_layout))
        } else if by_trace.iter().any(|by| p.parent_layout.contains(by)) {
            // The trace brings it: the configuration's seed has no part in it.
            format!(
                "The parent's table (GPA to HPA) is not recorded but comes with the trace: \u{201c}{}\u{201d}",
                clean(&p.parent_layout)
            )
        } else {
            let seed = config::value(r.run, "seed")
                .map_or_else(String::new, |seed| format!(" and seed {}", config::leaf(seed)));
            format!(
                "The parent's table (GPA to HPA) is not recorded but made up with layout \u{201c}{}\u{201d}{seed}",
                clean(&p.parent_layout)
            )
        };
        let text = match p.host_layout.as_str() {
            "" => text,
            host => format!(
                "{text}; below it lies a host level that is assumed, with layout \u{201c}{}\u{201d}",
                clean(host)
            ),
        };
        match parents.iter_mut().find(|(t, _)| *t == text) {
            Some((_, names)) => names.push(&r.name),
            None => parents.push((text, vec![&r.name])),
        }
    }
    for (text, names) in &parents {
        match names.len() == runs.len() {
            true => out.push(format!("{text}.")),
            false => out.push(format!("{text}, in {}.", list(names))),
        }
    }
    // Added, left out, and why.
    type Change<'a> = (u64, u64, &'a str);
    let mut changed: Vec<(Change<'_>, Vec<&str>)> = Vec::new();
    for r in runs {
        let p = &r.run.provenance;
        let key = (p.invalidations_added, p.invalidations_left_out, reason(r.run));
        match changed.iter_mut().find(|(k, _)| *k == key) {
            Some((_, names)) => names.push(&r.name),
            None => changed.push((key, vec![&r.name])),
        }
    }
    for ((added, left_out, why), names) in changed {
        let what = match (added, left_out) {
            (0, 0) => continue,
            (n, 0) => format!("{} invalidations were added", thousands(n)),
            (0, n) => format!("{} recorded invalidations were left out", thousands(n)),
            (a, l) => format!(
                "{} invalidations were added and {} recorded ones left out",
                thousands(a),
                thousands(l)
            ),
        };
        out.push(format!("In {}, {what}: {why}.", list(&names)));
    }
    out.extend(runs.iter().filter_map(|r| other_unmaps(&r.name, r.run)));
    out.extend(super::constants::assumed(runs));
    if out.is_empty() {
        out.push("Nothing beyond the configurations themselves.".into());
    }
    out
}

/// What a guest does that unmaps otherwise than the recorded one.
fn other_unmaps(name: &str, run: &RunResult) -> Option<String> {
    let p = &run.provenance;
    let (replaced, queue) = (thousands(p.invalidations_replaced), run.counters.guest.flush_queue);
    match p.unmap.as_str() {
        "strict" => Some(format!(
            "In {name}, each unmap is followed by its invalidation; {replaced} recorded \
             invalidations were replaced."
        )),
        "lazy" => Some(format!(
            "In {name}, the guest unmaps lazily: {} flushes take the place of {replaced} recorded \
             invalidations, and {} maps got other IOVAs than the recorded ones, which waited for a \
             flush.",
            thousands(queue.full + queue.timeout + queue.reuse),
            thousands(queue.renamed_maps)
        )),
        _ => None,
    }
}

/// Why a run's invalidations differ from the recorded ones.
fn reason(run: &RunResult) -> &'static str {
    if config::nesting(run) == Nesting::None {
        "without a vIOMMU the guest sends none"
    } else if run.config["sync"]["policy"] == "map-unmap"
        && config::nesting(run) == Nesting::Software
    {
        "the guest announces changes by map and unmap calls instead"
    } else {
        "the guest there runs under another caching mode than the recorded one, or the recording \
         does not show what it sent"
    }
}
