//! One request to one target, and its reply: sent again after a lost connection with the same sequence, placed anew when the
//! map has changed, until it is answered or the deadline has passed.

use std::io::IoSlice;

use smallvec::{SmallVec, smallvec};
use talea_fabric::{Clock, SendError};
use talea_model::{ContainerId, MapVersion, Oid, Order, SessionId, Stamp, TargetId, View};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Head, Reply, ReplyBody, ReplyHead, Request};

use super::link::PeerKey;
use super::{Outcome, Shared, State, Ticket};
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

/// Now, by the clock of deadlines and by the machine's, and that one for the wall time.
type Now<'a> = (u64, u64, &'a dyn Clock);

impl State {
    /// Fills in what differs with each time that a request is sent.
    fn fill(&mut self, head: &mut Head, question: Question, course: &mut Course, (now_ns, machine_ns, clock): Now<'_>) {
        course.session = self.session();
        head.session = course.session;
        head.hlc = self.hlc.tick(self.wall.unix_us(clock, machine_ns));
        head.map_version = self.map.version;
        // 0 would leave the choice to the target.
        let left_ms = question.deadline_ns.saturating_sub(now_ns).div_ceil(MS).max(1);
        head.deadline_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
        head.acknowledged_below = self.links.entry(question.target).or_default().acknowledged_below();
    }
}

/// A message: its head, and the data as it lies in the caller's memory.
fn parts<'a>(head: &'a [u8], request: &'a Request<'_>) -> SmallVec<[IoSlice<'a>; 4]> {
    let mut parts = smallvec![IoSlice::new(head)];
    let pieces = || request.data().filter(|data| !data.is_empty());
    parts.reserve_exact(pieces().count());
    parts.extend(pieces().map(IoSlice::new));
    parts
}

