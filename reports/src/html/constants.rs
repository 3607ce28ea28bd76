//! The constants of simulated time, and where they come from.

use ioasim_sim::config::{Origin, origins};

use super::context::Table;
use crate::summary::Named;

/// Every constant of `time.*` of the runs that simulated time: key, values,
/// and the source with its tag. `None` if no run did.
pub(super) fn table(runs: &[Named<'_>]) -> Option<Table> {
    // Key and source, then the value and the runs that have it.
    let mut rows: Vec<(String, String, String, Vec<&str>)> = Vec::new();
    let timed: Vec<&Named<'_>> = runs.iter().filter(|r| r.run.timing.is_some()).collect();
    for r in &timed {
        for Origin { key, value, tag, source } in origins(&r.run.config, "time") {
            let mark = match tag {
                Some('R') => "R read",
                Some('S') => "S second-hand",
                Some('D') => "D derived",
                Some('A') => "A assumption",
                _ => "chosen",
            };
            let same = |row: &&mut (String, String, String, Vec<&str>)| {
                row.0 == key && row.1 == value && row.2.starts_with(mark)
            };
            match rows.iter_mut().find(same) {
                Some(row) => row.3.push(&r.name),
                None => {
                    let text = format!("{mark}: {source}");
                    let text = text.trim_end_matches(": ").to_owned();
                    rows.push((key, value, text, vec![&r.name]));
                }
            }
        }
    }
    // Values of one key stand together.
    let mut order: Vec<String> = Vec::new();
    for row in &rows {
        if !order.contains(&row.0) {
            order.push(row.0.clone());
        }
    }
    rows.sort_by_key(|row| order.iter().position(|key| *key == row.0));
    (!rows.is_empty()).then(|| Table {
        caption: "Constants of simulated time".into(),
        labels: 4,
        columns: ["constant", "value", "of", "source"].map(String::from).to_vec(),
        rows: rows
            .into_iter()
            .map(|(key, value, source, of)| {
                let of = match of.len() == timed.len() {
                    true => "all".to_owned(),
                    false => of.join(", "),
                };
                vec![key, value, of, source]
            })
            .collect(),
    })
}

/// How many constants of the runs are assumptions, in one sentence.
pub(super) fn assumed(runs: &[Named<'_>]) -> Option<String> {
    let (mut all, mut guessed) = (Vec::new(), Vec::new());
    for r in runs.iter().filter(|r| r.run.timing.is_some()) {
        for o in origins(&r.run.config, "time").into_iter().filter(|o| o.tag.is_some()) {
            if o.tag == Some('A') && !guessed.contains(&o.key) {
                guessed.push(o.key.clone());
            }
            if !all.contains(&o.key) {
                all.push(o.key);
            }
        }
    }
    let shown: Vec<&str> = guessed.iter().map(|k| k.trim_start_matches("time.")).collect();
    (!guessed.is_empty()).then(|| {
        format!(
            "{} of the {} constants behind the simulated times are assumptions (tag A): {}.",
            guessed.len(),
            all.len(),
            crate::format::list(&shown)
        )
    })
}
