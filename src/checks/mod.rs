//! Tests that belong to no single module: some need crate-private items of several modules, others read the source
//! itself.

mod deaths;
mod error_page;
mod language;
mod layers;
mod source;
pub(crate) mod vectors;
