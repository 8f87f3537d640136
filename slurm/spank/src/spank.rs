//! The part of Slurm's SPANK interface (slurm/spank.h) that the plugin uses. `slurm-spank` 0.3 and later needs functions that
//! Slurm has since 23.11; this serves 22.05, too, whose layout of these types has not changed since.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

/// A handle that Slurm gives.
pub(crate) type Raw = *mut c_void;

const CONTEXT_LOCAL: c_uint = 1;
const CONTEXT_REMOTE: c_uint = 2;
const CONTEXT_ALLOCATOR: c_uint = 3;
const ITEM_STEP: c_uint = 3;
const ITEM_ARGUMENTS: c_uint = 9;
const ITEM_ENVIRONMENT: c_uint = 10;

#[repr(C)]
struct SpankOption {
    name: *const c_char,
    arginfo: *const c_char,
    usage: *const c_char,
    has_arg: c_int,
    val: c_int,
    cb: Option<extern "C" fn(c_int, *const c_char, c_int) -> c_int>,
}

unsafe extern "C" {
    fn spank_context() -> c_uint;
    fn spank_option_register(spank: Raw, option: *mut SpankOption) -> c_int;
    fn spank_get_item(spank: Raw, item: c_uint, ...) -> c_int;
    fn spank_setenv(spank: Raw, name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int;
    fn slurm_spank_log(format: *const c_char, ...);
}

/// One call of Slurm into the plugin.
pub(crate) struct Spank {
    raw: Raw,
    arguments: Vec<String>,
}

impl Spank {
    /// # Safety
    /// `raw` is what Slurm passed to a callback that still runs; `argv` has `argc` C strings, or is null.
    pub(crate) unsafe fn new(raw: Raw, argc: c_int, argv: *const *const c_char) -> Self {
        // SAFETY: the caller's word.
        Self { raw, arguments: unsafe { strings(argv, usize::try_from(argc).unwrap_or(0)) } }
    }

    /// The plugin's argument `NAME=value` in plugstack.conf.
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether options belong here: srun, sbatch, salloc and slurmstepd.
    pub(crate) fn has_options() -> bool {
        // SAFETY: takes nothing and can be called in every context.
        matches!(unsafe { spank_context() }, CONTEXT_LOCAL | CONTEXT_REMOTE | CONTEXT_ALLOCATOR)
    }

    /// Whether this is one of the commands: srun, sbatch, salloc.
    pub(crate) fn is_command() -> bool {
        // SAFETY: as above.
        matches!(unsafe { spank_context() }, CONTEXT_LOCAL | CONTEXT_ALLOCATOR)
    }

    /// Registers an option with a value.
    pub(crate) fn register(
        &self,
        name: &'static CStr,
        value: &'static CStr,
        usage: &'static CStr,
        heard: extern "C" fn(c_int, *const c_char, c_int) -> c_int,
    ) -> bool {
        let (name, arginfo, usage) = (name.as_ptr(), value.as_ptr(), usage.as_ptr());
        let mut option = SpankOption { name, arginfo, usage, has_arg: 1, val: 0, cb: Some(heard) };
        // SAFETY: called from slurm_spank_init with its handle; Slurm copies the option, whose strings are static anyway.
        unsafe { spank_option_register(self.raw, &raw mut option) == 0 }
    }

    /// The step's number, in slurmstepd.
    pub(crate) fn step(&self) -> Option<u32> {
        let mut step = 0u32;
        // SAFETY: this item takes a pointer to a uint32_t (spank.h).
        (unsafe { spank_get_item(self.raw, ITEM_STEP, &raw mut step) } == 0).then_some(step)
    }

    /// The task's command.
    pub(crate) fn command(&self) -> Vec<String> {
        let (mut count, mut list) = (0 as c_int, std::ptr::null::<*const c_char>());
        // SAFETY: this item takes pointers to an int and to a char ** (spank.h), which belong to Slurm.
        let code = unsafe { spank_get_item(self.raw, ITEM_ARGUMENTS, &raw mut count, &raw mut list) };
        // SAFETY: on success `list` has `count` C strings.
        if code == 0 { unsafe { strings(list, usize::try_from(count).unwrap_or(0)) } } else { vec![] }
    }

    /// The task's environment, as `NAME=value`.
    pub(crate) fn environment(&self) -> Vec<CString> {
        let mut list = std::ptr::null::<*const c_char>();
        // SAFETY: this item takes a pointer to a char ** (spank.h), which belongs to Slurm and ends with a null pointer.
        if unsafe { spank_get_item(self.raw, ITEM_ENVIRONMENT, &raw mut list) } != 0 || list.is_null() {
            return vec![];
        }
        let mut all = Vec::new();
        // SAFETY: a list of C strings that ends with a null pointer, see above.
        unsafe {
            while !(*list).is_null() {
                all.push(CStr::from_ptr(*list).to_owned());
                list = list.add(1);
            }
        }
        all
    }

    /// Sets a variable of the task's environment.
    pub(crate) fn set(&self, name: &CStr, value: &CStr) {
        // SAFETY: C strings that live until the call returns; Slurm copies them.
        unsafe { spank_setenv(self.raw, name.as_ptr(), value.as_ptr(), 1) };
    }
}

/// Tells the user, on the standard error of the command or the task.
pub(crate) fn say(text: &str) {
    if let Ok(text) = CString::new(text.replace('\0', " ")) {
        // SAFETY: the format takes one C string.
        unsafe { slurm_spank_log(c"talea: %s".as_ptr(), text.as_ptr()) };
    }
}

/// # Safety
/// `list` has `count` C strings, or is null.
unsafe fn strings(list: *const *const c_char, count: usize) -> Vec<String> {
    if list.is_null() {
        return vec![];
    }
    // SAFETY: the caller's word.
    let at = |place: usize| unsafe { CStr::from_ptr(*list.add(place)).to_string_lossy().into_owned() };
    (0..count).map(at).collect()
}
