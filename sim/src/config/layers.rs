//! Presets and the layers over them.

use toml::{Table, Value};

use super::{Config, ConfigError};

/// The presets that ship with ioasim, in the order of `preset list`.
const PRESETS: [(&str, &str); 14] = [
    ("passthrough", include_str!("../../presets/passthrough.toml")),
    ("hw-nested", include_str!("../../presets/hw-nested.toml")),
    ("sw-nested-map", include_str!("../../presets/sw-nested-map.toml")),
    ("sw-nested-invalidate", include_str!("../../presets/sw-nested-invalidate.toml")),
    ("sw-nested-flush", include_str!("../../presets/sw-nested-flush.toml")),
    ("sw-nested-write-protect", include_str!("../../presets/sw-nested-write-protect.toml")),
    ("sw-nested-demand", include_str!("../../presets/sw-nested-demand.toml")),
    ("qemu-vtd-7.2", include_str!("../../presets/qemu-vtd-7.2.toml")),
    ("qemu-amdvi-7.2", include_str!("../../presets/qemu-amdvi-7.2.toml")),
    ("qemu-smmuv3-7.2", include_str!("../../presets/qemu-smmuv3-7.2.toml")),
    ("intel-vtd", include_str!("../../presets/intel-vtd.toml")),
    ("arm-smmuv3", include_str!("../../presets/arm-smmuv3.toml")),
    ("amd-vi", include_str!("../../presets/amd-vi.toml")),
    ("riscv-iommu", include_str!("../../presets/riscv-iommu.toml")),
];

/// Every key with its default; all presets build on it.
pub(super) const BASE: &str = include_str!("../../presets/base.toml");

/// Names of the presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The TOML text of a preset: what it sets over the base, with its comments.
pub fn preset_text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// Something that sets keys.
#[derive(Clone, Debug)]
pub enum Layer {
    /// A preset by name.
    Preset(String),
    /// TOML text; `preset = "NAME"` in it chooses what it builds on
    /// (`hw-nested` if absent).
    Text {
        /// Shown in errors, for example the file's name.
        origin: String,
        /// The TOML.
        text: String,
        /// Name of the configuration unless the text sets `name`.
        name: String,
    },
}

/// Resolves a configuration: base, preset, the layer's own keys, then
/// `settings` (`key=value`, dotted keys, TOML values; a bare word is a string).
///
/// # Errors
/// Unknown presets and keys (the nearest is named), wrong types, sizes out of
/// their limits, contradictions.
pub fn resolve(layer: &Layer, settings: &[String]) -> Result<Config, ConfigError> {
    let base: Table = BASE.parse().expect("the base is valid TOML");
    let mut merged = base.clone();
    match layer {
        Layer::Preset(name) => merge_preset(&mut merged, name)?,
        Layer::Text { origin, text, name } => {
            let mut own: Table = parse(origin, text)?;
            let preset = match own.remove("preset") {
                Some(Value::String(preset)) => preset,
                Some(other) => {
                    let message = format!("preset = {other} must be a string, a preset's name");
                    return Err(ConfigError::Syntax { origin: origin.clone(), message });
                }
                None => "hw-nested".into(),
            };
            merge_preset(&mut merged, &preset)?;
            merged.insert("name".into(), Value::String(name.clone()));
            check_keys(origin, &base, &own, "")?;
            merge(&mut merged, own);
        }
    }
    for setting in settings {
        let own = parse_setting(setting)?;
        let origin = format!("--set {setting}");
        check_keys(&origin, &base, &own, "")?;
        merge(&mut merged, own);
        // At once, so that a wrong type is blamed on the right setting.
        typed(&origin, &merged)?;
    }
    let origin = match layer {
        Layer::Preset(name) => format!("preset {name}"),
        Layer::Text { origin, .. } => origin.clone(),
    };
    let config = typed(&origin, &merged)?;
    config.check()?;
    Ok(config)
}

fn typed(origin: &str, merged: &Table) -> Result<Config, ConfigError> {
    Value::Table(merged.clone()).try_into().map_err(|e: toml::de::Error| ConfigError::Syntax {
        origin: origin.into(),
        message: e.to_string().trim().replace('\n', " "),
    })
}

