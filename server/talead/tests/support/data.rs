//! A client of a test's servers, and data whose every change shows.
#![allow(dead_code, unreachable_pub, missing_docs)] // no test uses all of it

use std::sync::Arc;

use talea_client::{
    Client, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, Object, Tuning, ValueKind, Write,
};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, View};

use crate::support::{SECRET, SYSTEM, Server};

pub const CHUNK: usize = 64 * 1024;
pub const KIND: ValueKind = ValueKind::Array { record_bytes: 1 };

pub fn client(server: &Server, deadline_ms: u64) -> Client {
    let client = unopened(server, SECRET, deadline_ms);
    client.open().unwrap();
    client
}

/// A client with a secret of its own, not connected yet.
pub fn unopened(server: &Server, secret: [u8; 32], deadline_ms: u64) -> Client {
    unopened_at(&server.control[0], secret, deadline_ms)
}

/// The same of a server at this address.
pub fn unopened_at(control: &str, secret: [u8; 32], deadline_ms: u64) -> Client {
    let endpoint = client_endpoint(&Credentials::new(SYSTEM, secret), Policy::Auto, Spin::Never).unwrap();
    let tuning = Tuning { name: "test".to_owned(), deadline_ms, ..Tuning::default() };
    let home = control.parse().unwrap();
    Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, 7, tuning)
}

pub fn container(client: &Client) -> Container {
    client.container_create("run", ContainerProperties::default(), true).unwrap()
}

/// Writes `value` into the first `chunks` chunks, which lie on all targets in turn.
pub fn fill(object: &Object, write: &Write<'_>, chunks: u64, value: u8) -> talea_client::Result<()> {
    let data = vec![value; CHUNK];
    let extents = [Extent::new(0, CHUNK as u64).unwrap()];
    let keys: Vec<[u8; 8]> = (0..chunks).map(u64::to_be_bytes).collect();
    let entry = |dkey| EntryUpdate {
        dkey,
        akey: b"data",
        kind: KIND,
        condition: Condition::None,
        extents: &extents,
        data: &data,
    };
    let entries: Vec<EntryUpdate<'_>> = keys.iter().map(|key| entry(&key[..])).collect();
    object.update(write, &entries)
}

/// The one value that fills all chunks, or what else there is.
pub fn look(object: &Object, view: &View, chunks: u64) -> Result<u8, Vec<u8>> {
    let extents = [Extent::new(0, CHUNK as u64).unwrap()];
    let keys: Vec<[u8; 8]> = (0..chunks).map(u64::to_be_bytes).collect();
    let mut data = vec![0xee; CHUNK * chunks as usize];
    let parts = keys.iter().zip(data.chunks_mut(CHUNK));
    let mut entries: Vec<EntryFetch<'_>> =
        parts.map(|(key, out)| EntryFetch::array(key, b"data", 1, &extents, out)).collect();
    object.fetch(view, &mut entries).unwrap();
    drop(entries);
    let mut values = data.clone();
    values.dedup();
    if values.len() == 1 { Ok(values[0]) } else { Err(values) }
}
