//! The library itself, through its public API.

use super::Result;
use super::figure::Work;
use super::peer::Addresses;
use super::side::Side;

/// Starts the library on `work` against `peer`.
pub(crate) fn start(work: Work, peer: Addresses) -> Result<Box<dyn Side>> {
    Err(format!("{work:?} at {peer:?} is not wired to the library yet: try --self-check").into())
}
