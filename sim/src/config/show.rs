//! A resolved configuration as commented TOML.

use toml::{Table, Value};

use super::layers::{BASE, preset_text};
use super::{Config, ConfigError};

/// Every key of `config` with its value, laid out and commented as the base
/// file, after the comments of the preset called `preset`. The text is a valid
/// configuration file that resolves to the same configuration.
///
/// # Errors
/// If the configuration cannot be written as TOML.
pub fn annotated(config: &Config, preset: &str) -> Result<String, ConfigError> {
    let failed = |message: String| ConfigError::Syntax { origin: config.name.clone(), message };
    let values = Table::try_from(config).map_err(|e| failed(e.to_string()))?;
    let mut out: Vec<String> = preset_text(preset)
        .unwrap_or_default()
        .lines()
        .take_while(|l| l.starts_with('#'))
        .map(String::from)
        .collect();
    out.push("# Tags: R read in the source named, S second-hand, A assumption.".into());
    let mut at: Vec<String> = Vec::new();
    // The base's own heading is about the base.
    for line in BASE.lines().skip_while(|l| l.starts_with('#')) {
        if let Some(table) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            at = table.0.split('.').map(String::from).collect();
            out.push(line.into());
            continue;
        }
        let setting = line.split_once(" = ").filter(|_| !line.starts_with('#'));
        let Some((key, rest)) = setting else {
            out.push(line.into());
            continue;
        };
        let (old, comment) = match rest.split_once('#') {
            Some((old, comment)) => (old, format!("# {}", comment.trim())),
            None => (rest, String::new()),
        };
        let value =
            lookup(&values, &at, key).ok_or_else(|| failed(format!("no value of {key}")))?;
        let text = match value {
            Value::Table(t) => {
                let inner: Vec<String> = t.iter().map(|(k, v)| format!("{k} = {v}")).collect();
                format!("{{ {} }}", inner.join(", "))
            }
            other => other.to_string(),
        };
        let changed = text != old.trim() && key != "name" && key != "description";
        let comment = match own_comment(preset_text(preset).unwrap_or_default(), &at, key) {
            Some(own) if changed => own,
            _ => comment,
        };
        let comment = match (changed, comment.is_empty()) {
            (true, true) => "# set by this preset".into(),
            (true, false) => format!("{comment} [set by this preset]"),
            _ => comment,
        };
        out.push(format!("{:<31} {comment}", format!("{key} = {text}")).trim_end().into());
    }
    Ok(out.join("\n") + "\n")
}

/// The comment that a preset's text has behind a key: it says where *its* value
/// comes from.
pub(super) fn own_comment(text: &str, path: &[String], key: &str) -> Option<String> {
    let mut at: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            at = table.0.split('.').collect();
        } else if let Some((k, rest)) = line.split_once('=')
            && k.trim() == key
            && at == path
        {
            return rest.split_once('#').map(|(_, comment)| format!("# {}", comment.trim()));
        }
    }
    None
}

fn lookup<'a>(values: &'a Table, path: &[String], key: &str) -> Option<&'a Value> {
    let mut table = values;
    for step in path {
        table = table.get(step)?.as_table()?;
    }
    table.get(key)
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, preset_names, resolve};
    use super::*;

    #[test]
    fn what_is_shown_resolves_to_the_same() {
        for name in preset_names() {
            let config = resolve(&Layer::Preset(name.into()), &[]).unwrap();
            let text = annotated(&config, name).unwrap();
            let layer = Layer::Text { origin: "shown".into(), text, name: "x".into() };
            assert_eq!(resolve(&layer, &[]).unwrap(), config);
        }
    }
}
