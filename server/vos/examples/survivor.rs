//! Writes to a store until it is killed, and finds out after a restart whether it kept what it had acknowledged.
//!
//! `survivor TIERS ACKNOWLEDGED [verify]`: opens the store, demands that it holds exactly a beginning of the numbers written, with
//! all up to ACKNOWLEDGED, prints `LEFT n`, and goes on from there, printing `ACK n` after each flush. `make test-guest` runs it in
//! a virtual machine that it kills.

use std::process::ExitCode;

use talea_model::{ContainerId, ObjectClass, Oid, Order, Position, SessionId, Stamp, TargetId, View};
use talea_tier::{TierKind, TiersConfig, open_media};
use talea_vos::checksum::crc32c;
use talea_vos::{
    Caller, Change, Condition, EntryUpdate, FetchWhat, ObjectRef, Store, StoreError, StoreOptions, ValueKind,
};

const DKEYS: u64 = 32;
const CONTAINER: ContainerId = ContainerId(1);

fn at() -> ObjectRef {
    ObjectRef { container: CONTAINER, oid: Oid::new(ObjectClass::S1, 1) }
}

/// Value number `n`: its number, then a pattern; small ones and bulk in turn.
fn value(n: u64) -> Vec<u8> {
    let bytes = match n % 5 {
        0 => 20_000 + (n * 977 % 40_000) as usize,
        1 => 4097,
        _ => 8 + (n * 131 % 3000) as usize,
    };
    let mut value: Vec<u8> = (0..bytes).map(|at| (n as usize + at / 16) as u8).collect();
    value[..8].copy_from_slice(&n.to_le_bytes());
    value
}

fn put(store: &mut Store, n: u64) -> Result<(), StoreError> {
    let (data, dkey) = (value(n), [(n % DKEYS) as u8]);
    let (kind, condition, checksum) = (ValueKind::Single, Condition::None, crc32c(&data));
    let entry = EntryUpdate { dkey: &dkey, akey: b"v", kind, condition, extents: &[], data: &data, checksum };
    let caller = Caller { session: SessionId(1), sequence: n, acknowledged_below: n };
    store.update(at(), Order::Auto { tied: None }, Stamp(10 * n), View::Latest, caller, &[entry])
}

/// The last number written, if all that should be there is.
fn verify(store: &Store) -> Result<u64, String> {
    let mut last = vec![0; DKEYS as usize];
    for dkey in 0..DKEYS {
        let mut out = Vec::new();
        let fetched = store.fetch(at(), View::Latest, &[dkey as u8], b"v", FetchWhat::Single, &mut out);
        if fetched.map_err(|error| format!("dkey {dkey}: {error}"))?.found {
            let n = u64::from_le_bytes(std::array::from_fn(|at| out[at]));
            if out != value(n) {
                return Err(format!("dkey {dkey} holds something that was never written, near number {n}"));
            }
            last[dkey as usize] = n;
        }
    }
    let left = last.iter().copied().max().unwrap_or(0);
    for (dkey, found) in (0..).zip(last) {
        // The newest number up to `left` that belongs here.
        let expected = left.saturating_sub((left + DKEYS - dkey) % DKEYS);
        if found != expected {
            return Err(format!(
                "dkey {dkey} holds number {found}, and {left} was the last one: {expected} is missing"
            ));
        }
    }
    Ok(left)
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tiers, acknowledged, mode @ ..] = &arguments[..] else {
        return Err("usage: survivor TIERS ACKNOWLEDGED".into());
    };
    let config: TiersConfig = tiers.parse().map_err(|error| format!("{error}"))?;
    let acknowledged: u64 = acknowledged.parse().map_err(|_| "ACKNOWLEDGED is a number")?;
    if let TierKind::Pmem(path) = &config.log.kind {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let probe = talea_tier::PmemMedium::open(&path.join("probe"), 1 << 20).map_err(|error| error.to_string())?;
        println!("DIRECT {}", probe.is_direct());
    }
    let media = open_media(&config, TargetId(0)).map_err(|error| error.to_string())?;
    let options = StoreOptions { nonce: u64::from(std::process::id()), ..StoreOptions::default() };
    let (mut store, recovered) = Store::open(media, options).map_err(|error| error.to_string())?;
    if recovered.lost || (recovered.fresh && acknowledged > 0) {
        return Err(format!("what was durable is lost: {recovered:?}"));
    }
    let left = verify(&store)?;
    if left < acknowledged {
        return Err(format!("I4: {acknowledged} were acknowledged and {left} are left"));
    }
    println!("LEFT {left}");
    if mode.first().is_some_and(|mode| mode == "verify") {
        return Ok(());
    }
    let mut n = left;
    loop {
        for _ in 0..1 + n % 7 {
            n += 1;
            put(&mut store, n).map_err(|error| format!("number {n}: {error}"))?;
        }
        if n % 3 == 0 {
            let floor = Change::Floor(CONTAINER, Stamp(10 * n));
            let horizon = Position(store.ledger().horizon().0 + 1);
            store.follow(&[floor], horizon).map_err(|error| error.to_string())?;
        }
        store.flush().map_err(|error| error.to_string())?;
        println!("ACK {n}");
        store.background(16).map_err(|error| error.to_string())?;
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            println!("FAILED {text}");
            ExitCode::FAILURE
        }
    }
}
