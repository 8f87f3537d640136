//! `talea carry`: what copies segments on each node of an allocation, for [`super::spread`].
//!
//! Must never begin or end a file, nor write into a local file that is not the very one that the launcher has open.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use talea_posix::backing::client::ClientSystem;
use talea_posix::{Files, Handle};

use super::spread::{ALIVE, Load, LoadFile, Mark, Said, Word};
use super::transfer::{copy_range, segment_of};
use crate::failure::Failure;

/// Both sides of a file.
struct Opened {
    handle: Handle,
    local: File,
}

/// Copies until standard input ends.
pub(crate) fn carry() -> Result<u8, Failure> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let (from, count) = (number("SLURM_PROCID").unwrap_or(0), number("SLURM_NTASKS").unwrap_or(1).max(1));
    let live = move || {
        loop {
            say(from, Said::Alive);
            std::thread::sleep(ALIVE);
        }
    };
    std::thread::Builder::new().name("alive".to_owned()).spawn(live).map_err(Failure::io("starting", "a thread"))?;
    let mut files = None;
    // Written files stay open until the launcher has committed them, which its next line, or its end, says.
    let mut open = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Failure::io("reading", "standard input"))?;
        let load: Load = serde_json::from_str(&line)
            .map_err(|error| Failure::Usage(format!("the launcher's line is not understood: {error}")))?;
        open.clear();
        match connected(&mut files, &load.system) {
            Ok(files) => open = bear(files, &load, from, count),
            Err(failure) => say(from, Said::Cannot { file: 0, why: failure.to_string() }),
        }
        say(from, Said::Done);
    }
    Ok(0)
}

fn connected<'a>(files: &'a mut Option<Files>, system: &str) -> Result<&'a Files, Failure> {
    if files.is_none() {
        let client = crate::command::connect(Some(system))?;
        *files = Some(Files::new(Arc::new(ClientSystem::new(client))));
    }
    files.as_ref().ok_or_else(|| Failure::Usage(String::new()))
}

/// Copies this carrier's share of a load.
fn bear(files: &Files, load: &Load, from: u32, count: u32) -> BTreeMap<usize, Opened> {
    let mine: Vec<(usize, u64)> = load.segments.iter().skip(from as usize).step_by(count as usize).copied().collect();
    let mut open = BTreeMap::new();
    for file in mine.iter().map(|(file, _)| *file).collect::<std::collections::BTreeSet<_>>() {
        let Some(wanted) = load.files.get(file) else { continue };
        match opened(files, wanted) {
            Ok(opened) => _ = open.insert(file, opened),
            Err(failure) => say(from, Said::Cannot { file, why: failure.to_string() }),
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..load.workers.clamp(1, mine.len().max(1)) {
            scope.spawn(|| {
                while let Some((file, number)) = mine.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let (Some(opened), Some(wanted)) = (open.get(file), load.files.get(*file)) {
                        say(from, copied(opened, wanted, *file, *number));
                    }
                }
            });
        }
    });
    for (file, opened) in &open {
        if load.files.get(*file).is_some_and(|wanted| wanted.into) {
            say(from, summary(opened, *file));
        }
    }
    open
}

fn opened(files: &Files, wanted: &LoadFile) -> Result<Opened, Failure> {
    let local = OpenOptions::new().read(true).write(!wanted.into).open(&wanted.local);
    let local = local.map_err(Failure::io("opening", &wanted.local))?;
    if Mark::of(&local, !wanted.into).map_err(Failure::io("looking at", &wanted.local))? != wanted.mark {
        return Err(Failure::Usage(format!("{} is another file on this node", wanted.local.display())));
    }
    let handle = files.attach(&wanted.shared)?;
    if let Some(cut) = &wanted.cut {
        handle.advance(cut)?;
    }
    Ok(Opened { handle, local })
}

fn copied(opened: &Opened, wanted: &LoadFile, file: usize, number: u64) -> Said {
    let range = segment_of(number, wanted.bytes);
    let copied = copy_range(&opened.handle, &opened.local, &wanted.local, wanted.into, range, |_| Ok(()));
    // The launcher's journal must not say more than the disk has.
    let flushed = copied.and_then(|crc64| match wanted.into {
        true => Ok(crc64),
        false => opened.local.sync_data().map(|()| crc64).map_err(Failure::io("flushing", &wanted.local)),
    });
    match flushed {
        Ok(crc64) => Said::Segment { file, number, crc64 },
        Err(failure) => Said::Cannot { file, why: failure.to_string() },
    }
}

fn summary(opened: &Opened, file: usize) -> Said {
    let mut bytes = vec![0; opened.handle.info().summary_bytes];
    let encoded = opened
        .handle
        .flush()
        .map_err(Failure::from)
        .and_then(|summary| summary.encode(&mut bytes).map_err(|error| Failure::Usage(error.to_string())));
    match encoded {
        Ok(()) => Said::Summary { file, summary: bytes },
        Err(failure) => Said::Cannot { file, why: failure.to_string() },
    }
}

fn say(from: u32, said: Said) {
    let line = serde_json::to_string(&Word { from, said }).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    // If the launcher is gone, the end of standard input says so better.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
