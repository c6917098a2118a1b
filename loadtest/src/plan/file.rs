//! A plan as a file: one line that says whose it is, then one line per wake. Reading it back gives the plan that was written.
//!
//! ```text
//! colibri-plan 1 NAME seed=SEED devices=DEVICES links=CLASS,CLASS packages=COUNT
//! MICROSECONDS DEVICE NUMBER LINK PACKAGE,PACKAGE
//! ```

use std::io::{self, BufRead, Read, Write};

use super::{PlannedWake, Wake};
use crate::limits::PLAN_LINE_BYTES_MAX;
use crate::scenario::Scenario;

/// Why a plan file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It cannot be read or written.
    #[error("the plan file: {0}")]
    Io(#[from] io::Error),
    /// It belongs to another scenario.
    #[error("the plan is of another scenario or seed: it begins with `{found}`, this scenario's with `{expected}`")]
    OtherScenario {
        /// First line of the file.
        found: String,
        /// First line of a plan of the scenario.
        expected: String,
    },
    /// A line that is not one of a plan.
    #[error("line {line} of the plan: {what}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
}

fn header(scenario: &Scenario) -> String {
    let links: Vec<_> = scenario.links.iter().map(|link| link.name.as_str()).collect();
    let (name, seed, devices) = (scenario.name.replace(char::is_whitespace, "-"), scenario.seed, scenario.devices);
    let (links, packages) = (links.join(","), scenario.system.packages);
    format!("colibri-plan 1 {name} seed={seed} devices={devices} links={links} packages={packages}")
}

/// Writes the whole plan of a scenario; the number of wakes.
pub fn write(scenario: &Scenario, out: &mut dyn Write) -> Result<u64, PlanError> {
    write_wakes(scenario, super::Plan::of(scenario), out)
}

/// Writes these wakes as a plan of a scenario; their number.
pub fn write_wakes(
    scenario: &Scenario,
    wakes: impl IntoIterator<Item = PlannedWake>,
    out: &mut dyn Write,
) -> Result<u64, PlanError> {
    writeln!(out, "{}", header(scenario))?;
    let mut count = 0;
    for PlannedWake { wake, link, wants } in wakes {
        let wants: Vec<_> = wants.iter().map(u16::to_string).collect();
        writeln!(out, "{} {} {} {link} {}", wake.at_us, wake.device, wake.number, wants.join(","))?;
        count += 1;
    }
    Ok(count)
}

/// The wakes of a plan file, one by one.
#[derive(Debug)]
pub struct PlanFile<R> {
    lines: R,
    line: u64,
    last_us: u64,
    devices: u32,
    links: usize,
    packages: usize,
}

impl<R: BufRead> PlanFile<R> {
    /// Opens a plan of `scenario`.
    ///
    /// # Errors
    /// It is of another one.
    pub fn open(lines: R, scenario: &Scenario) -> Result<Self, PlanError> {
        let (devices, links, packages) = (scenario.devices, scenario.links.len(), scenario.system.packages);
        let mut file = Self { lines, line: 0, last_us: 0, devices, links, packages };
        let (found, expected) = (file.read_line()?.unwrap_or_default(), header(scenario));
        if found == expected { Ok(file) } else { Err(PlanError::OtherScenario { found, expected }) }
    }

    fn read_line(&mut self) -> Result<Option<String>, PlanError> {
        let mut text = String::new();
        self.line += 1;
        if Read::take(&mut self.lines, PLAN_LINE_BYTES_MAX).read_line(&mut text)? == 0 {
            return Ok(None);
        }
        if text.pop() != Some('\n') {
            return Err(self.wrong("is too long, or the file was cut off"));
        }
        Ok(Some(text))
    }

    const fn wrong(&self, what: &'static str) -> PlanError {
        PlanError::Line { line: self.line, what }
    }

    fn wake(&mut self, text: &str) -> Option<PlannedWake> {
        let mut words = text.split(' ');
        let wake = Wake {
            at_us: words.next()?.parse().ok()?,
            device: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
        };
        let link = words.next()?.parse().ok()?;
        let wants = words.next()?.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>().ok()?;
        let fits = wake.at_us >= self.last_us && wake.device < self.devices && usize::from(link) < self.links;
        let known = wants.iter().all(|package| usize::from(*package) <= self.packages);
        self.last_us = wake.at_us;
        (fits && known && words.next().is_none()).then_some(PlannedWake { wake, link, wants })
    }
}

impl<R: BufRead> Iterator for PlanFile<R> {
    type Item = Result<PlannedWake, PlanError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = match self.read_line() {
            Ok(text) => text?,
            Err(error) => return Some(Err(error)),
        };
        let wake = self.wake(&text);
        Some(
            wake.ok_or_else(|| {
                self.wrong("is not TIME DEVICE NUMBER LINK PACKAGES of this scenario, in order of time")
            }),
        )
    }
}
