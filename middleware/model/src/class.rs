//! Object classes: how an object is spread and protected.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How an object is spread over redundancy groups, and how a group protects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectClass {
    /// Protection inside a group.
    pub protection: Protection,
    /// Number of groups; [`ALL_GROUPS`] means as many as the pool has targets for.
    pub groups: u16,
}

/// "X" in `SX`: all targets.
pub const ALL_GROUPS: u16 = u16::MAX;

/// Protection of one redundancy group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// One copy.
    None,
    /// `n` replicas.
    Replicated(u8),
    /// `data` + `parity` cells.
    Erasure {
        /// Data cells.
        data: u8,
        /// Parity cells.
        parity: u8,
    },
    /// One copy on the creator's node.
    Local,
}

impl ObjectClass {
    /// One copy on one target.
    pub const S1: Self = Self { protection: Protection::None, groups: 1 };
    /// One copy, spread over all targets.
    pub const SX: Self = Self { protection: Protection::None, groups: ALL_GROUPS };

    /// 32 bits: kind, two parameters, and the 16-bit group count.
    pub const fn encode(self) -> u32 {
        let (kind, a, b) = match self.protection {
            Protection::None => (1, 0, 0),
            Protection::Replicated(replicas) => (2, replicas, 0),
            Protection::Erasure { data, parity } => (3, data, parity),
            Protection::Local => (4, 0, 0),
        };
        (kind << 28) | (((a & 0x3f) as u32) << 22) | (((b & 0x3f) as u32) << 16) | self.groups as u32
    }

    /// The class of 32 bits, if they name one.
    pub const fn decode(bits: u32) -> Option<Self> {
        let groups = bits as u16;
        let (a, b) = (((bits >> 22) & 0x3f) as u8, ((bits >> 16) & 0x3f) as u8);
        if groups == 0 {
            return None;
        }
        let protection = match (bits >> 28, a, b) {
            (1, 0, 0) => Protection::None,
            (2, 2.., 0) => Protection::Replicated(a),
            (3, 2.., 1..) => Protection::Erasure { data: a, parity: b },
            (4, 0, 0) => Protection::Local,
            _ => return None,
        };
        Some(Self { protection, groups })
    }

    /// Whether this version of Talea stores objects of the class (redundancy comes later; docs/status.md).
    pub const fn is_supported(self) -> bool {
        matches!(self.protection, Protection::None)
    }

    /// Targets of one redundancy group.
    pub const fn group_width(self) -> usize {
        match self.protection {
            Protection::None | Protection::Local => 1,
            Protection::Replicated(replicas) => replicas as usize,
            Protection::Erasure { data, parity } => data as usize + parity as usize,
        }
    }

    /// Number of lost targets of a group that the class survives.
    pub const fn losses_survived(self) -> usize {
        match self.protection {
            Protection::None | Protection::Local => 0,
            Protection::Replicated(replicas) => replicas as usize - 1,
            Protection::Erasure { parity, .. } => parity as usize,
        }
    }
}

/// A class name that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not an object class (S1, S2, … SX, RP_2G1, … EC_4P2GX, L1)")]
pub struct BadClass(pub String);

impl fmt::Display for ObjectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protection {
            Protection::None => write!(f, "S")?,
            Protection::Replicated(replicas) => write!(f, "RP_{replicas}G")?,
            Protection::Erasure { data, parity } => write!(f, "EC_{data}P{parity}G")?,
            Protection::Local => write!(f, "L")?,
        }
        if self.groups == ALL_GROUPS { write!(f, "X") } else { write!(f, "{}", self.groups) }
    }
}

impl FromStr for ObjectClass {
    type Err = BadClass;
    fn from_str(text: &str) -> Result<Self, BadClass> {
        let parse = || -> Option<Self> {
            let groups =
                |t: &str| if t == "X" { Some(ALL_GROUPS) } else { t.parse().ok().filter(|n| *n != ALL_GROUPS) };
            let (protection, groups) = if let Some(rest) = text.strip_prefix("RP_") {
                let (replicas, rest) = rest.split_once('G').unwrap_or((rest, "1"));
                (Protection::Replicated(replicas.parse().ok()?), groups(rest)?)
            } else if let Some(rest) = text.strip_prefix("EC_") {
                let (cells, rest) = rest.split_once('G').unwrap_or((rest, "1"));
                let (data, parity) = cells.split_once('P')?;
                (Protection::Erasure { data: data.parse().ok()?, parity: parity.parse().ok()? }, groups(rest)?)
            } else if let Some(rest) = text.strip_prefix('L') {
                (Protection::Local, groups(rest)?)
            } else {
                (Protection::None, groups(text.strip_prefix('S')?)?)
            };
            let class = Self { protection, groups };
            (Self::decode(class.encode()) == Some(class)).then_some(class)
        };
        parse().ok_or_else(|| BadClass(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_round_trip() {
        for name in ["S1", "S4", "SX", "RP_2G1", "RP_3GX", "EC_4P2G1", "EC_16P3GX", "L1"] {
            let class: ObjectClass = name.parse().unwrap();
            assert_eq!(class.to_string(), name);
            assert_eq!(ObjectClass::decode(class.encode()), Some(class));
        }
        for name in ["", "S", "S0", "X", "RP_1G1", "EC_4", "EC_4P0", "S65535", "RP_99"] {
            assert!(name.parse::<ObjectClass>().is_err(), "{name}");
        }
        assert_eq!(ObjectClass::decode(0), None);
    }
}
