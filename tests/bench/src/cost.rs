//! What a piece of work cost this process: time on the wall, and time of its processors, which others on the machine distort
//! less.

use std::error::Error;
use std::time::Instant;

/// Ticks per second in `/proc`: fixed for programs, whatever the kernel's own.
const TICKS_PER_S: f64 = 100.0;

/// Seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// On the wall.
    pub wall_s: f64,
    /// Of all processors together, in user and kernel.
    pub cpu_s: f64,
}

/// Runs `work` and says what it cost.
pub fn of<T>(work: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<(T, Cost), Box<dyn Error>> {
    let (start, before) = (Instant::now(), cpu_s()?);
    let done = work()?;
    Ok((done, Cost { wall_s: start.elapsed().as_secs_f64(), cpu_s: cpu_s()? - before }))
}

/// What all processors together have spent on this process so far, seconds.
pub fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses; the 14th and 15th are the ticks in user and kernel.
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_S)
}
