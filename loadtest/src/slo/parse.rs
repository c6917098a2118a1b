//! The grammar of rules, with the place of every mistake.

use super::{Operator, Quantity, Rule, RuleError, Selection, Unit};
use crate::record::{Outcome, Step};

/// Counters that runs and simulations fill; others are mistakes in a rule.
pub(super) const COUNTERS: &[&str] = &[
    "sessions",
    "sessions_failed",
    "dropped_starts",
    "device_bytes",
    "content_bytes",
    "edge_bytes",
    "origin_bytes",
    "edge_requests",
    "edge_hits",
    "requests",
    "h3_requests",
    "h2_requests",
    "h1_requests",
    "reused_requests",
    "retried_requests",
    "connections",
    "h3_connections",
    "h2_connections",
    "h1_connections",
    "resumed_connections",
    "dead_udp_paths",
    "live_h3_connections",
    "packages",
    "blobs",
    "blames",
    "unverified_bytes",
    "rollbacks",
    "not_converged",
    "devices",
    "devices_updated",
];

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

pub(super) fn rule(text: &str) -> Result<Rule, RuleError> {
    let mut reader = Reader { text, at: 0 };
    let quantity = reader.quantity()?;
    let operator = reader.operator()?;
    let limit = reader.limit(quantity.unit())?;
    reader.skip_blanks();
    if reader.at < text.len() {
        return Err(reader.wrong("nothing more is expected"));
    }
    Ok(Rule { text: text.to_owned(), quantity, operator, limit })
}

impl Reader<'_> {
    fn wrong(&self, what: impl Into<String>) -> RuleError {
        let position = self.text[..self.at].chars().count() + 1;
        RuleError { text: self.text.to_owned(), position, what: what.into() }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), RuleError> {
        if self.take(token) { Ok(()) } else { Err(self.wrong(format!("`{token}` is expected"))) }
    }

    /// The longest run of characters that fit.
    fn run(&mut self, fits: impl Fn(char) -> bool) -> String {
        self.skip_blanks();
        let rest = self.rest();
        let length = rest.find(|c: char| !fits(c)).unwrap_or(rest.len());
        let run = rest[..length].to_owned();
        self.at += length;
        run
    }

    fn word(&mut self) -> String {
        self.run(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    }

    fn number(&mut self) -> Result<f64, RuleError> {
        self.skip_blanks();
        let start = self.at;
        let digits = self.run(|c| c.is_ascii_digit() || c == '.');
        let number = digits.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| {
            self.at = start;
            self.wrong("a number is expected")
        })
    }

    fn quantity(&mut self) -> Result<Quantity, RuleError> {
        self.skip_blanks();
        let start = self.at;
        let name = self.word();
        let quantile = name.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok());
        match (name.as_str(), quantile) {
            (_, Some(percent)) if (0.0..=100.0).contains(&percent) => {
                Ok(Quantity::Quantile { quantile: percent / 100.0, of: self.selection()? })
            }
            ("mean", _) => Ok(Quantity::Mean(self.selection()?)),
            ("max", _) => Ok(Quantity::Max(self.selection()?)),
            ("ratio", _) => {
                self.expect("(")?;
                let outcome = self.outcome()?;
                self.expect(")")?;
                Ok(Quantity::Ratio(outcome))
            }
            ("time_to", _) => self.time_to(),
            _ => {
                self.at = start;
                self.counters()
            }
        }
    }

    fn counters(&mut self) -> Result<Quantity, RuleError> {
        let above = self.counter()?;
        Ok(if self.take("/") { Quantity::Quotient(above, self.counter()?) } else { Quantity::Counter(above) })
    }

    fn counter(&mut self) -> Result<String, RuleError> {
        self.skip_blanks();
        let start = self.at;
        let name = self.word();
        if COUNTERS.contains(&name.as_str()) {
            return Ok(name);
        }
        self.at = start;
        let all = COUNTERS.join(", ");
        Err(self.wrong(format!("one of p50 … p99.9, mean, max, ratio, time_to, or a counter is expected: {all}")))
    }

    fn time_to(&mut self) -> Result<Quantity, RuleError> {
        self.expect("(")?;
        let percent = self.number()?;
        if percent > 100.0 {
            return Err(self.wrong("at most 100% can be updated"));
        }
        self.expect("%")?;
        self.expect("updated")?;
        self.expect(")")?;
        Ok(Quantity::TimeTo { updated: percent / 100.0 })
    }

    fn outcome(&mut self) -> Result<Outcome, RuleError> {
        self.skip_blanks();
        let start = self.at;
        match self.word().as_str() {
            "ok" => Ok(Outcome::Ok),
            "failed" => Ok(Outcome::Failed),
            _ => {
                self.at = start;
                Err(self.wrong("`ok` or `failed` is expected"))
            }
        }
    }

    fn selection(&mut self) -> Result<Selection, RuleError> {
        let (mut step, mut outcome, mut link) = (None, None, None);
        self.expect("(")?;
        loop {
            self.skip_blanks();
            let start = self.at;
            let key = self.word();
            if !["step", "outcome", "link"].contains(&key.as_str()) {
                self.at = start;
                return Err(self.wrong("`step=`, `outcome=` or `link=` is expected"));
            }
            self.expect("=")?;
            match key.as_str() {
                "step" => step = Some(self.step()?),
                "outcome" => outcome = Some(self.outcome()?),
                _ => link = Some(self.word()).filter(|name| !name.is_empty()),
            }
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")?;
        let step = step.ok_or_else(|| self.wrong("`step=` is needed before this"))?;
        // A step that failed fast must not look like a fast one.
        Ok(Selection { step, outcome: Some(outcome.unwrap_or(Outcome::Ok)), link })
    }

    fn step(&mut self) -> Result<Step, RuleError> {
        self.skip_blanks();
        let start = self.at;
        let name = self.word();
        let known = Step::ALL.iter().find(|(_, known)| *known == name);
        known.map(|(step, _)| *step).ok_or_else(|| {
            self.at = start;
            let all: Vec<_> = Step::ALL.iter().map(|(_, name)| *name).collect();
            self.wrong(format!("a step is expected: {}", all.join(", ")))
        })
    }

    fn operator(&mut self) -> Result<Operator, RuleError> {
        let all = [
            ("<=", Operator::LessEqual),
            (">=", Operator::MoreEqual),
            ("==", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::More),
            ("=", Operator::Equal),
        ];
        let found = all.into_iter().find(|(token, _)| self.take(token));
        found.map(|(_, operator)| operator).ok_or_else(|| self.wrong("`<`, `<=`, `>`, `>=` or `=` is expected"))
    }

    fn limit(&mut self, unit: Unit) -> Result<f64, RuleError> {
        let number = self.number()?;
        self.skip_blanks();
        let start = self.at;
        let word = self.run(|c| c.is_ascii_alphabetic() || c == '%');
        let known: &[(&str, f64)] = match unit {
            Unit::Time => &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)],
            Unit::Share => &[("%", 0.01), ("", 1.0)],
            Unit::Count => &[("", 1.0), ("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)],
        };
        let factor = known.iter().find(|(known, _)| *known == word).map(|(_, factor)| *factor);
        factor.map(|factor| number * factor).ok_or_else(|| {
            self.at = start;
            let all: Vec<_> = known.iter().map(|(known, _)| if known.is_empty() { "nothing" } else { known }).collect();
            self.wrong(format!("a unit is expected here: {}", all.join(", ")))
        })
    }
}
