//! Fetches of a target whose data lies on a device.

use talea_model::{SessionId, View};
use talea_tier::SimRead;
use talea_wire::data::{Body, Condition};

use super::bench::*;

#[test]
fn fetches_that_come_together_ask_the_device_together() {
    let mut bench = Bench::new();
    bench.up(2);
    let keys: Vec<String> = (0..8).map(|key| format!("key {key}")).collect();
    let value_of = |key: &String| key.repeat(2000).into_bytes();
    for key in &keys {
        assert_eq!(bench.put(AUTO, View::Latest, key.as_bytes(), &value_of(key)), Some(Answer::Done));
    }
    bench.medium.is_device();
    let mut asked = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let mut head = bench.head(None, View::Latest);
        head.session = SessionId(1 + number as u64 % 2);
        asked.push((bench.send(head, Body::Fetch(vec![single(key.as_bytes(), &[], Condition::None)])), key));
    }
    assert_eq!(bench.medium.take_reads(), [], "nothing is read before the turn's end");
    let answers = bench.finish();
    let expected: Vec<_> = asked.iter().map(|(id, key)| (*id, value(&value_of(key)).unwrap())).collect();
    assert_eq!(answers, expected);
    let reads = bench.medium.take_reads();
    let begun = reads.iter().take_while(|read| matches!(read, SimRead::Begun(_))).count();
    assert_eq!((begun, reads.len()), (8, 16), "all are under way before the first one is waited for: {reads:?}");
    assert_eq!(bench.target.parked(), 0);
}
