//! x
pub struct Check;
pub fn selftest() {}
