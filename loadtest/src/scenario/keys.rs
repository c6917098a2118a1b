//! [`Keys`]: takes known keys out of a TOML table and remembers every mistake, so that all of them are told at once.

use toml::{Table, Value};

/// One table being read. Whatever is left in it at the end was not expected.
pub(super) struct Keys<'a> {
    place: String,
    table: Table,
    mistakes: &'a mut Vec<String>,
}

impl<'a> Keys<'a> {
    /// Reads `table`; `place` is how messages call it, empty for the file itself.
    pub fn of(place: &str, table: Table, mistakes: &'a mut Vec<String>) -> Self {
        Self { place: place.to_owned(), table, mistakes }
    }

    /// Full name of a key.
    fn name(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// Notes what is wrong with a key.
    pub fn mistake(&mut self, key: &str, what: &str) {
        let name = self.name(key);
        self.mistakes.push(format!("`{name}` {what}"));
    }

    /// A number from `low` to `high`; `default` if it is absent, a mistake if there is no default.
    pub fn number(&mut self, key: &str, default: Option<f64>, low: f64, high: f64) -> f64 {
        let found = match self.table.remove(key) {
            None => default,
            Some(Value::Integer(number)) => Some(number as f64),
            Some(Value::Float(number)) => Some(number),
            Some(other) => {
                self.mistake(key, &format!("must be a number, not {}", other.type_str()));
                return low;
            }
        };
        match found {
            None => self.mistake(key, "is needed"),
            Some(number) if (low..=high).contains(&number) => return number,
            Some(number) => self.mistake(key, &format!("is {number}: it must lie from {low} to {high}")),
        }
        low
    }

    /// A whole number from `low` to `high`.
    pub fn count(&mut self, key: &str, default: Option<u64>, low: u64, high: u64) -> u64 {
        let number = self.number(key, default.map(|count| count as f64), low as f64, high as f64);
        if number.fract() != 0.0 {
            self.mistake(key, &format!("is {number}: it must be a whole number"));
        }
        number as u64
    }

    /// A seed: any whole number from 0.
    pub fn seed(&mut self, key: &str, default: u64) -> u64 {
        match self.table.remove(key) {
            None => default,
            Some(Value::Integer(number)) if number >= 0 => number.unsigned_abs(),
            Some(other) => {
                self.mistake(key, &format!("is {other}: it must be a whole number from 0"));
                default
            }
        }
    }

    /// A text, empty if it is absent and not `needed`.
    pub fn text(&mut self, key: &str, needed: bool) -> String {
        match self.table.remove(key) {
            Some(Value::String(text)) => return text,
            Some(other) => self.mistake(key, &format!("must be a text, not {}", other.type_str())),
            None if needed => self.mistake(key, "is needed"),
            None => {}
        }
        String::new()
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.table.remove(key) {
            None => default,
            Some(Value::Boolean(flag)) => flag,
            Some(other) => {
                self.mistake(key, &format!("must be true or false, not {}", other.type_str()));
                default
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str) -> Vec<String> {
        let list = self.list(key);
        let mut texts = Vec::new();
        for (index, value) in list.into_iter().enumerate() {
            match value {
                Value::String(text) => texts.push(text),
                other => self.mistake(&format!("{key}[{index}]"), &format!("must be a text, not {}", other.type_str())),
            }
        }
        texts
    }

    /// A list of anything.
    pub fn list(&mut self, key: &str) -> Vec<Value> {
        match self.table.remove(key) {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.mistake(key, &format!("must be a list, not {}", other.type_str()));
                Vec::new()
            }
        }
    }

    /// A table within, empty if it is absent.
    pub fn table(&mut self, key: &str) -> Keys<'_> {
        let place = self.name(key);
        let table = match self.table.remove(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.mistake(key, &format!("must be a table, not {}", other.type_str()));
                Table::new()
            }
        };
        Keys { place, table, mistakes: self.mistakes }
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads each table of a list of tables.
    pub fn each<T>(&mut self, key: &str, mut read: impl FnMut(&mut Keys<'_>) -> Option<T>) -> Vec<T> {
        let list = self.list(key);
        let mut all = Vec::new();
        for (index, value) in list.into_iter().enumerate() {
            let place = self.name(&format!("{key}[{index}]"));
            let Value::Table(table) = value else {
                self.mistake(&format!("{key}[{index}]"), "must be a table");
                continue;
            };
            let mut keys = Keys { place, table, mistakes: self.mistakes };
            all.extend(read(&mut keys));
            keys.finish();
        }
        all
    }

    /// Whatever was not taken is a mistake.
    pub fn finish(self) {
        for key in self.table.keys() {
            let name = if self.place.is_empty() { key.clone() } else { format!("{}.{key}", self.place) };
            self.mistakes.push(format!("`{name}` is not a key that a scenario has"));
        }
    }
}
