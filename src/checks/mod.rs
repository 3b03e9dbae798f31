//! Tests that belong to no single module: some need crate-private items of several modules, others read the source
//! itself.

mod deaths;
mod error_page;
mod layers;
pub(crate) mod vectors;
