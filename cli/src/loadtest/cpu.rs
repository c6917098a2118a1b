//! Processor time of this process, as the system counts it: with `--spawn` that of clients and servers together.

/// Clock ticks per second of `/proc`: 100 on every Linux.
const TICK_MS: u64 = 10;

/// Milliseconds of processor time used so far; nothing where the system does not say.
pub(super) fn used_ms() -> Option<u64> {
    of_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Of a line of `/proc/PID/stat`: user and system time follow the name, which may have spaces and brackets in it.
fn of_stat(line: &str) -> Option<u64> {
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    // State is field 3 of the line, user time field 14.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_system() {
        let line = "123 (a ) b) S 1 2 3 4 5 6 7 8 9 10 77 23 0 0 20 0 1 0 5 6 7";
        assert_eq!(of_stat(line), Some(1000));
        assert_eq!(of_stat("123 (x) S 1"), None);
    }
}
