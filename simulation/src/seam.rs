//! Planted bugs that lie between the parts: what a server hears, says and hands on is changed on its way. The parts themselves
//! know nothing of it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use talea_model::{Position, ServerId, SessionId, Stamp};
use talea_wire::codec;
use talea_wire::control::{Body, Envelope, Reply, Request, Waited};
use talea_wire::log::Entry;

use crate::plant::Plant;

/// A message of the control plane as a server gets it. `resumed`: sessions that were taken up again here.
pub(crate) fn heard<'a>(plant: Plant, resumed: &mut BTreeSet<SessionId>, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    if !matches!(plant, Plant::NoClock | Plant::NoJoin | Plant::Twice | Plant::ResumeTwice) {
        return Cow::Borrowed(bytes);
    }
    changed(bytes, |envelope| match (plant, &mut envelope.body) {
        (Plant::NoClock, Body::Request(request)) if !matches!(request, Request::Commit { .. }) => {
            envelope.hlc = Stamp::ZERO;
        }
        (Plant::NoJoin, Body::Request(request)) => {
            if let Request::Join { tx } = *request {
                *request = Request::Leave { tx };
            }
        }
        (Plant::Twice, Body::Request(_)) => envelope.sequence = 0,
        (Plant::ResumeTwice, Body::Request(Request::SessionOpen { resume: Some(session), .. })) => {
            resumed.insert(*session);
        }
        (Plant::ResumeTwice, Body::Request(_)) if resumed.contains(&envelope.session) => envelope.sequence = 0,
        _ => {}
    })
}

/// A message of the control plane as a server sends it.
pub(crate) fn said(plant: Plant, is_leader: bool, bytes: &[u8]) -> Cow<'_, [u8]> {
    if !matches!(plant, Plant::SkipStep | Plant::SkipEntry) {
        return Cow::Borrowed(bytes);
    }
    changed(bytes, |envelope| match (plant, &mut envelope.body) {
        (Plant::SkipStep, Body::Reply(Reply::Waited(Waited::Steps { steps, .. }))) if steps.len() > 1 => {
            steps.remove(0);
        }
        (Plant::SkipEntry, Body::Batch(records)) if !is_leader => {
            let commits = records.iter_mut().filter(|record| matches!(record.entry, Entry::Commit { .. }));
            commits.for_each(|record| record.entry = Entry::Leader { server: ServerId(0) });
        }
        _ => {}
    })
}

/// What a server that does not lead answers itself, and should have asked the leader; `position`: how far it is.
pub(crate) fn answered(plant: Plant, position: Position, bytes: &[u8]) -> Option<Vec<u8>> {
    if !matches!(plant, Plant::EarlyEnd | Plant::OwnWord) {
        return None;
    }
    let mut envelope = codec::decode::<Envelope>(bytes).ok()?;
    let reply = match (plant, &envelope.body) {
        (Plant::EarlyEnd, Body::Request(Request::EndThrough)) => Reply::Position(Position(0)),
        (Plant::OwnWord, Body::Request(Request::Beats(_))) => Reply::Heard { end: position, unknown: Vec::new() },
        _ => return None,
    };
    envelope.body = Body::Reply(reply);
    codec::encode(&envelope).ok()
}

fn changed(bytes: &[u8], change: impl FnOnce(&mut Envelope)) -> Cow<'_, [u8]> {
    let Ok(mut envelope) = codec::decode::<Envelope>(bytes) else { return Cow::Borrowed(bytes) };
    change(&mut envelope);
    codec::encode(&envelope).map_or(Cow::Borrowed(bytes), Cow::Owned)
}
