//! The in-process fabric: order, loss, ends, and that the same seed gives the same history.

use proptest::prelude::*;

use super::*;

fn network(seed: u64) -> SimNetwork {
    let mut state = seed;
    // SplitMix64.
    SimNetwork::new(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn run(network: &SimNetwork) {
    while let Some(at_ns) = network.next_event_ns() {
        network.advance(at_ns);
    }
}

fn messages(endpoint: &mut SimEndpoint) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(event) = endpoint.recv() {
        if let Event::Message { message, .. } = event {
            all.push(message.to_vec());
        }
    }
    all
}

fn connect(from: &mut SimEndpoint, to: &SimEndpoint) -> PeerId {
    from.connect(&to.address(), &Hello { session: 4, pid: 5, server: None }, u64::MAX).unwrap()
}

#[test]
fn messages_arrive_in_order_after_up_and_before_down() {
    let network = network(1);
    let (mut a, mut b) = (network.endpoint(1), network.endpoint(2));
    network.set_host(1, 7);
    network.set_host(2, 7);
    let peer = connect(&mut a, &b);
    for i in 0..100u8 {
        a.send(peer, &[IoSlice::new(&[i])]).unwrap();
    }
    drop(a);
    assert!(b.recv().is_none(), "nothing arrives before its time");
    run(&network);
    assert!(matches!(b.recv(), Some(Event::Up { hello: Hello { session: 4, pid: 5, .. }, local: true, .. })));
    for i in 0..100u8 {
        assert!(matches!(b.recv(), Some(Event::Message { message, .. }) if message[..] == [i]));
    }
    let Some(Event::Down { peer }) = b.recv() else { panic!() };
    assert_eq!(b.send(peer, &[]), Err(SendError::Gone));
    assert!(b.recv().is_none());
}

#[test]
fn loss_duplication_and_reordering_happen_only_where_asked_for() {
    let network = network(2);
    let (mut a, mut b) = (network.endpoint(1), network.endpoint(2));
    let peer = connect(&mut a, &b);
    let link = Link { loss_ppm: 300_000, duplicate_ppm: 300_000, reorder: true, ..Link::default() };
    network.set_link(1, 2, link);
    for i in 0..200u8 {
        a.send(peer, &[IoSlice::new(&[i])]).unwrap();
    }
    run(&network);
    let got = messages(&mut b);
    let mut unique = got.clone();
    unique.sort();
    unique.dedup();
    assert!(unique.len() < 200 && unique.len() < got.len() && !got.is_sorted());
}

#[test]
fn a_crash_loses_what_was_on_the_way_to_it_and_a_new_life_starts_clean() {
    let network = network(3);
    let (mut a, mut b) = (network.endpoint(1), network.endpoint(2));
    let peer = connect(&mut a, &b);
    run(&network);
    assert!(matches!(b.recv(), Some(Event::Up { .. })));
    a.send(peer, &[IoSlice::new(b"lost")]).unwrap();
    b.send(peer, &[IoSlice::new(b"last words")]).unwrap();
    network.crash(2);
    assert!(b.recv().is_none());
    assert_eq!(b.send(peer, &[]), Err(SendError::Gone));
    assert!(b.connect(&a.address(), &Hello::default(), 0).is_err());
    let mut b2 = network.endpoint(2);
    drop(b);
    run(&network);
    assert!(matches!(a.recv(), Some(Event::Message { message, .. }) if &message[..] == b"last words"));
    assert!(matches!(a.recv(), Some(Event::Down { .. })));
    assert!(b2.recv().is_none(), "the new life knows nothing of the old");
    let again = connect(&mut a, &b2);
    assert_ne!(again, peer);
    run(&network);
    assert!(matches!(b2.recv(), Some(Event::Up { .. })));
}

#[test]
fn a_partition_loses_messages_and_hides_ends_until_it_heals() {
    let network = network(4);
    let (mut a, mut b) = (network.endpoint(1), network.endpoint(2));
    let peer = connect(&mut a, &b);
    run(&network);
    let _ = b.recv();
    network.partition(&[1], &[2]);
    a.send(peer, &[IoSlice::new(b"lost")]).unwrap();
    assert!(a.connect(&b.address(), &Hello::default(), 0).is_err());
    network.crash(1);
    run(&network);
    assert!(b.recv().is_none());
    network.heal();
    run(&network);
    assert!(matches!(b.recv(), Some(Event::Down { .. })));
}

#[test]
fn sever_and_disconnect() {
    let network = network(5);
    let (mut a, mut b) = (network.endpoint(1), network.endpoint(2));
    connect(&mut a, &b);
    let second = connect(&mut a, &b);
    run(&network);
    a.disconnect(second);
    network.sever(2, 1);
    run(&network);
    assert!(matches!(a.recv(), Some(Event::Down { peer }) if peer != second));
    assert!(a.recv().is_none());
    let downs = std::iter::from_fn(|| b.recv()).filter(|event| matches!(event, Event::Down { .. })).count();
    assert_eq!(downs, 2);
    assert!(network.state().connections_are_gone());
}

#[test]
fn a_full_link_says_so_until_the_other_side_receives() {
    let network = network(6);
    let (mut a, mut b) = (network.endpoint(1), network.endpoint(2));
    network.set_default_link(Link { in_flight_max: 3, ..Link::default() });
    let peer = connect(&mut a, &b);
    let mut sent = 0;
    while a.send(peer, &[IoSlice::new(b"x")]).is_ok() {
        sent += 1;
    }
    run(&network);
    assert_eq!((sent, a.send(peer, &[])), (3, Err(SendError::Full)));
    assert_eq!(messages(&mut b).len(), 3);
    assert_eq!(a.send(peer, &[]), Ok(()));
}

#[test]
fn clocks_share_monotonic_time_and_differ_in_wall_time() {
    let network = network(7);
    let (a, b) = (network.clock(1), network.clock(2));
    network.set_clock_offset(2, -500);
    network.advance(3_000_000);
    network.advance(1_000_000);
    assert_eq!((a.monotonic_ns(), b.monotonic_ns()), (3_000_000, 3_000_000));
    assert_eq!((a.unix_us(), b.unix_us()), (SIM_START_US + 3000, SIM_START_US + 2500));
}

/// Random traffic among four nodes under every fault.
fn history(seed: u64, steps: &[(u8, u8, u8)]) -> ([u8; 32], u64) {
    let network = network(seed);
    network.set_default_link(Link {
        loss_ppm: 50_000,
        duplicate_ppm: 50_000,
        reorder: seed.is_multiple_of(2),
        ..Link::default()
    });
    let mut nodes: Vec<SimEndpoint> = (0..4).map(|node| network.endpoint(node)).collect();
    let mut peers: Vec<Vec<PeerId>> = vec![Vec::new(); 4];
    for &(what, a, b) in steps {
        let (a, b) = (usize::from(a % 4), usize::from(b % 4));
        match what % 16 {
            0 => nodes[a] = network.endpoint(a as u32),
            1 => network.partition(&[a as u32], &[b as u32]),
            2 => network.heal(),
            3 => network.sever(a as u32, b as u32),
            4..7 => peers[a].extend(nodes[a].connect(&Address::Sim(b as u32), &Hello::default(), 0)),
            7..10 => {
                if let Some(at_ns) = network.next_event_ns() {
                    network.advance(at_ns);
                }
            }
            _ => {
                while let Some(event) = nodes[a].recv() {
                    if let Event::Up { peer, .. } = event {
                        peers[a].push(peer);
                    }
                }
                for peer in &peers[a] {
                    let _ = nodes[a].send(*peer, &[IoSlice::new(&[what, b as u8])]);
                }
            }
        }
    }
    run(&network);
    (network.digest(), network.messages_sent())
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_history(
        seed in any::<u64>(),
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..200),
    ) {
        prop_assert_eq!(history(seed, &steps), history(seed, &steps));
    }
}

#[test]
fn another_seed_gives_another_history() {
    let steps: Vec<(u8, u8, u8)> = (0..=255).map(|i: u8| (i, i.wrapping_mul(7), i.wrapping_mul(11))).collect();
    let digests: std::collections::BTreeSet<_> = (0..20).map(|seed| history(seed, &steps).0).collect();
    assert_eq!(digests.len(), 20);
}
