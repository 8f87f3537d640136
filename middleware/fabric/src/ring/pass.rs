//! Handing a fresh pair of rings to a client over its proved Unix socket.
//!
//! Owns the one message that carries the descriptors: the memory and the two doorbells.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FabricError;
use crate::poller::new_eventfd;
use crate::ring::layout::Geometry;
use crate::ring::mapping::Mapping;
use crate::socket::Dial;

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
    pub(crate) server_bell: OwnedFd,
    /// Rung by the server.
    pub(crate) client_bell: OwnedFd,
}

/// Makes rings and sends them; the client takes them or dies.
pub(crate) fn offer(socket: &OwnedFd, geometry: Geometry) -> io::Result<Parts> {
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
    Ok(Parts { mapping, geometry, server_bell, client_bell })
}

/// Receives the offer, within the dial's deadline.
pub(crate) fn take(dial: &mut Dial<'_>, socket: BorrowedFd<'_>) -> Result<Parts, FabricError> {
    let mut offer = Offer::new_zeroed();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut slices = [IoSliceMut::new(offer.as_mut_bytes())];
        match rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got.bytes,
            Err(Errno::AGAIN) => dial.wait(socket, PollFlags::IN)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(dial.io("receiving rings from", error)),
        }
    };
    if got == 0 {
        return Err(FabricError::Refused(dial.name.clone()));
    }
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
    Ok(Parts { mapping, geometry, server_bell, client_bell })
}
