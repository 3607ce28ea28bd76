//! Statistics as text.

use ioasim_events::Kind;

use super::table::{Page, bytes, decimal, duration, grouped, percent};
use super::{Spread, TraceStats};

/// Most rows of the tables of devices and domains; JSON has all.
const MAX_ROWS: usize = 32;

pub fn render(stats: &TraceStats, width: usize) -> String {
    let mut page = Page::new(width);
    overview(&mut page, stats);
    accesses(&mut page, stats);
    invalidations(&mut page, stats);
    maps(&mut page, stats);
    spreads(&mut page, stats);
    locality(&mut page, stats);
    devices(&mut page, stats);
    domains(&mut page, stats);
    markers(&mut page, stats);
    inferred(&mut page, stats);
    provenance(&mut page, stats);
    page.finish()
}

/// `part` of `whole` in per cent, empty without a whole.
fn of(part: u64, whole: u64, what: &str) -> String {
    if whole == 0 {
        return String::new();
    }
    format!("{} {what}", percent(Some(part as f64 / whole as f64)))
}

fn overview(page: &mut Page, s: &TraceStats) {
    page.section("Trace");
    if let Some(file) = &s.file {
        page.line(&format!("  {}", file.path));
        let each = file.file_bytes as f64 / s.events.max(1) as f64;
        page.value("file size", &bytes(file.file_bytes), &format!("{each:.2} bytes/event"));
        page.value("row groups", &grouped(file.row_groups), "");
    }
    page.value("events", &grouped(s.events), "");
    for (kind, n) in &s.events_by_kind {
        page.value(&format!("  {kind}"), &grouped(*n), &of(*n, s.events, ""));
    }
    let clock = match s.provenance.synthetic.iter().any(|s| s.guest) {
        true => "made up",
        false => "recorded clock, not real",
    };
    page.value("time span", &duration(s.end_ns), clock);
}

fn accesses(page: &mut Page, s: &TraceStats) {
    let r = &s.recorded;
    if r.dma == 0 {
        return;
    }
    page.section("Accesses (dma)");
    page.value("accesses", &grouped(r.dma), "");
    page.value(
        "bytes, where the length is known",
        &bytes(r.dma_bytes),
        &of(r.dma_with_length, r.dma, "known"),
    );
    page.value(
        "direction known",
        &grouped(r.dma_with_direction),
        &of(r.dma_with_direction, r.dma, ""),
    );
    page.value(
        "output address known",
        &grouped(r.dma_with_output),
        &of(r.dma_with_output, r.dma, ""),
    );
    page.value("IOTLB label known", &grouped(r.dma_with_label), &of(r.dma_with_label, r.dma, ""));
    page.value(
        "  labelled hit",
        &grouped(r.label_hits),
        &of(r.label_hits, r.dma_with_label, "of labels"),
    );
    page.value("translation faults", &grouped(r.dma_faults), "");
    page.value("distinct IOVA pages", &grouped(s.pages.accessed), "by domain");
    page.value("distinct output pages", &grouped(s.pages.outputs), "");
}

fn invalidations(page: &mut Page, s: &TraceStats) {
    let i = &s.invalidations;
    let rows = [
        ("page-selective", i.page),
        ("domain-selective", i.domain),
        ("global", i.global),
        ("context cache", i.context),
        ("by the IOMMU itself (reset)", i.reset),
        ("unknown reach", i.unknown),
        ("leaf-only hint", i.leaf_only),
        ("because of a map (caching mode)", s.inferred.invalidations_map_notify),
        ("of the physical IOMMU", i.host),
    ];
    if rows.iter().all(|r| r.1 == 0) {
        return;
    }
    page.section("Invalidations");
    for (label, n) in rows.into_iter().filter(|r| r.1 > 0) {
        page.value(label, &grouped(n), "");
    }
    if i.page > 0 {
        let mean = i.page_covered_pages as f64 / i.page as f64;
        page.value(
            "pages covered by page-selective",
            &grouped(i.page_covered_pages),
            &format!("{mean:.1} each"),
        );
    }
}

