//! What a job did: for its end card, its record and its report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use talea_client::{Client, ClientError, ProcessFigures, Reports};
use talea_model::size::Iec;
use talea_model::{ContainerId, TargetId};
use talea_wire::data::StoreStat;

use crate::notice::count;
use crate::stage::Receipt;
use crate::timeline::Sample;

/// Seconds in I/O from which on advice about them is worth its line.
const LONG_S: f64 = 1.0;

/// What one process of the job said of itself at its end, through libtalea.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RankLine {
    /// Rank, if the process knows one.
    pub(crate) rank: Option<u32>,
    pub(crate) program: String,
    pub(crate) host: String,
    /// Time in calls that move or commit data.
    pub(crate) io_seconds: f64,
    /// Time from the first such call to the end of the process.
    pub(crate) seconds: f64,
    pub(crate) bytes_written: u64,
    pub(crate) bytes_read: u64,
    pub(crate) calls: u64,
}

impl From<ProcessFigures> for RankLine {
    fn from(said: ProcessFigures) -> Self {
        let seconds = said.elapsed_ns as f64 / 1e9;
        Self {
            rank: said.rank,
            program: said.program,
            host: said.host,
            // Threads that are in calls at the same time count once.
            io_seconds: (said.io_ns as f64 / 1e9).min(seconds),
            seconds,
            bytes_written: said.bytes_written,
            bytes_read: said.bytes_read,
            calls: said.calls,
        }
    }
}

/// What the processes of a job said.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    pub(crate) count: u64,
    pub(crate) lines: Vec<RankLine>,
}

impl Processes {
    /// Those that connected since `since_unix_us`: a system may serve one job after the other.
    pub(crate) fn of(reports: Reports, since_unix_us: u64) -> Self {
        let all = reports.lines.len() as u64;
        let lines = reports.lines.into_iter().filter(|said| said.began_unix_us >= since_unix_us && said.calls > 0);
        let mut lines: Vec<RankLine> = lines.map(RankLine::from).collect();
        lines.sort_by(|a, b| (a.rank, &a.program).cmp(&(b.rank, &b.program)));
        let count = if reports.processes > all { reports.processes } else { lines.len() as u64 };
        Self { count, lines }
    }
}

/// What a job did.
#[derive(Debug, Serialize)]
pub(crate) struct JobRecord {
    pub(crate) version: u32,
    pub(crate) system: String,
    pub(crate) exit_code: u8,
    pub(crate) seconds: f64,
    pub(crate) servers: usize,
    pub(crate) targets: usize,
    pub(crate) steps: u64,
    pub(crate) bytes_written: u64,
    pub(crate) bytes_read: u64,
    pub(crate) updates: u64,
    pub(crate) fetches: u64,
    pub(crate) log_entries: u64,
    pub(crate) lost_targets: usize,
    pub(crate) used_bytes: u64,
    pub(crate) capacity_bytes: u64,
    /// Share of the processes' time that they spent in I/O; `None` if no process said.
    pub(crate) io_share: Option<f64>,
    /// The process that spent the most time in I/O.
    pub(crate) slowest: Option<RankLine>,
    /// How many processes said what they did, at their end; those that were killed could not.
    pub(crate) processes: u64,
    /// Those of them that spent the most time in I/O, in the order of their ranks.
    pub(crate) ranks: Vec<RankLine>,
    pub(crate) advice: Vec<String>,
    pub(crate) staged: Vec<String>,
    pub(crate) timeline: Vec<Sample>,
}

/// What a system had done before a job began: not the job's doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    log_entries: u64,
    /// Steps by container.
    steps: BTreeMap<ContainerId, u64>,
    targets: BTreeMap<TargetId, StoreStat>,
}

impl Before {
    /// Asks a system that others use, too.
    pub(crate) fn of(client: &Client) -> Result<Self, ClientError> {
        let status = client.status()?;
        let targets =
            status.map.targets.iter().filter_map(|target| Some((target.id, client.target_stat(target.id).ok()?)));
        Ok(Self {
            log_entries: status.counters.entries,
            steps: status.containers.iter().map(|container| (container.container, container.step.0)).collect(),
            targets: targets.collect(),
        })
    }
}

