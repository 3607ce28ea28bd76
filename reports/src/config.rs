//! Resolved configurations: names, flattened keys, and what differs.

use ioasim_sim::results::RunResult;
use serde_json::Value;

use crate::document::Document;
use crate::format::clean;

/// How a configuration nests, as far as reports care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// Parent only.
    None,
    /// Two stages walked by the IOMMU.
    Hardware,
    /// Shadow table kept by the VMM.
    Software,
    /// Not said, or a word that this version does not know.
    Unknown,
}

/// Nesting of a run's configuration.
pub(crate) fn nesting(run: &RunResult) -> Nesting {
    match text(run, "nesting") {
        Some("none") => Nesting::None,
        Some("hardware") => Nesting::Hardware,
        Some("software") => Nesting::Software,
        _ => Nesting::Unknown,
    }
}

/// Text under a dotted key of a run's configuration.
pub(crate) fn text<'a>(run: &'a RunResult, dotted: &str) -> Option<&'a str> {
    value(run, dotted)?.as_str()
}

/// Value under a dotted key of a run's configuration.
pub(crate) fn value<'a>(run: &'a RunResult, dotted: &str) -> Option<&'a Value> {
    dotted.split('.').try_fold(&run.config, |v, key| v.get(key))
}

/// The name under which each run appears in reports: its configuration's,
/// made unique within the document.
pub(crate) fn names(document: &Document) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(document.runs.len());
    for (i, run) in document.runs.iter().enumerate() {
        let base = match text(run, "name") {
            Some(name) if !name.trim().is_empty() => clean(name).into_owned(),
            _ => format!("run {}", i + 1),
        };
        let mut name = base.clone();
        let mut n = 1;
        while names.contains(&name) {
            n += 1;
            name = format!("{base} ({n})");
        }
        names.push(name);
    }
    names
}

/// Dotted keys and values of a JSON tree, in its order. Arrays are leaves.
pub(crate) fn flatten(tree: &Value) -> Vec<(String, &Value)> {
    fn walk<'a>(prefix: &str, tree: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        match tree {
            Value::Object(map) if !map.is_empty() => {
                for (key, child) in map {
                    let dotted =
                        if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&dotted, child, out);
                }
            }
            leaf if !prefix.is_empty() => out.push((prefix.to_owned(), leaf)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", tree, &mut out);
    out
}

/// A leaf as people read it: text without quotes.
pub(crate) fn leaf(value: &Value) -> String {
    match value {
        Value::String(s) => clean(s).into_owned(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// One key of several configurations, side by side.
#[derive(Debug)]
pub(crate) struct KeyRow {
    /// Dotted key.
    pub key: String,
    /// Its value in each run, `None` where the key is absent.
    pub values: Vec<Option<String>>,
}

impl KeyRow {
    /// True if not all runs have the same value.
    pub(crate) fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0] != pair[1])
    }

    /// The most frequent value; the earliest of equally frequent ones.
    pub(crate) fn usual(&self) -> Option<&String> {
        let count = |v: &Option<String>| self.values.iter().filter(|o| *o == v).count();
        let mut best: Option<&Option<String>> = None;
        for v in &self.values {
            if best.is_none_or(|b| count(v) > count(b)) {
                best = Some(v);
            }
        }
        best.and_then(Option::as_ref)
    }
}

/// All keys of several flattened trees in the order of first appearance,
/// later keys next to their siblings.
pub(crate) fn side_by_side(trees: &[&Value]) -> Vec<KeyRow> {
    let mut rows: Vec<KeyRow> = Vec::new();
    for (i, tree) in trees.iter().enumerate() {
        let mut after = 0;
        for (key, value) in flatten(tree) {
            let at = match rows.iter().position(|r| r.key == key) {
                Some(at) => at,
                None => {
                    rows.insert(after, KeyRow { key, values: vec![None; trees.len()] });
                    after
                }
            };
            rows[at].values[i] = Some(leaf(value));
            after = at + 1;
        }
    }
    rows
}

/// A configuration as TOML: what a user can put into a file and run again.
pub(crate) fn to_toml(config: &Value) -> String {
    fn inline(value: &Value) -> String {
        match value {
            Value::Array(items) => {
                format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
            }
            Value::Object(map) => {
                let pairs: Vec<_> =
                    map.iter().map(|(k, v)| format!("{} = {}", key(k), inline(v))).collect();
                format!("{{ {} }}", pairs.join(", "))
            }
            Value::Null => "\"\"".to_owned(),
            // JSON's text escapes are valid in TOML's basic strings.
            other => other.to_string(),
        }
    }
    fn key(k: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !k.is_empty() && k.chars().all(bare) {
            k.to_owned()
        } else {
            Value::String(k.to_owned()).to_string()
        }
    }
    fn table(path: &str, map: &serde_json::Map<String, Value>, out: &mut String) {
        for (k, v) in map.iter().filter(|(_, v)| !v.is_object() && !v.is_null()) {
            out.push_str(&format!("{} = {}\n", key(k), inline(v)));
        }
        for (k, v) in map {
            if let Value::Object(child) = v {
                let path = if path.is_empty() { key(k) } else { format!("{path}.{}", key(k)) };
                out.push_str(&format!("\n[{path}]\n"));
                table(&path, child, out);
            }
        }
    }
    let mut out = String::new();
    match config {
        Value::Object(map) => table("", map, &mut out),
        other => out = inline(other),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flatten_keeps_order_and_depth() {
        let tree = json!({"name": "x", "iotlb": {"entries": 256, "levels": [1, 2]}, "empty": {}});
        let keys: Vec<String> = flatten(&tree).into_iter().map(|(k, _)| k).collect();
        assert_eq!(keys, ["name", "iotlb.entries", "iotlb.levels", "empty"]);
    }

    #[test]
    fn side_by_side_places_late_keys_beside_their_siblings() {
        let a = json!({"name": "a", "iotlb": {"entries": 256}, "seed": 1});
        let b = json!({"name": "b", "iotlb": {"entries": 256, "ways": 8}, "seed": 1});
        let rows = side_by_side(&[&a, &b]);
        let keys: Vec<&str> = rows.iter().map(|r| r.key.as_str()).collect();
        assert_eq!(keys, ["name", "iotlb.entries", "iotlb.ways", "seed"]);
        let differing: Vec<bool> = rows.iter().map(KeyRow::differs).collect();
        assert_eq!(differing, [true, false, true, false]);
    }

    #[test]
    fn usual_is_the_most_frequent_value() {
        let row = |v: &[&str]| KeyRow {
            key: String::new(),
            values: v.iter().map(|s| Some((*s).to_owned())).collect(),
        };
        assert_eq!(row(&["a", "b", "b"]).usual().unwrap(), "b");
        assert_eq!(row(&["a", "b"]).usual().unwrap(), "a");
    }

    #[test]
    fn toml_has_scalars_before_tables() {
        let c = json!({"name": "a\"b", "iotlb": {"entries": 4, "x": {"y": true}}, "seed": 1});
        assert_eq!(
            to_toml(&c),
            "name = \"a\\\"b\"\nseed = 1\n\n[iotlb]\nentries = 4\n\n[iotlb.x]\ny = true\n"
        );
    }
}