impl Shared {
    /// Asks, and gives the good answer's body to `read`. `moved` says whether the map places the request elsewhere.
    ///
    /// What nearly never happens is boxed: the future of a request that is sent and answered at once stays small.
    pub(crate) async fn exchange<T>(
        &self,
        question: Question,
        request: &mut Request<'_>,
        moved: impl Fn(&Body<'_>) -> bool,
        mut read: impl FnMut(ReplyBody<'_>) -> Result<T>,
    ) -> Result<Answer<T>> {
        self.check_process()?;
        let mut course = Course { session: SessionId(0), sends: 0, pauses: 0, refused_since_ns: None };
        let (mut ticket, mut sent) = match self.send_at_once(question, request, &mut course) {
            Some(begun) => begun,
            None => (Box::pin(self.enter(question, request)).await?, false),
        };
        loop {
            if !sent {
                Box::pin(self.send(question, &mut ticket, request, &mut course)).await?;
            }
            sent = false;
            let attempt = loop {
                match ticket.outcome().await {
                    Outcome::Data(message) => {
                        break self.answered(&message, question, &mut course, &request.body, &moved, &mut read)?;
                    }
                    Outcome::Timer => {
                        if Box::pin(self.silent(question, &ticket)).await? {
                            break Attempt::Again;
                        }
                    }
                    _ => break Attempt::Again,
                }
            };
            match attempt {
                Attempt::Ended(answer) => return Ok(answer),
                Attempt::Again => {}
                Attempt::Pause => Box::pin(self.rest(question, &mut course)).await?,
            }
        }
    }

    /// Begins a request and sends it, all under one lock, if everything that it needs is there: the endpoint, a session, a
    /// connection, a place in flight. The second is whether it was sent: there may have been no room.
    fn send_at_once(
        &self,
        question: Question,
        request: &mut Request<'_>,
        course: &mut Course,
    ) -> Option<(Ticket<'_>, bool)> {
        let now_ns = self.now_ns();
        let mut guard = self.lock();
        let state = &mut *guard;
        let is_late = now_ns >= question.deadline_ns;
        if is_late || state.endpoint.is_none() || state.session().0 == 0 || !state.map.is_up(question.target) {
            return None;
        }
        let peer = state.links.get(&question.target)?.peer?;
        let place = state.enter_place(question.target, question.order.is_some(), self.tuning.in_flight)?;
        // From here on to the end nothing may return: a ticket is not dropped under the lock.
        let mut ticket = self.ticket_in(state, Some(place));
        request.head = question.head(ticket.id, place.1);
        state.fill(&mut request.head, question, course, self.now(now_ns));
        ticket.head.clear();
        request.encode(&mut ticket.head);
        let parts = parts(&ticket.head, request);
        ticket.arm(state, Some(peer), self.look_again_ns(now_ns, 0).min(question.deadline_ns));
        let sent = state.endpoint.as_deref_mut().is_some_and(|endpoint| endpoint.send(peer, &parts).is_ok());
        course.sends += u32::from(sent);
        drop((guard, parts));
        Some((ticket, sent))
    }

    fn now(&self, now_ns: u64) -> Now<'_> {
        (now_ns, self.machine_time_ns(now_ns), &*self.clock)
    }

    /// Waits for a place in flight.
    async fn enter(&self, question: Question, request: &mut Request<'_>) -> Result<Ticket<'_>> {
        let Question { what, target, began_ns, deadline_ns, .. } = question;
        let place = self.place(target, question.order.is_some(), deadline_ns).await;
        let ticket = place.ok_or_else(|| self.not_sent(target, what, began_ns))?;
        let sequence = ticket.place.map_or(0, |(_, sequence)| sequence);
        request.head = question.head(ticket.id, sequence);
        Ok(ticket)
    }

    /// Sends a request, over a connection made for it if need be.
    async fn send(
        &self,
        question: Question,
        ticket: &mut Ticket<'_>,
        request: &mut Request<'_>,
        course: &mut Course,
    ) -> Result<()> {
        let Question { what, target, began_ns, deadline_ns, .. } = question;
        let peer = self.target_peer(target, began_ns, deadline_ns).await?;
        let now_ns = self.now_ns();
        // Nobody waits for the answer any more.
        if now_ns >= deadline_ns {
            return Err(self.late(PeerKey::Target(target), what, began_ns));
        }
        {
            let mut state = self.lock();
            if course.sends > 0 && question.order.is_some() && course.session != state.session() {
                let why = "the session that sent it has expired".to_owned();
                return Err(ClientError::Uncertain { what, why });
            }
            state.fill(&mut request.head, question, course, self.now(now_ns));
        }
        ticket.head.clear();
        request.encode(&mut ticket.head);
        let until_ns = self.look_again_ns(now_ns, course.sends).min(deadline_ns);
        match self.transmit(ticket, peer, &parts(&ticket.head, request), (until_ns, deadline_ns)).await {
            Ok(()) => course.sends += 1,
            Err(SendError::Gone) => self.gone(peer),
            Err(SendError::Full) => return Err(self.late(PeerKey::Target(target), what, began_ns)),
            Err(SendError::TooLarge) => {
                return Err(ClientError::TooLong(format!("{what}: the request does not fit one message")));
            }
        }
        Ok(())
    }

    /// No answer came for a while: whether to send again. Else the wait goes on, for as long as the target is up.
    async fn silent(&self, question: Question, ticket: &Ticket<'_>) -> Result<bool> {
        let Question { what, target, began_ns, deadline_ns, .. } = question;
        let key = PeerKey::Target(target);
        if self.now_ns() >= deadline_ns {
            return Err(self.late(key, what, began_ns));
        }
        if self.tuning.resend_ms.is_some() {
            return Ok(true);
        }
        self.ask_map(deadline_ns).await;
        if !self.map().is_up(target) {
            return Err(self.lost(key));
        }
        let until_ns = self.look_again_ns(self.now_ns(), 0).min(deadline_ns);
        let mut state = self.lock();
        let asked = state.calls.get(ticket.id).and_then(|call| call.peer);
        let Some(peer) = asked.filter(|peer| state.peers.contains_key(peer)) else { return Ok(true) };
        ticket.arm(&mut state, Some(peer), until_ns);
        Ok(false)
    }

    /// A pause that grows, before another attempt.
    async fn rest(&self, question: Question, course: &mut Course) -> Result<()> {
        let Question { what, target, began_ns, deadline_ns, .. } = question;
        let pause_ns = self.lock().backoff_ns(course.pauses, &self.tuning);
        course.pauses += 1;
        if course.refused_since_ns.is_some() {
            self.ask_map(deadline_ns).await;
        }
        self.pause((self.now_ns() + pause_ns).min(deadline_ns)).await;
        if self.now_ns() >= deadline_ns {
            return Err(self.late(PeerKey::Target(target), what, began_ns));
        }
        Ok(())
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
        let mut state = self.lock();
        state.fill(&mut request.head, question, &mut course, self.now(now_ns));
        let mut head = vec![];
        request.encode(&mut head);
        let Some(peer) = state.links.get(&target).and_then(|link| link.peer) else { return false };
        let endpoint = state.endpoint.as_deref_mut();
        endpoint.is_some_and(|endpoint| endpoint.send(peer, &[IoSlice::new(&head)]).is_ok())
    }

    fn look_again_ns(&self, now_ns: u64, sends: u32) -> u64 {
        let after_ms = self.tuning.resend_ms.map_or(self.tuning.probe_ms, |ms| ms << sends.min(6));
        now_ns + after_ms * MS
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
            // Nothing was done. A target judges a deadline by the machine's clock: ours may have stood still meanwhile.
            RefusalCode::Busy | RefusalCode::Deadline => question.deadline_ns,
            // It was not executed, and a new session may be had. What was sent twice may have been.
            RefusalCode::SessionExpired if course.sends > 1 && question.order.is_some() => 0,
            // Its lease has run out: it may be renewed, or the map will say that it is lost.
            RefusalCode::ServerLost | RefusalCode::NoLeader | RefusalCode::SessionExpired => {
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
            RefusalCode::ServerLost | RefusalCode::NoLeader | RefusalCode::Closed => {
                self.refused_by(PeerKey::Target(question.target), question.what, refusal)
            }
            _ => ClientError::refused(question.what, refusal),
        })
    }
}
