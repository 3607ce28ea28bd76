//! `ioasim preset`.

use anyhow::Result;
use ioasim_sim::config::{Layer, annotated, preset_names, resolve};

use crate::cli::Preset;

/// Lists or shows presets.
pub fn run(args: &Preset) -> Result<()> {
    let mut out = String::new();
    match args {
        Preset::List => {
            let width = preset_names().map(str::len).max().unwrap_or(0) + 2;
            for name in preset_names() {
                let config = resolve(&Layer::Preset(name.into()), &[])?;
                out += &format!("{name:<width$}{}\n", config.description);
            }
        }
        Preset::Show { name } => {
            let config = resolve(&Layer::Preset(name.clone()), &[])?;
            out += &annotated(&config, name)?;
        }
    }
    super::print(out.as_bytes())
}
