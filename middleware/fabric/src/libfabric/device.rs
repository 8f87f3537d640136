//! libfabric's objects with owners: what opens, closes and reads them.
//!
//! Owns every raw pointer into libfabric. Must never close an object before those that were opened on it, and never free a
//! buffer of an operation before its completion or the end of its endpoint; the types' owners keep that order.

use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::AtomicBool;

use talea_fabric_sys::bindings as fi;
use talea_fabric_sys::library::API_VERSION;
use talea_fabric_sys::{Library, library, ops};

use super::carrier::Carrier;
use super::signals;
use crate::FabricError;

/// Completions that the queue holds; what is in flight over all peers stays below.
const CQ_ENTRIES: usize = 16 * 1024;
/// Room for an event and the parameter of a connection request, in words of 8 bytes.
const EVENT_WORDS: usize = 128;

/// What providers may ask of those who register memory, but for what is only old (`FI_MR_BASIC`, `FI_MR_SCALABLE`): bits 2 to 9.
const MR_ANY: i32 = 0x3fc;

/// A list of libfabric's descriptions of what it can open.
pub(crate) struct Info {
    pub(crate) lib: &'static Library,
    pub(crate) raw: *mut fi::fi_info,
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: made by fi_getinfo or fi_dupinfo or given to us by a connection request, and not freed before.
        unsafe { (self.lib.freeinfo)(self.raw) };
    }
}

