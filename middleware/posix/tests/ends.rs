//! Records of files' ends on real servers: those of earlier ends are swept away (docs/design.md §7).

#[path = "../../client/tests/support/servers.rs"]
mod support;

use std::sync::Arc;

use support::Servers;
use talea_client::{Container, ContainerProperties, Listing};
use talea_model::{Oid, View};
use talea_posix::backing::client::ClientSystem;
use talea_posix::inode::{END, META};
use talea_posix::{Files, Hints, OpenFlags};
use talea_wire::data::EnumerateKind;

const WRITE: OpenFlags = OpenFlags { write: true, create: true, exclusive: false, delete_on_close: false };

fn ends(container: &Container, oid: Oid) -> usize {
    let listing = Listing { kind: EnumerateKind::Extents, dkey: META, akey: END, after: &[], limit: 1000 };
    container.object(oid).enumerate(&View::Latest, listing).unwrap().names.len()
}

#[test]
fn files_that_grow_again_and_again_do_not_keep_each_end() {
    let servers = Servers::start();
    let client = servers.client();
    let container = client.container_create("run", ContainerProperties::default(), false).unwrap();
    let files = Files::new(Arc::new(ClientSystem::new(client)));
    for (path, hints, syncs, most) in [("steps", "", true, 1), ("log", "talea_epoch=none", false, 255)] {
        let path = format!("/talea/run/{path}");
        let file =
            files.attach(&files.open(path.as_bytes(), WRITE, 1, &Hints::parse(hints).unwrap()).unwrap()).unwrap();
        for at in 0..600_u64 {
            file.write(&[(at, b"x")]).unwrap();
            if syncs && at % 20 == 19 {
                file.sync().unwrap();
            }
        }
        let stat = files.stat(path.as_bytes()).unwrap();
        let records = ends(&container, stat.inode.unwrap().oid);
        assert_eq!(stat.bytes, 600);
        assert!((1..=most).contains(&records), "{records} records of ends of {path}");
    }
}
