//! From `-c` arguments to resolved configurations.

use std::path::Path;

use anyhow::Result;
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

/// Refuses a `--warm-up` that has nothing to warm up.
///
/// # Errors
/// [`Usage`] if a configuration has no simulated time.
pub fn check_warm_up(configs: &[Config], events: Option<u64>) -> Result<()> {
    match configs.iter().find(|c| events.is_some() && !c.time.enabled) {
        Some(config) => Err(needs_time("--warm-up", config)),
        None => Ok(()),
    }
}

/// What to say about an option that needs simulated time.
pub fn needs_time(option: &str, config: &Config) -> anyhow::Error {
    let what = format!(
        "{option} needs simulated time, which `{}` does not have; add --set time.enabled=true",
        config.name
    );
    Usage(what).into()
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
    let unreadable = |e: std::io::Error| {
        Usage(format!(
            "cannot read the configuration {argument}: {e}; name a TOML file, or a preset of \
             `ioasim preset list`"
        ))
    };
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() || meta.len() > LARGEST_FILE {
        let what = format!("{argument} is no configuration file (a TOML text of at most 1 MiB)");
        return Err(Usage(what).into());
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
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
