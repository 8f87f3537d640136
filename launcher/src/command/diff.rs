//! `talea diff`: what was written between two states of a container.

use talea_client::{Client, Container, Differences, Snapshot};

use talea_posix::Namespace;
use talea_posix::backing::System;
use talea_posix::backing::client::ClientSystem;

use super::connect;
use crate::cli::{DiffArgs, Moment};
use crate::failure::Failure;
use crate::notice;

mod compare;
mod report;
mod writes;

use compare::Tree;
pub(crate) use report::Report;
use report::State;
use writes::Writes;

/// Two states of a container, held while they are compared.
struct Compared {
    container: Container,
    from: (Moment, Snapshot),
    to: (Moment, Snapshot),
}

/// Shows what differs.
pub(crate) fn diff(arguments: &DiffArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    let container = client.container_open(&arguments.container)?;
    let spinner = notice::spinner(arguments.json, "comparing");
    let report = between(&client, container, arguments.from.clone(), arguments.to.clone());
    spinner.finish_and_clear();
    let report = report?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        print!("{}", report.text(arguments.long));
    }
    Ok(0)
}

/// What was written between two states.
pub(super) fn between(client: &Client, container: Container, from: Moment, to: Moment) -> Result<Report, Failure> {
    let from = (from.clone(), container.snapshot(from.0)?);
    let to = (to.clone(), container.snapshot(to.0)?);
    Compared { container, from, to }.report(client)
}

impl Compared {
    fn report(&self, client: &Client) -> Result<Report, Failure> {
        let backing = ClientSystem::new(client.clone()).container(self.container.name())?;
        let tree = |view| Tree::of(&Namespace::new(backing.clone(), view));
        let (from, to) = (self.from.1.view(), self.to.1.view());
        let (before, after) = (tree(from)?, tree(to)?);
        let mut writes = Writes::default();
        let chunk_of = |oid| after.inode(oid).or_else(|| before.inode(oid)).map(|inode| inode.chunk_bytes);
        let mut differences: Differences = self.container.differences(&from, &to, None)?;
        while let Some(one) = differences.next()? {
            writes.add(one, chunk_of);
        }
        let sizes = Sizes { from: Namespace::new(backing.clone(), from), to: Namespace::new(backing, to) };
        let (files, objects) = compare::changes(&before, &after, writes, &sizes)?;
        let state = |(moment, snapshot): &(Moment, Snapshot)| State {
            name: moment.to_string(),
            step: snapshot.step().0,
            stamp: snapshot.info().stamp.0,
        };
        Ok(Report::new(self.container.name(), state(&self.from), state(&self.to), files, objects))
    }
}

/// Sizes of files on both sides.
struct Sizes {
    from: Namespace,
    to: Namespace,
}

impl Sizes {
    fn of(namespace: &Namespace, path: &[Vec<u8>]) -> Result<u64, Failure> {
        Ok(namespace.stat(path)?.bytes)
    }
}
