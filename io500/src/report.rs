//! The figures as a table for people and as JSON for comparison.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::Measured;
use crate::pattern::Pattern;

/// One figure beside its floor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    name: String,
    value: f64,
    floor: Option<f64>,
}

fn rates(measured: &Measured) -> [(&'static str, f64); 2] {
    let mib = measured.bytes as f64 / f64::from(1 << 20);
    [("write", mib / measured.write_s), ("read", mib / measured.read_s)]
}

/// The figures of one pattern, MiB/s.
pub(crate) fn records(pattern: Pattern, measured: &Measured, floor: Option<&Measured>) -> Vec<Record> {
    let floors = floor.map(rates);
    rates(measured)
        .into_iter()
        .enumerate()
        .map(|(index, (phase, value))| Record {
            name: format!("io500/{}-{phase}", pattern.name()),
            value,
            floor: floors.map(|floors| floors[index].1),
        })
        .collect()
}

/// A table.
pub(crate) fn table(records: &[Record], ranks: i32) -> String {
    let mut text = format!("{:<24}{:>12}{:>12}{:>8}   ({ranks} ranks)\n", "MiB/s", "target", "floor", "ratio");
    for record in records {
        let (floor, ratio) = record.floor.map_or((String::new(), String::new()), |floor| {
            (format!("{floor:.0}"), format!("{:.2}", record.value / floor))
        });
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<24}{:>12.0}{floor:>12}{ratio:>8}", record.name, record.value);
    }
    text
}

fn value_of(record: &Record) -> Value {
    json!({
        "name": record.name,
        "value": record.value,
        "unit": "MiB/s",
        "floor": record.floor,
        "floor_name": record.floor.map(|_| "ROMIO on tmpfs"),
        "ratio": record.floor.map(|floor| record.value / floor),
    })
}

/// Writes the records as one JSON array.
pub(crate) fn write(path: &Path, records: &[Record]) -> std::io::Result<()> {
    let all: Vec<Value> = records.iter().map(value_of).collect();
    std::fs::write(path, format!("{:#}\n", Value::Array(all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_keys_of_the_bench_file_and_the_ratio_to_its_floor() {
        let measured = Measured { bytes: 64 << 20, write_s: 1.0, read_s: 0.5 };
        let floor = Measured { bytes: 64 << 20, write_s: 0.5, read_s: 0.5 };
        let records = records(Pattern::Hard, &measured, Some(&floor));
        let value = value_of(&records[0]);
        assert_eq!(value["name"], "io500/ior-hard-write");
        assert_eq!(value["value"], 64.0);
        assert_eq!(value["floor"], 128.0);
        assert_eq!(value["ratio"], 0.5);
        assert_eq!(value["unit"], "MiB/s");
        assert_eq!(value_of(&records[1])["ratio"], 1.0);
    }
}
