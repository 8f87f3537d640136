//! The functions that libfabric's headers define inline, over the tables of operations of its objects.
//!
//! Each does what the C function of the same name does, and returns what it returns (0 or a count, else a negative error).
//! A table without the operation gives `-ENOSYS`.
//!
//! # Safety
//!
//! For every function here: the object must be alive and of the library that [`crate::library`] loaded, pointers must be
//! valid for what the C function does with them, and buffers of operations must live until their completion or until their
//! endpoint was closed.
#![allow(clippy::missing_safety_doc)]

use std::ffi::{c_int, c_void};

use crate::bindings::*;

const NO_SUCH_OPERATION: c_int = -38;

macro_rules! call {
    ($table:expr, $operation:ident ( $($argument:expr),* )) => {{
        // SAFETY: the caller's contract: a live object has a valid table, whose first word is its size in bytes; tables of
        // older libraries may be shorter than ours.
        unsafe {
            let table = $table;
            let end = std::mem::offset_of!(Table, $operation) + size_of::<usize>();
            if table.is_null() || (*table).size < end {
                NO_SUCH_OPERATION as _
            } else {
                match (*table).$operation {
                    Some(operation) => operation($($argument),*),
                    None => NO_SUCH_OPERATION as _,
                }
            }
        }
    }};
}

