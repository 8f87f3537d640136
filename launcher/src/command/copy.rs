//! `talea cp`: files and trees, out of a container (also of one of its steps) and into one.
//!
//! What is copied in is one epoch a file: it appears whole, or not at all.

use super::connect;
use crate::cli::CpArgs;
use crate::failure::Failure;
use crate::notice::count;
use crate::stage::{Nodes, Options, Order, Receipt, Stage};

/// Copies.
pub(crate) fn copy(arguments: &CpArgs) -> Result<u8, Failure> {
    let (source, destination) = (&arguments.source, &arguments.destination);
    let order = match (is_talea(source), is_talea(destination)) {
        (true, false) => Order::take_out(source, destination),
        (false, true) => Order::bring_in(source, destination),
        (true, true) => {
            return Err(Failure::Usage(
                "copying inside Talea is not supported yet: copy by way of a local file".to_owned(),
            ));
        }
        (false, false) => {
            return Err(Failure::Usage(
                "name a path below /talea/ as source or destination; for local copies use cp".to_owned(),
            ));
        }
    };
    let client = connect(arguments.system.as_deref())?;
    let allocation = talea_slurm::Allocation::detect(|name| std::env::var(name).ok()).unwrap_or_default();
    let system = talea_client::System::find(arguments.system.as_deref())?.file.name;
    let options = Options {
        recursive: arguments.recursive,
        verify: arguments.verify,
        workers: arguments.workers,
        nodes: allocation.map(|allocation| Nodes { allocation, system }),
        parents: arguments.parents,
        ..Options::default()
    };
    let receipt = Stage::new(&client, options).carry_out(&order)?;
    if let Some(path) = &arguments.receipt {
        write(path, std::slice::from_ref(&receipt))?;
    }
    match receipt.first_failure() {
        Some(failure) => {
            Err(Failure::Usage(format!("{} could not be copied: {failure}", count(receipt.failed as u64, "file"))))
        }
        None => Ok(0),
    }
}

/// Writes receipts as JSON.
pub(crate) fn write(path: &std::path::Path, receipts: &[Receipt]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(receipts).unwrap_or_default();
    std::fs::write(path, text + "\n").map_err(Failure::io("writing", path))
}

fn is_talea(path: &str) -> bool {
    path.starts_with("/talea/") || path.starts_with("talea:")
}
