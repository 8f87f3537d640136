//! Sizes as people write and read them: IEC units.

use std::fmt;

use thiserror::Error;

const UNITS: [(&str, u32); 6] = [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// A size that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a size: write a number with K, M, G, T, P or E (powers of 1024), such as 64M or 1.5GiB")]
pub struct BadSize(pub String);

/// Bytes of a text such as `4096`, `64M`, `64MiB`, `1.5G`. Units are powers of 1024, with or without `iB` or `B`.
pub fn parse(text: &str) -> Result<u64, BadSize> {
    let bad = || BadSize(text.to_owned());
    let trimmed = text.trim();
    let bare = trimmed.strip_suffix("iB").or_else(|| trimmed.strip_suffix('B')).unwrap_or(trimmed).trim_end();
    let unit = UNITS.iter().find(|(name, _)| bare.ends_with(name) || bare.ends_with(&name.to_lowercase()));
    let (number, shift) = unit.map_or((bare, 0), |(name, shift)| (&bare[..bare.len() - name.len()], *shift));
    let number = number.trim_end();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(bad);
    }
    let fraction: f64 = number.parse().map_err(|_| bad())?;
    let bytes = fraction * (1u64 << shift) as f64;
    if (0.0..9e18).contains(&bytes) && shift > 0 { Ok(bytes as u64) } else { Err(bad()) }
}

/// Shows bytes with an IEC unit and three significant digits: `0 B`, `1.50 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iec(pub u64);

impl fmt::Display for Iec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((name, shift)) = UNITS.iter().find(|(_, shift)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let value = self.0 as f64 / (1u64 << shift) as f64;
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        write!(f, "{value:.digits$} {name}iB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64M", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("2 KiB", 2048),
            ("8g", 8 << 30),
            ("12B", 12),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "1.5", "-1G", "99999E", "1GG", "many"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shows_three_digits() {
        let shown = [0, 1023, 1024, 3 << 29, 100 << 20, u64::MAX].map(|bytes| Iec(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 GiB", "100 MiB", "16.0 EiB"]);
    }
}
