//! What `talea diff` says: as JSON, and as text.

use std::fmt::Write;

use serde::Serialize;
use talea_model::Oid;
use talea_model::size::Iec;

use super::writes::{self, Key, Range, Written};
use crate::notice::count;

/// A state that was compared.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    /// As people call it.
    pub(crate) name: String,
    /// Last step that it contains.
    pub(crate) step: u64,
    pub(crate) stamp: u64,
}

/// All that differs.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    container: String,
    from: State,
    to: State,
    pub(crate) files: Vec<FileChange>,
    pub(crate) objects: Vec<ObjectChange>,
    pub(crate) summary: Summary,
}

/// How a name differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    Added,
    Changed,
    Removed,
    Renamed,
    /// Another file has the name.
    Replaced,
}

/// A name that differs.
#[derive(Debug, Serialize)]
pub(crate) struct FileChange {
    /// Below the container.
    pub(crate) path: String,
    pub(crate) how: How,
    pub(crate) kind: &'static str,
    /// The name before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    pub(crate) written_bytes: u64,
    pub(super) ranges: Vec<Range>,
}

/// An object without a name that differs.
#[derive(Debug, Serialize)]
pub(crate) struct ObjectChange {
    oid: String,
    pub(crate) written_bytes: u64,
    keys: Vec<Key>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    added: u64,
    changed: u64,
    removed: u64,
    renamed: u64,
    objects: u64,
    pub(crate) written_bytes: u64,
}

impl ObjectChange {
    pub(super) fn new(oid: Oid, written: Written) -> Self {
        Self { oid: oid.to_string(), written_bytes: written.bytes(), keys: written.keys }
    }
}

impl Report {
    pub(super) fn new(
        container: &str,
        from: State,
        to: State,
        files: Vec<FileChange>,
        objects: Vec<ObjectChange>,
    ) -> Self {
        let mut summary = Summary { objects: objects.len() as u64, ..Summary::default() };
        for file in &files {
            *match file.how {
                How::Added => &mut summary.added,
                How::Changed | How::Replaced => &mut summary.changed,
                How::Removed => &mut summary.removed,
                How::Renamed => &mut summary.renamed,
            } += 1;
            summary.written_bytes += file.written_bytes;
        }
        summary.written_bytes += objects.iter().map(|object| object.written_bytes).sum::<u64>();
        Self { container: container.to_owned(), from, to, files, objects, summary }
    }

