//! A process that is led to an instruction and killed there, by ptrace(2).
#![allow(dead_code, unreachable_pub, missing_docs)] // no test uses all of it

use std::ptr::null_mut;

use libc::{
    PTRACE_CONT, PTRACE_INTERRUPT, PTRACE_O_EXITKILL, PTRACE_O_TRACESYSGOOD, PTRACE_PEEKTEXT, PTRACE_POKETEXT,
    PTRACE_SEIZE, PTRACE_SETREGS, PTRACE_SINGLESTEP, PTRACE_SYSCALL, SIGTRAP, c_int, c_uint, pid_t,
};

/// A system call by which a traced process says where it is: nothing else makes it. Its argument is what it says.
const MARK: libc::c_long = libc::SYS_getsid;

/// Says where this process is.
pub fn mark(number: i32) {
    // SAFETY: it asks for the session of a process that there is not, which fails and does nothing.
    unsafe { libc::syscall(MARK, -1_000 - number) };
}

/// The calling thread's number.
pub fn this_thread() -> pid_t {
    // SAFETY: it has no arguments and does nothing.
    unsafe { libc::gettid() }
}

/// A thread of another process, which is killed with it when this is dropped.
pub struct Traced {
    process: pid_t,
    thread: pid_t,
    is_over: bool,
}

impl Traced {
    /// Stops the thread.
    pub fn seize(process: u32, thread: pid_t) -> Self {
        let traced = Self { process: process as pid_t, thread, is_over: false };
        traced.request(PTRACE_SEIZE, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
        traced.request(PTRACE_INTERRUPT, 0);
        traced.wait();
        traced
    }

    fn request(&self, request: c_uint, data: c_int) {
        // SAFETY: none of these requests reads or writes this process's memory; they act on our own child.
        let done = unsafe { libc::ptrace(request, self.thread, null_mut::<u8>(), data as usize as *mut u8) };
        assert_eq!(done, 0, "ptrace {request}: {}", std::io::Error::last_os_error());
    }

    /// Waits until it has stopped; says for which signal, with bit 7 for a system call.
    fn wait(&self) -> c_int {
        let mut status = 0;
        // SAFETY: the status is ours.
        let thread = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert!(thread == self.thread && libc::WIFSTOPPED(status), "the traced process ended by itself: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// Goes on to its next system call, and into it; says what it marks with it.
    fn next_call(&self) -> Option<i32> {
        self.request(PTRACE_SYSCALL, 0);
        if self.wait() != SIGTRAP | 0x80 {
            return None;
        }
        let registers = self.registers();
        // Each call is seen twice; at its beginning its result is this.
        let begins = registers.rax as i64 == -i64::from(libc::ENOSYS);
        (begins && registers.orig_rax as i64 == MARK).then(|| -1_000 - registers.rdi as i32)
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all zeros are a value of this struct of numbers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the struct, which is ours.
        let done = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.thread, null_mut::<u8>(), &raw mut registers) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        registers
    }

    /// The instruction that is next: in which file, where.
    pub fn instruction(&self) -> (String, u64) {
        let at = self.registers().rip;
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.process)).unwrap();
        let found = maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (from, to) = words.next()?.split_once('-')?;
            let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap_or(0));
            let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
            (from..to).contains(&at).then(|| (words.nth(2).unwrap_or_default().to_owned(), at - from + offset))
        });
        found.unwrap_or_default()
    }

    /// Goes on to the next mark.
    pub fn to_mark(&self) -> i32 {
        loop {
            if let Some(mark) = self.next_call() {
                return mark;
            }
        }
    }

    /// Goes on over so many beginnings and ends of system calls; to the next mark at most.
    pub fn pass_calls(&self, calls: u64) -> bool {
        (0..calls).all(|_| self.next_call().is_none())
    }

    /// Takes so many instructions. One that repeats itself counts twice: after its first round, and after its last.
    pub fn steps(&self, count: u64) {
        let mut before = 0;
        for _ in 0..count {
            self.request(PTRACE_SINGLESTEP, 0);
            self.wait();
            let registers = self.registers();
            if registers.rip == before {
                self.end_repetition(&registers);
            }
            before = registers.rip;
        }
    }

    /// If the next instruction is one that repeats itself, and is in the midst of that: goes on to its end, by a breakpoint behind it.
    fn end_repetition(&self, registers: &libc::user_regs_struct) {
        let next = match self.code(registers.rip).to_le_bytes() {
            [0xf3, 0xa4 | 0xa5 | 0xaa | 0xab, ..] => registers.rip + 2,
            [0xf3, 0x48, 0xa5 | 0xab, ..] => registers.rip + 3,
            _ => return,
        };
        let code = self.code(next);
        self.set_code(next, (code & !0xff) | 0xcc);
        self.request(PTRACE_CONT, 0);
        self.wait();
        self.set_code(next, code);
        let mut registers = self.registers();
        assert_eq!(registers.rip, next + 1, "it stopped at the breakpoint");
        registers.rip = next;
        // SAFETY: the kernel reads the struct, which is ours.
        let done = unsafe { libc::ptrace(PTRACE_SETREGS, self.thread, null_mut::<u8>(), &raw mut registers) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Eight bytes of the traced process.
    fn code(&self, at: u64) -> i64 {
        // SAFETY: it reads the other process's memory and nothing of ours.
        unsafe { libc::ptrace(PTRACE_PEEKTEXT, self.thread, at as *mut u8, null_mut::<u8>()) }
    }

    fn set_code(&self, at: u64, code: i64) {
        // SAFETY: it changes the code of the other process alone, which has its own copy of what it changes.
        let done = unsafe { libc::ptrace(PTRACE_POKETEXT, self.thread, at as *mut u8, code as *mut u8) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Kills it where it is.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let mut status = 0;
        // SAFETY: kill and waitpid of our own child; the status is ours.
        unsafe {
            libc::kill(self.process, libc::SIGKILL);
            while libc::waitpid(self.thread, &raw mut status, libc::__WALL) == self.thread && libc::WIFSTOPPED(status) {
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}
