//! What the terminal shows, and `runs.csv`.

mod fixture;

use ioasim_reports::{
    Document, Measures, render_comparison, render_replay, render_verify, runs_csv,
};
use ioasim_sim::results::Counters;

fn assert_narrow(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        assert_eq!(line, line.trim_end(), "trailing blanks");
    }
}

fn without_dma() -> Document {
    let mut d = fixture::document();
    for run in &mut d.runs {
        run.counters = Counters::default();
        run.devices.clear();
        run.series = Default::default();
    }
    d
}

fn row<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text
        .lines()
        .find(|l| l.starts_with(name))
        .unwrap_or_else(|| panic!("no row {name}:\n{text}"));
    line.split_whitespace().collect()
}

#[test]
fn one_row_per_configuration_with_the_rates_of_its_counters() {
    let d = fixture::document();
    let text = render_comparison(std::slice::from_ref(&d), None);
    assert_narrow(&text);
    let c = &d.runs[4].counters;
    let cells = row(&text, "sw-nested-flush");
    assert_eq!(cells[1], format!("{:.2}", 100.0 * c.iotlb.hits as f64 / c.iotlb.lookups as f64));
    assert_eq!(cells[2], format!("{:.2}", c.walk.memory_reads as f64 / c.iotlb.misses as f64));
    assert_eq!(cells[3], format!("{:.3}", c.walk.memory_reads as f64 / c.dma.requests as f64));
    assert_eq!(cells[4], format!("{:.1}", 1000.0 * c.guest.traps as f64 / c.dma.requests as f64));
    assert_eq!(cells[7], "0");
    for run in &d.runs {
        row(&text, run.config["name"].as_str().unwrap());
    }
    assert!(text.contains("fewest passthrough"), "{text}");
    assert!(text.contains("no time is simulated"), "{text}");
}

#[test]
fn only_shadows_are_synchronised() {
    let mut d = fixture::document();
    // As resolved configurations have it, whatever their nesting.
    for run in &mut d.runs {
        run.config["sync"] = serde_json::json!({ "policy": "invalidate-range" });
    }
    let text = render_replay(&d);
    for line in text.lines().filter(|l| l.starts_with("Configuration ")) {
        let shadow = line.contains("nesting software");
        assert_eq!(line.contains("sync invalidate-range"), shadow, "{line}");
    }
    assert!(text.contains("Configuration hw-nested: nesting hardware, IOTLB entries"), "{text}");
}

#[test]
fn faults_are_explained_where_the_policy_explains_them() {
    let text = render_comparison(&[fixture::troubled()], None);
    assert_narrow(&text);
    let flat = text.replace("\n  ", " ");
    assert!(
        flat.contains("sw-nested-no-cm 18,310 (invalidation-driven shadow without caching mode)"),
        "{text}"
    );
    assert!(text.contains("FAILED"), "{text}");
    assert!(text.contains("event 120331, shadow_op"), "{text}");
    assert!(text.contains("and 2 more"), "{text}");
}

#[test]
fn without_dma_there_are_dashes() {
    let text = render_comparison(&[without_dma()], None);
    assert_narrow(&text);
    assert_eq!(row(&text, "hw-nested")[1..], ["-", "-", "-", "-", "-", "-", "0"]);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    assert_narrow(&render_replay(&without_dma()));
}

#[test]
fn long_and_hostile_names_stay_inside_the_table() {
    let mut d = fixture::document();
    d.runs[1].config["name"] = format!("\x1b[31m{}", "very-long-name-".repeat(10)).into();
    d.runs[2].config["name"] = "日本語の設定日本語の設定日本語の設定".into();
    d.runs[3].config["name"] = "passthrough".into();
    d.trace.path = format!("/{}", "deep/".repeat(60));
    d.runs[0].counters.dma.faults = u64::MAX;
    d.runs[0].counters.walk.memory_reads = u64::MAX;
    d.runs[0].counters.shadow.pte_reads = u64::MAX;
    d.runs[0].counters.shadow.mapped = u64::MAX;
    let text = render_comparison(&[d], None);
    assert_narrow(&text);
    assert!(text.contains('…'), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("passthrough (2)"), "equal names are told apart:\n{text}");
}

#[test]
fn replay_shows_every_counter() {
    let mut d = fixture::document();
    d.runs.truncate(2);
    d.runs.remove(0);
    let text = render_replay(&d);
    assert_narrow(&text);
    for key in [
        "dma.requests",
        "iotlb.miss_causes.invalidation",
        "walk.parent_reads",
        "diagnostics.fault_differences",
        "guest.invalidations.context",
    ] {
        assert!(text.contains(key), "{key} is missing:\n{text}");
    }
    assert!(text.contains("00:04.0") && text.contains("layout 2m"), "{text}");
    assert!(text.contains("hw-nested: passed"), "{text}");
}

#[test]
fn verification_that_compared_nothing_does_not_claim_success() {
    let mut run = fixture::document().runs.remove(1);
    run.verify = Some(Default::default());
    let text = render_verify(&run);
    assert!(text.contains("nothing to compare") && !text.contains("passed"), "{text}");
    run.verify = None;
    assert_eq!(render_verify(&run), "");
}

#[test]
fn measures_of_nothing_are_none() {
    let m = Measures::of(&Counters::default());
    assert_eq!(
        (m.hit_rate, m.reads_per_miss, m.traps, m.shadow_changes()),
        (None, None, None, None)
    );
}

/// A small RFC 4180 reader.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    rows
}

#[test]
fn csv_has_a_row_per_run_and_quotes_what_it_must() {
    let mut d = fixture::troubled();
    d.runs[1].config["name"] = "a \"b\", c\nd".into();
    d.runs[2].config["extra"] = serde_json::json!({"list": [1, 2]});
    let rows = parse_csv(&runs_csv(&[d.clone(), fixture::document()]).unwrap());
    assert_eq!(rows.len(), 11);
    assert!(rows.iter().all(|r| r.len() == rows[0].len()));
    let column = |name: &str| {
        rows[0].iter().position(|c| c == name).unwrap_or_else(|| panic!("no column {name}"))
    };
    assert_eq!(rows[2][column("config.name")], "a \"b\", c\nd");
    assert_eq!(rows[3][column("config.extra.list")], "[1,2]");
    assert_eq!(rows[4][column("config.extra.list")], "");
    assert_eq!(rows[1][column("config.child.ownership")], "");
    assert_eq!(rows[5][column("counters.dma.faults")], d.runs[4].counters.dma.faults.to_string());
    assert_eq!(rows[1][column("verify.translations")], "");
    assert_eq!(rows[4][column("verify.shadow_op_mismatches")], "7");
    assert_eq!(rows[6][column("trace.path")], "traces/mixed-strict-cm.parquet");
    let mut names = rows[0].clone();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), rows[0].len(), "every column once");
}
