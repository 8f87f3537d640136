//! The proof that two processes belong to one system, without I/O.
//!
//! Owns the three fixed-size messages by which the connecting and the listening side prove to each other that they know the
//! system's secret (docs/design.md §9). Must never make the listening side say a byte before the hello's MAC was right, and
//! must never allocate by anything that a stranger said.
//!
//! 1. *Hello*: what the connecting side is, a fresh nonce, the time, and a MAC over all of it.
//! 2. *Answer*: the listening side's nonce and a MAC over both nonces. A hello that was recorded and replayed gets this far.
//! 3. *Confirm*: a MAC over both nonces again, which only a holder of the secret can make: now the connection is up.
//!
//! Each MAC is bound to the system's id, to the role of its sender and to the channel (which kind of connection, and for
//! fabrics whose address travels in the hello, that address), so a message of one exchange is worth nothing in another.

use std::fmt;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Hello;

/// Version of everything that the fabrics put on sockets, in rings and in libfabric messages.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of the connecting side's first message.
pub const HELLO_BYTES: usize = size_of::<HelloWire>();
/// Bytes of the listening side's answer.
pub const ANSWER_BYTES: usize = size_of::<AnswerWire>();
/// Bytes of the connecting side's confirmation.
pub const CONFIRM_BYTES: usize = MAC_BYTES;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// A hello whose time is further off than this, in microseconds, is refused: clocks of one job's nodes agree better.
pub const HELLO_AGE_MAX_US: u64 = 600_000_000;

const MAC_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"TALEAFAB";
const FLAG_SERVER: u16 = 1;

const _: () = assert!(HELLO_BYTES == 104 && ANSWER_BYTES == 72 && CONFIRM_BYTES == 32);

/// What the processes of a system share: its id, and the secret by which they know each other.
#[derive(Clone)]
pub struct Credentials {
    system: [u8; 16],
    secret: [u8; 32],
}

impl Credentials {
    /// The credentials of the system `system`, whose launcher drew `secret` at random.
    pub fn new(system: [u8; 16], secret: [u8; 32]) -> Self {
        Credentials { system, secret }
    }

    /// The system's id.
    pub fn system(&self) -> [u8; 16] {
        self.system
    }

