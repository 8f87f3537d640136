//! More clients on one server, more targets in it: the rate must not fall, and a client costs the server bounded memory.

use serde_json::json;
use talea_model::ObjectClass;

use crate::load::{Plan, WRITE, put, together};
use crate::measure::{self, Floor, Report, rounded};
use crate::system::{Fabric, Server};

/// Operations of all clients together.
const OPERATIONS: usize = 64_000;

const CLIENTS: [usize; 4] = [1, 4, 16, 64];
const TARGETS: [usize; 4] = [1, 2, 4, 8];
const MEMORY: &str = "growth/server-bytes-a-client";

fn label(what: &str, number: usize) -> String {
    format!("growth/{what}/{number}")
}

pub(crate) fn figures() -> Vec<String> {
    let (clients, targets) =
        (CLIENTS.map(|number| label("clients", number)), TARGETS.map(|number| label("targets", number)));
    clients.into_iter().chain(targets).chain([MEMORY.into()]).collect()
}

pub(crate) fn run(report: &mut Report) {
    several(report, "clients", &CLIENTS, |clients| (clients, 1));
    several(report, "targets", &TARGETS, |targets| (2, targets));
    if report.wants(MEMORY) {
        memory(report);
    }
}

/// The rate of so many clients and targets each; the floor is the first one.
fn several(report: &mut Report, what: &str, numbers: &[usize], of: impl Fn(usize) -> (usize, usize)) {
    let mut floor: Option<Floor> = None;
    for &number in numbers {
        let name = label(what, number);
        if !report.wants(&name) {
            continue;
        }
        let (clients, targets) = of(number);
        let server = Server::start(targets, Fabric::Ring, "never");
        let operations = OPERATIONS * measure::times() / clients;
        let result = together(&server, clients, Plan { depth: 4, operations, class: ObjectClass::SX, ..WRITE });
        put(report, &name, &result, floor.as_ref());
        floor.get_or_insert(Floor { name, value: result.rate });
    }
}

/// Resident memory that a connected client costs the server.
fn memory(report: &mut Report) {
    let server = Server::start(1, Fabric::Ring, "never");
    let first = server.client(Fabric::Ring, "never");
    crate::latency::container(&first).query().expect("counters");
    let before = server.resident_bytes();
    let clients: Vec<_> = (0..64).map(|_| server.client(Fabric::Ring, "never")).collect();
    clients.iter().for_each(|client| _ = crate::latency::container(client).query().expect("counters"));
    let each = server.resident_bytes().saturating_sub(before) as f64 / clients.len() as f64;
    report.record(MEMORY, each, "B", None, json!({ "clients": rounded(clients.len() as f64) }));
}