/// Which description to ask for.
pub(crate) enum Want<'a> {
    /// To listen on this interface's address.
    Listen(&'a str),
    /// To connect to this raw address.
    Connect(&'a [u8]),
    /// Reliable datagrams with tags, on this interface's address; whatever else the provider demands, if `lenient`.
    Datagrams { interface: &'a str, lenient: bool },
}

pub(crate) fn loaded() -> Result<&'static Library, FabricError> {
    static LOADED: AtomicBool = AtomicBool::new(false);
    let _signals = signals::keep(&LOADED);
    library().map_err(|error| FabricError::Unsupported("libfabric", error.to_string()))
}

pub(crate) fn failure(lib: &Library, what: &str, code: i64) -> FabricError {
    let source = io::Error::other(lib.explain(code));
    FabricError::Io { context: format!("libfabric {what}"), source }
}

pub(crate) fn check(lib: &Library, what: &str, code: i32) -> Result<(), FabricError> {
    if code == 0 { Ok(()) } else { Err(failure(lib, what, code.into())) }
}

impl Info {
    /// What `provider` offers.
    pub(crate) fn get(lib: &'static Library, provider: &str, want: &Want<'_>) -> Result<Info, FabricError> {
        static ASKED: AtomicBool = AtomicBool::new(false);
        let _signals = signals::keep(&ASKED);
        // SAFETY: of null, fi_dupinfo allocates an empty description with all its parts.
        let raw = unsafe { (lib.dupinfo)(std::ptr::null()) };
        if raw.is_null() {
            return Err(failure(lib, "fi_allocinfo", libc::ENOMEM.into()));
        }
        let hints = Info { lib, raw };
        let provider = CString::new(provider).map_err(|_| failure(lib, "fi_getinfo", libc::EINVAL.into()))?;
        let mut node = None;
        let mut flags = 0;
        // SAFETY: the description and its parts were allocated just now and are ours; what fi_freeinfo frees in them comes
        // from malloc.
        unsafe {
            let is_rdm = matches!(want, Want::Datagrams { .. });
            (*raw).caps = if is_rdm { fi::FI_TAGGED } else { fi::FI_MSG }.into();
            (*(*raw).ep_attr).type_ = if is_rdm { fi::FI_EP_RDM } else { fi::FI_EP_MSG };
            (*(*raw).domain_attr).threading = fi::FI_THREAD_DOMAIN;
            (*(*raw).domain_attr).data_progress = fi::FI_PROGRESS_MANUAL;
            (*(*raw).domain_attr).control_progress = fi::FI_PROGRESS_MANUAL;
            (*(*raw).fabric_attr).prov_name = libc::strdup(provider.as_ptr());
            match want {
                Want::Listen(interface) => {
                    node = CString::new(*interface).ok();
                    flags = fi::FI_SOURCE;
                }
                Want::Datagrams { interface, lenient } => {
                    node = CString::new(*interface).ok();
                    flags = fi::FI_SOURCE;
                    (*(*raw).tx_attr).msg_order = fi::FI_ORDER_SAS;
                    (*(*raw).rx_attr).msg_order = fi::FI_ORDER_SAS;
                    (*(*raw).domain_attr).resource_mgmt = fi::FI_RM_ENABLED;
                    // Nothing is registered for others to reach: how they would is all one to us.
                    (*(*raw).domain_attr).mr_mode = if *lenient { MR_ANY } else { MR_ANY & !fi::FI_MR_LOCAL };
                    (*raw).mode = if *lenient { fi::FI_CONTEXT | fi::FI_CONTEXT2 } else { 0 };
                }
                Want::Connect(name) => {
                    let address = libc::malloc(name.len().max(1));
                    if !address.is_null() {
                        std::ptr::copy_nonoverlapping(name.as_ptr(), address.cast(), name.len());
                        (*raw).dest_addr = address;
                        (*raw).dest_addrlen = name.len();
                    }
                }
            }
        }
        let mut found = std::ptr::null_mut();
        let node = node.as_ref().map_or(std::ptr::null(), |node| node.as_ptr());
        // SAFETY: node is null or a C string; the hints live until the call returned; found is an out parameter.
        let code = unsafe { (lib.getinfo)(API_VERSION, node, std::ptr::null(), flags, hints.raw, &mut found) };
        check(lib, "fi_getinfo", code)?;
        Ok(Info { lib, raw: found })
    }
}

/// Takes completions of a queue, in order; false if there were none.
///
/// # Safety
///
/// The queue is open and of `FI_CQ_FORMAT_MSG`.
pub(crate) unsafe fn completions(cq: *mut fi::fid_cq, out: &mut Vec<Completion>) -> bool {
    const BATCH: usize = 16;
    let mut entries: [fi::fi_cq_msg_entry; BATCH] =
        std::array::from_fn(|_| fi::fi_cq_msg_entry { op_context: std::ptr::null_mut(), flags: 0, len: 0 });
    // SAFETY: the caller's contract; the buffer has room for BATCH entries.
    let got = unsafe { ops::fi_cq_read(cq, entries.as_mut_ptr().cast(), BATCH) };
    if let Ok(count @ 1..) = usize::try_from(got) {
        let taken = entries.iter().take(count);
        out.extend(taken.map(|e| Completion { context: e.op_context as u64, bytes: e.len, failed: false }));
        return true;
    }
    if got != -(fi::FI_EAVAIL as isize) {
        return false;
    }
    // SAFETY: plain data for which zero is valid.
    let mut entry: fi::fi_cq_err_entry = unsafe { std::mem::zeroed() };
    // SAFETY: the queue is open; the entry is an out parameter.
    if unsafe { ops::fi_cq_readerr(cq, &mut entry, 0) } <= 0 {
        return false;
    }
    out.push(Completion { context: entry.op_context as u64, bytes: 0, failed: true });
    true
}

/// A fabric, a domain and their queues: what one endpoint of ours opens once.
pub(crate) struct Device {
    lib: &'static Library,
    fabric: *mut fi::fid_fabric,
    domain: *mut fi::fid_domain,
    eq: *mut fi::fid_eq,
    cq: *mut fi::fid_cq,
    fds: [RawFd; 2],
}

// SAFETY: libfabric's objects belong to no thread; FI_THREAD_DOMAIN asks that one thread at a time uses what is of one
// domain, and a device and all that is opened on it have one owner.
unsafe impl Send for Device {}
// SAFETY: as above; descriptions are plain memory.
unsafe impl Send for Info {}

impl Drop for Device {
    fn drop(&mut self) {
        let close = |fid: *mut fi::fid| {
            if !fid.is_null() {
                // SAFETY: open, not closed before, and nothing that was opened on it is left.
                unsafe { ops::fi_close(fid) };
            }
        };
        // A fid is the first member of each of these structures.
        close(self.cq.cast());
        close(self.domain.cast());
        close(self.eq.cast());
        close(self.fabric.cast());
    }
}

/// What a completion says.
pub(crate) struct Completion {
    pub(crate) context: u64,
    pub(crate) bytes: usize,
    pub(crate) failed: bool,
}

/// What the event queue says.
pub(crate) enum Connection {
    Requested { info: Info, param: Vec<u8> },
    Connected { ep: usize, param: Vec<u8> },
    Ended { ep: usize },
    Failed { ep: usize, code: i32, param: Vec<u8> },
}

impl Device {
    pub(crate) fn open(info: &Info) -> Result<Device, FabricError> {
        let lib = info.lib;
        let null: *mut c_void = std::ptr::null_mut();
        let mut device =
            Device { lib, fabric: null.cast(), domain: null.cast(), eq: null.cast(), cq: null.cast(), fds: [-1; 2] };
        // SAFETY: the description is whole; each object is opened on the one before and closed by Device's drop.
        unsafe {
            let attr = (*info.raw).fabric_attr.cast();
            check(lib, "fi_fabric", (lib.fabric)(attr, &mut device.fabric, null))?;
            let mut eq_attr: fi::fi_eq_attr = std::mem::zeroed();
            eq_attr.wait_obj = fi::FI_WAIT_FD;
            check(lib, "fi_eq_open", ops::fi_eq_open(device.fabric, &mut eq_attr, &mut device.eq, null))?;
            check(lib, "fi_domain", ops::fi_domain(device.fabric, info.raw, &mut device.domain, null))?;
            let mut cq_attr: fi::fi_cq_attr = std::mem::zeroed();
            cq_attr.size = CQ_ENTRIES;
            cq_attr.format = fi::FI_CQ_FORMAT_MSG;
            cq_attr.wait_obj = fi::FI_WAIT_FD;
            check(lib, "fi_cq_open", ops::fi_cq_open(device.domain, &mut cq_attr, &mut device.cq, null))?;
            for (fd, fid) in device.fds.iter_mut().zip([device.eq.cast(), device.cq.cast()]) {
                let code = ops::fi_control(fid, fi::FI_GETWAIT as _, (&raw mut *fd).cast());
                check(lib, "fi_control(FI_GETWAIT)", code)?;
            }
        }
        Ok(device)
    }

    pub(crate) fn lib(&self) -> &'static Library {
        self.lib
    }

    /// The descriptors to sleep on, after [`may_sleep`](Self::may_sleep) said yes.
    pub(crate) fn wait_fds(&self) -> [BorrowedFd<'_>; 2] {
        // SAFETY: libfabric keeps them open as long as the queues, which live as long as `self`.
        self.fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    pub(crate) fn may_sleep(&self) -> bool {
        let mut fids: [*mut fi::fid; 2] = [self.eq.cast(), self.cq.cast()];
        // SAFETY: the fabric and both queues are open.
        unsafe { ops::fi_trywait(self.fabric, fids.as_mut_ptr(), 2) == 0 }
    }

    /// Takes completions, in order; false if there were none.
    pub(crate) fn completions(&self, out: &mut Vec<Completion>) -> bool {
        // SAFETY: the queue is open and was opened with FI_CQ_FORMAT_MSG.
        unsafe { completions(self.cq, out) }
    }

    /// The next event of connections.
    pub(crate) fn event(&self) -> Option<Connection> {
        let mut buffer = [0u64; EVENT_WORDS];
        let mut kind = 0;
        // SAFETY: the queue is open; the buffer is aligned for an event and as long as said.
        let got = unsafe { ops::fi_eq_read(self.eq, &mut kind, buffer.as_mut_ptr().cast(), size_of_val(&buffer), 0) };
        if got == -(fi::FI_EAVAIL as isize) {
            return self.failed_event();
        }
        let head = size_of::<fi::fi_eq_cm_entry>();
        let bytes = usize::try_from(got).ok().filter(|bytes| *bytes >= head)?;
        // SAFETY: libfabric wrote an fi_eq_cm_entry with `bytes - head` bytes of parameter after it.
        let (entry, param) = unsafe {
            let entry: *const fi::fi_eq_cm_entry = buffer.as_ptr().cast();
            let param = buffer.as_ptr().cast::<u8>().add(head);
            (&*entry, std::slice::from_raw_parts(param, bytes.min(size_of_val(&buffer)) - head).to_vec())
        };
        let ep = entry.fid as usize;
        match kind {
            fi::FI_CONNREQ => Some(Connection::Requested { info: Info { lib: self.lib, raw: entry.info }, param }),
            fi::FI_CONNECTED => Some(Connection::Connected { ep, param }),
            _ => Some(Connection::Ended { ep }),
        }
    }

    fn failed_event(&self) -> Option<Connection> {
        // SAFETY: plain data for which zero is valid.
        let mut entry: fi::fi_eq_err_entry = unsafe { std::mem::zeroed() };
        // SAFETY: the queue is open; the entry is an out parameter.
        if unsafe { ops::fi_eq_readerr(self.eq, &mut entry, 0) } <= 0 {
            return None;
        }
        let mut param = Vec::new();
        if !entry.err_data.is_null() && entry.err_data_size > 0 {
            // SAFETY: valid until the next read of the queue, by fi_eq(3).
            param = unsafe { std::slice::from_raw_parts(entry.err_data.cast::<u8>(), entry.err_data_size) }.to_vec();
        }
        Some(Connection::Failed { ep: entry.fid as usize, code: entry.err, param })
    }
}

/// A listening endpoint; to be dropped before its device.
pub(crate) struct Listener {
    lib: &'static Library,
    pep: *mut fi::fid_pep,
}

// SAFETY: as for Device.
unsafe impl Send for Listener {}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: open, and its queue too.
        unsafe { ops::fi_close(self.pep.cast()) };
    }
}

