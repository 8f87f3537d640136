//! What is there when all faults are over, against what was said: runs as a process of its own, on the node of a server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use talea_client::{Client, Container, SnapshotAt, WaitOutcome};
use talea_model::Step;

use crate::work::{KEYS, Line, quiet, read, writes};
use crate::{DEADLINE_MS, GRACE_MS};

/// Kinds of errors that faults explain. Anything else is a fault of Talea's.
const EXPECTED: [&str; 6] = ["ok", "ServerLost", "Deadline", "Aborted", "Busy", "Other"];

#[derive(clap::Args)]
pub struct Verify {
    #[arg(long)]
    home: String,
    #[arg(long)]
    server: u32,
    /// What the programs said
    logs: Vec<PathBuf>,
}

impl Verify {
    pub fn run(&self) -> Result<(), String> {
        let (client, run) = quiet(&self.home, self.server)?;
        let steps = all_steps(&run)?;
        let model = contents(&steps)?;
        let said = self.said()?;
        ended(&said)?;
        agrees(&said, &steps, &model)?;
        for (step, expected) in &model {
            let snapshot =
                run.snapshot(SnapshotAt::Step(Step(*step))).map_err(|error| format!("step {step}: {error}"))?;
            let values = read(&run, &snapshot.view()).map_err(|error| format!("step {step}: {error}"))?;
            if values != *expected {
                return Err(format!("step {step} holds {values:x?}, but {expected:x?} was committed"));
            }
        }
        nothing_left(&client)?;
        let all = || said.iter().flat_map(|(_, all)| all);
        let calls = |outcome: &str| all().filter(|line| line.outcome == outcome).count();
        let looks = all().filter(|line| line.call == "look" && line.outcome == "ok").count();
        let slowest = all().map(|line| line.ms).max().unwrap_or_default();
        let (ok, lost, late, aborted) = (calls("ok"), calls("ServerLost"), calls("Deadline"), calls("Aborted"));
        println!(
            "chaos: {} steps, each there once and whole, {looks} of them read meanwhile; calls: {ok} ok, {lost} told of a lost server, {late} of their deadline, {aborted} of an abort; the longest took {slowest} ms",
            steps.len(),
        );
        if steps.len() < 20 || lost + late + aborted == 0 {
            return Err(format!("too little happened: {} steps", steps.len()));
        }
        Ok(())
    }

    fn said(&self) -> Result<Vec<(String, Vec<Line>)>, String> {
        let of = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            // The last line of a process that was killed may be torn.
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let lines = lines.map(|line| serde_json::from_str(line).map_err(|error| format!("{line:?}: {error}")));
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Ok((name, lines.collect::<Result<Vec<Line>, String>>()?))
        };
        self.logs.iter().map(of).collect()
    }
}

/// All steps of the log, in order and without a gap, with their marks.
fn all_steps(run: &Container) -> Result<BTreeMap<u64, String>, String> {
    let mut found = BTreeMap::new();
    let mut steps = run.subscribe(Step(0)).map_err(|error| error.to_string())?;
    loop {
        match steps.wait(2_000).map_err(|error| error.to_string())? {
            WaitOutcome::Steps { steps, .. } => {
                for step in steps {
                    let number = found.len() as u64 + 1;
                    if step.step.0 != number {
                        return Err(format!("step {} is told as number {number}", step.step));
                    }
                    found.insert(number, String::from_utf8_lossy(&step.attributes).into_owned());
                }
            }
            WaitOutcome::NotReady => return Ok(found),
            other => return Err(format!("the steps end with {other:?}")),
        }
    }
}

/// What every step holds.
fn contents(steps: &BTreeMap<u64, String>) -> Result<BTreeMap<u64, Vec<u64>>, String> {
    let (mut now, mut seen) = (vec![0; KEYS as usize], BTreeSet::new());
    let mut all = BTreeMap::new();
    for (step, mark) in steps {
        if !seen.insert(mark) {
            return Err(format!("the commit {mark} became two steps, the second is {step}"));
        }
        for (key, value) in writes(mark) {
            now[key as usize] = value;
        }
        all.insert(*step, now.clone());
    }
    Ok(all)
}

/// Every call ended in time, with a result or an error that faults explain.
fn ended(said: &[(String, Vec<Line>)]) -> Result<(), String> {
    for (who, line) in said.iter().flat_map(|(who, all)| all.iter().map(move |line| (who, line))) {
        if line.ms > DEADLINE_MS + GRACE_MS {
            let Line { call, ms, .. } = line;
            return Err(format!("{who}: {call} took {ms} ms; its deadline is {DEADLINE_MS} ms"));
        }
        if !EXPECTED.contains(&line.outcome.as_str()) {
            return Err(format!("{who}: {} ended with {}: {}", line.call, line.outcome, line.text));
        }
    }
    Ok(())
}

/// What was said is what is there.
fn agrees(
    said: &[(String, Vec<Line>)],
    steps: &BTreeMap<u64, String>,
    model: &BTreeMap<u64, Vec<u64>>,
) -> Result<(), String> {
    for (who, all) in said {
        let mut next = 1;
        for line in all {
            if line.call == "commit" && line.outcome == "ok" && steps.get(&line.step) != Some(&line.mark) {
                let there = steps.get(&line.step);
                return Err(format!("{who}: {} was committed as step {}, which is {there:?}", line.mark, line.step));
            }
            if line.call == "look" && line.outcome == "ok" && model.get(&line.step) != Some(&line.values) {
                let expected = model.get(&line.step);
                return Err(format!("{who}: step {} held {:x?} meanwhile, now {expected:x?}", line.step, line.values));
            }
            for told in &line.told {
                if *told != next {
                    return Err(format!("{who}: step {told} was told where {next} follows"));
                }
                next += 1;
            }
        }
    }
    Ok(())
}

/// The writers are dead: nothing of theirs stays open (I6).
fn nothing_left(client: &Client) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let open = client.status().map_err(|error| error.to_string())?.transactions.len();
        if open == 0 {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("{open} transactions of dead writers stay open"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
