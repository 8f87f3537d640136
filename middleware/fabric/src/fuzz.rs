//! Fuzz bodies of all that the fabrics decode, shared by the property tests and the fuzzer. Must never panic, whatever the
//! bytes.

use crate::frame::FrameDecoder;
use crate::handshake::{ANSWER_BYTES, Accepting, CONFIRM_BYTES, Connecting, Credentials, HELLO_BYTES, Verdict};
use crate::{Address, Hello};

/// Feeds `bytes` to every decoder.
pub fn all(bytes: &[u8]) {
    frames(bytes);
    handshake(bytes);
    crate::ring::fuzz(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = text.parse::<Address>()
    {
        assert_eq!(address.to_string().parse(), Ok(address), "an address changed its meaning");
    }
}

fn frames(bytes: &[u8]) {
    let mut decoder = FrameDecoder::new(4096);
    let mut rest = bytes;
    while !rest.is_empty() && decoder.push(&mut rest).is_ok() {}
}

/// What strangers say in each step: it must prove nothing.
fn handshake(bytes: &[u8]) {
    let credentials = Credentials::new([1; 16], [2; 32]);
    if let Some(hello) = bytes.first_chunk::<HELLO_BYTES>() {
        assert!(Accepting::hello(&credentials, b"fuzz", hello, [3; 32], 0).is_err(), "a stranger was answered");
    }
    let (connecting, ours) = Connecting::start(&credentials, b"fuzz", &Hello::default(), [4; 32], 0);
    if let Some(answer) = bytes.first_chunk::<ANSWER_BYTES>() {
        assert!(connecting.answer(answer).is_err(), "a stranger's answer was taken");
    }
    if let Ok(Verdict::Proceed(accepting, _)) = Accepting::hello(&credentials, b"fuzz", &ours, [5; 32], 0)
        && let Some(confirm) = bytes.first_chunk::<CONFIRM_BYTES>()
    {
        assert!(accepting.confirm(confirm).is_err(), "a stranger was confirmed");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fuzz_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            super::all(&bytes);
        }

        #[test]
        fn fuzz_text(text in "(ring|unix|tcp|fi|rdm|sim|x)?:?[a-f0-9:/é]{0,20}") {
            super::all(text.as_bytes());
        }

        #[test]
        fn fuzz_small_words(words in prop::collection::vec(0u32..200, 0..500)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            super::all(&bytes);
        }
    }
}
