//! What is tried: messages to a sleeper, both ways at once, a full ring, loans that come back from another thread.

use std::io::IoSlice;

use loom::model::Builder;
use loom::thread;

use crate::Message;
use crate::ring::doorbell::fence_sleep;
use crate::ring::layout::{ALIGN_BYTES, Geometry, INLINE_MAX_BYTES, Side};
use crate::ring::link::Link;
use crate::ring::mapping::Mapping;
use crate::ring::producer::PushError;
use crate::ring::sync::{Arc, Bell, Edge};

/// Two inline messages of up to 48 bytes fill a ring; two blocks fill an area.
fn small() -> Geometry {
    let area_bytes = 2 * (INLINE_MAX_BYTES + ALIGN_BYTES);
    Geometry { ring_bytes: 2 * ALIGN_BYTES, area_bytes }
}

/// One side of a connection, as an endpoint's thread uses it.
struct End {
    link: Link,
    edge: Arc<Edge>,
    slept: u32,
}

fn pair(geometry: Geometry) -> (End, End) {
    let mapping = Arc::new(Mapping::new(geometry));
    let (client_edge, server_edge) = (Edge::new(), Edge::new());
    let link = |side, bell: &Arc<Edge>| Link::new(&mapping, geometry, side, Bell::new(bell.clone()));
    let (client, server) = (link(Side::Client, &server_edge), link(Side::Server, &client_edge));
    (End { link: client, edge: client_edge, slept: 0 }, End { link: server, edge: server_edge, slept: 0 })
}

impl End {
    /// As `talea_fabric::member::wait` without its spinning.
    fn wait(&mut self) {
        if self.link.is_ready() {
            return;
        }
        self.link.say_asleep();
        fence_sleep();
        if !self.link.is_ready() {
            self.slept += 1;
            self.edge.sleep();
        }
        self.link.say_awake();
    }

    fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.link.pop().unwrap() {
                return message;
            }
            self.wait();
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        while let Err(error) = self.link.push(&[IoSlice::new(bytes)]) {
            assert_eq!(error, PushError::Full);
            self.wait();
        }
    }
}

/// All interleavings with up to so many preemptions: of each kind, the bugs that are known need two at most.
fn check(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(scenario);
}

#[test]
fn a_sleeper_gets_every_message() {
    check(3, || {
        let (mut client, mut server) = pair(small());
        let sender = thread::spawn(move || (1..=2).for_each(|number: u8| client.send(&[number; 20])));
        for number in 1..=2 {
            assert_eq!(server.next()[..], [number; 20]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn both_sleep_in_turns() {
    check(3, || {
        let (mut client, mut server) = pair(small());
        let echo = thread::spawn(move || {
            for _ in 0..2 {
                let message = server.next();
                server.send(&message);
            }
        });
        for number in 1..=2 {
            client.send(&[number; 3]);
            assert_eq!(client.next()[..], [number; 3]);
        }
        echo.join().unwrap();
    });
}

#[test]
fn a_full_ring_wakes_its_sender_and_nothing_is_overwritten() {
    check(2, || {
        let (mut client, mut server) = pair(small());
        let sender = thread::spawn(move || (1..=4).for_each(|number: u8| client.send(&[number; 48])));
        for number in 1..=4 {
            assert_eq!(server.next()[..], [number; 48]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_look_at_the_descriptors_between_takes_no_wake_up_away() {
    check(2, || {
        let (mut client, mut server) = pair(small());
        let sender = thread::spawn(move || (1..=3).for_each(|number: u8| client.send(&[number])));
        for number in 1..=3 {
            server.edge.look();
            assert_eq!(server.next()[..], [number]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn blocks_are_not_used_again_before_their_loans_come_back() {
    const LEN: usize = INLINE_MAX_BYTES + 1;
    check(2, || {
        let (mut client, mut server) = pair(small());
        let sender = thread::spawn(move || (1..=3).for_each(|number: u8| client.send(&[number; LEN])));
        let first = server.next();
        let second = server.next();
        assert!(first[..] == [1; LEN] && second[..] == [2; LEN]);
        // The other way round, so that the head moves over both at once.
        drop(second);
        assert!(first[..] == [1; LEN]);
        drop(first);
        assert!(server.next()[..] == [3; LEN]);
        sender.join().unwrap();
    });
}

#[test]
fn a_loan_may_come_back_from_another_thread() {
    const LEN: usize = INLINE_MAX_BYTES + 1;
    check(2, || {
        let (mut client, mut server) = pair(small());
        let sender = thread::spawn(move || (1..=3).for_each(|number: u8| client.send(&[number; LEN])));
        let (first, second) = (server.next(), server.next());
        let other = thread::spawn(move || drop(first));
        drop(second);
        assert!(server.next()[..] == [3; LEN]);
        other.join().unwrap();
        sender.join().unwrap();
    });
}

/// That the model can fail: without the sleeper's fence a wake-up is lost, and loom finds it.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_a_wake_up_is_lost() {
    check(3, || {
        let (mut client, mut server) = pair(small());
        let sender = thread::spawn(move || client.send(&[1]));
        while server.link.pop().unwrap().is_none() {
            server.link.say_asleep();
            if !server.link.is_ready() {
                server.edge.sleep();
            }
            server.link.say_awake();
        }
        sender.join().unwrap();
    });
}
