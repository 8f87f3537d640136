//! Handing a fresh pair of rings to a client over its proved Unix socket.
//!
//! Owns the one message that carries the descriptors: the memory and the two doorbells.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FabricError;
use crate::descriptor::Descriptor;
use crate::dial::Dial;
use crate::poller::new_eventfd;
use crate::ring::layout::Geometry;
use crate::ring::mapping::Mapping;

const MAGIC: u64 = u64::from_le_bytes(*b"TALEARNG");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Offer {
    magic: U64,
    ring_bytes: U64,
    area_bytes: U64,
    reserved: U64,
}

/// What both sides of a connection have after the offer.
pub(crate) struct Parts {
    pub(crate) mapping: Mapping,
    pub(crate) geometry: Geometry,
    /// Rung by the client.
    pub(crate) server_bell: Descriptor,
    /// Rung by the server.
    pub(crate) client_bell: Descriptor,
}

/// Makes rings and sends them; the client takes them or dies.
pub(crate) fn offer(socket: &Descriptor, geometry: Geometry) -> io::Result<Parts> {
    let (mapping, memory) = Mapping::create(geometry.total_bytes())?;
    let (server_bell, client_bell) = (new_eventfd()?, new_eventfd()?);
    let offer = Offer {
        magic: MAGIC.into(),
        ring_bytes: (geometry.ring_bytes as u64).into(),
        area_bytes: (geometry.area_bytes as u64).into(),
        reserved: 0.into(),
    };
    let fds = [memory.as_fd(), server_bell.as_fd(), client_bell.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(offer.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    if sent != size_of::<Offer>() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(Parts { mapping, geometry, server_bell: server_bell.into(), client_bell: client_bell.into() })
}

/// Receives the offer over a proved connection; `None`: it is not there yet.
pub(crate) fn take(dial: &Dial) -> Result<Option<Parts>, FabricError> {
    let Some(socket) = dial.socket() else { return Err(dial.refused()) };
    let mut offer = Offer::new_zeroed();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut slices = [IoSliceMut::new(offer.as_mut_bytes())];
        match rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET | Errno::PIPE) => return Err(dial.refused()),
            Err(error) => return Err(dial.io("receiving rings from", error)),
        }
    };
    if got.bytes == 0 {
        return Err(dial.refused());
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        // The kernel has left out what this process has no room for.
        return Err(dial.io("taking rings from", Errno::MFILE));
    }
    let got = got.bytes;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the offer of rings is malformed");
    let geometry = Geometry::checked(offer.ring_bytes.get(), offer.area_bytes.get());
    let (Some(geometry), Ok([memory, server_bell, client_bell])) = (geometry, <[OwnedFd; 3]>::try_from(fds)) else {
        return Err(dial.io("taking rings from", malformed()));
    };
    if got != size_of::<Offer>() || offer.magic.get() != MAGIC {
        return Err(dial.io("taking rings from", malformed()));
    }
    let mapping =
        Mapping::open(&memory, geometry.total_bytes()).map_err(|error| dial.io("mapping rings from", error))?;
    Ok(Some(Parts { mapping, geometry, server_bell: server_bell.into(), client_bell: client_bell.into() }))
}
