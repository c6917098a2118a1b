//! Our TUF core: what roles say and whether to believe them; no signing, no I/O, no clock.