/// Asks the system what was done since then; `makes_steps`: in which containers.
pub(crate) fn record(
    client: &Client,
    system: &str,
    before: &Before,
    makes_steps: impl Fn(ContainerId) -> bool,
    took: Duration,
    exit_code: u8,
) -> Result<JobRecord, ClientError> {
    let status = client.status()?;
    let steps = status.containers.iter().filter(|info| makes_steps(info.container));
    let steps =
        steps.map(|info| info.step.0 - before.steps.get(&info.container).copied().unwrap_or(0).min(info.step.0));
    let mut record = JobRecord {
        version: 1,
        system: system.to_owned(),
        exit_code,
        seconds: took.as_secs_f64(),
        servers: status.map.servers.len(),
        targets: status.map.targets.len(),
        steps: steps.sum(),
        bytes_written: 0,
        bytes_read: 0,
        updates: 0,
        fetches: 0,
        log_entries: status.counters.entries.saturating_sub(before.log_entries),
        lost_targets: 0,
        used_bytes: 0,
        capacity_bytes: status.map.targets.iter().map(|target| target.capacity_bytes).sum(),
        io_share: None,
        slowest: None,
        processes: 0,
        ranks: vec![],
        advice: vec![],
        staged: vec![],
        timeline: vec![],
    };
    for target in &status.map.targets {
        match client.target_stat(target.id) {
            Ok(stat) => {
                // A server that was started again counts from nothing.
                let was = before
                    .targets
                    .get(&target.id)
                    .filter(|was| was.updates <= stat.updates && was.fetches <= stat.fetches);
                let since = |pick: fn(&StoreStat) -> u64| pick(&stat).saturating_sub(was.map_or(0, pick));
                record.bytes_written += since(|stat| stat.bytes_in);
                record.bytes_read += since(|stat| stat.bytes_out + stat.bytes_in_place);
                record.updates += since(|stat| stat.updates);
                record.fetches += since(|stat| stat.fetches);
                record.used_bytes += stat.used_bytes;
            }
            Err(_) => record.lost_targets += 1,
        }
    }
    Ok(record)
}

impl JobRecord {
    /// Adds what the processes said, the receipts and the timeline, and draws conclusions. `alone`: nobody else used the system.
    pub(crate) fn complete(&mut self, processes: Processes, receipts: &[Receipt], timeline: Vec<Sample>, alone: bool) {
        let ranks = processes.lines;
        self.processes = processes.count;
        if !alone {
            (self.bytes_written, self.bytes_read) = (ranks.iter().map(|rank| rank.bytes_written).sum(), 0);
        }
        // What was read in place, out of the servers' memory, only the readers know.
        self.bytes_read = self.bytes_read.max(ranks.iter().map(|rank| rank.bytes_read).sum());
        let whole: f64 = ranks.iter().map(|rank| rank.seconds).sum();
        if whole > 0.0 {
            self.io_share = Some(ranks.iter().map(|rank| rank.io_seconds).sum::<f64>() / whole);
        }
        self.slowest = ranks.iter().max_by(|a, b| a.io_seconds.total_cmp(&b.io_seconds)).cloned();
        self.ranks = ranks;
        self.staged = receipts.iter().map(Receipt::to_string).collect();
        self.timeline = timeline;
        self.advice = self.conclusions();
    }

    fn conclusions(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let mut say = |text: String| advice.push(text);
        if self.lost_targets > 0 {
            say(format!("{} lost: see what the servers said last, above", count(self.lost_targets as u64, "target")));
        }
        let fill = self.used_bytes as f64 / self.capacity_bytes.max(1) as f64;
        if fill > 0.8 {
            say(format!(
                "{:.0} % of the capacity was in use: give more (--capacity) or keep fewer steps (--keep-steps)",
                100.0 * fill
            ));
        }
        let small = self.bytes_written / self.updates.max(1);
        if self.updates > 10_000 && small < 4096 {
            say(format!(
                "an update had {small} bytes on average: collective calls or larger buffers would make fewer of them"
            ));
        }
        // What its processes wrote: others may be at work in the system.
        if self.steps == 0 && self.ranks.iter().any(|rank| rank.bytes_written > 0) {
            say("nothing was committed: call MPI_File_sync, H5Fflush or close, or the data dies with the job"
                .to_owned());
        }
        if self.processes == 0 && self.steps == 0 && self.bytes_written + self.bytes_read == 0 && self.staged.is_empty()
        {
            say("no process used the system: do its files' paths begin with /talea/, and does LD_PRELOAD reach it?"
                .to_owned());
        }
        if let (Some(share), Some(slowest)) = (self.io_share, &self.slowest) {
            let mean = self.ranks.iter().map(|rank| rank.io_seconds).sum::<f64>() / self.ranks.len().max(1) as f64;
            if self.ranks.len() > 1 && share > 0.05 && slowest.io_seconds > 2.0 * mean && slowest.io_seconds > LONG_S {
                let who = slowest.rank.map_or("one process".to_owned(), |rank| format!("rank {rank}"));
                say(format!(
                    "{who} spent {:.1} s in I/O, twice the mean: is it writing for the others?",
                    slowest.io_seconds
                ));
            }
            if share > 0.3 && slowest.io_seconds > LONG_S && self.targets < 8 && self.lost_targets == 0 {
                say("much of the time went into I/O: try more targets a server (--targets)".to_owned());
            }
        }
        advice
    }
}

