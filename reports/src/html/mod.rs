//! `index.html`: one self-contained page.
//!
//! The page needs nothing from elsewhere (a content security policy in it
//! forbids that), reads fully without its script, and escapes every text that
//! comes from a file: minijinja escapes what it inserts, plotters what it
//! draws, and only this module marks strings as safe.

mod constants;
mod context;
mod evidence;
mod exposure;
mod section;
mod timing;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};

pub(crate) use context::Table;
pub(crate) use section::Drawn;

use crate::document::Document;
use crate::error::{Error, Result};

/// Templates by name; all are HTML.
const TEMPLATES: [(&str, &str); 6] = [
    ("page.html", include_str!("templates/page.html")),
    ("section.html", include_str!("templates/section.html")),
    ("provenance.html", include_str!("templates/provenance.html")),
    ("study.html", include_str!("templates/study.html")),
    ("trace_info.html", include_str!("templates/trace_info.html")),
    ("macros.html", include_str!("templates/macros.html")),
];

/// The text of `index.html` for one or more documents.
///
/// # Errors
///
/// `documents` is empty; or a template or a figure fails, which is a bug.
pub fn index_html(documents: &[Document]) -> Result<String> {
    if documents.is_empty() {
        return Err(Error::NoDocuments);
    }
    render("page.html", &context::page(documents)?)
}

/// Fills a template.
pub(crate) fn render(template: &str, page: &impl serde::Serialize) -> Result<String> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, source) in TEMPLATES {
        env.add_template(name, source)?;
    }
    Ok(env.get_template(template)?.render(Value::from(Serde(page)))?)
}

/// The style sheet.
pub(crate) const CSS: &str = include_str!("style.css");
/// The script.
pub(crate) const JS: &str = include_str!("script.js");

/// Marks markup of this crate's own making as safe.
pub(crate) fn markup(text: impl Into<String>) -> Value {
    Value::from_safe_string(text.into())
}
