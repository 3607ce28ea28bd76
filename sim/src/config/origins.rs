//! Where the values of a resolved configuration come from.

use serde_json::Value;
use toml::Table;

use super::layers::{BASE, preset_text};
use super::show::own_comment;

/// A key's value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Dotted key.
    pub key: String,
    /// Value, as in JSON without quotes.
    pub value: String,
    /// The first tag in the comment: R read, S second-hand, D derived, A
    /// assumption; `None` = a choice, or a value that no preset has.
    pub tag: Option<char>,
    /// The comment beside the value.
    pub source: String,
}

/// The keys of `section` (`time`) of a resolved configuration in the order of
/// the base file. A comment counts only for the value that it stands beside:
/// another value is said to be set for the run.
pub fn origins(config: &Value, section: &str) -> Vec<Origin> {
    let preset = config["name"].as_str().and_then(preset_text).unwrap_or_default();
    let preset_values: Table = preset.parse().unwrap_or_default();
    let base_values: Table = BASE.parse().unwrap_or_default();
    let mut at: Vec<String> = Vec::new();
    let mut out = Vec::new();
    for line in BASE.lines() {
        if let Some((table, _)) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            at = table.split('.').map(String::from).collect();
            continue;
        }
        let key = line.split_once(" = ").filter(|_| !line.starts_with('#'));
        let Some((key, _)) = key.filter(|_| at.first().is_some_and(|t| t == section)) else {
            continue;
        };
        let Some(value) =
            at.iter().map(String::as_str).chain([key]).try_fold(config, |v, k| v.get(k))
        else {
            continue;
        };
        let stated = |values: &Table, text: &str| {
            let (last, tables) = (key, &at);
            let table = tables.iter().try_fold(values, |t, k| t.get(k)?.as_table())?;
            let equal = equal(table.get(last)?, value);
            Some(if equal { own_comment(text, &at, key).unwrap_or_default() } else { "-".into() })
        };
        let comment = match (stated(&preset_values, preset), stated(&base_values, BASE)) {
            (Some(own), _) if own != "-" => own,
            (None, Some(base)) if base != "-" => base,
            _ => "# set for this run".to_owned(),
        };
        let source = comment.trim_start_matches(['#', ' ']).to_owned();
        out.push(Origin {
            key: at.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join("."),
            value: match value {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            },
            tag: tag(&source),
            source,
        });
    }
    out
}

/// The first of the tags in a comment.
fn tag(comment: &str) -> Option<char> {
    let found = ['R', 'S', 'D', 'A'].into_iter().filter_map(|tag| {
        let places = comment.match_indices('(').map(|(i, _)| i);
        let is_tag = |i: &usize| {
            let mut rest = comment[i + 1..].chars();
            rest.next() == Some(tag) && rest.next().is_some_and(|c| !c.is_alphanumeric())
        };
        places.into_iter().find(is_tag).map(|i| (i, tag))
    });
    found.min().map(|(_, tag)| tag)
}

fn equal(a: &toml::Value, b: &Value) -> bool {
    match a {
        toml::Value::Integer(n) => b.as_f64() == Some(*n as f64),
        toml::Value::Float(x) => b.as_f64() == Some(*x),
        toml::Value::String(s) => b.as_str() == Some(s),
        toml::Value::Boolean(x) => b.as_bool() == Some(*x),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, preset_names, resolve};
    use super::*;

    fn of(preset: &str, settings: &[&str]) -> Vec<Origin> {
        let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
        let config = resolve(&Layer::Preset(preset.into()), &settings).unwrap();
        origins(&serde_json::to_value(&config).unwrap(), "time")
    }

    fn find<'a>(all: &'a [Origin], key: &str) -> &'a Origin {
        all.iter().find(|o| o.key == key).unwrap()
    }

    #[test]
    fn every_time_constant_of_every_preset_has_a_tag() {
        for preset in preset_names() {
            let all = of(preset, &[]);
            assert!(all.len() > 30, "{preset}: {}", all.len());
            for o in all.iter().filter(|o| o.key.ends_with("_ns")) {
                assert!(o.tag.is_some(), "{preset}: {o:?}");
            }
        }
    }

    #[test]
    fn a_source_belongs_to_its_value() {
        let base = of("hw-nested", &[]);
        let read = find(&base, "time.memory.read_ns");
        assert_eq!((read.value.as_str(), read.tag), ("197.0", Some('R')));
        assert_eq!(find(&base, "time.iommu.walkers").tag, Some('A'));
        assert_eq!(find(&base, "time.vmm.map_call_ns").tag, Some('A'));
        let set = of("hw-nested", &["time.memory.read_ns=90"]);
        let read = find(&set, "time.memory.read_ns");
        assert_eq!((read.value.as_str(), read.tag), ("90.0", None));
        assert_eq!(read.source, "set for this run");
        let arm = of("arm-smmuv3", &[]);
        assert!(find(&arm, "time.invalidation.hardware_ns").source.contains("CMD_SYNC"));
    }
}
