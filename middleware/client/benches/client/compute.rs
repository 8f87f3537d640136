//! Compute-bound ranks beside a loaded server: how much slower they get, and how much of the processor the load was charged.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{Plan, WRITE, together};
use crate::measure::{Floor, Report, cpu_ns, rounded};
use crate::system::{Fabric, Server};
use crate::worker::{Worker, ready};

/// Work between two looks at the clock.
const ROUNDS: u64 = 100_000;

pub(crate) fn worker() {
    // Begins with its parent's word, counts until the parent's pipe ends or says another.
    if !ready("ready") {
        return;
    }
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        std::io::stdin().lines().next();
        drop(stop);
    });
    let (began, mut rounds, mut value) = (Instant::now(), 0u64, 1u64);
    while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
        for number in 0..ROUNDS {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number));
        }
        rounds += 1;
    }
    println!("{}", json!({ "rate": rounds as f64 / began.elapsed().as_secs_f64() }));
}

/// The rate of as many compute-bound processes as there are cores, while `beside` runs.
fn rate<T>(cores: usize, beside: impl FnOnce() -> T) -> (f64, T) {
    let mut workers: Vec<Worker> = (0..cores).map(|_| Worker::start(&["compute".into()]).0).collect();
    workers.iter_mut().for_each(Worker::go);
    let result = beside();
    workers.iter_mut().for_each(Worker::go);
    let rate = workers.iter_mut().map(|worker| worker.results()["rate"].as_f64().unwrap_or(0.0)).sum();
    (rate, result)
}

/// Clients that write beside as many compute-bound processes as there are cores.
const CLIENTS: [usize; 3] = [1, 2, 4];

fn label(clients: usize) -> String {
    format!("compute/slowdown-beside-load/{clients}-clients")
}

pub(crate) fn figures() -> Vec<String> {
    CLIENTS.map(label).to_vec()
}

pub(crate) fn run(report: &mut Report) {
    for clients in CLIENTS {
        let name = label(clients);
        if report.wants(&name) {
            slowdown(report, &name, clients);
        }
    }
}

fn slowdown(report: &mut Report, name: &str, clients: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pause = || std::thread::sleep(Duration::from_secs(2));
    let server = Server::start(1, Fabric::Ring, "never");
    let (before, ()) = rate(cores, pause);
    let cpu = cpu_ns(server.pid());
    let plan = Plan { operations: 40_000 / clients, ..WRITE };
    let (loaded, (result, seconds)) = rate(cores, || {
        let began = Instant::now();
        (together(&server, clients, plan), began.elapsed().as_secs_f64())
    });
    let server_share = (cpu_ns(server.pid()) - cpu) as f64 / 1e9 / seconds / cores as f64;
    let client_share = result.client_ns * (clients * plan.operations) as f64 / 1e9 / seconds / cores as f64;
    let (after, ()) = rate(cores, pause);
    let alone = (before + after) / 2.0;
    let slowdown = 1.0 - loaded / alone;
    let floor = Floor {
        name: "processor time charged to server and clients".into(),
        value: 100.0 * (server_share + client_share),
    };
    let more = json!({
        "server_percent": rounded(100.0 * server_share), "client_percent": rounded(100.0 * client_share),
        "excess_percent": rounded(100.0 * (slowdown - server_share - client_share)), "rate": rounded(result.rate),
        "drift_percent": rounded(100.0 * (after / before - 1.0)), "seconds": rounded(seconds),
    });
    report.record(name, 100.0 * slowdown, "%", Some(&floor), more);
}
