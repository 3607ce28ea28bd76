//! Importers: text logs to events.
