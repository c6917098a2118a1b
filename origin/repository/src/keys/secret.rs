//! [`Secret`] and [`Passphrase`]: texts that are never shown and are wiped from memory when dropped.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

/// The text of a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// What a private key file is encrypted with.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

macro_rules! hidden {
    ($name:ident) => {
        impl $name {
            /// Takes a text over.
            pub fn new(text: String) -> Self {
                Self(Zeroizing::new(text))
            }

            pub(crate) fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(hidden)"))
            }
        }
    };
}

hidden!(Secret);
hidden!(Passphrase);

impl Passphrase {
    /// Whether it is too short to protect anything, in characters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Gives the passphrase of a key file, or says why there is none. Asked at most once per file content.
pub trait AskPassphrase: Send + Sync {
    /// The passphrase of an existing file, or for a file about to be made (`new`).
    ///
    /// # Errors
    /// Why there is none, and what to do.
    fn ask(&self, file: &Path, new: bool) -> Result<Passphrase, String>;
}

impl AskPassphrase for Passphrase {
    fn ask(&self, _: &Path, _: bool) -> Result<Passphrase, String> {
        Ok(self.clone())
    }
}
