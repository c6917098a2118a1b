//! Counts the heap of `bench metadata`, in a program of its own: counting takes time, which must not be measured.

use colibri_bench::metadata::heap::Figures;
use colibri_bench::metadata::repository::Generated;
use colibri_bench::metadata::{base, verify};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() {
    let count = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(100_000);
    let generated = Generated::new(count);
    // What is made once and kept, such as the library's tables, is no part of it.
    drop(verify::refresh(&generated));
    let figures = Figures {
        base: peak_of(|| base::parse_and_check(&generated)),
        lean: peak_of(|| base::parse_borrowed_and_check(&generated)),
        ours: peak_of(|| verify::refresh(&generated)),
    };
    figures.print();
}

fn peak_of<T>(work: impl FnOnce() -> T) -> usize {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    drop(std::hint::black_box(work()));
    HEAP.peak_usage() - before
}
