//! `index.html`: one self-contained page.
//!
//! The page needs nothing from elsewhere (a content security policy in it
//! forbids that), reads fully without its script, and escapes every text that
//! comes from a file: minijinja escapes what it inserts, plotters what it
//! draws, and only this module marks strings as safe.

mod context;
mod evidence;
mod exposure;
mod section;
mod timing;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};

use crate::document::Document;
use crate::error::{Error, Result};

/// Templates by name; all are HTML.
const TEMPLATES: [(&str, &str); 4] = [
    ("page.html", include_str!("templates/page.html")),
    ("section.html", include_str!("templates/section.html")),
    ("provenance.html", include_str!("templates/provenance.html")),
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
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, source) in TEMPLATES {
        env.add_template(name, source)?;
    }
    let page = context::page(documents)?;
    Ok(env.get_template("page.html")?.render(Value::from(Serde(&page)))?)
}

/// Marks markup of this crate's own making as safe.
fn markup(text: impl Into<String>) -> Value {
    Value::from_safe_string(text.into())
}
