//! Which faults strike when.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::random::Random;
use crate::{SERVERS, WRITERS};

/// What ends a fault.
enum End {
    Start(u32),
    Continue(u32),
    ContinueWriter(u32),
    Heal,
}

/// Lets faults strike for so long, and ends them all.
pub fn rage(cluster: &mut Cluster, random: &mut Random, time: Duration) -> Result<(), String> {
    let begun = Instant::now();
    let mut ends: Vec<(Instant, End)> = Vec::new();
    let mut next = begun + Duration::from_millis(500);
    loop {
        let now = Instant::now();
        for at in (0..ends.len()).rev() {
            if ends[at].0 <= now {
                let (_, end) = ends.swap_remove(at);
                finish(cluster, end)?;
            }
        }
        if begun.elapsed() >= time {
            break;
        }
        if next <= now {
            next = now + Duration::from_millis(100 + random.below(1_500));
            let lasts = Duration::from_millis(100 + random.below(3_500));
            if let Some(end) = strike(cluster, random)? {
                ends.push((now + lasts, end));
            }
        }
        cluster.revive_writers(random)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    ends.into_iter().try_for_each(|(_, end)| finish(cluster, end))
}

fn strike(cluster: &mut Cluster, random: &mut Random) -> Result<Option<End>, String> {
    let server = random.below(SERVERS.into()) as u32;
    let writer = random.below(WRITERS.into()) as u32;
    let (kind, mask) = (random.below(100), 1 + random.below((1 << SERVERS) - 2) as u32);
    // Now and then more servers are gone than the log survives.
    let may_lose = cluster.servers_gone() < 2 || random.below(5) == 0;
    match kind {
        0..30 if may_lose && cluster.kill(server) => Ok(Some(End::Start(server))),
        30..55 if may_lose && cluster.stop(server) => Ok(Some(End::Continue(server))),
        55..65 => cluster.kill_writer(writer).map(|()| None),
        65..75 if cluster.stop_writer(writer) => Ok(Some(End::ContinueWriter(writer))),
        75..100 if cluster.partition(mask, random.below(3) == 0)? => Ok(Some(End::Heal)),
        _ => Ok(None),
    }
}

fn finish(cluster: &mut Cluster, end: End) -> Result<(), String> {
    match end {
        End::Start(server) => cluster.start_server(server),
        End::Continue(server) => cluster.go_on(server),
        End::ContinueWriter(writer) => cluster.writer_goes_on(writer),
        End::Heal => cluster.heal(),
    }
}
