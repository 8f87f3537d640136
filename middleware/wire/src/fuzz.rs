//! Fuzz bodies of all decoders, shared by the property tests and the fuzzer. Must never panic, whatever the bytes.

use talea_model::Summary;

use crate::control::Envelope;
use crate::data::{Reply, Request};
use crate::log::Record;
use crate::{WireError, codec, group};

/// Feeds `bytes` to every decoder; what decodes must encode to the same meaning.
pub fn all(bytes: &[u8]) {
    let _ = Summary::decode(bytes);
    let _ = Reply::decode(bytes);
    if let Ok(request) = Request::decode(bytes) {
        let mut again = Vec::new();
        request.encode(&mut again);
        request.data().for_each(|data| again.extend_from_slice(data));
        assert!(Request::decode(&again).is_ok_and(|decoded| decoded == request), "a request changed its meaning");
    }
    if let Ok(message) = group::Message::decode(bytes)
        && let Ok(again) = message.encode()
    {
        assert!(
            group::Message::decode(&again).is_ok_and(|decoded| decoded == message),
            "a message changed its meaning"
        );
    }
    let _: Result<Envelope, WireError> = codec::decode(bytes);
    let _: Result<Record, WireError> = codec::decode(bytes);
}
