//! More clients on one server, more targets in it: the rate must not fall, and a client costs the server bounded memory.

use serde_json::json;

use crate::load::{Plan, WRITE, put, together};
use crate::measure::{Floor, Report, rounded};
use crate::system::{Fabric, Server};

/// Operations of all clients together.
const OPERATIONS: usize = 64_000;

pub(crate) fn run(report: &mut Report) {
    let plan = Plan { depth: 4, operations: 0, ..WRITE };
    let mut floor: Option<Floor> = None;
    for clients in [1, 4, 16, 64] {
        let server = Server::start(1, Fabric::Ring, "never");
        let result = together(&server, clients, Plan { operations: OPERATIONS / clients, ..plan });
        put(report, &format!("growth/clients/{clients}"), &result, floor.as_ref());
        floor.get_or_insert(Floor { name: "growth/clients/1".into(), value: result.rate });
    }
    let mut floor: Option<Floor> = None;
    for targets in [1, 2, 4, 8] {
        let server = Server::start(targets, Fabric::Ring, "never");
        let result = together(&server, 2, Plan { operations: OPERATIONS / 2, ..plan });
        put(report, &format!("growth/targets/{targets}"), &result, floor.as_ref());
        floor.get_or_insert(Floor { name: "growth/targets/1".into(), value: result.rate });
    }
    memory(report);
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
    report.record("growth/server-bytes-a-client", each, "B", None, json!({ "clients": rounded(clients.len() as f64) }));
}
