//! libfabric's provider alone, at its best: one message there and one back between two processes, out of and into one buffer each
//! that stays in the caches, with both sides looking all the time.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use talea_fabric_sys::bindings as fi;
use talea_fabric_sys::library::API_VERSION;
use talea_fabric_sys::{Library, library, ops};

use crate::measure::{Floor, Samples};
use crate::worker::Worker;

/// The largest message.
const MOST_BYTES: usize = 1 << 20;

fn check(code: impl Into<i64>, what: &str) {
    let code = code.into();
    assert!(code >= 0, "{what}: {}", library().map(|lib| lib.explain(code)).unwrap_or_default());
}

/// What the provider offers at, or towards, an address.
fn info_of(lib: &Library, to: Option<&[u8]>) -> *mut fi::fi_info {
    let mut found = null_mut();
    // SAFETY: the description is made and freed by libfabric, and what is put into it comes from malloc; out parameters are ours.
    unsafe {
        let hints = (lib.dupinfo)(null());
        (*hints).caps = fi::FI_MSG.into();
        (*(*hints).ep_attr).type_ = fi::FI_EP_MSG;
        (*(*hints).fabric_attr).prov_name = libc_copy(b"tcp\0").cast();
        let (node, flags) = match to {
            None => (c"127.0.0.1".as_ptr(), fi::FI_SOURCE),
            Some(name) => {
                (*hints).dest_addr = libc_copy(name);
                (*hints).dest_addrlen = name.len();
                (null(), 0)
            }
        };
        check((lib.getinfo)(API_VERSION, node, null(), flags, hints, &mut found), "fi_getinfo");
        (lib.freeinfo)(hints);
    }
    found
}

unsafe extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
}

/// Bytes in memory that libfabric may free.
fn libc_copy(bytes: &[u8]) -> *mut c_void {
    // SAFETY: malloc gives so many bytes, or null, which is looked for.
    unsafe {
        let copy = malloc(bytes.len());
        assert!(!copy.is_null());
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast(), bytes.len());
        copy
    }
}

/// One end; what it opens lives as long as the process.
struct Side {
    fabric: *mut fi::fid_fabric,
    eq: *mut fi::fid_eq,
    cq: *mut fi::fid_cq,
    ep: *mut fi::fid_ep,
    memory: Vec<u8>,
}

impl Side {
    fn open(lib: &Library, info: *mut fi::fi_info) -> Side {
        let mut side =
            Side { fabric: null_mut(), eq: null_mut(), cq: null_mut(), ep: null_mut(), memory: vec![1; MOST_BYTES] };
        // SAFETY: the description is whole, zeros are valid attributes, and out parameters are ours.
        unsafe {
            check((lib.fabric)((*info).fabric_attr.cast(), &mut side.fabric, null_mut()), "fi_fabric");
            let mut attr: fi::fi_eq_attr = std::mem::zeroed();
            attr.wait_obj = fi::FI_WAIT_FD;
            check(ops::fi_eq_open(side.fabric, &mut attr, &mut side.eq, null_mut()), "fi_eq_open");
        }
        side
    }

    /// Opens the endpoint of a connection.
    fn endpoint(&mut self, info: *mut fi::fi_info) {
        let mut domain = null_mut();
        // SAFETY: as in `open`.
        unsafe {
            check(ops::fi_domain(self.fabric, info, &mut domain, null_mut()), "fi_domain");
            let mut attr: fi::fi_cq_attr = std::mem::zeroed();
            (attr.format, attr.wait_obj) = (fi::FI_CQ_FORMAT_MSG, fi::FI_WAIT_NONE);
            check(ops::fi_cq_open(domain, &mut attr, &mut self.cq, null_mut()), "fi_cq_open");
            check(ops::fi_endpoint(domain, info, &mut self.ep, null_mut()), "fi_endpoint");
            check(ops::fi_ep_bind(self.ep, self.eq.cast(), 0), "fi_ep_bind");
            let both = u64::from(fi::FI_TRANSMIT | fi::FI_RECV);
            check(ops::fi_ep_bind(self.ep, self.cq.cast(), both), "fi_ep_bind");
            check(ops::fi_enable(self.ep), "fi_enable");
        }
    }

