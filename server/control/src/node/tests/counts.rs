//! I5 by counting: a commit costs the same whatever was written and by however many.

use super::*;

/// What one commit of an epoch cost that `writers` joined and whose largest write ended at `end_bytes`.
fn cost(writers: usize, end_bytes: u64) -> Counters {
    let mut world = World::new();
    let clients: Vec<usize> = (0..writers).map(|n| world.client(n % 2)).collect();
    let tx = world.begin(clients[0]).tx;
    clients.iter().for_each(|client| drop(world.ok(*client, Request::Join { tx })));
    let mut summary = world.touched();
    for writer in 1..writers {
        summary.merge(&Summary { size: (0, end_bytes * writer as u64), ..world.touched() });
    }
    let before = world.node(0).counters();
    world.ok(clients[0], Request::Commit { tx, summary, attributes: b"step".to_vec(), next: false });
    let after = world.node(0).counters();
    Counters {
        entries: after.entries - before.entries,
        log_bytes: after.log_bytes - before.log_bytes,
        messages_in: after.messages_in - before.messages_in,
        messages_out: after.messages_out - before.messages_out,
    }
}

#[test]
fn i5_a_commit_is_one_entry_whatever_was_written() {
    let small = cost(1, 1 << 20);
    assert_eq!((small.entries, small.messages_in, small.messages_out), (1, 1, 2), "one batch, one answer");
    // Varints: the size's and the tx's own digits may differ by a few bytes, nothing else.
    for other in [cost(64, 1 << 20), cost(1, 1 << 30), cost(64, 1 << 30)] {
        assert_eq!(Counters { log_bytes: 0, ..other }, Counters { log_bytes: 0, ..small });
        assert!(other.log_bytes.abs_diff(small.log_bytes) <= 16, "{other:?} {small:?}");
    }
}
