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

    /// The same kind with the place in front of the text, if that does not begin with it already.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        let place = place.to_string();
        if self.text.starts_with(&place) {
            return self;
        }
        Self { code: self.code, text: format!("{place}: {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_once() {
        let fault = Fault::new(Code::NotFound, "no such file").at("'/talea/run/a'");
        assert_eq!(fault.text, "'/talea/run/a': no such file");
        assert_eq!(fault.clone().at("'/talea/run/a'").text, fault.text);
    }
}
