//! Files of a real system whose servers die: what a commit depends on (docs/design.md §4 rule 5).

#[path = "../../client/tests/support/servers.rs"]
mod support;

use std::sync::Arc;

use support::Servers;
use talea_client::{Client, ContainerProperties};
use talea_model::{Layout, ServerId, Step, Summary, TargetId};
use talea_posix::backing::client::ClientSystem;
use talea_posix::{Files, Handle, Hints, OpenFlags};

const WRITE: OpenFlags = OpenFlags { write: true, create: true, exclusive: false, delete_on_close: false };

/// Server that holds a file of class S1.
fn holder(client: &Client, files: &Files, path: &str) -> ServerId {
    let (map, oid) = (client.map(), files.stat(path.as_bytes()).unwrap().inode.unwrap().oid);
    map.target(Layout::of(oid, &map).unwrap().targets()[0]).unwrap().server
}

/// Two new files that lie on server 0 alone, open.
fn two_of_server_0(client: &Client, files: &Files) -> Vec<Handle> {
    let hints = Hints::parse("talea_class=S1").unwrap();
    let mut found = vec![];
    for path in (0..64).map(|number| format!("/talea/run/file{number}")) {
        let handle = files.attach(&files.open(path.as_bytes(), WRITE, 1, &hints).unwrap()).unwrap();
        handle.write(&[(0, b"first")]).unwrap();
        handle.sync().unwrap();
        if holder(client, files, &path) == ServerId(0) {
            found.push(handle);
        }
        if found.len() == 2 {
            return found;
        }
    }
    panic!("no two of 64 files lie on server 0");
}

/// What the names of a step's files add to its commit: one update, of a target that is written to anyway, and three bytes of the log.
#[test]
fn naming_the_files_of_a_step_is_one_update_of_a_target_that_is_written_to() {
    let servers = Servers::start();
    let client = servers.client();
    client.container_create("run", ContainerProperties::default(), false).unwrap();
    let files = Files::new(Arc::new(ClientSystem::new(client.clone())));
    let file = two_of_server_0(&client, &files).remove(0);
    let updates = || (0..4).map(|target| client.target_stat(TargetId(target)).unwrap().updates).collect::<Vec<u64>>();
    for round in 0..3u8 {
        file.write(&[(0, &[round])]).unwrap();
        let (before, log) = (updates(), client.status().unwrap().counters);
        file.sync().unwrap();
        let (after, new) = (updates(), client.status().unwrap().counters);
        let mut added: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        added.sort_unstable();
        assert_eq!(added, [0, 0, 0, 2], "the time of the file, and its name");
        println!("{} entries and {} bytes of the log", new.entries - log.entries, new.log_bytes - log.log_bytes);
        assert_eq!(new.entries - log.entries, 1, "the commit, which also begins the next epoch");
        assert!(new.log_bytes - log.log_bytes < 64);
    }
}

#[test]
fn a_commit_fails_for_no_server_that_its_files_do_not_lie_on() {
    let mut servers = Servers::start();
    let client = servers.client();
    let container = client.container_create("run", ContainerProperties::default(), false).unwrap();
    let files = Files::new(Arc::new(ClientSystem::new(client.clone())));
    let handles = two_of_server_0(&client, &files);
    let explicit = files.epoch_attach(&files.epoch_begin("run").unwrap()).unwrap();
    servers.kill(1);
    let named = |step: Step| {
        let record = container.step(step).unwrap();
        container.manifest(&record).unwrap().map_or(0, |manifest| manifest.files.len())
    };
    // Each epoch has a transaction number of its own, and its names lie where its files do, whatever that is.
    for round in 0..12u8 {
        handles[0].write(&[(u64::from(round), &[round])]).unwrap();
        handles[0].sync().unwrap();
        assert_eq!(named(handles[0].info().step), 1, "round {round}");
    }
    for file in &handles {
        file.advance(&file.enter(&explicit).unwrap()).unwrap();
    }
    for round in 0..8u8 {
        let mut sum = explicit.summary().unwrap();
        let parts: Vec<Summary> = handles
            .iter()
            .map(|file| {
                file.write(&[(u64::from(round), &[round])]).unwrap();
                file.seal(file.flush().unwrap()).unwrap()
            })
            .collect();
        parts.iter().for_each(|part| sum.merge(part));
        let (step, result) = explicit.commit(&sum);
        assert_eq!(named(step.unwrap()), 2, "round {round} of both files");
        explicit.advance(&result).unwrap();
        for (file, part) in handles.iter().zip(&parts) {
            file.advance(&file.settle(&result, part).unwrap()).unwrap();
        }
    }
}