fn merge_preset(into: &mut Table, name: &str) -> Result<(), ConfigError> {
    let text = preset_text(name).ok_or_else(|| ConfigError::UnknownPreset {
        name: name.into(),
        hint: match nearest(name, preset_names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`ioasim preset list` shows them".into(),
        },
    })?;
    merge(into, text.parse().expect("presets are valid TOML"));
    Ok(())
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn parse(origin: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().and_then(|at| text.get(..at.start)).map(|before| {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: ")
        });
        let message = line.unwrap_or_default() + &one_line(&e);
        ConfigError::Syntax { origin: origin.into(), message }
    })
}

/// A parser's message without its drawing of the line.
fn one_line(e: &toml::de::Error) -> String {
    let message = e.message().replace('\n', " ");
    // All integers of up to 64 bits are some type's: this one is longer.
    let longer = message.strip_prefix("invalid type: integer `").and_then(|m| m.split_once('`'));
    longer.map(|(number, _)| out_of_range(number)).unwrap_or(message)
}

fn out_of_range(number: &str) -> String {
    format!("{number} is out of range; a number is at most {}", i64::MAX)
}

fn parse_setting(setting: &str) -> Result<Table, ConfigError> {
    let origin = format!("--set {setting}");
    let Some((key, value)) = setting.split_once('=') else {
        let message = "expected KEY=VALUE, for example --set iotlb.entries=1024".into();
        return Err(ConfigError::Syntax { origin, message });
    };
    let (key, value) = (key.trim(), value.trim());
    if key == "preset" {
        let message = "a preset is not a key; choose it with -c NAME, or with `preset = \"NAME\"` in a \
                       configuration file";
        return Err(ConfigError::Syntax { origin, message: message.into() });
    }
    // The segments may start with a digit (`pwc.stage1.2m`): quote them.
    let quoted: Vec<String> = key.split('.').map(|k| format!("{k:?}")).collect();
    let line = format!("{} = {value}", quoted.join("."));
    match line.parse::<Table>() {
        Ok(table) => Ok(table),
        Err(_) if is_whole_number(value) => {
            Err(ConfigError::Syntax { origin, message: out_of_range(value) })
        }
        // A bare word is a string.
        Err(_) => format!("{} = {value:?}", quoted.join("."))
            .parse::<Table>()
            .map_err(|e| ConfigError::Syntax { origin, message: one_line(&e) }),
    }
}

fn is_whole_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn check_keys(origin: &str, known: &Table, own: &Table, path: &str) -> Result<(), ConfigError> {
    for (key, value) in own {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (known.get(key), value) {
            (Some(Value::Table(below)), Value::Table(own)) => {
                check_keys(origin, below, own, &full)?;
            }
            (Some(_), _) => {}
            (None, _) => {
                let mut all = Vec::new();
                // Files have one key more.
                if !origin.starts_with("--set ") {
                    all.push("preset".to_string());
                }
                let base: Table = BASE.parse().expect("the base is valid TOML");
                collect_keys(&base, "", &mut all);
                let hint = match nearest(&full, all.iter().map(String::as_str)) {
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => "; `ioasim preset show hw-nested` shows every key".into(),
                };
                return Err(ConfigError::UnknownKey { origin: origin.into(), key: full, hint });
            }
        }
    }
    Ok(())
}

fn collect_keys(table: &Table, path: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(below) => {
                out.push(full.clone());
                collect_keys(below, &full, out);
            }
            _ => out.push(full),
        }
    }
}

/// The candidate nearest to `word`: same last segment, else smallest edit
/// distance if that is small enough to be a slip; of several the one with the
/// fewest segments.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or(s).to_string();
    candidates
        .map(|c| {
            let whole = strsim::normalized_damerau_levenshtein(word, c);
            let tail = strsim::normalized_damerau_levenshtein(&last(word), &last(c)) * 0.95;
            (whole.max(tail), c)
        })
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| {
            let segments = |c: &str| c.split('.').count();
            a.0.total_cmp(&b.0).then_with(|| (segments(b.1), b.1).cmp(&(segments(a.1), a.1)))
        })
        .map(|(_, c)| c)
}
