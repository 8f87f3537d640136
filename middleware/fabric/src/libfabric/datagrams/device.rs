//! One endpoint of libfabric's reliable datagrams, with what it needs: opened once for all peers.
//!
//! Owns the raw pointers into libfabric. Must never close an object before those that were opened on it, and never let a buffer go that an
//! operation still has; the owners of the buffers keep them until its completion or the end of this endpoint.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, RawFd};

use talea_fabric_sys::bindings as fi;
use talea_fabric_sys::{Library, environment, ops};

use super::super::carrier::Carrier;
use super::super::device::{Completion, Info, Want, check, completions, failure, loaded, taken};
use super::super::sends::SENDS_MAX;
use super::super::ways::Ways;
use crate::FabricError;

/// Bytes of the longest address.
pub(crate) const NAME_BYTES: usize = fi::FI_NAME_MAX;
/// Completions that the queue holds at least; what is in flight over all peers stays below, or the provider makes it longer.
const CQ_ENTRIES: usize = 16 * 1024;
/// Of the sends that the endpoint still takes one peer may have one of so many in flight: those that do not read leave the others theirs.
const SHARE: usize = 8;

pub(crate) struct Device {
    lib: &'static Library,
    fabric: *mut fi::fid_fabric,
    domain: *mut fi::fid_domain,
    av: *mut fi::fid_av,
    cq: *mut fi::fid_cq,
    ep: *mut fi::fid_ep,
    fd: RawFd,
    name: Vec<u8>,
    /// Bits of tags that the provider compares.
    tag_mask: u64,
    /// Sends and receives that it takes.
    sends: usize,
    pub(crate) receives: usize,
    /// Sends that have not completed.
    in_flight: Cell<usize>,
}

// SAFETY: as for the device of connected endpoints: libfabric's objects belong to no thread, and all of a domain have one owner.
unsafe impl Send for Device {}

impl Drop for Device {
    fn drop(&mut self) {
        let close = |fid: *mut fi::fid| {
            if !fid.is_null() {
                // SAFETY: open, not closed before, and nothing that was opened on it is left.
                unsafe { ops::fi_close(fid) };
            }
        };
        // A fid is the first member of each of these structures.
        close(self.ep.cast());
        close(self.cq.cast());
        close(self.av.cast());
        close(self.domain.cast());
        close(self.fabric.cast());
    }
}

impl Device {
    /// Opens the provider's endpoint on the interface with this address.
    pub(crate) fn open(ways: &Ways, interface: &str) -> Result<Device, FabricError> {
        let lib = loaded()?;
        environment::with(ways.environment, || {
            let info = offered(lib, ways.provider, interface)?;
            Self::open_as(lib, &info)
        })
    }

