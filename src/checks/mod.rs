//! Tests that belong to no one module: what needs crate-private items of several, and what reads the source itself.

mod deaths;
mod error_page;
mod layers;
pub(crate) mod vectors;
