//! Peak heap of each way, in bytes beyond what was there before, the document included in that.

/// The figures.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Of the base.
    pub base: usize,
    /// Of the leanest base.
    pub lean: usize,
    /// Of ours.
    pub ours: usize,
}

impl Figures {
    /// As the counting program prints them.
    pub fn print(&self) {
        println!("{} {} {}", self.base, self.lean, self.ours);
    }

    /// As it printed them.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [base, lean, ours] = numbers[..] else { return None };
        Some(Self { base, lean, ours })
    }
}