    fn open_as(lib: &'static Library, info: &Info) -> Result<Device, FabricError> {
        let null: *mut c_void = std::ptr::null_mut();
        // SAFETY: the description is whole.
        let (sends, receives, format) = unsafe {
            let raw = info.raw;
            ((*(*raw).tx_attr).size, (*(*raw).rx_attr).size, (*(*raw).ep_attr).mem_tag_format)
        };
        let mut device = Device {
            lib,
            fabric: null.cast(),
            domain: null.cast(),
            av: null.cast(),
            cq: null.cast(),
            ep: null.cast(),
            fd: -1,
            name: vec![0; NAME_BYTES],
            tag_mask: u64::MAX.checked_shr(format.leading_zeros()).unwrap_or(0),
            sends,
            receives,
            in_flight: Cell::new(0),
        };
        // SAFETY: each object is opened on those before it, and closed by Device's drop.
        unsafe {
            let attr = (*info.raw).fabric_attr.cast();
            check(lib, "fi_fabric", (lib.fabric)(attr, &mut device.fabric, null))?;
            check(lib, "fi_domain", ops::fi_domain(device.fabric, info.raw, &mut device.domain, null))?;
            let mut av_attr: fi::fi_av_attr = std::mem::zeroed();
            av_attr.type_ = (*(*info.raw).domain_attr).av_type;
            check(lib, "fi_av_open", ops::fi_av_open(device.domain, &mut av_attr, &mut device.av, null))?;
            let mut cq_attr: fi::fi_cq_attr = std::mem::zeroed();
            cq_attr.size = CQ_ENTRIES;
            cq_attr.format = fi::FI_CQ_FORMAT_MSG;
            cq_attr.wait_obj = fi::FI_WAIT_FD;
            check(lib, "fi_cq_open", ops::fi_cq_open(device.domain, &mut cq_attr, &mut device.cq, null))?;
            check(lib, "fi_endpoint", ops::fi_endpoint(device.domain, info.raw, &mut device.ep, null))?;
            let both = u64::from(fi::FI_TRANSMIT | fi::FI_RECV);
            check(lib, "fi_ep_bind", ops::fi_ep_bind(device.ep, device.av.cast(), 0))?;
            check(lib, "fi_ep_bind", ops::fi_ep_bind(device.ep, device.cq.cast(), both))?;
            check(lib, "fi_enable", ops::fi_enable(device.ep))?;
            let code = ops::fi_control(device.cq.cast(), fi::FI_GETWAIT as _, (&raw mut device.fd).cast());
            check(lib, "fi_control(FI_GETWAIT)", code)?;
            let mut bytes = NAME_BYTES;
            let code = ops::fi_ep_getname(device.ep, device.name.as_mut_ptr().cast(), &mut bytes);
            check(lib, "fi_getname", code)?;
            device.name.truncate(bytes);
        }
        Ok(device)
    }

    /// The address that peers send to.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn tag_mask(&self) -> u64 {
        self.tag_mask
    }

    /// The descriptor to sleep on, after [`may_sleep`](Self::may_sleep) said yes.
    pub(crate) fn wait_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: libfabric keeps it open as long as the queue, which lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    pub(crate) fn may_sleep(&self) -> bool {
        let mut fids: [*mut fi::fid; 1] = [self.cq.cast()];
        // SAFETY: the fabric and the queue are open.
        unsafe { ops::fi_trywait(self.fabric, fids.as_mut_ptr(), 1) == 0 }
    }

    /// Takes completions, in order; false if there were none.
    pub(crate) fn completions(&self, out: &mut Vec<Completion>) -> bool {
        // SAFETY: the queue is open and was opened with FI_CQ_FORMAT_MSG.
        unsafe { completions(self.cq, out) }
    }

    /// A send has completed.
    pub(crate) fn sent(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// Makes a peer's address known, which is as long as ours.
    pub(crate) fn insert(&self, name: &[u8; NAME_BYTES]) -> Result<u64, FabricError> {
        let mut address = fi::FI_ADDR_UNSPEC;
        // SAFETY: the vector is open; the provider reads as many bytes as its own addresses have, at most NAME_BYTES.
        let took =
            unsafe { ops::fi_av_insert(self.av, name.as_ptr().cast(), 1, &mut address, 0, std::ptr::null_mut()) };
        match took {
            1 => Ok(address),
            code => Err(failure(self.lib, "fi_av_insert", code.min(-1).into())),
        }
    }

    /// Forgets a peer's address, and all that is on its way there unless somebody else uses it.
    pub(crate) fn remove(&self, mut address: u64) {
        // SAFETY: the vector is open; the address is one that it gave.
        unsafe { ops::fi_av_remove(self.av, &mut address, 1, 0) };
    }

    /// Asks for an operation to end, whose completion says that it has.
    pub(crate) fn cancel(&self, context: u64) {
        // SAFETY: the endpoint is open; a context that it does not know is no operation's.
        unsafe { ops::fi_cancel(self.ep, context as *mut c_void) };
    }
}

