//! From `-c` arguments to resolved configurations.

use std::path::Path;

use anyhow::{Context, Result};
use ioasim_sim::config::{Config, Layer, preset_names, resolve};

use crate::Usage;

/// The presets that `compare` runs without `-c`.
pub const DEFAULTS: [&str; 5] =
    ["passthrough", "hw-nested", "sw-nested-map", "sw-nested-invalidate", "sw-nested-flush"];

/// A configuration file is text for people; anything larger is a mistake.
const LARGEST_FILE: u64 = 1 << 20;

/// The settings of a command line, `--warm-up` among them.
pub fn with_warm_up(settings: &[String], events: Option<u64>) -> Vec<String> {
    let warm_up = events.map(|n| format!("time.warm_up_events={n}"));
    settings.iter().cloned().chain(warm_up).collect()
}

/// Resolves one `-c` argument: a preset's name, or a TOML file.
///
/// # Errors
/// Unknown names and keys, unreadable files, values out of their limits.
pub fn load(argument: &str, settings: &[String]) -> Result<Config> {
    let path = Path::new(argument);
    let is_file = argument.ends_with(".toml") || argument.contains('/') || path.is_file();
    if !is_file || preset_names().any(|n| n == argument) {
        return Ok(resolve(&Layer::Preset(argument.into()), settings)?);
    }
    let meta = std::fs::metadata(path).with_context(|| format!("configuration {argument}"))?;
    if !meta.is_file() || meta.len() > LARGEST_FILE {
        let what = format!("{argument} is no configuration file (a TOML text of at most 1 MiB)");
        return Err(Usage(what).into());
    }
    let text =
        std::fs::read_to_string(path).with_context(|| format!("configuration {argument}"))?;
    let name = path.file_stem().map_or("config".into(), |s| s.to_string_lossy().into_owned());
    Ok(resolve(&Layer::Text { origin: argument.into(), text, name }, settings)?)
}

/// Resolves several; names in results must differ.
///
/// # Errors
/// As [`load`], and equal names.
pub fn load_all(arguments: &[String], settings: &[String]) -> Result<Vec<Config>> {
    let configs: Vec<Config> =
        arguments.iter().map(|a| load(a, settings)).collect::<Result<_>>()?;
    for (i, c) in configs.iter().enumerate() {
        if configs[..i].iter().any(|other| other.name == c.name) {
            let what = format!(
                "two configurations are called `{}`; give one another name with `name = \"...\"` in its file",
                c.name
            );
            return Err(Usage(what).into());
        }
    }
    Ok(configs)
}
