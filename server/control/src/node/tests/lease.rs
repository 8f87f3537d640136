//! Until when the targets may serve (rule 11).

use super::*;

const MS: u64 = 1_000_000;

fn is_up(world: &World, at: usize, target: u32) -> bool {
    world.node(at).pool().map().unwrap().is_up(TargetId(target))
}

#[test]
fn rule_11_a_lease_counts_from_when_the_confirmed_request_was_sent() {
    let mut world = World::new();
    world.advance(LEASE_MS);
    // What follows waits at the leader; the answer comes late.
    world.stop(0);
    let before = world.told[1].lease_ns.unwrap();
    // Between two heartbeats.
    world.advance(1_300);
    assert_eq!(world.told[1].lease_ns, Some(before), "nothing was confirmed meanwhile");
    let answered_ns = world.now.monotonic_ns;
    world.go_on(0);
    world.settle();
    let after = world.told[1].lease_ns.unwrap();
    assert!(after > before, "it is confirmed now");
    let sent_ns = after - LEASE_MS * MS;
    assert!(sent_ns < answered_ns && sent_ns > before - LEASE_MS * MS, "{sent_ns}: when it was sent");
    assert!(answered_ns - sent_ns > 250 * MS, "not when it was answered");
}

#[test]
fn rule_11_the_targets_lease_ends_a_margin_before_the_leader_gives_a_server_up() {
    for stop_ms in (0..10).map(|part| part * 53) {
        let mut world = World::new();
        world.advance(LEASE_MS + stop_ms);
        world.stop(1);
        let until_ns = world.told[1].lease_ns.unwrap();
        while is_up(&world, 0, 2) {
            world.advance(1);
        }
        let lost_ns = world.now.monotonic_ns;
        assert!(lost_ns >= until_ns + LEASE_MS * MS / 8, "lost at {lost_ns}, and its targets served until {until_ns}");
        // However long it was away, it serves again only when it knows what was decided meanwhile.
        world.go_on(1);
        assert!(!world.may_serve(1));
        world.with(1, |node, now| node.tick(now));
        assert_eq!(world.told[1].lease_ns, None);
        world.advance(LEASE_MS);
        assert!(world.may_serve(1) && is_up(&world, 1, 2));
    }
}

#[test]
fn rule_11_a_leader_serves_by_its_majority_and_one_alone_by_itself() {
    let mut world = World::with_replicas(3);
    world.advance(LEASE_MS);
    let leader = world.leader();
    let until_ns = world.told[leader].lease_ns.unwrap();
    assert!(until_ns <= world.now.monotonic_ns + LEASE_MS * MS, "others could go on without it");
    assert!(until_ns > world.now.monotonic_ns + LEASE_MS * MS / 2, "it is renewed long before its end");
    world.stop(leader);
    let mut lost = false;
    for _ in 0..4 * LEASE_MS {
        world.advance(1);
        let new = world.running().find(|server| world.node(*server).is_leader());
        if new.is_some_and(|new| !is_up(&world, new, leader as u32 * 2)) {
            lost = true;
            break;
        }
    }
    assert!(lost && world.now.monotonic_ns >= until_ns + LEASE_MS * MS / 8, "its own lease was long over");
    let mut alone = World::of(1);
    assert_eq!(alone.told[0].lease_ns, Some(u64::MAX));
    alone.advance(100 * LEASE_MS);
    assert!(alone.may_serve(0), "there is nobody who could shut it out");
}
