//! Tests that concern all of the crate.

mod hostile;