    /// Whether nothing was written between the two.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.objects.is_empty()
    }

    /// For people: a line for each name or object, with `long` each place, and the sum.
    pub(crate) fn text(&self, long: bool) -> String {
        let mut text = String::new();
        for file in &self.files {
            let _ = writeln!(text, "{}", self.line(file));
            for range in file.ranges.iter().filter(|_| long) {
                let how = writes::how(range.how);
                let _ = writeln!(text, "     {how:7} {:>12} at {}", Iec(range.bytes).to_string(), range.offset);
            }
        }
        for object in &self.objects {
            let keys = count(object.keys.len() as u64, "key");
            let _ = writeln!(text, "M  object {}   {keys}, {} written", object.oid, Iec(object.written_bytes));
            object.keys.iter().filter(|_| long).for_each(|key| key_lines(&mut text, key));
        }
        let _ = writeln!(text, "{}", self.sum());
        text
    }

    fn line(&self, file: &FileChange) -> String {
        let path = format!("/talea/{}{}", self.container, file.path);
        let path = if file.kind == "directory" { format!("{path}/") } else { path };
        let size = |bytes: Option<u64>| Iec(bytes.unwrap_or(0)).to_string();
        let written = match file.ranges.len() as u64 {
            0 => "nothing written".to_owned(),
            places => format!("{} written in {}", Iec(file.written_bytes), count(places, "place")),
        };
        let grown = match (file.bytes_before, file.bytes) {
            (Some(before), Some(now)) if before != now => format!(", {} now, {} before", Iec(now), Iec(before)),
            (_, now) => format!(" of {}", size(now)),
        };
        match (file.how, file.kind) {
            (How::Added, "file") => format!("A  {path}   {}", size(file.bytes)),
            (How::Added, _) => format!("A  {path}"),
            (How::Removed, "file") => format!("D  {path}   {}", size(file.bytes_before)),
            (How::Removed, _) => format!("D  {path}"),
            (How::Renamed, _) => {
                format!("R  /talea/{}{} -> {path}", self.container, file.from.as_deref().unwrap_or_default())
            }
            (How::Changed, "file") => format!("M  {path}   {written}{grown}"),
            (How::Replaced, "file") => format!("M  {path}   made anew, {}", size(file.bytes)),
            (How::Changed | How::Replaced, _) => format!("M  {path}"),
        }
    }

    fn sum(&self) -> String {
        let Self { from, to, container, summary, .. } = self;
        if self.is_empty() {
            return format!("between {} and {} of {container} nothing was written", from.name, to.name);
        }
        let named = [
            (summary.added, "added"),
            (summary.changed, "changed"),
            (summary.removed, "removed"),
            (summary.renamed, "renamed"),
        ];
        let mut parts: Vec<String> =
            named.iter().filter(|(number, _)| *number > 0).map(|(number, how)| format!("{number} {how}")).collect();
        if summary.objects > 0 {
            parts.push(format!("{} without a name changed", count(summary.objects, "object")));
        }
        parts.push(format!("{} written", Iec(summary.written_bytes)));
        format!("from {} to {} of {container}: {}", from.name, to.name, parts.join(", "))
    }
}

fn key_lines(text: &mut String, key: &Key) {
    let name = format!("{} {}", key.dkey, key.akey);
    if let Some(value) = key.value {
        let _ = writeln!(text, "     {:7} value of {name}", writes::how(value));
    }
    for run in &key.records {
        let end = run.index + run.count;
        let bytes = Iec(run.count.saturating_mul(u64::from(key.record_bytes)));
        let _ = writeln!(text, "     {:7} records {} to {end} of {name}, {bytes}", writes::how(run.how), run.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talea_client::Differs;

    #[test]
    fn people_read_one_line_a_file_and_the_sum() {
        let file = |path: &str, how, before, now, written_bytes| FileChange {
            path: path.to_owned(),
            how,
            kind: "file",
            from: (how == How::Renamed).then(|| "/was".to_owned()),
            bytes_before: before,
            bytes: now,
            written_bytes,
            ranges: vec![Range { offset: 4096, bytes: written_bytes, how: Differs::Added }],
        };
        let state = |name: &str, step| State { name: name.to_owned(), step, stamp: 1 };
        let files = vec![
            file("/a", How::Added, None, Some(1 << 20), 1 << 20),
            file("/b", How::Changed, Some(1 << 20), Some(2 << 20), 1 << 20),
            file("/c", How::Removed, Some(7), None, 0),
            file("/d", How::Renamed, Some(7), Some(7), 0),
        ];
        let report = Report::new("run", state("step 1", 1), state("the present", 2), files, vec![]);
        let expected = "A  /talea/run/a   1.00 MiB
M  /talea/run/b   1.00 MiB written in 1 place, 2.00 MiB now, 1.00 MiB before
D  /talea/run/c   7 B
R  /talea/run/was -> /talea/run/d
from step 1 to the present of run: 1 added, 1 changed, 1 removed, 1 renamed, 2.00 MiB written
";
        assert_eq!(report.text(false), expected);
        assert!(report.text(true).contains("     added       1.00 MiB at 4096\n"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["files"][1]["how"], &json["files"][1]["ranges"][0]["how"]),
            (&"changed".into(), &"added".into())
        );
        let nothing = Report::new("run", state("step 1", 1), state("step 2", 2), vec![], vec![]);
        assert_eq!(nothing.text(false), "between step 1 and step 2 of run nothing was written\n");
    }
}
