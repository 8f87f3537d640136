//! Lines on standard output and standard error whose reader may have gone: `talea status | head -1` ends well, and no `talea run`
//! leaves its servers because nobody reads its words any more.
//!
//! Owns what the crate's `println!`, `print!` and `eprintln!` are: they take the place of std's, which panic. Must never fail.

/// As std's, but a line that nobody reads is dropped.
macro_rules! println {
    ($($words:tt)*) => { $crate::print::out(format_args!("{}\n", format_args!($($words)*))) };
}

/// As std's, but text that nobody reads is dropped.
macro_rules! print {
    ($($words:tt)*) => { $crate::print::out(format_args!($($words)*)) };
}

/// As std's, but a line that nobody reads is dropped.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::print::error(format_args!("{}\n", format_args!($($words)*))) };
}

use std::io::{self, Write};

/// Writes to standard output. A full disk behind it is told; a reader that has gone is not.
pub(crate) fn out(text: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(why) = out.write_fmt(text).and_then(|()| out.flush())
        && why.kind() != io::ErrorKind::BrokenPipe
    {
        error(format_args!("talea: writing to standard output: {why}\n"));
    }
}

/// Writes to standard error, if somebody is there.
pub(crate) fn error(text: std::fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
