//! Real servers whose leader is killed, or stopped, in the middle of commits.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use data::{client, container};
use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, Server, TellsTheEnd, servers};
use talea_client::{Client, Condition, Container, EntryUpdate, WaitOutcome, Write};
use talea_model::{Extent, ObjectClass, ServerId, Step};

const DEADLINE_MS: u64 = 3_000;

/// One epoch with one small write to one target, tried again while a lost server makes it fail. Every call ends
/// within its deadline.
fn commit(client: &Client, run: &Container) -> Step {
    let begun = Instant::now();
    while begun.elapsed() < 3 * PATIENCE {
        let call = Instant::now();
        let committed = attempt(client, run);
        assert!(call.elapsed() < Duration::from_millis(4 * DEADLINE_MS), "a call without an end");
        match committed {
            Ok(step) => return step,
            Err(error) => println!("again: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no commit goes through any more");
}

fn attempt(client: &Client, run: &Container) -> talea_client::Result<Step> {
    let epoch = run.begin(true)?;
    let extents = [Extent::new(0, 4).unwrap()];
    let entry = EntryUpdate {
        dkey: b"key",
        akey: b"data",
        kind: data::KIND,
        condition: Condition::None,
        extents: &extents,
        data: b"data",
    };
    run.object(client.new_oid(ObjectClass::S1)).update(&Write::Inside(&epoch), &[entry])?;
    epoch.commit(&epoch.summary(), b"", false).committed.map(|committed| committed.step)
}

/// Whose leader gets a signal while a client commits and another follows: commits go on, and each step is told once.
fn survives(count: u32, signal: Signal) {
    let (_outer, all) = servers(count, "");
    // Server 0 has founded the log and leads it, unless the machine was so busy that another was elected. The clients are elsewhere.
    let first = client(&all[0], DEADLINE_MS).status().unwrap().leader;
    let leads = &all[first.0 as usize];
    let mut homes = (0..).map(ServerId).filter(|server| *server != first).map(|server| &all[server.0 as usize]);
    let (writer, reader) = (client(homes.next().unwrap(), DEADLINE_MS), client(homes.next().unwrap(), DEADLINE_MS));
    assert_eq!(writer.status().unwrap().replicas.len(), count as usize);
    let run = container(&writer);
    let seen = reader.container_open("run").unwrap();
    let mut steps = seen.subscribe(Step(0)).unwrap();
    let (done, last) = (AtomicBool::new(false), AtomicU64::new(0));
    let told = std::thread::scope(|scope| {
        let end = TellsTheEnd(&done);
        let follower = scope.spawn(|| {
            let mut told = Vec::new();
            let is_behind = |told: &[u64]| told.last().is_none_or(|step| *step < last.load(Ordering::Relaxed));
            let mut late = None;
            // What was committed is told, however late on a busy machine.
            while !done.load(Ordering::Relaxed)
                || (is_behind(&told) && late.get_or_insert_with(Instant::now).elapsed() < PATIENCE)
            {
                if let Ok(WaitOutcome::Steps { steps, .. }) = steps.wait(500) {
                    told.extend(steps.iter().map(|step| step.step.0));
                }
            }
            told
        });
        (0..5).for_each(|_| _ = commit(&writer, &run));
        kill_process(Pid::from_child(&leads.child), signal).unwrap();
        (0..10).for_each(|_| _ = commit(&writer, &run));
        assert_ne!(writer.status().unwrap().leader, first, "another leads");
        // Longer than a lease: who does not follow the new leader is declared lost meanwhile.
        std::thread::sleep(Duration::from_millis(3_000));
        if signal == Signal::STOP {
            kill_process(Pid::from_child(&leads.child), Signal::CONT).unwrap();
            follows_again(leads, first, &writer);
            commit(&writer, &run);
            assert_ne!(writer.status().unwrap().leader, first, "it leads no more");
        }
        last.store(commit(&writer, &run).0, Ordering::Relaxed);
        drop(end);
        let told = follower.join().unwrap();
        assert_eq!(told.last().copied(), Some(last.load(Ordering::Relaxed)));
        told
    });
    assert!(told.iter().enumerate().all(|(index, step)| *step == index as u64 + 1), "a gap or a repeat: {told:?}");
}

/// Waits until a server that was stopped is part of the pool again: its own clients see what the others see.
fn follows_again(server: &Server, id: ServerId, other: &Client) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let map = other.status().unwrap().map;
        let is_up = map.targets.iter().filter(|target| target.server == id).all(|target| map.is_up(target.id));
        // Two are asked, one after the other: on a busy machine there may be another leader in between.
        if is_up && client(server, DEADLINE_MS).status().unwrap().leader == other.status().unwrap().leader {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a server that goes on does not come back");
}

#[test]
fn the_leader_of_three_is_killed_in_the_middle_of_commits() {
    survives(3, Signal::KILL);
}

#[test]
fn the_leader_of_five_is_killed_in_the_middle_of_commits() {
    survives(5, Signal::KILL);
}

#[test]
fn the_leader_of_three_is_stopped_in_the_middle_of_commits_and_goes_on_as_a_follower() {
    survives(3, Signal::STOP);
}

#[test]
fn the_leader_of_five_is_stopped_in_the_middle_of_commits_and_goes_on_as_a_follower() {
    survives(5, Signal::STOP);
}

#[test]
fn i9_five_idle_servers_cost_less_than_a_hundredth_of_a_core_each() {
    let (_outer, all) = servers(5, "");
    let used = || all.iter().map(Server::cpu_seconds).sum::<f64>();
    let before = used();
    std::thread::sleep(Duration::from_secs(10));
    let used = used() - before;
    println!("{used} s of processor time in ten seconds");
    assert!(used < 0.5, "{used} s of processor time in ten seconds");
}
