//! One request to one target, and its reply: sent again after a lost connection with the same sequence, placed anew when the
//! map has changed, until it is answered or the deadline has passed.

use std::io::IoSlice;

use smallvec::{SmallVec, smallvec};
use talea_fabric::SendError;
use talea_model::{ContainerId, MapVersion, Oid, Order, SessionId, Stamp, TargetId, View};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Head, Reply, ReplyBody, ReplyHead, Request};

use super::link::PeerKey;
use super::{Outcome, Shared};
use crate::error::{ClientError, Result};

const MS: u64 = 1_000_000;

/// What is asked, of whom, and until when.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) what: &'static str,
    pub(crate) target: TargetId,
    pub(crate) container: ContainerId,
    pub(crate) oid: Oid,
    /// `None` for reads.
    pub(crate) order: Option<Order>,
    pub(crate) view: View,
    pub(crate) began_ns: u64,
    pub(crate) deadline_ns: u64,
}

impl Question {
    fn head(&self, id: u64, sequence: u64) -> Head {
        Head {
            id,
            session: SessionId(0),
            sequence,
            acknowledged_below: 0,
            hlc: Stamp::ZERO,
            map_version: MapVersion(0),
            target: self.target,
            deadline_ms: 0,
            container: self.container,
            oid: self.oid,
            order: self.order,
            view: self.view,
        }
    }

    /// A request with this body, whose head [`Shared::exchange`] fills in.
    pub(crate) fn request<'a>(&self, body: Body<'a>) -> Request<'a> {
        Request { head: self.head(0, 0), body }
    }
}

/// What became of a request.
pub(crate) enum Answer<T> {
    /// It was answered.
    Done(T, ReplyHead),
    /// It belongs to other targets now, and was not executed.
    Moved,
}

/// What one attempt yielded.
enum Attempt<T> {
    Ended(Answer<T>),
    /// Try again after a pause that grows.
    Pause,
    /// Try again at once.
    Again,
}

struct Course {
    session: SessionId,
    sends: u32,
    pauses: u32,
    refused_since_ns: Option<u64>,
}