/// What the provider offers that we can use, or what it lacks.
fn offered(lib: &'static Library, provider: &str, interface: &str) -> Result<Info, FabricError> {
    let error = match Info::get(lib, provider, &Want::Datagrams { interface, lenient: false }) {
        Ok(info) => return Ok(info),
        Err(error) => error,
    };
    let why = match Info::get(lib, provider, &Want::Datagrams { interface, lenient: true }) {
        // SAFETY: the description is whole.
        Ok(info) => demands(unsafe { (*info.raw).mode }, unsafe { (*(*info.raw).domain_attr).mr_mode }),
        Err(_) => format!("offers no reliable datagrams with tags, in order, on {interface} ({error})"),
    };
    Err(FabricError::Unsupported("libfabric", format!("its provider {provider} {why}")))
}

/// What a provider asks for that we do not do.
fn demands(mode: u64, mr_mode: i32) -> String {
    let registers = (mr_mode & fi::FI_MR_LOCAL != 0).then_some("each buffer registered (FI_MR_LOCAL)");
    let context = (mode & (fi::FI_CONTEXT | fi::FI_CONTEXT2) != 0).then_some("memory for each operation (FI_CONTEXT)");
    let all: Vec<&str> = registers.into_iter().chain(context).collect();
    format!("wants {}, which this release does not do", if all.is_empty() { "more".into() } else { all.join(" and ") })
}

/// A peer's way in and out of the common endpoint.
pub(crate) struct Lane<'a> {
    pub(crate) device: &'a Device,
    /// Where its messages go, and with which tag.
    pub(crate) to: u64,
    pub(crate) tag_out: u64,
    /// The tag of what it sends.
    pub(crate) tag_in: u64,
}

impl Carrier for Lane<'_> {
    fn post(&self, buffer: &mut [u8], context: u64) -> Result<(), i64> {
        let (start, context) = (buffer.as_mut_ptr().cast(), context as *mut c_void);
        // SAFETY: the callers keep the buffer as the trait says; the mode bits that we asked for leave the context to us.
        match unsafe { ops::fi_trecv(self.device.ep, start, buffer.len(), self.tag_in, context) } {
            0 => Ok(()),
            code => Err(code as i64),
        }
    }

    fn send(&self, parts: &[&[u8]], context: u64) -> Result<bool, i64> {
        let (device, context) = (self.device, context as *mut c_void);
        let code = match parts {
            [whole] => {
                let start = whole.as_ptr().cast();
                // SAFETY: as for `post`.
                unsafe { ops::fi_tsend(device.ep, start, whole.len(), self.to, self.tag_out, context) }
            }
            [front, back] => {
                let iov = [front, back]
                    .map(|part| fi::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() as _ });
                // SAFETY: as for `post`; every provider of ours takes two pieces, and copies the list.
                unsafe { ops::fi_tsendv(device.ep, iov.as_ptr(), iov.len(), self.to, self.tag_out, context) }
            }
            _ => return Err(-i64::from(libc::EINVAL)),
        };
        taken(code).inspect(|took| device.in_flight.set(device.in_flight.get() + usize::from(*took)))
    }

    fn sends_max(&self) -> usize {
        let left = self.device.sends.saturating_sub(self.device.in_flight.get());
        (left / SHARE).clamp(1, SENDS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_leaves_others_their_sends() {
        let device = Device::open(&super::super::super::ways::TCP_DATAGRAMS, "127.0.0.1").unwrap();
        let lane = Lane { device: &device, to: 0, tag_out: 0, tag_in: 0 };
        assert!(device.sends > SHARE * SENDS_MAX);
        // Peers that are stopped take what they may, one after the other.
        let mut stopped = 0;
        while lane.sends_max() > 1 {
            device.in_flight.set(device.in_flight.get() + lane.sends_max());
            stopped += 1;
        }
        assert!(stopped > device.sends / SENDS_MAX && device.in_flight.get() < device.sends, "{stopped}");
    }

    #[test]
    fn what_a_provider_wants_is_named() {
        assert!(demands(0, fi::FI_MR_LOCAL).contains("FI_MR_LOCAL"));
        assert!(demands(fi::FI_CONTEXT2, 0).contains("FI_CONTEXT"));
        let both = demands(fi::FI_CONTEXT, fi::FI_MR_LOCAL);
        assert!(both.contains("FI_MR_LOCAL") && both.contains("FI_CONTEXT"));
    }
}
