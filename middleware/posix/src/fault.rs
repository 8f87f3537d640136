//! The one error of this crate: a kind that programs can tell apart, and a text that says what to do.

use talea_abi::Code;
use thiserror::Error;

/// What went wrong with a file or a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Fault {
    /// Kind.
    pub code: Code,
    /// For people: what, where, what to do.
    pub text: String,
}

impl Fault {
    /// A fault with this text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The same kind with the place in front of the text.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        Self { code: self.code, text: format!("{place}: {}", self.text) }
    }
}
