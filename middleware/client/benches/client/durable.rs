//! One client of a durable tier, one operation at a time.

use talea_client::Write;
use talea_model::{Extent, ObjectClass};

use crate::floor;
use crate::latency::{SMALL_BYTES, container, fetch, timed, update};
use crate::measure::{Floor, Report, Samples};
use crate::system::{Fabric, Server};

const SIZES: [(&str, usize); 2] = [("64B", 64), ("4KiB", 4096)];

/// Of an update and a fetch.
fn labels(kind: &str, size: &str) -> [String; 2] {
    ["update", "fetch"].map(|verb| format!("durable/{kind}/{verb}/{size}"))
}

pub(crate) fn figures() -> Vec<String> {
    ["pmem", "nvme"].iter().flat_map(|kind| SIZES.iter().flat_map(|(size, _)| labels(kind, size))).collect()
}

/// Updates and fetches of durable tiers; the floor is the fabric's ping-pong and a write and flush, or a read around the page cache where
/// the tier is no memory, of as much by this process.
pub(crate) fn run(report: &mut Report) {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
    for (kind, root, count) in [("pmem", "/dev/shm", 20_000), ("nvme", target, 1_000)] {
        if !report.wants_of(&format!("durable/{kind}/")) {
            continue;
        }
        let directory = tempfile::Builder::new().prefix("talea-bench-").tempdir_in(root).expect("a directory");
        let server = Server::start_on(&format!("{kind}:{}:1G", directory.path().display()), 1, Fabric::Ring, "never");
        let client = server.client(Fabric::Ring, "never");
        let container = container(&client);
        for (size, bytes) in SIZES {
            let labels = labels(kind, size);
            let wanted = labels.each_ref().map(|label| report.wants(label));
            if wanted == [false, false] {
                continue;
            }
            let object = container.object(client.new_oid(ObjectClass::S1));
            let (data, extent) = (vec![5u8; bytes], Extent { index: 0, count: bytes as u64 });
            let write = |number: usize| update(&object, &Write::Auto, number as u64 % 256, extent, &data);
            Samples::take(count / 10, write);
            if wanted[0] {
                let round_trip = floor::ping_pong("ring", "never", bytes, SMALL_BYTES, count / 2).value;
                let flush = floor::write_and_flush(directory.path(), bytes, count / 2);
                let floor =
                    Floor { name: format!("ring ping-pong + write and flush of {bytes} B"), value: round_trip + flush };
                timed(report, &server, &labels[0], &floor, count, write);
            }
            if wanted[1] {
                (0..256).for_each(write);
                let round_trip = floor::ping_pong("ring", "never", SMALL_BYTES, bytes, count / 2).value;
                let (read, what) = match kind {
                    "nvme" => (floor::read_of_device(directory.path(), count), " + read of 4 KiB"),
                    _ => (0.0, ""),
                };
                let floor = Floor { name: format!("ring ping-pong{what}"), value: round_trip + read };
                let mut out = vec![0; bytes];
                timed(report, &server, &labels[1], &floor, count, |number| {
                    fetch(&object, number as u64 % 256, &mut out)
                });
            }
        }
    }
}