impl Shared {
    /// Asks, and gives the good answer's body to `read`. `moved` says whether the map places the request elsewhere.
    pub(crate) async fn exchange<T>(
        &self,
        question: Question,
        request: &mut Request<'_>,
        moved: impl Fn(&Body<'_>) -> bool,
        mut read: impl FnMut(ReplyBody<'_>) -> Result<T>,
    ) -> Result<Answer<T>> {
        self.check_process()?;
        let Question { what, target, began_ns, deadline_ns, .. } = question;
        let key = PeerKey::Target(target);
        let late = || self.late(key, what, began_ns);
        let place = self.place(target, question.order.is_some(), deadline_ns).await.ok_or_else(late)?;
        let mut ticket = self.ticket();
        request.head = question.head(ticket.id, place.sequence);
        let mut course = Course { session: SessionId(0), sends: 0, pauses: 0, refused_since_ns: None };
        loop {
            let peer = self.target_peer(target, began_ns, deadline_ns).await?;
            self.refresh(&mut request.head, question, &mut course)?;
            ticket.head.clear();
            request.encode(&mut ticket.head);
            let mut parts: SmallVec<[IoSlice<'_>; 4]> = smallvec![IoSlice::new(&ticket.head)];
            parts.extend(request.data().filter(|data| !data.is_empty()).map(IoSlice::new));
            let until_ns = self.look_again_ns(course.sends).min(deadline_ns);
            match self.transmit(&ticket, peer, &parts, (until_ns, deadline_ns)).await {
                Ok(()) => course.sends += 1,
                Err(SendError::Gone) => self.gone(peer),
                Err(SendError::Full) => return Err(late()),
                Err(SendError::TooLarge) => {
                    return Err(ClientError::TooLong(format!("{what}: the request does not fit one message")));
                }
            }
            let attempt = loop {
                match ticket.outcome().await {
                    Outcome::Data(message) => {
                        break self.answered(&message, question, &mut course, &request.body, &moved, &mut read)?;
                    }
                    Outcome::Timer => {
                        if self.now_ns() >= deadline_ns {
                            return Err(late());
                        }
                        if self.tuning.resend_ms.is_some() {
                            break Attempt::Again;
                        }
                        self.ask_map(deadline_ns).await;
                        if !self.map().is_up(target) {
                            return Err(self.lost(key));
                        }
                        ticket.arm(&mut self.lock(), Some(peer), self.look_again_ns(0).min(deadline_ns));
                    }
                    _ => break Attempt::Again,
                }
            };
            match attempt {
                Attempt::Ended(answer) => return Ok(answer),
                Attempt::Again => {}
                Attempt::Pause => {
                    let pause_ns = self.lock().backoff_ns(course.pauses, &self.tuning);
                    course.pauses += 1;
                    if course.refused_since_ns.is_some() {
                        self.ask_map(deadline_ns).await;
                    }
                    self.pause((self.now_ns() + pause_ns).min(deadline_ns)).await;
                    if self.now_ns() >= deadline_ns {
                        return Err(late());
                    }
                }
            }
        }
    }

    /// Tells targets, for their statistics, what was read past them, if it is at least so much each. Waits for nothing: what
    /// cannot be told now is told the next time.
    pub(crate) fn tell_reads(&self, least_bytes: u64) {
        for (target, read_in_place) in self.places.take_reads(least_bytes) {
            if !self.tell_read(target, read_in_place) {
                self.places.put_back(target, read_in_place);
            }
        }
    }

    fn tell_read(&self, target: TargetId, read_in_place: u64) -> bool {
        let now_ns = self.now_ns();
        let (container, oid, view) = (ContainerId(0), Oid(0), View::Latest);
        let what = "telling what was read";
        let question =
            Question { what, target, container, oid, order: None, view, began_ns: now_ns, deadline_ns: now_ns + MS };
        let mut request = question.request(Body::Stat { read_in_place });
        let mut course = Course { session: SessionId(0), sends: 0, pauses: 0, refused_since_ns: None };
        if self.refresh(&mut request.head, question, &mut course).is_err() {
            return false;
        }
        let mut head = vec![];
        request.encode(&mut head);
        let mut state = self.lock();
        let Some(peer) = state.links.get(&target).and_then(|link| link.peer) else { return false };
        let endpoint = state.endpoint.as_deref_mut();
        endpoint.is_some_and(|endpoint| endpoint.send(peer, &[IoSlice::new(&head)]).is_ok())
    }

    fn look_again_ns(&self, sends: u32) -> u64 {
        let after_ms = self.tuning.resend_ms.map_or(self.tuning.probe_ms, |ms| ms << sends.min(6));
        self.now_ns() + after_ms * MS
    }

    /// Fills in what differs with each time that the request is sent.
    fn refresh(&self, head: &mut Head, question: Question, course: &mut Course) -> Result<()> {
        let mut state = self.lock();
        let session = state.session();
        if course.sends > 0 && question.order.is_some() && course.session != session {
            let why = "the session that sent it has expired".to_owned();
            return Err(ClientError::Uncertain { what: question.what, why });
        }
        course.session = session;
        head.session = session;
        head.hlc = state.hlc.tick(self.clock.unix_us());
        head.map_version = state.map.version;
        head.deadline_ms =
            u32::try_from(question.deadline_ns.saturating_sub(self.now_ns()).div_ceil(MS)).unwrap_or(u32::MAX);
        head.acknowledged_below = state.links.entry(question.target).or_default().acknowledged_below();
        Ok(())
    }

    fn answered<T>(
        &self,
        message: &[u8],
        question: Question,
        course: &mut Course,
        body: &Body<'_>,
        moved: &impl Fn(&Body<'_>) -> bool,
        read: &mut impl FnMut(ReplyBody<'_>) -> Result<T>,
    ) -> Result<Attempt<T>> {
        let who = || format!("target {}", question.target);
        let reply = Reply::decode(message).map_err(|source| ClientError::Wire { who: who(), source })?;
        self.observe(reply.head.hlc);
        let refusal = match reply.body {
            ReplyBody::StaleMap(map) => {
                let before = self.map().version;
                self.take_map(*map);
                if !moved(body) {
                    // The same map again: the target is ahead of what it says, or confused; not in a tight loop.
                    let news = self.map().version > before;
                    return Ok(if news { Attempt::Again } else { Attempt::Pause });
                }
                if course.sends > 1 && question.order.is_some() {
                    let why = "it was sent twice, and its place has changed between".to_owned();
                    return Err(ClientError::Uncertain { what: question.what, why });
                }
                return Ok(Attempt::Ended(Answer::Moved));
            }
            ReplyBody::Refused(refusal) => refusal,
            good => return Ok(Attempt::Ended(Answer::Done(read(good)?, reply.head))),
        };
        let patience_ns = match refusal.code {
            RefusalCode::Busy => question.deadline_ns,
            // It was not executed, and a new session may be had. What was sent twice may have been.
            RefusalCode::SessionExpired if course.sends > 1 && question.order.is_some() => 0,
            // Its lease has run out: it may be renewed, or the map will say that it is lost.
            RefusalCode::ServerLost | RefusalCode::SessionExpired => {
                course.sends = 0;
                let since_ns = *course.refused_since_ns.get_or_insert(self.now_ns());
                question.deadline_ns.min(since_ns + self.tuning.lost_after_ms * MS)
            }
            _ => 0,
        };
        if self.now_ns() < patience_ns {
            return Ok(Attempt::Pause);
        }
        Err(match refusal.code {
            RefusalCode::ServerLost | RefusalCode::Closed => {
                self.refused_by(PeerKey::Target(question.target), question.what, refusal)
            }
            _ => ClientError::refused(question.what, refusal),
        })
    }
}