impl fmt::Display for JobRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |bytes: u64| Iec((bytes as f64 / self.seconds.max(1e-9)) as u64);
        let mut lines = vec![
            format!("{:.1} s, {}, exit code {}", self.seconds, count(self.steps, "step"), self.exit_code),
            format!("written {} ({}/s)", Iec(self.bytes_written), rate(self.bytes_written)),
            format!("read {} ({}/s)", Iec(self.bytes_read), rate(self.bytes_read)),
        ];
        if let Some(share) = self.io_share {
            let slowest = self.slowest.as_ref().map_or(String::new(), |slowest| {
                let who = slowest.rank.map_or(slowest.program.clone(), |rank| format!("rank {rank}"));
                format!("; the slowest: {who} on {}, {:.2} s", slowest.host, slowest.io_seconds)
            });
            lines.push(format!("{:.1} % of the processes' time in I/O{slowest}", 100.0 * share));
        }
        if self.lost_targets > 0 {
            lines.push(format!("{} LOST", count(self.lost_targets as u64, "target")));
        }
        lines.extend(self.advice.iter().map(|text| format!("* {text}")));
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).clamp(24, 100);
        let title = format!(" {} ", self.system);
        writeln!(f, "╭─{title}{}╮", "─".repeat((width + 1).saturating_sub(title.chars().count())))?;
        for line in wrapped(&lines, width) {
            writeln!(f, "│ {line}{} │", " ".repeat(width.saturating_sub(line.chars().count())))?;
        }
        write!(f, "╰{}╯", "─".repeat(width + 2))
    }
}

/// Lines of at most `width` characters, broken between words.
fn wrapped(lines: &[String], width: usize) -> Vec<String> {
    let mut out = Vec::new();
    for line in lines {
        let mut rest = String::new();
        for word in line.split(' ') {
            if !rest.is_empty() && rest.chars().count() + 1 + word.chars().count() > width {
                out.push(std::mem::take(&mut rest));
                rest.push_str("  ");
            } else if !rest.is_empty() {
                rest.push(' ');
            }
            rest.push_str(word);
        }
        out.push(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_record() -> JobRecord {
        JobRecord {
            version: 1,
            system: "job-1".into(),
            exit_code: 0,
            seconds: 10.0,
            servers: 2,
            targets: 2,
            steps: 0,
            bytes_written: 1 << 20,
            bytes_read: 0,
            updates: 20_000,
            fetches: 0,
            log_entries: 9,
            lost_targets: 0,
            used_bytes: 90,
            capacity_bytes: 100,
            io_share: None,
            slowest: None,
            processes: 0,
            ranks: vec![],
            advice: vec![],
            staged: vec![],
            timeline: vec![],
        }
    }

    #[test]
    fn conclusions_name_what_to_do() {
        let mut record = a_record();
        let rank = |rank, io_seconds| RankLine {
            rank: Some(rank),
            seconds: 10.0,
            io_seconds,
            bytes_written: 1,
            ..RankLine::default()
        };
        let lines = vec![rank(0, 8.0), rank(1, 0.5), rank(2, 0.5)];
        record.complete(Processes { count: 3, lines }, &[], vec![], true);
        assert_eq!(record.slowest.as_ref().and_then(|slowest| slowest.rank), Some(0));
        assert!((record.io_share.unwrap() - 0.3).abs() < 1e-9);
        let all = record.advice.join("\n");
        for word in ["--capacity", "collective", "committed", "rank 0"] {
            assert!(all.contains(word), "{word}: {all}");
        }
        assert!(a_record().conclusions().iter().all(|text| !text.contains("rank")));
    }

    #[test]
    fn only_this_job_s_processes_count() {
        let said = |began_unix_us, calls| ProcessFigures {
            began_unix_us,
            calls,
            io_ns: 3_000_000_000,
            elapsed_ns: 2_000_000_000,
            bytes_read: 1 << 30,
            ..ProcessFigures::default()
        };
        let reports = Reports { processes: 3, lines: vec![said(5, 1), said(10, 1), said(11, 0)] };
        let processes = Processes::of(reports, 10);
        assert_eq!((processes.count, processes.lines.len()), (1, 1));
        assert!((processes.lines[0].io_seconds - 2.0).abs() < 1e-9, "threads in calls at the same time count once");
        let mut record = a_record();
        record.complete(processes, &[], vec![], true);
        assert_eq!(record.bytes_read, 1 << 30, "read in place, past the servers");
    }

    #[test]
    fn the_card_is_a_box() {
        let mut record = a_record();
        record.complete(Processes::default(), &[], vec![], true);
        let card = record.to_string();
        let widths: Vec<usize> = card.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{card}");
    }
}
