//! [`Reader`]: the one strict reader of JSON that arrives, in one pass and without a tree.
//!
//! It refuses what makes one text mean two things (duplicate keys, floats, numbers beyond 64 bits, deep nesting, bad UTF-8,
//! a tail) and notes on the way whether the text is canonical, so that a signature can be checked over the bytes as they are.
//! What a document says is the callers' business.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use crate::canonical::CanonicalError;
use crate::limits;

/// A string in the text: where its inside lies, without the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text {
    pub start: u32,
    pub end: u32,
    /// Whether it holds a backslash, so that its bytes are not its content.
    escaped: bool,
}

/// A value in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What was noted about a stretch of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notes {
    /// It is byte for byte its own canonical form, see [`crate::canonical`].
    pub canonical: bool,
    /// No string in it holds a control character: then there is only one canonical form.
    pub plain: bool,
}

const ALL_GOOD: Notes = Notes { canonical: true, plain: true };

/// A place to go back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    at: usize,
    depth: u64,
    keys: usize,
    notes: Notes,
}

/// Reads one text from front to back. Each reading method starts at the first byte of its value and ends behind the last.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u64,
    /// Keys of all objects that are open, outermost first.
    keys: Vec<Text>,
    notes: Notes,
}

impl<'a> Reader<'a> {
    /// Begins at the first byte that is not white space.
    pub fn new(bytes: &'a [u8]) -> Result<Self, CanonicalError> {
        let text = std::str::from_utf8(bytes).map_err(|e| CanonicalError::Parse(e.to_string()))?;
        if u32::try_from(bytes.len()).is_err() {
            return Err(CanonicalError::Parse("a text of 4 GiB or more".into()));
        }
        let mut reader = Self { text, at: 0, depth: 0, keys: Vec::new(), notes: ALL_GOOD };
        reader.space();
        Ok(reader)
    }