    /// Waits for an event; gives what is known of who asks for a connection.
    fn event(&self, wanted: u32) -> *mut fi::fi_info {
        loop {
            let (mut kind, mut buffer) = (0, [0u64; 128]);
            let bytes = size_of_val(&buffer);
            // SAFETY: the queue is open; the buffer is aligned for an event and as long as said.
            let got = unsafe { ops::fi_eq_read(self.eq, &mut kind, buffer.as_mut_ptr().cast(), bytes, 0) };
            if got > 0 {
                assert_eq!(kind, wanted);
                // SAFETY: libfabric wrote an event of connections.
                return unsafe { (*buffer.as_ptr().cast::<fi::fi_eq_cm_entry>()).info };
            }
            rustix::thread::sched_yield();
        }
    }

    /// Waits for so many completions; false: the other end is gone.
    fn complete(&self, mut count: usize) -> bool {
        while count > 0 {
            let mut entry = fi::fi_cq_msg_entry { op_context: null_mut(), flags: 0, len: 0 };
            // SAFETY: the queue is open and of this format; there is room for one entry.
            match unsafe { ops::fi_cq_read(self.cq, (&raw mut entry).cast(), 1) } {
                1 => count -= 1,
                got if got == -(fi::FI_EAGAIN as isize) => rustix::thread::sched_yield(),
                _ => return false,
            }
        }
        true
    }

    fn receive(&mut self, bytes: usize) {
        // SAFETY: the buffer lives as long as the endpoint, and is looked at by nobody.
        let code = unsafe { ops::fi_recv(self.ep, self.memory.as_mut_ptr().cast(), bytes, null_mut()) };
        check(code as i64, "fi_recv");
    }

    fn send(&mut self, bytes: usize) {
        // SAFETY: as in `receive`.
        let code = unsafe { ops::fi_send(self.ep, self.memory.as_ptr().cast(), bytes, null_mut()) };
        check(code as i64, "fi_send");
    }
}

/// The other end.
pub(crate) fn pong(there: usize, back: usize) {
    let lib = library().expect("libfabric");
    let info = info_of(lib, None);
    let mut side = Side::open(lib, info);
    let (mut pep, mut name, mut bytes) = (null_mut(), [0u8; 256], 256);
    // SAFETY: as in `open`; the name's buffer is as long as said.
    unsafe {
        check(ops::fi_passive_ep(side.fabric, info, &mut pep, null_mut()), "fi_passive_ep");
        check(ops::fi_pep_bind(pep, side.eq.cast(), 0), "fi_pep_bind");
        check(ops::fi_listen(pep), "fi_listen");
        check(ops::fi_getname(pep, name.as_mut_ptr().cast(), &mut bytes), "fi_getname");
    }
    println!("{}", name[..bytes].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let request = side.event(fi::FI_CONNREQ);
    side.endpoint(request);
    side.receive(there);
    // SAFETY: opened with the request's description.
    check(unsafe { ops::fi_accept(side.ep, null(), 0) }, "fi_accept");
    side.event(fi::FI_CONNECTED);
    while side.complete(1) {
        side.receive(there);
        side.send(back);
        if !side.complete(1) {
            break;
        }
    }
}

/// Round trips of `there` bytes one way and `back` bytes the other, in nanoseconds.
pub(crate) fn ping_pong(there: usize, back: usize, count: usize) -> Floor {
    let (_worker, said) = Worker::start(&["provider".into(), there.to_string(), back.to_string()]);
    let digits = |at| said.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let name: Vec<u8> = (0..said.len()).step_by(2).filter_map(digits).collect();
    let lib = library().expect("libfabric");
    let info = info_of(lib, Some(&name));
    let mut side = Side::open(lib, info);
    side.endpoint(info);
    // SAFETY: the description carries the address that it was asked for.
    check(unsafe { ops::fi_connect(side.ep, (*info).dest_addr, null(), 0) }, "fi_connect");
    side.event(fi::FI_CONNECTED);
    let mut round = |_| {
        side.receive(back);
        side.send(there);
        assert!(side.complete(2), "the other end is there");
    };
    Samples::take(count / 10, &mut round);
    let samples = Samples::take(count, round);
    // SAFETY: connected; nothing is in flight.
    unsafe { ops::fi_shutdown(side.ep, 0) };
    Floor {
        name: format!("libfabric's tcp alone, one message of {there} B and one of {back} B"),
        value: samples.median(),
    }
}
