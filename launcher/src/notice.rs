//! What the launcher tells a person while it works: on standard error, bars and colours on a terminal only.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;

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

/// Asks on the terminal; anything but a yes is a no.
pub(crate) fn confirmed(question: &str) -> Result<bool, Failure> {
    crate::print::error(format_args!("talea: {question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::io("reading", "the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How long ago something was, for people: `just now`, `5 minutes ago`.
pub(crate) fn ago(unix_us: u64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_micros(unix_us);
    let seconds = then.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    let (number, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", count(number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_in_units_that_people_use() {
        let now_us = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64;
        for (seconds, text) in
            [(0, "just now"), (61, "1 minute ago"), (3 * 3600 + 5, "3 hours ago"), (2 * 86_400 + 9, "2 days ago")]
        {
            assert_eq!(ago(now_us - seconds * 1_000_000), text);
        }
        assert_eq!(ago(now_us + 5_000_000), "just now", "clocks differ");
    }
}