    /// Demands that nothing but white space follows.
    pub fn end(&mut self) -> Result<(), CanonicalError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.wrong("something after the end")) }
    }

    /// Where it stands.
    pub fn at(&self) -> u32 {
        // The whole text is shorter than 4 GiB.
        self.at as u32
    }

    pub fn mark(&self) -> Mark {
        Mark { at: self.at, depth: self.depth, keys: self.keys.len(), notes: self.notes }
    }

    /// Goes back, also out of a value that was left in the middle.
    pub fn rewind(&mut self, mark: Mark) {
        self.at = mark.at;
        self.depth = mark.depth;
        self.keys.truncate(mark.keys);
        self.notes = mark.notes;
    }

    /// Runs `read` and tells what stretch it read and what was noted about it.
    pub fn noted<T, E>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<(T, Span, Notes), E> {
        let before = std::mem::replace(&mut self.notes, ALL_GOOD);
        let start = self.at;
        let read = read(self)?;
        let notes = self.notes;
        self.notes = Notes { canonical: before.canonical && notes.canonical, plain: before.plain && notes.plain };
        Ok((read, self.span(start), notes))
    }

    fn span(&self, start: usize) -> Span {
        // The whole text is shorter than 4 GiB.
        Span { start: start as u32, end: self.at as u32 }
    }

    /// The content of a string that was read.
    pub fn text(&self, text: Text) -> Cow<'a, str> {
        content(self.text, text)
    }

    /// The bytes of a string that was read, if they are its content.
    pub fn raw(&self, span: Span) -> &'a str {
        &self.text[span.range()]
    }

    fn wrong(&self, what: &str) -> CanonicalError {
        CanonicalError::Parse(format!("{what} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
            self.notes.canonical = false;
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), CanonicalError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(&format!("no {:?}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), CanonicalError> {
        if self.depth == limits::JSON_DEPTH_MAX {
            return Err(CanonicalError::Depth);
        }
        self.depth += 1;
        Ok(())
    }

    /// Whether the next value is an object.
    pub fn is_object(&self) -> bool {
        self.peek() == Some(b'{')
    }

    /// Whether the next value is an array.
    pub fn is_array(&self) -> bool {
        self.peek() == Some(b'[')
    }

    /// Whether the next value is a string.
    pub fn is_string(&self) -> bool {
        self.peek() == Some(b'"')
    }

    /// Reads an object; `each` reads the value of each key. Tells whether the keys came in order.
    pub fn object<E: From<CanonicalError>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Text) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.take(b'{')?;
        self.deeper()?;
        let first = self.keys.len();
        let mut in_order = true;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(true);
        }
        loop {
            let key = self.string()?;
            if let Some(last) = self.keys[first..].last()
                && compare(self.text, *last, key) != Ordering::Less
            {
                in_order = false;
            }
            self.keys.push(key);
            self.space();
            self.take(b':')?;
            self.space();
            each(self, key)?;
            self.space();
            if self.peek() == Some(b'}') {
                break;
            }
            self.take(b',')?;
            self.space();
        }
        self.at += 1;
        self.depth -= 1;
        if !in_order {
            self.notes.canonical = false;
            self.refuse_twins(first)?;
        }
        self.keys.truncate(first);
        Ok(in_order)
    }

    fn refuse_twins(&mut self, first: usize) -> Result<(), CanonicalError> {
        let text = self.text;
        let keys = &mut self.keys[first..];
        keys.sort_unstable_by(|left, right| compare(text, *left, *right));
        let twins = keys.windows(2).find(|pair| compare(text, pair[0], pair[1]) == Ordering::Equal);
        match twins {
            None => Ok(()),
            Some(pair) => {
                let key = content(text, pair[0]);
                Err(CanonicalError::Parse(format!("the key {key:?} appears twice in one object")))
            }
        }
    }

    /// Reads an array; `each` reads each value.
    pub fn array<E: From<CanonicalError>>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'[')?;
        self.deeper()?;
        self.space();
        if self.peek() != Some(b']') {
            loop {
                each(self)?;
                self.space();
                if self.peek() == Some(b']') {
                    break;
                }
                self.take(b',')?;
                self.space();
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string.
    pub fn string(&mut self) -> Result<Text, CanonicalError> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at;
        let (mut escaped, mut wide) = (false, false);
        loop {
            self.at += ordinary(&bytes[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    wide |= self.escape()?;
                }
                Some(_) => return Err(self.wrong("a bare control character in a string")),
                None => return Err(self.wrong("a string without an end")),
            }
        }
        let text = Text { start: start as u32, end: self.at as u32, escaped };
        self.at += 1;
        if wide && decode(&self.text[start - 1..self.at]).is_none() {
            return Err(self.wrong("an escape that is no character"));
        }
        Ok(text)
    }

    /// Reads one escape; tells whether it is a `\u`, whose meaning must still be checked.
    fn escape(&mut self) -> Result<bool, CanonicalError> {
        let bytes = self.text.as_bytes();
        let kind = bytes.get(self.at + 1).copied();
        match kind {
            Some(b'"' | b'\\') => {}
            Some(b'/') => self.notes.canonical = false,
            Some(b'b' | b'f' | b'n' | b'r' | b't') => self.notes.plain = false,
            Some(b'u') => {
                let digits = bytes.get(self.at + 2..self.at + 6).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
                let digits = digits.ok_or_else(|| self.wrong("an escape that is none"))?;
                let low = &digits[2..];
                let control = digits.starts_with(b"00") && matches!(low[0], b'0' | b'1');
                let short = matches!(low, b"08" | b"09" | b"0a" | b"0c" | b"0d");
                let lower = !low.iter().any(u8::is_ascii_uppercase);
                self.notes.plain &= !control;
                self.notes.canonical &= control && lower && !short;
                self.at += 6;
                return Ok(true);
            }
            _ => return Err(self.wrong("an escape that is none")),
        }
        self.at += 2;
        Ok(false)
    }

    /// Reads a 64-bit integer.
    pub fn number(&mut self) -> Result<Number, CanonicalError> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        let text = &self.text[self.at..self.at + length];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'))
            && text != "-0";
        let number = match (plain, digits.len() < text.len()) {
            (true, false) => text.parse::<u64>().ok().map(Number::from),
            (true, true) => text.parse::<i64>().ok().map(Number::from),
            (false, _) => None,
        };
        let number = number.ok_or_else(|| self.wrong(&format!("the number {text} is not a 64-bit integer")))?;
        self.at += length;
        Ok(number)
    }

    /// Reads `true`, `false` or `null`.
    fn word(&mut self) -> Result<Value, CanonicalError> {
        for (word, value) in [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)] {
            if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("no JSON value"))
    }

    /// Reads any value, for its form and place only.
    pub fn skip(&mut self) -> Result<Span, CanonicalError> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => _ = self.object(|reader, _| reader.skip().map(drop))?,
            Some(b'[') => self.array(|reader| reader.skip().map(drop))?,
            Some(b'"') => _ = self.string()?,
            Some(b'-' | b'0'..=b'9') => _ = self.number()?,
            _ => _ = self.word()?,
        }
        Ok(self.span(start))
    }

    /// Reads any value as a tree.
    pub fn value(&mut self) -> Result<Value, CanonicalError> {
        match self.peek() {
            Some(b'{') => {
                let mut map = Map::new();
                self.object(|reader, key| {
                    let value = reader.value()?;
                    map.insert(reader.text(key).into_owned(), value);
                    Ok::<_, CanonicalError>(())
                })?;
                Ok(Value::Object(map))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.array(|reader| {
                    items.push(reader.value()?);
                    Ok::<_, CanonicalError>(())
                })?;
                Ok(Value::Array(items))
            }
            Some(b'"') => {
                let text = self.string()?;
                Ok(Value::String(self.text(text).into_owned()))
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            _ => self.word(),
        }
    }
}

