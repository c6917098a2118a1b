//! `colibri`: arguments, printing, progress, exit codes.
mod blob;
mod far;
mod file_hash;
mod files;
mod package;

fn main() {}
