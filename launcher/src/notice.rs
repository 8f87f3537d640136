//! What the launcher tells a person while it works: on standard error, bars and colours on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Prints one line unless quiet.
pub(crate) fn say(quiet: bool, line: std::fmt::Arguments<'_>) {
    if !quiet {
        eprintln!("talea: {line}");
    }
}

/// A number of things: `1 server`, `2 servers`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A spinner with a text, on a terminal only.
pub(crate) fn spinner(quiet: bool, text: &str) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar over bytes with rate and time left, on a terminal only.
pub(crate) fn bytes(total: u64, text: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(total).with_message(text.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
