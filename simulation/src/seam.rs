//! Planted bugs that lie between the parts: what a server hears, says and hands on is changed on its way. The parts themselves
//! know nothing of it.

use std::borrow::Cow;

use talea_model::Stamp;
use talea_wire::codec;
use talea_wire::control::{Body, Envelope, Reply, Request, Waited};

use crate::plant::Plant;

/// A message of the control plane as a server gets it.
pub(crate) fn heard(plant: Plant, bytes: &[u8]) -> Cow<'_, [u8]> {
    if !matches!(plant, Plant::NoClock | Plant::NoJoin | Plant::Twice) {
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
        _ => {}
    })
}

/// A message of the control plane as a server sends it.
pub(crate) fn said(plant: Plant, bytes: &[u8]) -> Cow<'_, [u8]> {
    if plant != Plant::SkipStep {
        return Cow::Borrowed(bytes);
    }
    changed(bytes, |envelope| {
        if let Body::Reply(Reply::Waited(Waited::Steps { steps, .. })) = &mut envelope.body
            && steps.len() > 1
        {
            steps.remove(0);
        }
    })
}

fn changed(bytes: &[u8], change: impl FnOnce(&mut Envelope)) -> Cow<'_, [u8]> {
    let Ok(mut envelope) = codec::decode::<Envelope>(bytes) else { return Cow::Borrowed(bytes) };
    change(&mut envelope);
    codec::encode(&envelope).map_or(Cow::Borrowed(bytes), Cow::Owned)
}
