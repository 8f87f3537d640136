//! The states of targets: what their servers say of them, and what the pool does.

use super::*;
use talea_model::Cause;

use TargetState::{Down, Draining, New, Up};

impl Bench {
    fn state(&self, target: u32) -> TargetState {
        self.pool.map().unwrap().target(TargetId(target)).unwrap().state
    }

    fn version(&self) -> MapVersion {
        self.pool.map().unwrap().version
    }

    fn set(&mut self, target: u32, state: TargetState) -> Outcome {
        self.put(Entry::Targets { targets: vec![TargetId(target)], state })
    }

    /// Server 0 tells that it is there, as it always does: with targets that are up.
    fn returns(&mut self, boot: u64) {
        let targets = vec![target(0, 0, 1), target(1, 0, 1)];
        self.ok(Entry::ServerUp { server: server(0), targets, boot, remembers: true });
    }

    /// A pool whose target 3 was never filled.
    fn with_a_new_one() -> Self {
        let mut bench = Self::new();
        let mut targets: Vec<TargetInfo> = (0..4).map(|id| target(id, id / 2, 1)).collect();
        targets[3].state = New;
        (bench.pool, bench.session) = (Pool::default(), SessionId(0));
        bench.ok(Entry::PoolCreate { pool: 7, servers: vec![server(0), server(1)], targets, boots: vec![1, 1] });
        bench.session = bench.open_session(0);
        bench.ok(Entry::ContainerCreate { name: "run".into(), properties: properties(3) });
        bench
    }
}

#[test]
fn a_target_that_is_emptied_stays_so_while_its_server_goes_and_comes() {
    let mut bench = Bench::new();
    bench.set(0, Draining).unwrap();
    let version = bench.version();
    bench.returns(1);
    assert_eq!((bench.state(0), bench.state(1), bench.version()), (Draining, Up, version), "nothing has changed");
    bench.returns(2);
    assert_eq!((bench.state(0), bench.version()), (Draining, MapVersion(version.0 + 1)), "another process of it");
    bench.ok(Entry::Targets { targets: vec![TargetId(0), TargetId(1)], state: Down });
    assert_eq!((bench.state(0), bench.state(1)), (Down, Down));
    bench.ok(Entry::Targets { targets: vec![TargetId(0), TargetId(1)], state: Down });
    bench.returns(2);
    assert_eq!((bench.state(0), bench.state(1)), (Draining, Up));
    bench.set(0, Up).unwrap();
    assert_eq!(bench.state(0), Up);
}

#[test]
fn what_is_wanted_of_a_lost_target_holds_when_it_is_back() {
    let mut bench = Bench::new();
    bench.set(0, Down).unwrap();
    let version = bench.version();
    bench.set(0, Up).unwrap();
    assert_eq!((bench.state(0), bench.version()), (Down, version), "nobody can wish it back");
    bench.set(0, Draining).unwrap();
    assert_eq!((bench.state(0), bench.version()), (Down, version));
    bench.returns(2);
    assert_eq!((bench.state(0), bench.state(1)), (Draining, Up));
}

#[test]
fn commits_need_what_lies_on_a_target_that_is_emptied_and_name_only_lost_ones() {
    let mut bench = Bench::new();
    bench.set(0, Draining).unwrap();
    assert_eq!(bench.step().step, Step(1), "it serves");
    bench.set(2, Down).unwrap();
    let tx = bench.begin().tx;
    let summary = Summary { failed: true, cause: Cause::Lost(None), ..bench.touched(&[0]) };
    let refusal = bench.commit(tx, summary).unwrap_err();
    assert!(refusal.text.contains("server 1 was lost"), "{}", refusal.text);
    bench.set(0, Down).unwrap();
    let tx = bench.begin().tx;
    let summary = bench.touched(&[0]);
    assert_eq!(bench.commit(tx, summary).unwrap_err().code, RefusalCode::ServerLost);
}

#[test]
fn a_new_target_is_new_until_it_is_put_into_use() {
    let mut bench = Bench::with_a_new_one();
    let up = |bench: &mut Bench, boot| {
        let targets = vec![target(2, 1, 1), target(3, 1, 1)];
        bench.ok(Entry::ServerUp { server: server(1), targets, boot, remembers: true });
    };
    let version = bench.version();
    up(&mut bench, 1);
    assert_eq!((bench.state(3), bench.version()), (New, version));
    bench.ok(Entry::Targets { targets: vec![TargetId(2), TargetId(3)], state: Down });
    assert_eq!((bench.state(2), bench.state(3)), (Down, New), "it has nothing to lose");
    let version = bench.version();
    bench.ok(Entry::Targets { targets: vec![TargetId(2), TargetId(3)], state: Down });
    assert_eq!(bench.version(), version, "the map says so already");
    up(&mut bench, 2);
    assert_eq!((bench.state(2), bench.state(3)), (Up, New));
    assert_eq!(bench.set(3, Draining).unwrap_err().code, RefusalCode::Argument);
    bench.set(3, Up).unwrap();
    assert_eq!(bench.state(3), Up);
    assert_eq!(bench.set(3, New).unwrap_err().code, RefusalCode::Argument);
    let mixed = Entry::Targets { targets: vec![TargetId(0), TargetId(9)], state: Draining };
    assert_eq!(bench.refused(mixed), RefusalCode::NotFound);
    assert_eq!(bench.state(0), Up, "all of them or none");
}
