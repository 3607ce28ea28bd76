//! What is recorded, what is simulated and what is assumed, in sentences.

use ioasim_sim::results::RunResult;
use serde::Serialize;

use crate::config::{self, Nesting};
use crate::document::Document;
use crate::format::{clean, list, thousands};
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
            simulated: simulated(runs),
            assumed: assumed(document, runs),
        }
    }
}

fn simulated(runs: &[Named<'_>]) -> Vec<String> {
    let mut out: Vec<String> = vec![
        "IOTLB, paging-structure caches, page-table walks, traps and the shadow table of each \
         configuration."
            .into(),
        "The events are replayed in their recorded order; recorded times only place them on the \
         time axis."
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
    let kinds: Vec<String> = trace
        .counts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(kind, n)| format!("{} {}", thousands(*n), kind_words(kind)))
        .collect();
    let mut out = Vec::new();
    if kinds.is_empty() {
        out.push(format!("{} events and their order.", thousands(trace.events)));
    } else {
        out.push(format!("{} events and their order: {}.", thousands(trace.events), list(&kinds)));
    }
    let also: Vec<String> = trace
        .recorded
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(what, n)| {
            let words = match what.as_str() {
                "outputs" => "device accesses with their output address",
                "labels" => "device accesses with the IOTLB's hit or miss",
                "shadow_ops" => "operations on the shadow table",
                other => return format!("{} {}", thousands(*n), clean(&other.replace('_', " "))),
            };
            format!("{} {words}", thousands(*n))
        })
        .collect();
    if !also.is_empty() {
        out.push(format!("To check against: {}.", list(&also)));
    }
    let mode = match trace.caching_mode.as_str() {
        "on" => {
            "The guest ran with caching mode on: it also invalidated when a page became present."
        }
        "off" => {
            "The guest ran with caching mode off: it sent no invalidation when a page became present."
        }
        _ => "The recording does not tell whether the guest ran with caching mode.",
    };
    out.push(mode.into());
    out
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
    let mut out = Vec::new();
    let inferred: Vec<String> = document
        .trace
        .inferred
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(what, n)| format!("{} {}", thousands(*n), clean(&what.replace('_', " "))))
        .collect();
    if !inferred.is_empty() {
        out.push(format!("Inferred by the importer, in no recording: {}.", list(&inferred)));
    }
    // One sentence per parent layout, naming the configurations that share it.
    let mut parents: Vec<(String, Vec<&str>)> = Vec::new();
    for r in runs {
        let p = &r.run.provenance;
        let text = if p.parent_recorded {
            "The parent's table (GPA to HPA) is as recorded".to_owned()
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
