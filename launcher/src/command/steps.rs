//! `talea ls --steps`: a container's steps, and the files that each of them wrote.

use serde::Serialize;
use talea_client::{Client, Container, StepRecord};
use talea_model::Step;
use talea_posix::{PathView, TaleaPath};

use crate::cli::LsArgs;
use crate::failure::Failure;
use crate::notice;

/// Steps asked for at once.
const PORTION: u32 = 256;

#[derive(Serialize)]
struct Line {
    step: u64,
    stamp: u64,
    unix_us: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    attributes: String,
    /// Paths of the files that it wrote; none if it named none.
    files: Option<Vec<String>>,
}

/// Paths of the files that a step wrote.
pub(super) fn files(container: &Container, step: &StepRecord) -> Result<Option<Vec<String>>, Failure> {
    let path = |file: &talea_client::WrittenFile| {
        format!("/talea/{}/{}", container.name(), String::from_utf8_lossy(&file.path))
    };
    Ok(container.manifest(step)?.map(|manifest| manifest.files.iter().map(path).collect()))
}

/// Lists the steps that are kept; of a path below the container those that wrote it or something in it.
pub(super) fn list(client: &Client, arguments: &LsArgs) -> Result<u8, Failure> {
    let path = TaleaPath::parse(arguments.path.as_bytes())?;
    if path.view != PathView::Live {
        return Err(Failure::Usage("--steps goes with a container, or a path in it as it is now".to_owned()));
    }
    let container = client.container_open(&path.container)?;
    let (mut after, mut lines) = (Step(0), Vec::new());
    loop {
        let steps = container.steps(after, PORTION)?;
        let Some(last) = steps.last() else { break };
        after = last.step;
        for step in &steps {
            lines.extend(line(&container, step, &path)?);
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&lines).unwrap_or_default());
        return Ok(0);
    }
    for line in lines {
        let files = line.files.map_or("names no files".to_owned(), |files| files.join(" "));
        println!("{:>8}   {:16} {files}", line.step, notice::ago(line.unix_us));
    }
    Ok(0)
}

fn line(container: &Container, step: &StepRecord, only: &TaleaPath) -> Result<Option<Line>, Failure> {
    let files = match files(container, step) {
        Ok(files) => files,
        // A writer goes on while its steps are listed.
        Err(Failure::Client(error)) if error.kind() == talea_client::ErrorKind::Retention => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let names: Vec<String> = only.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let below = format!("/talea/{}/{}", only.container, names.join("/"));
    let is_below = |file: &String| *file == below || file.starts_with(&format!("{}/", below.trim_end_matches('/')));
    if !names.is_empty() && !files.iter().flatten().any(is_below) {
        return Ok(None);
    }
    let (attributes, unix_us) = (step.attributes.escape_ascii().to_string(), step.stamp.unix_us());
    Ok(Some(Line { step: step.step.0, stamp: step.stamp.0, unix_us, attributes, files }))
}
