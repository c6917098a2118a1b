//! What the benchmark of metadata shares between the program that takes times and the one that counts heap: counting
//! would slow down what is timed.

pub mod metadata;
