//! Containers.

use std::ffi::{c_char, c_int, c_void};

use talea_client::{Container, ContainerProperties, Lagging, ProducerState};
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::system::SYSTEMS;
use super::types::{
    TALEA_LAGGING_BLOCK, TALEA_LAGGING_DROP, TALEA_LAGGING_KEEP, talea_container_info_t, talea_container_t,
    talea_name_fn, talea_system_t,
};
use crate::boundary::{argument, place, public, put, text};
use crate::handles::Handles;

pub(crate) static CONTAINERS: Handles<talea_container_t, Container> = Handles::new("container");

/// Makes a container and opens it; one that exists is opened if `exist_ok` is not 0, else it is TALEA_EXISTS.
///
/// # Safety
/// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_create(
    system: *mut talea_system_t,
    name: *const c_char,
    exist_ok: c_int,
    out: *mut *mut talea_container_t,
) -> c_int {
    // SAFETY: the caller's contract.
    public(|| unsafe { create(system, name, exist_ok, ContainerProperties::default(), out) })
}

/// # Safety
/// That of the functions which call it.
unsafe fn create(
    system: *mut talea_system_t,
    name: *const c_char,
    exist_ok: c_int,
    properties: ContainerProperties,
    out: *mut *mut talea_container_t,
) -> Result<(), Fault> {
    place(out, "container")?;
    let system = SYSTEMS.get(system)?;
    // SAFETY: the caller's contract.
    let name = unsafe { text(name, "container's name") }?;
    let made = system.client.container_create(name, properties, exist_ok != 0).map_err(fault)?;
    // SAFETY: checked above, valid by the caller's contract.
    unsafe { put(out, CONTAINERS.add(made), "container") }
}

/// As talea_container_create(), for a container that keeps the last `kept_steps` steps (0: as many as others), and with what
/// happens when a follower is further behind: TALEA_LAGGING_KEEP, _DROP or _BLOCK. One that exists stays as it is.
///
/// # Safety
/// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_create_keeping(
    system: *mut talea_system_t,
    name: *const c_char,
    exist_ok: c_int,
    kept_steps: u64,
    lagging: u32,
    out: *mut *mut talea_container_t,
) -> c_int {
    public(|| {
        let lagging = match lagging {
            TALEA_LAGGING_KEEP => Lagging::Keep,
            TALEA_LAGGING_DROP => Lagging::Drop,
            TALEA_LAGGING_BLOCK => Lagging::Block,
            other => {
                let text = format!("{other} says nothing of lagging: take TALEA_LAGGING_KEEP, _DROP or _BLOCK");
                return Err(argument(text));
            }
        };
        let mut properties = ContainerProperties { lagging, ..ContainerProperties::default() };
        if kept_steps > 0 {
            properties.kept_steps = kept_steps;
        }
        // SAFETY: the caller's contract.
        unsafe { create(system, name, exist_ok, properties, out) }
    })
}

/// Opens a container by name.
///
/// # Safety
/// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_open(
    system: *mut talea_system_t,
    name: *const c_char,
    out: *mut *mut talea_container_t,
) -> c_int {
    public(|| {
        place(out, "container")?;
        let system = SYSTEMS.get(system)?;
        // SAFETY: the caller's contract.
        let opened = system.client.container_open(unsafe { text(name, "container's name") }?).map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, CONTAINERS.add(opened), "container") }
    })
}

/// Closes a container. Epochs, snapshots and subscriptions opened through it stay open. A null pointer is fine.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_close(container: *mut talea_container_t) {
    if !container.is_null() {
        public(|| CONTAINERS.remove(container).map(drop));
    }
}

/// Destroys a container and all it holds.
///
/// # Safety
/// `name` is NUL-terminated; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_destroy(system: *mut talea_system_t, name: *const c_char) -> c_int {
    public(|| {
        let system = SYSTEMS.get(system)?;
        // SAFETY: the caller's contract.
        let container = system.client.container_open(unsafe { text(name, "container's name") }?).map_err(fault)?;
        system.client.container_destroy(container.id()).map_err(fault)
    })
}

/// Gives the names of all containers to `each`.
///
/// # Safety
/// `each` is a function that can be called with `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_list(
    system: *mut talea_system_t,
    each: talea_name_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let each = each.ok_or_else(|| argument("no function to give the names to"))?;
        for info in SYSTEMS.get(system)?.client.container_list().map_err(fault)? {
            // SAFETY: the caller's contract; the name lives through the call.
            if unsafe { each(context, info.name.as_ptr().cast(), info.name.len()) } != 0 {
                break;
            }
        }
        Ok(())
    })
}

/// Tells the state of a container.
///
/// # Safety
/// `info` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_container_query(
    container: *mut talea_container_t,
    info: *mut talea_container_info_t,
) -> c_int {
    public(|| {
        place(info, "information")?;
        let usage = CONTAINERS.get(container)?.query().map_err(fault)?;
        let told = talea_container_info_t {
            servers: usage.servers as u64,
            targets: usage.targets as u64,
            steps: usage.info.step.0,
            open_epochs: usage.info.open_transactions,
            pending_updates: usage.pending_updates,
            bytes_written: usage.bytes_written,
        };
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(info, told, "information") }
    })
}

/// Says that no step will follow in this container: its followers get TALEA_END when they have received all.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_produce_end(container: *mut talea_container_t) -> c_int {
    public(|| CONTAINERS.get(container)?.producer(ProducerState::Ended).map_err(fault))
}
