//! The read API as pure functions over `http` types: paths, ranges, conditionals, cache headers, `Cache-Status`, error bodies.
