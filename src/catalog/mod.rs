//! A stand-in: only the settings, until the catalog is here.
mod settings;
pub use settings::*;