/// Compares two strings of one text by content, as canonical JSON orders keys: by bytes of UTF-8.
fn compare(whole: &str, left: Text, right: Text) -> Ordering {
    if left.escaped || right.escaped {
        return content(whole, left).cmp(&content(whole, right));
    }
    let bytes = whole.as_bytes();
    bytes[left.start as usize..left.end as usize].cmp(&bytes[right.start as usize..right.end as usize])
}

/// The content of a string that a [`Reader`] of `whole` has read.
fn content(whole: &str, text: Text) -> Cow<'_, str> {
    let (start, end) = (text.start as usize, text.end as usize);
    if text.escaped {
        // The reader has proven that it decodes.
        Cow::Owned(decode(&whole[start - 1..=end]).unwrap_or_default())
    } else {
        Cow::Borrowed(&whole[start..end])
    }
}

/// The content of the string whose inside lies at `span` of a file that was read before.
pub(crate) fn content_at(file: &[u8], span: Span) -> Cow<'_, str> {
    // Proven when it was read: UTF-8, within quotes, and every escape decodes.
    let inside = std::str::from_utf8(&file[span.range()]).unwrap_or_default();
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    Cow::Owned(decode(&format!("\"{inside}\"")).unwrap_or_default())
}

fn decode(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

/// How many bytes from the front are neither a quote, nor a backslash, nor a control character: eight at a time.
fn ordinary(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
        let special = zero_in(word ^ (ONES * u64::from(b'"')))
            | zero_in(word ^ (ONES * u64::from(b'\\')))
            | (word.wrapping_sub(ONES * 0x20) & !word);
        // The lowest mark is exact; a borrow can only make false ones above it.
        if special & HIGHS != 0 {
            return at + (special & HIGHS).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(text: &str) -> Notes {
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        let (_, span, notes) = reader.noted(Reader::skip).unwrap();
        assert_eq!(&text[span.range()], text);
        notes
    }

    #[test]
    fn the_canonical_is_told_from_the_rest() {
        for text in
            [r#"{"a":1,"b":[true,null,"é\"\\"]}"#, "\"\u{7f}\"", "0", "-1", "{}", "[]", r#"{"Z":0,"a":0,"é":0}"#]
        {
            assert_eq!(notes(text), ALL_GOOD, "{text}");
        }
        for text in [r#"{"b":1,"a":2}"#, "[1, 2]", r#""\/""#, r#""\u0041""#, r#""\u00e9""#, r#""\ud83d\ude00""#] {
            assert_eq!(notes(text), Notes { canonical: false, plain: true }, "{text}");
        }
        for text in [r#""\n""#, r#""\u0000""#, r#""\u001f""#, r#"{"\t":1}"#] {
            assert_eq!(notes(text), Notes { canonical: true, plain: false }, "{text}");
        }
        for text in [r#""\u000a""#, r#""\u001F""#, r#""\u0008""#] {
            assert_eq!(notes(text), Notes { canonical: false, plain: false }, "{text}");
        }
    }

    #[test]
    fn keys_are_ordered_by_what_they_mean() {
        // `"\\"` is one backslash (5c), which sorts behind `Z` (5a) and before `a` (61).
        assert!(notes(r#"{"Z":0,"\\":0,"a":0}"#).canonical);
        // A quote (22) sorts before `a`, although its escape begins with 5c.
        assert!(notes(r#"{"\"":0,"Z":0}"#).canonical);
        assert!(!notes(r#"{"Z":0,"\"":0}"#).canonical);
    }

    #[test]
    fn the_quick_scan_finds_every_special_byte() {
        for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for before in 0..20 {
                for filler in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff, b'\\' + 0x80, b'"' + 0x80] {
                    let mut bytes = vec![filler; before];
                    bytes.push(special);
                    bytes.extend([filler; 9]);
                    assert_eq!(ordinary(&bytes), before, "{special} after {filler}");
                }
            }
        }
        assert_eq!(ordinary(&[0xff; 17]), 17);
    }
}
