//! `colibri`: arguments, printing, progress, exit codes.
fn main() {}