fn maps(page: &mut Page, s: &TraceStats) {
    let m = &s.maps;
    let count: u64 = m.sizes.iter().map(|c| c.maps).sum();
    if count > 0 {
        page.section("Maps");
        page.value("bytes mapped in all", &bytes(m.mapped_bytes), "");
        page.value("bytes unmapped in all", &bytes(m.unmapped_bytes), "");
        page.value("distinct IOVA pages", &grouped(s.pages.mapped), "by domain");
        page.value("mapped at once, at most", &grouped(m.peak_pages), "pages");
        page.value("still mapped at the end", &grouped(m.alive_at_end), "");
        if m.remapped_bytes > 0 {
            page.value("mapped while mapped", &bytes(m.remapped_bytes), "");
        }
        page.line("  sizes");
        for class in &m.sizes {
            let label = format!("  up to {}", bytes(class.up_to_bytes));
            page.value(&label, &grouped(class.maps), &of(class.maps, count, ""));
        }
    }
    let p = &s.parent;
    if p.maps + p.unmaps > 0 {
        page.section("Parent");
        page.value("maps", &grouped(p.maps), "");
        page.value("unmaps", &grouped(p.unmaps), "");
        page.value("mapped at once, at most", &bytes(p.peak_bytes), "");
    }
}

fn spreads(page: &mut Page, s: &TraceStats) {
    let row = |label: &str, spread: &Spread, show: fn(u64) -> String, mean: String| {
        let mut cells = vec![label.to_owned(), grouped(spread.count)];
        cells.extend([spread.p50, spread.p90, spread.p99, spread.max].map(show));
        cells.push(mean);
        (spread.count > 0).then_some(cells)
    };
    let (life, reuse) = (&s.maps.lifetime_ns, &s.reuse);
    let plain = |label, spread: &Spread| row(label, spread, grouped, decimal(spread.mean));
    let rows: Vec<_> = [
        row("map lifetime", life, duration, duration(life.mean as u64)),
        plain("accesses per map", &reuse.accesses_per_map),
        plain("accesses per page", &reuse.accesses_per_page),
        plain("maps per page", &reuse.maps_per_page),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !rows.is_empty() {
        page.section("Reuse (pages are IOVA pages by domain; times are of the recorded clock)");
        page.table(&["", "of", "p50", "p90", "p99", "max", "mean"], &rows);
    }
}

fn locality(page: &mut Page, s: &TraceStats) {
    let l = &s.locality;
    if l.burst_accesses.count == 0 {
        return;
    }
    page.section("Locality (of accesses; distances are distinct pages since the last access)");
    let row = |label: &str, spread: &Spread| {
        let mut cells = vec![label.to_owned(), grouped(spread.count)];
        cells.extend([spread.p50, spread.p90, spread.p99, spread.max].map(grouped));
        cells.push(decimal(spread.mean));
        cells
    };
    let rows = [
        row("reuse distance, 4 KiB pages", &l.reuse_distance_4k),
        row("reuse distance, 2 MiB regions", &l.reuse_distance_2m),
        row("accesses of a device in a row", &l.burst_accesses),
    ];
    page.table(&["", "of", "p50", "p90", "p99", "max", "mean"], &rows);
    let most = l.working_set.iter().map(|i| i.pages).max().unwrap_or(0);
    let bars = [
        '.', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
        '\u{2588}',
    ];
    let bar = |pages: u64| bars[(pages * 8).div_ceil(most.max(1)) as usize];
    let line: String = l.working_set.iter().map(|i| bar(i.pages)).collect();
    page.line(&format!("  working set  {line}"));
    page.line(&format!(
        "  distinct pages in each of {} parts of the trace, at most {}",
        l.working_set.len(),
        grouped(most)
    ));
}

fn devices(page: &mut Page, s: &TraceStats) {
    if s.devices.is_empty() {
        return;
    }
    page.section("Devices");
    let rows: Vec<_> = s
        .devices
        .iter()
        .take(MAX_ROWS)
        .map(|d| {
            vec![
                d.requester.clone(),
                list(&d.domains),
                grouped(d.dma),
                if d.dma_bytes > 0 { bytes(d.dma_bytes) } else { "-".into() },
                grouped(d.labels),
                percent(d.label_hit_share),
                grouped(d.faults),
                grouped(d.iova_pages),
            ]
        })
        .collect();
    let head = ["device", "domain", "accesses", "bytes", "labels", "hits", "faults", "IOVA pages"];
    page.table(&head, &rows);
    more(page, s.devices.len());
}

fn domains(page: &mut Page, s: &TraceStats) {
    if s.domains.is_empty() {
        return;
    }
    page.section("Domains");
    let rows: Vec<_> = s
        .domains
        .iter()
        .take(MAX_ROWS)
        .map(|d| {
            vec![
                match d.domain {
                    Some(id) => id.to_string(),
                    None if d.is_parent => "parent".into(),
                    None => "unknown".into(),
                },
                grouped(d.dma),
                grouped(d.maps),
                grouped(d.unmaps),
                grouped(d.invalidations_page),
                grouped(d.invalidations_domain),
                grouped(d.iova_pages),
                grouped(d.peak_pages),
            ]
        })
        .collect();
    let head = ["domain", "accesses", "maps", "unmaps", "PSI", "DSI", "IOVA pages", "peak pages"];
    page.table(&head, &rows);
    more(page, s.domains.len());
}

fn markers(page: &mut Page, s: &TraceStats) {
    let all = s.events_by_kind.get(Kind::Marker.name()).copied().unwrap_or(0);
    let listed = &s.provenance.totals.markers;
    if listed.is_empty() {
        return;
    }
    page.section("Markers");
    for marker in listed.iter().take(MAX_ROWS) {
        let text = marker.text.escape_debug();
        page.line(&format!("{:>14}  {text}", duration(marker.time_ns)));
    }
    let shown = listed.len().min(MAX_ROWS) as u64;
    if all > shown {
        page.line(&format!("  and {} more", grouped(all - shown)));
    }
}

/// Domain ids: the first, and how many more.
fn list(domains: &[u32]) -> String {
    let name = |id: u32| match id {
        u32::MAX => "-".to_owned(),
        id if id == u32::MAX - 1 => "parent".to_owned(),
        id => id.to_string(),
    };
    match domains {
        [] => "-".into(),
        [one] => name(*one),
        [one, two] => format!("{},{}", name(*one), name(*two)),
        [one, rest @ ..] => format!("{} +{}", name(*one), rest.len()),
    }
}

fn more(page: &mut Page, rows: usize) {
    if rows > MAX_ROWS {
        page.line(&format!("  and {} more; --json lists all", grouped((rows - MAX_ROWS) as u64)));
    }
}

fn inferred(page: &mut Page, s: &TraceStats) {
    let i = &s.inferred;
    let rows = [
        ("maps inferred", i.maps_inferred),
        ("unmaps inferred", i.unmaps_inferred),
        ("other events inferred", i.others_inferred),
        ("domains inferred by adjacency", i.domains_inferred),
        ("maps notified (caching mode)", i.maps_notified),
        ("maps and unmaps without a domain", i.maps_unattributed),
        ("accesses without a domain", i.dma_unattributed),
        ("invalidations without a domain", i.invalidations_unattributed),
        ("accesses outside known maps", i.dma_outside_maps),
    ];
    if rows.iter().all(|r| r.1 == 0) && i.unmapped_bytes_unknown == 0 {
        return;
    }
    page.section("Not in the recording, or concluded from it");
    for (label, n) in rows.into_iter().filter(|r| r.1 > 0) {
        page.value(label, &grouped(n), "");
    }
    if i.unmapped_bytes_unknown > 0 {
        page.value("unmapped without a known map", &bytes(i.unmapped_bytes_unknown), "");
    }
}

fn provenance(page: &mut Page, s: &TraceStats) {
    let m = &s.provenance;
    page.section("Provenance");
    for (label, value) in [("tool", &m.tool), ("made by", &m.created_by), ("importer", &m.importer)]
    {
        if !value.is_empty() {
            page.line(&format!("  {label:<19}{value}"));
        }
    }
    page.line(&format!(
        "  {:<19}{}",
        "outputs are",
        if m.output_space == ioasim_events::OutputSpace::Hpa { "HPA" } else { "GPA" }
    ));
    let mode = match m.caching_mode {
        ioasim_events::CachingMode::On => "on",
        ioasim_events::CachingMode::Off => "off",
        ioasim_events::CachingMode::Unknown => "unknown",
    };
    page.line(&format!("  {:<19}{mode}", "caching mode"));
    if m.child_levels > 0 {
        page.line(&format!("  {:<19}{}", "child levels", m.child_levels));
    }
    for source in &m.sources {
        page.line(&format!("  {:<19}{} ({})", source.role, source.path, bytes(source.bytes)));
        page.line(&format!("    sha256 {}", source.sha256));
    }
    let rows: Vec<(&str, String)> = m
        .import_counts
        .iter()
        // Other numbers of events are those of the trace that this one was made of.
        .filter(|(name, n)| *name != "events" || **n != s.events)
        .map(|(name, n)| {
            (if name == "events" { "events when imported" } else { name }, grouped(*n))
        })
        .collect();
    page.values(&rows);
    for note in &m.notes {
        page.paragraph(2, note);
    }
}
