//! What a person sees while something takes time: a spinner or bar on a terminal, plain lines elsewhere; always on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// One step under way.
pub(crate) struct Step {
    title: String,
    bar: ProgressBar,
    plain: bool,
}

/// Begins a step.
pub(crate) fn step(title: &str) -> Step {
    let bar = ProgressBar::new_spinner();
    let plain = bar.is_hidden();
    bar.set_style(style("{spinner:.green} {msg}"));
    bar.set_message(title.to_owned());
    if plain {
        eprintln!("… {title}");
    } else {
        bar.enable_steady_tick(TICK);
    }
    Step { title: title.to_owned(), bar, plain }
}

impl Step {
    /// How far the step is, of how much, in the unit the title speaks of.
    pub fn progress(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style("{spinner:.green} {msg} [{bar:30}] {pos}/{len}"));
        }
        self.bar.set_position(done);
    }

    /// Says more about how far it is, beside the title.
    pub fn note(&self, note: &str) {
        self.bar.set_message(format!("{}: {note}", self.title));
    }

    /// Waits for `work`, and shows meanwhile what `at` says: how far it is, of how much.
    pub async fn watch<T>(&self, work: impl Future<Output = T>, at: impl Fn() -> (u64, u64)) -> T {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => {
                    let (done, total) = at();
                    if total > 0 {
                        self.progress(done, total);
                    }
                }
            }
        }
    }

    /// Ends the step with what came of it.
    pub fn done(self, outcome: &str) {
        self.bar.finish_and_clear();
        let prefix = if self.plain { "  " } else { "✓ " };
        eprintln!("{prefix}{outcome}");
    }
}

/// A step that did not come to its end leaves the screen to the error.
impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a fixed template").progress_chars("=> ")
}

/// Bytes for people, in powers of 1000.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_for_people() {
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(1_000), "1.0 kB");
        assert_eq!(super::bytes(23_456_789), "23.5 MB");
    }
}
