//! After the proof: both sides tell each other, over the socket on which they have proved themselves, where to send datagrams and with which
//! tag.
//!
//! Must never wait, and never take an address that is not as long as ours.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::device::NAME_BYTES;
use crate::Hello;
use crate::descriptor::Descriptor;

const TERMS_BYTES: usize = size_of::<TermsWire>();
const _: () = assert!(TERMS_BYTES == 80);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct TermsWire {
    name_bytes: U16,
    reserved: [u8; 6],
    tag: U64,
    name: [u8; NAME_BYTES],
}

/// Where a side receives.
pub(crate) struct Terms {
    pub(crate) tag: u64,
    pub(crate) name: [u8; NAME_BYTES],
}

/// Whose connection it was before.
#[derive(Clone)]
pub(crate) enum Side {
    /// Theirs, and what they said of themselves.
    Accepted(Hello),
    /// Ours, to the address of this name.
    Made(String),
}

/// The other side has ended it, or talks nonsense.
pub(crate) struct Ended;

/// A connection between the proof and the first message.
pub(crate) struct Meeting {
    pub(crate) socket: Descriptor,
    pub(crate) side: Side,
    pub(crate) deadline_ns: u64,
    /// The tag of what we are sent.
    pub(crate) tag: u64,
    name_bytes: usize,
    out: [u8; TERMS_BYTES],
    sent: usize,
    terms: [u8; TERMS_BYTES],
    got: usize,
}

impl Meeting {
    /// `name` is our address, `tag` that of what we are sent.
    pub(crate) fn new(socket: Descriptor, side: Side, deadline_ns: u64, name: &[u8], tag: u64) -> Meeting {
        let mut wire = TermsWire {
            name_bytes: (name.len() as u16).into(),
            reserved: [0; 6],
            tag: tag.into(),
            name: [0; NAME_BYTES],
        };
        let name_bytes = name.len().min(NAME_BYTES);
        wire.name[..name_bytes].copy_from_slice(&name[..name_bytes]);
        let out = zerocopy::transmute!(wire);
        Meeting { socket, side, deadline_ns, tag, name_bytes, out, sent: 0, terms: [0; TERMS_BYTES], got: 0 }
    }

    /// Goes on as far as that is possible now; gives the other side's terms when it has all and ours are out.
    pub(crate) fn advance(&mut self) -> Result<Option<Terms>, Ended> {
        while self.sent < TERMS_BYTES {
            match rustix::net::send(&self.socket, &self.out[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Ended),
            }
        }
        while self.got < TERMS_BYTES {
            match rustix::net::recv(&self.socket, &mut self.terms[self.got..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(Ended),
                Ok((n, _)) => self.got += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Ended),
            }
        }
        if self.sent < TERMS_BYTES || self.got < TERMS_BYTES {
            return Ok(None);
        }
        let wire: TermsWire = zerocopy::transmute!(self.terms);
        if usize::from(wire.name_bytes.get()) != self.name_bytes {
            return Err(Ended);
        }
        Ok(Some(Terms { tag: wire.tag.get(), name: wire.name }))
    }
}

/// Whether the other side still holds its end of a socket on which nothing more is said.
pub(crate) fn is_held(socket: &Descriptor) -> bool {
    loop {
        match rustix::net::recv(socket, &mut [0u8; 1][..], RecvFlags::PEEK) {
            Err(Errno::AGAIN) => return true,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return false,
        }
    }
}