macro_rules! inline {
    ($(#[$doc:meta])* $name:ident ( $object:ident : $type:ty $(, $argument:ident : $argument_type:ty)* ) -> $result:ty,
     $table_type:ident $($table:ident).+ , $operation:ident ( $($passed:expr),* )) => {
        $(#[$doc])*
        pub unsafe fn $name($object: $type $(, $argument: $argument_type)*) -> $result {
            type Table = $table_type;
            // SAFETY: the caller's contract: the object is alive.
            let table: *mut Table = unsafe { (*$object).$($table).+ };
            call!(table, $operation($($passed),*))
        }
    };
}

inline!(/// Closes an object.
    fi_close(fid: *mut fid) -> c_int, fi_ops ops, close(fid));
inline!(/// Passes a command, such as `FI_GETWAIT`.
    fi_control(fid: *mut fid, command: c_int, argument: *mut c_void) -> c_int,
    fi_ops ops, control(fid, command, argument));
inline!(/// Opens a domain.
    fi_domain(fabric: *mut fid_fabric, info: *mut fi_info, domain: *mut *mut fid_domain, context: *mut c_void) -> c_int,
    fi_ops_fabric ops, domain(fabric, info, domain, context));
inline!(/// Opens a passive endpoint.
    fi_passive_ep(fabric: *mut fid_fabric, info: *mut fi_info, pep: *mut *mut fid_pep, context: *mut c_void) -> c_int,
    fi_ops_fabric ops, passive_ep(fabric, info, pep, context));
inline!(/// Opens an event queue.
    fi_eq_open(fabric: *mut fid_fabric, attr: *mut fi_eq_attr, eq: *mut *mut fid_eq, context: *mut c_void) -> c_int,
    fi_ops_fabric ops, eq_open(fabric, attr, eq, context));
inline!(/// Whether one may block on the descriptors of these objects now.
    fi_trywait(fabric: *mut fid_fabric, fids: *mut *mut fid, count: c_int) -> c_int,
    fi_ops_fabric ops, trywait(fabric, fids, count));
inline!(/// Opens a completion queue.
    fi_cq_open(domain: *mut fid_domain, attr: *mut fi_cq_attr, cq: *mut *mut fid_cq, context: *mut c_void) -> c_int,
    fi_ops_domain ops, cq_open(domain, attr, cq, context));
inline!(/// Opens an address vector.
    fi_av_open(domain: *mut fid_domain, attr: *mut fi_av_attr, av: *mut *mut fid_av, context: *mut c_void) -> c_int,
    fi_ops_domain ops, av_open(domain, attr, av, context));
inline!(/// Puts addresses into an address vector; gives how many it took.
    fi_av_insert(av: *mut fid_av, addresses: *const c_void, count: usize, out: *mut fi_addr_t, flags: u64,
                 context: *mut c_void) -> c_int,
    fi_ops_av ops, insert(av, addresses, count, out, flags, context));
inline!(/// Takes addresses out of an address vector.
    fi_av_remove(av: *mut fid_av, addresses: *mut fi_addr_t, count: usize, flags: u64) -> c_int,
    fi_ops_av ops, remove(av, addresses, count, flags));
inline!(/// Opens an active endpoint.
    fi_endpoint(domain: *mut fid_domain, info: *mut fi_info, ep: *mut *mut fid_ep, context: *mut c_void) -> c_int,
    fi_ops_domain ops, endpoint(domain, info, ep, context));
inline!(/// Binds a queue to an endpoint.
    fi_ep_bind(ep: *mut fid_ep, to: *mut fid, flags: u64) -> c_int,
    fi_ops fid.ops, bind(&raw mut (*ep).fid, to, flags));
inline!(/// Binds an event queue to a passive endpoint.
    fi_pep_bind(pep: *mut fid_pep, to: *mut fid, flags: u64) -> c_int,
    fi_ops fid.ops, bind(&raw mut (*pep).fid, to, flags));
inline!(/// Makes an endpoint ready.
    fi_enable(ep: *mut fid_ep) -> c_int,
    fi_ops fid.ops, control(&raw mut (*ep).fid, FI_ENABLE as c_int, std::ptr::null_mut()));
inline!(/// Listens for connections.
    fi_listen(pep: *mut fid_pep) -> c_int, fi_ops_cm cm, listen(pep));
inline!(/// Refuses a connection.
    fi_reject(pep: *mut fid_pep, handle: fid_t, param: *const c_void, param_bytes: usize) -> c_int,
    fi_ops_cm cm, reject(pep, handle, param, param_bytes));
inline!(/// Asks for a connection.
    fi_connect(ep: *mut fid_ep, address: *const c_void, param: *const c_void, param_bytes: usize) -> c_int,
    fi_ops_cm cm, connect(ep, address, param, param_bytes));
inline!(/// Takes a connection.
    fi_accept(ep: *mut fid_ep, param: *const c_void, param_bytes: usize) -> c_int,
    fi_ops_cm cm, accept(ep, param, param_bytes));
inline!(/// Ends a connection.
    fi_shutdown(ep: *mut fid_ep, flags: u64) -> c_int, fi_ops_cm cm, shutdown(ep, flags));
inline!(/// The address of an endpoint of datagrams.
    fi_ep_getname(ep: *mut fid_ep, address: *mut c_void, address_bytes: *mut usize) -> c_int,
    fi_ops_cm cm, getname(&raw mut (*ep).fid, address, address_bytes));
inline!(/// The address of a passive endpoint.
    fi_getname(pep: *mut fid_pep, address: *mut c_void, address_bytes: *mut usize) -> c_int,
    fi_ops_cm cm, getname(&raw mut (*pep).fid, address, address_bytes));
inline!(/// Reads an event.
    fi_eq_read(eq: *mut fid_eq, event: *mut u32, buffer: *mut c_void, bytes: usize, flags: u64) -> isize,
    fi_ops_eq ops, read(eq, event, buffer, bytes, flags));
inline!(/// Reads an event that is an error.
    fi_eq_readerr(eq: *mut fid_eq, entry: *mut fi_eq_err_entry, flags: u64) -> isize,
    fi_ops_eq ops, readerr(eq, entry, flags));
inline!(/// Reads completions.
    fi_cq_read(cq: *mut fid_cq, buffer: *mut c_void, count: usize) -> isize, fi_ops_cq ops, read(cq, buffer, count));
inline!(/// Reads a completion that is an error.
    fi_cq_readerr(cq: *mut fid_cq, entry: *mut fi_cq_err_entry, flags: u64) -> isize,
    fi_ops_cq ops, readerr(cq, entry, flags));
inline!(/// Posts a buffer to receive into.
    fi_recv(ep: *mut fid_ep, buffer: *mut c_void, bytes: usize, context: *mut c_void) -> isize,
    fi_ops_msg msg, recv(ep, buffer, bytes, std::ptr::null_mut(), 0, context));
inline!(/// Sends a buffer.
    fi_send(ep: *mut fid_ep, buffer: *const c_void, bytes: usize, context: *mut c_void) -> isize,
    fi_ops_msg msg, send(ep, buffer, bytes, std::ptr::null_mut(), 0, context));
inline!(/// Sends one message made of several buffers.
    fi_sendv(ep: *mut fid_ep, iov: *const iovec, count: usize, context: *mut c_void) -> isize,
    fi_ops_msg msg, sendv(ep, iov, std::ptr::null_mut(), count, 0, context));
inline!(/// Posts a buffer for a message with this tag, from whomever.
    fi_trecv(ep: *mut fid_ep, buffer: *mut c_void, bytes: usize, tag: u64, context: *mut c_void) -> isize,
    fi_ops_tagged tagged, recv(ep, buffer, bytes, std::ptr::null_mut(), FI_ADDR_UNSPEC, tag, 0, context));
inline!(/// Sends a buffer with a tag.
    fi_tsend(ep: *mut fid_ep, buffer: *const c_void, bytes: usize, to: fi_addr_t, tag: u64, context: *mut c_void) -> isize,
    fi_ops_tagged tagged, send(ep, buffer, bytes, std::ptr::null_mut(), to, tag, context));
inline!(/// Sends one message made of several buffers with a tag.
    fi_tsendv(ep: *mut fid_ep, iov: *const iovec, count: usize, to: fi_addr_t, tag: u64, context: *mut c_void) -> isize,
    fi_ops_tagged tagged, sendv(ep, iov, std::ptr::null_mut(), count, to, tag, context));
inline!(/// Gives up the operation with this context, whose completion says so.
    fi_cancel(ep: *mut fid_ep, context: *mut c_void) -> isize,
    fi_ops_ep ops, cancel(&raw mut (*ep).fid, context));