impl Listener {
    pub(crate) fn open(device: &Device, info: &Info) -> Result<Listener, FabricError> {
        let lib = device.lib;
        let mut pep = std::ptr::null_mut();
        // SAFETY: the fabric is open and the description whole; pep is an out parameter.
        let code = unsafe { ops::fi_passive_ep(device.fabric, info.raw, &mut pep, std::ptr::null_mut()) };
        check(lib, "fi_passive_ep", code)?;
        let listener = Listener { lib, pep };
        // SAFETY: both are open.
        check(lib, "fi_pep_bind", unsafe { ops::fi_pep_bind(pep, device.eq.cast(), 0) })?;
        // SAFETY: bound to an event queue.
        check(lib, "fi_listen", unsafe { ops::fi_listen(pep) })?;
        Ok(listener)
    }

    /// The raw address to publish.
    pub(crate) fn name(&self) -> Result<Vec<u8>, FabricError> {
        let mut name = vec![0u8; 256];
        let mut bytes = name.len();
        // SAFETY: the buffer is as long as said; bytes is in and out.
        let code = unsafe { ops::fi_getname(self.pep, name.as_mut_ptr().cast(), &mut bytes) };
        check(self.lib, "fi_getname", code)?;
        name.truncate(bytes);
        Ok(name)
    }

