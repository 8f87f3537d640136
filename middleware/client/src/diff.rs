//! What differs between two snapshots, in order, over all targets.
//!
//! What counts is what was written, not whether the bytes are others. Owns the merging of the targets' answers.

use std::collections::VecDeque;

use talea_model::limit::MAX_ENUMERATED;
use talea_model::{Oid, TargetId, View};
use talea_wire::data::{self, Body, Diff, DiffPlace, Difference, ReplyBody};

use crate::client::gather;
use crate::container::Container;
use crate::core::exchange::{Answer, Question};
use crate::error::{ClientError, Result};

const WHAT: &str = "comparing snapshots";

/// What one target has answered so far.
struct Source {
    target: TargetId,
    found: VecDeque<Difference>,
    after: Option<DiffPlace>,
    more: bool,
}

/// The differences between two snapshots, one after the other in order of object, dkey, akey and record.
pub struct Differences {
    container: Container,
    from: View,
    to: View,
    only: Option<Oid>,
    sources: Vec<Source>,
}

impl Container {
    /// What was written between two snapshots (or bases of epochs), of one object or of all. Both must stay readable
    /// meanwhile. Asks nobody yet.
    pub fn differences(&self, from: &View, to: &View, only: Option<Oid>) -> Result<Differences> {
        for view in [from, to] {
            if !matches!(view, View::Snapshot { .. }) {
                return Err(ClientError::Argument("only snapshots can be compared: open one".to_owned()));
            }
        }
        let targets = match only {
            Some(oid) => self.object(oid).layout()?.targets().to_vec(),
            None => self.client.shared.map().targets.iter().map(|target| target.id).collect(),
        };
        let source = |target| Source { target, found: VecDeque::new(), after: None, more: true };
        let sources = targets.into_iter().map(source).collect();
        Ok(Differences { container: self.clone(), from: *from, to: *to, only, sources })
    }
}

impl Differences {
    /// The next difference; `None`: there are no more.
    #[allow(clippy::should_implement_trait)] // fails, and asks servers
    pub fn next(&mut self) -> Result<Option<Difference>> {
        let client = self.container.client.clone();
        client.block_on(self.next_async())?
    }

    /// Asynchronous [`next`](Self::next).
    pub async fn next_async(&mut self) -> Result<Option<Difference>> {
        // The manifest says what steps wrote, and is none of it: a rollback must not write it back.
        loop {
            match self.next_of_all().await? {
                Some(difference) if difference.place.oid == talea_model::manifest::object() => {}
                next => return Ok(next),
            }
        }
    }

    async fn next_of_all(&mut self) -> Result<Option<Difference>> {
        let missing = |source: &Source| source.found.is_empty() && source.more;
        while self.sources.iter().any(missing) {
            let asked: Vec<usize> = (0..self.sources.len()).filter(|at| missing(&self.sources[*at])).collect();
            let answers = gather(asked.iter().map(|at| self.ask(*at)).collect()).await;
            for answer in answers {
                let (at, answer) = answer?;
                let source = &mut self.sources[at];
                source.more = answer.next.is_some();
                source.after = answer.next;
                source.found.extend(answer.found);
            }
        }
        let place = |source: &Source| source.found.front().map(|first| first.place.clone());
        let first =
            self.sources.iter_mut().filter(|source| !source.found.is_empty()).min_by_key(|source| place(source));
        Ok(first.and_then(|source| source.found.pop_front()))
    }

    async fn ask(&self, at: usize) -> Result<(usize, data::Differences)> {
        let Source { target, ref after, .. } = self.sources[at];
        let View::Snapshot { stamp, position, .. } = self.from else { return Err(ClientError::unexpected(WHAT)) };
        let diff = Diff { from: stamp, position, after: after.clone(), limit: MAX_ENUMERATED as u16 };
        let question: Question = self.container.question(WHAT, target, self.only.unwrap_or_default(), None, self.to);
        let mut request = question.request(Body::Diff(Box::new(diff)));
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Differences(found) => Ok(*found),
            _ => Err(ClientError::unexpected(WHAT)),
        };
        match self.container.client.shared.exchange(question, &mut request, |_| false, read).await? {
            Answer::Done(found, _) => Ok((at, found)),
            Answer::Moved => Err(ClientError::unexpected(WHAT)),
        }
    }
}
