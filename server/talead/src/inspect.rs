//! `talead inspect`: a medium's file, printed as text or as JSON, one object a line.
//!
//! Owns the printing alone; what the bytes mean the store says.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use talea_tier::{Address, ImageMedium, Media, Medium};
use talea_vos::inspect::{Found, RecordFound, SuperblockFound, inspect};

use crate::failure::Failure;

/// What to look at.
#[derive(Args)]
pub(crate) struct Arguments {
    /// File of a target's tier (that with the log): target-N in the tier's directory.
    file: PathBuf,
    /// File of its bulk tier, if it has one: target-N.bulk.
    #[arg(long)]
    bulk: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Leave the records out.
    #[arg(long)]
    summary: bool,
}

/// Prints what there is; fails if something is damaged.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let log: Box<dyn Medium> = Box::new(ImageMedium::open(&arguments.file)?);
    let media = match &arguments.bulk {
        Some(bulk) => Media::two(log, Box::new(ImageMedium::open(bulk)?)),
        None => Media::one(log),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut printed = Ok(());
    let problems = inspect(&media, |found| {
        if arguments.summary && matches!(found, Found::Record(_)) {
            return;
        }
        if printed.is_ok() {
            printed = match arguments.json {
                true => writeln!(out, "{}", as_json(&found)),
                false => writeln!(out, "{}", as_text(&found)),
            };
        }
    })?;
    match printed.and_then(|()| out.flush()) {
        // Who reads through a pipe may have seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::System { what: "writing to standard output", source: error })
        }
        _ if problems > 0 => Err(Failure::Damaged(problems)),
        _ => Ok(()),
    }
}

fn superblock_text(found: &SuperblockFound) -> String {
    let Some(fields) = &found.fields else { return format!("superblock at {}: {}", found.at, found.state) };
    format!(
        "superblock at {}: {}, generation {}, pool {:032x}, target {}, {} bytes, bulk {} bytes, log from segment {} \
         at {} (record {}), checkpoint {}{}",
        found.at,
        found.state,
        fields.generation,
        fields.pool.0,
        fields.target,
        fields.capacity_bytes,
        fields.bulk_bytes,
        fields.log.number,
        fields.log.start,
        fields.first_lsn,
        if fields.checkpoint.len == 0 { "none".to_owned() } else { format!("at {}", fields.checkpoint.start) },
        if fields.unsummed { ", values without checksums" } else { "" },
    )
}

fn as_text(found: &Found) -> String {
    match found {
        Found::Superblock(superblock) => superblock_text(superblock),
        Found::Bulk(text) => format!("bulk tier: {text}"),
        Found::Segment { chain, segment } => {
            format!("{chain}: segment {} at {}, {} bytes", segment.number, segment.start, segment.len)
        }
        Found::Record(record) => {
            let RecordFound { at, lsn, kind, bytes, flushed, what, .. } = record;
            format!("  {at:>10}  {lsn:>8}  {kind:<7} {bytes:>7} bytes, flushed below {flushed}: {what}")
        }
        Found::End { chain, records, bytes, next_lsn } => {
            format!("{chain}: {records} records of {bytes} bytes, the next one is {next_lsn}")
        }
        Found::Tail(text) => format!("log: {text}"),
        Found::Problem { address, text } => format!("PROBLEM at {}: {text}", Address(*address)),
    }
}

fn as_json(found: &Found) -> Value {
    match found {
        Found::Superblock(superblock) => {
            let SuperblockFound { at, state, fields } = superblock;
            let fields = fields.as_ref().map(|fields| {
                json!({
                    "generation": fields.generation, "pool": format!("{:032x}", fields.pool.0),
                    "target": fields.target.0, "capacity_bytes": fields.capacity_bytes,
                    "bulk_bytes": fields.bulk_bytes, "first_lsn": fields.first_lsn,
                    "log": [fields.log.start, fields.log.len, fields.log.number],
                    "checkpoint": [fields.checkpoint.start, fields.checkpoint.len, fields.checkpoint.number],
                    "unsummed": fields.unsummed,
                })
            });
            json!({ "superblock": { "at": at, "state": state, "fields": fields } })
        }
        Found::Bulk(text) => json!({ "bulk": text }),
        Found::Segment { chain, segment } => {
            json!({ "segment": { "chain": chain, "start": segment.start, "bytes": segment.len, "number": segment.number } })
        }
        Found::Record(record) => {
            let RecordFound { chain, at, lsn, kind, bytes, flushed, what } = record;
            json!({ "record": { "chain": chain, "at": at, "lsn": lsn, "kind": kind, "bytes": bytes, "flushed": flushed, "what": what } })
        }
        Found::End { chain, records, bytes, next_lsn } => {
            json!({ "end": { "chain": chain, "records": records, "bytes": bytes, "next_lsn": next_lsn } })
        }
        Found::Tail(text) => json!({ "tail": text }),
        Found::Problem { address, text } => json!({ "problem": { "address": address, "text": text } }),
    }
}