    /// Refuses a request, with a parameter for those who have earned one.
    pub(crate) fn reject(&self, info: &Info, param: &[u8]) {
        let data = if param.is_empty() { std::ptr::null() } else { param.as_ptr().cast::<c_void>() };
        // SAFETY: the handle is of a request that was neither accepted nor refused yet.
        unsafe { ops::fi_reject(self.pep, (*info.raw).handle, data, param.len()) };
    }
}

/// A connected (or connecting) endpoint; to be dropped before its buffers and its device.
pub(crate) struct Active {
    lib: &'static Library,
    ep: *mut fi::fid_ep,
}

// SAFETY: as for Device.
unsafe impl Send for Active {}

impl Drop for Active {
    fn drop(&mut self) {
        // SAFETY: open; tcp ends all its operations before this returns.
        unsafe {
            ops::fi_shutdown(self.ep, 0);
            ops::fi_close(self.ep.cast());
        }
    }
}

impl Active {
    pub(crate) fn open(device: &Device, info: &Info) -> Result<Active, FabricError> {
        let lib = device.lib;
        let mut ep = std::ptr::null_mut();
        // SAFETY: the domain is open and the description whole; ep is an out parameter.
        let code = unsafe { ops::fi_endpoint(device.domain, info.raw, &mut ep, std::ptr::null_mut()) };
        check(lib, "fi_endpoint", code)?;
        let active = Active { lib, ep };
        let both = u64::from(fi::FI_TRANSMIT | fi::FI_RECV);
        // SAFETY: the endpoint and both queues are open.
        unsafe {
            check(lib, "fi_ep_bind", ops::fi_ep_bind(ep, device.eq.cast(), 0))?;
            check(lib, "fi_ep_bind", ops::fi_ep_bind(ep, device.cq.cast(), both))?;
            check(lib, "fi_enable", ops::fi_enable(ep))?;
        }
        Ok(active)
    }