    fn mac(&self, role: &[u8], channel: &[u8], parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(b"talea fabric handshake\0");
        for field in [&self.system[..], role, channel].iter().chain(parts) {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        hasher.finalize()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("system", &self.system).field("secret", &"hidden").finish()
    }
}

/// Why a side of the handshake gave up. The listening side closes without a word in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Not our protocol at all, or the proof is wrong.
    #[error("the other side did not prove that it knows the system's secret")]
    Refused,
    /// The secret is right, the version is not ours.
    #[error("the other side speaks protocol version {theirs}")]
    Version {
        /// The other side's version.
        theirs: u16,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct HelloWire {
    magic: [u8; 8],
    version: U16,
    flags: U16,
    pid: U32,
    session: U64,
    server: U32,
    reserved: U32,
    unix_us: U64,
    nonce: [u8; NONCE_BYTES],
    mac: [u8; MAC_BYTES],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct AnswerWire {
    version: U16,
    reserved: [u8; 6],
    nonce: [u8; NONCE_BYTES],
    mac: [u8; MAC_BYTES],
}

/// A fresh nonce from the operating system.
pub fn fresh_nonce() -> std::io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(nonce)
}

/// The connecting side, between its hello and the answer.
pub struct Connecting {
    credentials: Credentials,
    channel: Vec<u8>,
    version: u16,
    hello: HelloWire,
}

impl Connecting {
    /// Makes the hello. `channel` names the kind of connection and must be what the listening side takes it for.
    pub fn start(
        credentials: &Credentials,
        channel: &[u8],
        hello: &Hello,
        nonce: [u8; NONCE_BYTES],
        unix_us: u64,
    ) -> (Self, [u8; HELLO_BYTES]) {
        Self::start_as_version(PROTOCOL_VERSION, credentials, channel, hello, nonce, unix_us)
    }

    /// The same, saying another version: what a program of another release does.
    pub fn start_as_version(
        version: u16,
        credentials: &Credentials,
        channel: &[u8],
        hello: &Hello,
        nonce: [u8; NONCE_BYTES],
        unix_us: u64,
    ) -> (Self, [u8; HELLO_BYTES]) {
        let mut wire = HelloWire {
            magic: MAGIC,
            version: version.into(),
            flags: if hello.server.is_some() { FLAG_SERVER } else { 0 }.into(),
            pid: hello.pid.into(),
            session: hello.session.into(),
            server: hello.server.unwrap_or(0).into(),
            reserved: 0.into(),
            unix_us: unix_us.into(),
            nonce,
            mac: [0; MAC_BYTES],
        };
        wire.mac = *hello_mac(credentials, channel, &wire).as_bytes();
        let bytes = zerocopy::transmute!(wire);
        (Connecting { credentials: credentials.clone(), channel: channel.to_vec(), version, hello: wire }, bytes)
    }

    /// Checks the listening side's proof and makes ours.
    pub fn answer(&self, answer: &[u8; ANSWER_BYTES]) -> Result<[u8; CONFIRM_BYTES], HandshakeError> {
        let answer: AnswerWire = zerocopy::transmute!(*answer);
        let version = answer.version.get();
        let expected = self.credentials.mac(
            b"answer",
            &self.channel,
            &[answer.version.as_bytes(), &answer.reserved, self.hello.as_bytes(), &answer.nonce],
        );
        // blake3's comparison takes the same time wherever the difference lies.
        if expected != blake3::Hash::from_bytes(answer.mac) {
            return Err(HandshakeError::Refused);
        }
        if version != self.version {
            return Err(HandshakeError::Version { theirs: version });
        }
        Ok(*confirm_mac(&self.credentials, &self.channel, &self.hello, &answer.nonce).as_bytes())
    }
}

/// What the listening side says to a hello with a right MAC.
pub enum Verdict {
    /// Send `answer` and await the confirmation.
    Proceed(Accepting, [u8; ANSWER_BYTES]),
    /// Send `answer`, from which the other side learns our version, and close.
    ForeignVersion {
        /// The connecting side's version.
        theirs: u16,
        /// What to send before closing.
        answer: [u8; ANSWER_BYTES],
    },
}

/// The listening side, between its answer and the confirmation.
#[derive(Clone)]
pub struct Accepting {
    hello: Hello,
    confirm: blake3::Hash,
}

impl Accepting {
    /// Judges a hello. An error means: close and say nothing.
    pub fn hello(
        credentials: &Credentials,
        channel: &[u8],
        bytes: &[u8; HELLO_BYTES],
        nonce: [u8; NONCE_BYTES],
        unix_us: u64,
    ) -> Result<Verdict, HandshakeError> {
        let wire: HelloWire = zerocopy::transmute!(*bytes);
        let proved = hello_mac(credentials, channel, &wire) == blake3::Hash::from_bytes(wire.mac);
        if !proved || wire.magic != MAGIC || wire.unix_us.get().abs_diff(unix_us) > HELLO_AGE_MAX_US {
            return Err(HandshakeError::Refused);
        }
        let mut answer = AnswerWire { version: PROTOCOL_VERSION.into(), reserved: [0; 6], nonce, mac: [0; MAC_BYTES] };
        answer.mac = *credentials
            .mac(b"answer", channel, &[answer.version.as_bytes(), &answer.reserved, wire.as_bytes(), &nonce])
            .as_bytes();
        let answer: [u8; ANSWER_BYTES] = zerocopy::transmute!(answer);
        let theirs = wire.version.get();
        if theirs != PROTOCOL_VERSION {
            return Ok(Verdict::ForeignVersion { theirs, answer });
        }
        let server = (wire.flags.get() & FLAG_SERVER != 0).then(|| wire.server.get());
        let hello = Hello { session: wire.session.get(), pid: wire.pid.get(), server };
        let confirm = confirm_mac(credentials, channel, &wire, &nonce);
        Ok(Verdict::Proceed(Accepting { hello, confirm }, answer))
    }

    /// Judges the confirmation; what the peer said of itself counts only from here on.
    pub fn confirm(self, bytes: &[u8; CONFIRM_BYTES]) -> Result<Hello, HandshakeError> {
        if self.confirm == blake3::Hash::from_bytes(*bytes) { Ok(self.hello) } else { Err(HandshakeError::Refused) }
    }
}

fn hello_mac(credentials: &Credentials, channel: &[u8], wire: &HelloWire) -> blake3::Hash {
    let bytes = wire.as_bytes();
    credentials.mac(b"hello", channel, &[&bytes[..HELLO_BYTES - MAC_BYTES]])
}

fn confirm_mac(credentials: &Credentials, channel: &[u8], hello: &HelloWire, nonce: &[u8]) -> blake3::Hash {
    credentials.mac(b"confirm", channel, &[hello.as_bytes(), nonce])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHANNEL: &[u8] = b"test";
    const NOW_US: u64 = 1_800_000_000_000_000;

    fn credentials(byte: u8) -> Credentials {
        Credentials::new([7; 16], [byte; 32])
    }

    fn hello() -> Hello {
        Hello { session: 9, pid: 1234, server: Some(3) }
    }

    fn proceed(listener: &Credentials, bytes: &[u8; HELLO_BYTES], nonce: u8) -> (Accepting, [u8; ANSWER_BYTES]) {
        match Accepting::hello(listener, CHANNEL, bytes, [nonce; 32], NOW_US) {
            Ok(Verdict::Proceed(accepting, answer)) => (accepting, answer),
            _ => panic!("a right hello must be answered"),
        }
    }

    #[test]
    fn both_sides_prove_themselves() {
        let (connecting, bytes) = Connecting::start(&credentials(1), CHANNEL, &hello(), [2; 32], NOW_US);
        let (accepting, answer) = proceed(&credentials(1), &bytes, 3);
        let confirm = connecting.answer(&answer).unwrap();
        assert_eq!(accepting.confirm(&confirm).unwrap(), hello());
    }

    #[test]
    fn a_wrong_secret_system_channel_or_time_is_refused_in_silence() {
        let (_, bytes) = Connecting::start(&credentials(1), CHANNEL, &hello(), [2; 32], NOW_US);
        let refused = |credentials: &Credentials, channel: &[u8], now_us| {
            Accepting::hello(credentials, channel, &bytes, [3; 32], now_us).is_err()
        };
        assert!(refused(&credentials(2), CHANNEL, NOW_US));
        assert!(refused(&Credentials::new([8; 16], [1; 32]), CHANNEL, NOW_US));
        assert!(refused(&credentials(1), b"other", NOW_US));
        assert!(refused(&credentials(1), CHANNEL, NOW_US + HELLO_AGE_MAX_US + 1));
        assert!(!refused(&credentials(1), CHANNEL, NOW_US + HELLO_AGE_MAX_US));
    }

    #[test]
    fn a_false_listener_is_refused() {
        let (connecting, bytes) = Connecting::start(&credentials(1), CHANNEL, &hello(), [2; 32], NOW_US);
        let (_, mut answer) = proceed(&credentials(1), &bytes, 3);
        answer[ANSWER_BYTES - 1] ^= 1;
        assert_eq!(connecting.answer(&answer), Err(HandshakeError::Refused));
    }

    #[test]
    fn a_replay_is_answered_but_never_established() {
        let (connecting, bytes) = Connecting::start(&credentials(1), CHANNEL, &hello(), [2; 32], NOW_US);
        let (first, answer) = proceed(&credentials(1), &bytes, 3);
        let confirm = connecting.answer(&answer).unwrap();
        assert!(first.confirm(&confirm).is_ok());
        let (second, _) = proceed(&credentials(1), &bytes, 4);
        assert!(second.confirm(&confirm).is_err());
    }

    #[test]
    fn a_foreign_version_is_told_only_to_those_who_know_the_secret() {
        let start = |byte| Connecting::start_as_version(7, &credentials(byte), CHANNEL, &hello(), [2; 32], NOW_US);
        let (connecting, bytes) = start(1);
        match Accepting::hello(&credentials(1), CHANNEL, &bytes, [3; 32], NOW_US) {
            Ok(Verdict::ForeignVersion { theirs: 7, answer }) => {
                let told = connecting.answer(&answer);
                assert_eq!(told, Err(HandshakeError::Version { theirs: PROTOCOL_VERSION }));
            }
            _ => panic!("expected a foreign version"),
        }
        assert!(Accepting::hello(&credentials(1), CHANNEL, &start(2).1, [3; 32], NOW_US).is_err());
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", credentials(0xab)).contains("171"));
    }

    proptest! {
        #[test]
        fn any_changed_byte_breaks_the_proof(at in 0..HELLO_BYTES, flip in 1u8..) {
            let (_, mut bytes) = Connecting::start(&credentials(1), CHANNEL, &hello(), [2; 32], NOW_US);
            bytes[at] ^= flip;
            prop_assert!(Accepting::hello(&credentials(1), CHANNEL, &bytes, [3; 32], NOW_US).is_err());
        }
    }
}
