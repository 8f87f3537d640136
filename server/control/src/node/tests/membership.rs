//! What membership costs and how often it errs: who counts as lost, when, under which losses and delays (docs/design.md §8).

use super::*;
use talea_wire::log::Entry;

const MS: u64 = 1_000_000;

/// A network between servers that loses messages, or is late with them, in order a connection.
pub(super) struct Weather {
    random: u64,
    /// So many of a thousand messages are lost.
    lost: u64,
    /// So many of a thousand are late, by up to so many milliseconds; who comes behind them waits for them.
    late: (u64, u64),
    /// Those that are on their way, by when they arrive.
    flying: BTreeMap<(u64, u64), (End, Vec<u8>)>,
    sent: u64,
    last_ns: BTreeMap<End, u64>,
}

impl Weather {
    fn new(seed: u64, lost: u64, late: (u64, u64)) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { random, lost, late, flying: BTreeMap::new(), sent: 0, last_ns: BTreeMap::new() }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub(super) fn send(&mut self, now_ns: u64, to: End, bytes: Vec<u8>) {
        if self.draw(1000) < self.lost {
            return;
        }
        let is_late = self.draw(1000) < self.late.0;
        let delay_ns = if is_late { self.draw(self.late.1 * MS) } else { 0 };
        let at_ns = (now_ns + delay_ns).max(self.last_ns.get(&to).copied().unwrap_or(0));
        self.last_ns.insert(to, at_ns);
        self.sent += 1;
        self.flying.insert((at_ns, self.sent), (to, bytes));
    }

    /// What has arrived by now.
    pub(super) fn arrived(&mut self, now_ns: u64) -> Vec<(End, Vec<u8>)> {
        let later = self.flying.split_off(&(now_ns + 1, 0));
        std::mem::replace(&mut self.flying, later).into_values().collect()
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        self.flying.first_key_value().map(|((at_ns, _), _)| *at_ns)
    }
}

/// What went wrong though every server was alive all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// Times a server was declared lost.
    declared: u64,
    /// Milliseconds for which a server did not serve, over all servers.
    unserved_ms: u64,
    /// Seconds of all servers together.
    server_s: u64,
}

impl World {
    /// Lets time pass under a weather, and counts.
    fn weathered(&mut self, weather: Weather, ms: u64) -> Wrong {
        const LOOK_MS: u64 = 50;
        let before = self.records().len();
        self.weather = Some(weather);
        let mut wrong = Wrong::default();
        for _ in 0..ms / LOOK_MS {
            self.advance(LOOK_MS);
            let silent = (0..self.nodes.len()).filter(|server| !self.may_serve(*server)).count();
            wrong.unserved_ms += silent as u64 * LOOK_MS;
        }
        self.weather = None;
        self.advance(4 * LEASE_MS);
        let declares = |record: &&Record| matches!(record.entry, Entry::Targets { state: TargetState::Down, .. });
        wrong.declared = self.records()[before..].iter().filter(declares).count() as u64;
        wrong.server_s = self.nodes.len() as u64 * ms / 1000;
        wrong
    }
}

fn over_seeds(seeds: u64, servers: usize, width: usize, lost: u64, late: (u64, u64)) -> Wrong {
    let mut sum = Wrong::default();
    for seed in 0..seeds {
        let mut world = World::spreading(servers, width);
        let wrong = world.weathered(Weather::new(seed + 1, lost, late), 60_000);
        sum.declared += wrong.declared;
        sum.unserved_ms += wrong.unserved_ms;
        sum.server_s += wrong.server_s;
    }
    let per_mille = sum.unserved_ms as f64 / sum.server_s as f64;
    println!(
        "{servers} servers, {width} children each, {lost} of 1000 messages lost, {} late by up to {} ms: {} declared \
         lost and {per_mille:.3} of 1000 s unserved, in {} s of servers",
        late.0, late.1, sum.declared, sum.server_s
    );
    sum
}

#[test]
fn nobody_who_is_alive_is_declared_lost_though_one_message_of_twenty_is() {
    // A tree, a wide one as it is from 17 servers on, and none.
    for (seeds, servers, width) in [(10, 5, 16), (5, 20, 3), (1, 100, 8)] {
        for lost in [10, 50] {
            let wrong = over_seeds(seeds, servers, width, lost, (0, 1));
            assert_eq!((wrong.declared, wrong.unserved_ms), (0, 0), "{lost} of 1000 lost, {servers} servers");
        }
        let wrong = over_seeds(seeds, servers, width, 100, (0, 1));
        assert!(wrong.declared == 0 && wrong.unserved_ms <= wrong.server_s, "a tenth is lost: {wrong:?}");
        let wrong = over_seeds(seeds, servers, width, 200, (0, 1));
        assert!(wrong.declared * 1000 <= wrong.server_s, "a fifth is lost: {wrong:?}");
    }
}

#[test]
fn nobody_who_is_alive_is_declared_lost_though_messages_are_late() {
    for (seeds, servers, width) in [(10, 5, 16), (5, 20, 3), (1, 100, 8)] {
        // All of them by up to a tenth of a heartbeat, or some by up to a whole one.
        for late in [(1000, 50), (100, 500)] {
            let wrong = over_seeds(seeds, servers, width, 0, late);
            assert_eq!((wrong.declared, wrong.unserved_ms), (0, 0), "{late:?}, {servers} servers");
        }
        // Raft's own timeouts are of that order: servers wait for another leader, and still nobody is declared lost.
        let wrong = over_seeds(seeds, servers, width, 0, (1000, 200));
        assert_eq!(wrong.declared, 0, "{servers} servers");
    }
}

#[test]
fn who_is_silent_is_declared_lost_within_a_lease_and_the_drift_of_clocks() {
    let (mut least_ms, mut most_ms, mut sum_ms) = (u64::MAX, 0, 0);
    const SEEDS: u64 = 40;
    for seed in 0..SEEDS {
        let (servers, width) = [(5, 16), (20, 3), (40, 8)][seed as usize % 3];
        let mut world = World::spreading(servers, width);
        let mut weather = Weather::new(seed + 1, 0, (0, 1));
        world.advance(weather.draw(LEASE_MS));
        let silent = servers - 1 - weather.draw(2) as usize;
        // Its connections stand, so that nothing but silence tells.
        world.stop(silent);
        let began_ns = world.now.monotonic_ns;
        let down = |world: &World| !world.node(world.leader()).pool().map().unwrap().is_up(TargetId(2 * silent as u32));
        while !down(&world) {
            world.advance(5);
            assert!(world.now.monotonic_ns - began_ns < 2 * LEASE_MS * MS, "seed {seed}");
        }
        let took_ms = (world.now.monotonic_ns - began_ns) / MS;
        (least_ms, most_ms, sum_ms) = (least_ms.min(took_ms), most_ms.max(took_ms), sum_ms + took_ms);
    }
    println!("declared lost after {least_ms} to {most_ms} ms, {} in the mean", sum_ms / SEEDS);
    // What was heard last was at most a heartbeat and what the tree gathers old, or came a moment after.
    assert!(least_ms >= LEASE_MS * 9 / 8 - 600 && most_ms <= LEASE_MS * 9 / 8 + 100, "{least_ms} to {most_ms} ms");
}