    /// What events call this endpoint.
    pub(crate) fn id(&self) -> usize {
        self.ep as usize
    }

    pub(crate) fn connect(&self, info: &Info, param: &[u8]) -> Result<(), FabricError> {
        // SAFETY: the description carries the address that it was asked for; libfabric copies the parameter.
        let code = unsafe { ops::fi_connect(self.ep, (*info.raw).dest_addr, param.as_ptr().cast(), param.len()) };
        check(self.lib, "fi_connect", code)
    }

    pub(crate) fn accept(&self, param: &[u8]) -> Result<(), FabricError> {
        // SAFETY: opened with a request's description; libfabric copies the parameter.
        check(self.lib, "fi_accept", unsafe { ops::fi_accept(self.ep, param.as_ptr().cast(), param.len()) })
    }
}

impl Carrier for Active {
    fn post(&self, buffer: &mut [u8], context: u64) -> Result<(), i64> {
        // SAFETY: the callers keep the buffer as said; the mode bits that we asked for leave the context to us.
        let code = unsafe { ops::fi_recv(self.ep, buffer.as_mut_ptr().cast(), buffer.len(), context as *mut c_void) };
        if code == 0 { Ok(()) } else { Err(code as i64) }
    }

    fn send(&self, parts: &[&[u8]], context: u64) -> Result<bool, i64> {
        let context = context as *mut c_void;
        let code = match parts {
            // SAFETY: as for `post`.
            [whole] => unsafe { ops::fi_send(self.ep, whole.as_ptr().cast(), whole.len(), context) },
            [front, back] => {
                let iov = [front, back]
                    .map(|part| fi::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() as _ });
                // SAFETY: as for `post`; every provider of ours takes two pieces, and copies the list.
                unsafe { ops::fi_sendv(self.ep, iov.as_ptr(), iov.len(), context) }
            }
            _ => return Err(-i64::from(libc::EINVAL)),
        };
        taken(code)
    }
}

/// Whether the provider took an operation; false: not now.
pub(crate) fn taken(code: isize) -> Result<bool, i64> {
    match code {
        0 => Ok(true),
        code if code == -(fi::FI_EAGAIN as isize) => Ok(false),
        code => Err(code as i64),
    }
}
