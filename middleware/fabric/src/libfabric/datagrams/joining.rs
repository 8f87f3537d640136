//! How connections come up and end: sockets, proofs, addresses.
//!
//! Must never make a peer of whoever has not proved itself.

use std::net::SocketAddr;

use super::super::Came;
use super::meeting::{Ended, Meeting, Side, Terms, is_held};
use super::peer::Peer;
use super::{DATAGRAM_CHANNEL, DatagramEndpoint, QUEUE_TOKEN, Ready};
use crate::accept::Accepted;
use crate::descriptor::Descriptor;
use crate::dial::{self, Dial};
use crate::stream::{take, unreachable};
use crate::{Address, Clock, Event, FabricError, Hello, PeerId, RealClock};

/// How long a proved connection may take to say where it receives, in nanoseconds.
const MEETING_NS: u64 = 5_000_000_000;

impl DatagramEndpoint {
    /// Looks at the descriptors, sleeping for up to `timeout_ns`.
    pub(super) fn collect(&mut self, timeout_ns: u64) {
        let mut ready = Vec::new();
        self.poller.poll(timeout_ns, &mut ready);
        for one in ready.into_iter().filter(|one| one.token != QUEUE_TOKEN) {
            self.handle(one);
        }
        let now_ns = RealClock.monotonic_ns();
        let due = self.dials.iter().filter(|(_, (dial, _))| dial.timer_ns() <= now_ns).map(|(token, _)| *token);
        let due: Vec<u64> = due.collect();
        due.into_iter().for_each(|token| self.go_on(token));
        let late = self.meetings.iter().filter(|(_, meeting)| meeting.deadline_ns <= now_ns).map(|(token, _)| *token);
        let late: Vec<u64> = late.collect();
        for token in late {
            if let Some(meeting) = self.meetings.remove(&token) {
                self.not_met(token, meeting, FabricError::Deadline);
            }
        }
        if let Some(acceptor) = &mut self.acceptor {
            let next_token = &mut self.next_token;
            acceptor.expire(now_ns, &self.poller, &mut || take(next_token));
        }
    }

    fn handle(&mut self, ready: Ready) {
        let token = ready.token;
        if let Some(peer) = self.peers.get(&token) {
            if (ready.readable || ready.hung_up) && !is_held(&peer.socket) {
                // What arrived before the end comes before it.
                self.complete();
                self.lose(token);
            }
        } else if self.dials.contains_key(&token) {
            self.go_on(token);
        } else if self.meetings.contains_key(&token) {
            self.meet(token);
        } else if let Some(acceptor) = &mut self.acceptor {
            let (mut accepted, next_token) = (Vec::new(), &mut self.next_token);
            acceptor.handle(ready, &self.poller, &mut || take(next_token), &mut accepted);
            for (token, Accepted { socket, hello, .. }) in accepted {
                let Some(interface) = self.interface.clone() else { continue };
                let deadline_ns = RealClock.monotonic_ns() + MEETING_NS;
                // Without a device it is as if nobody had listened.
                let _ = self.introduce(token, socket, Side::Accepted(hello), deadline_ns, &interface);
            }
        }
    }

    /// Begins to connect.
    pub(super) fn dial(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let Address::Datagrams { provider, host_port } = address else {
            return Err(unreachable(address, "it is not an endpoint of datagrams"));
        };
        self.choose(provider).map_err(|error| unreachable(address, &error.to_string()))?;
        let (name, channel) = (address.to_string(), DATAGRAM_CHANNEL);
        let terms = dial::Terms { name, credentials: &self.credentials, channel, hello, deadline_ns };
        let dial = Dial::tcp(host_port, terms)?;
        let token = take(&mut self.next_token);
        self.dials.insert(token, (dial, deadline_ns));
        self.go_on(token);
        Ok(PeerId(token))
    }

    /// Goes on with a connection that is being made.
    fn go_on(&mut self, token: u64) {
        let Some((mut dial, deadline_ns)) = self.dials.remove(&token) else { return };
        let begun = match dial.advance(&self.poller, token) {
            Ok(false) => {
                self.dials.insert(token, (dial, deadline_ns));
                return;
            }
            Ok(true) => {
                let name = dial.name.clone();
                let refused = || FabricError::Refused(name.clone());
                let socket = dial.into_socket(&self.poller).ok_or_else(refused);
                socket.and_then(|socket| {
                    let interface = local_ip(&socket).ok_or_else(refused)?;
                    self.introduce(token, socket, Side::Made(name.clone()), deadline_ns, &interface)
                })
            }
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            self.events.push_back(Came::Event(Event::Connected { peer: PeerId(token), outcome: Err(error) }));
        }
    }

    /// The socket is proved: tells the other side where we receive.
    fn introduce(
        &mut self,
        token: u64,
        socket: Descriptor,
        side: Side,
        deadline_ns: u64,
        interface: &str,
    ) -> Result<(), FabricError> {
        let device = self.open(interface)?;
        let (name, mask) = (device.name().to_vec(), device.tag_mask());
        let io = |source| FabricError::Io { context: "beginning with datagrams".into(), source };
        let tag = self.fresh_tag(mask).map_err(io)?;
        self.poller.add(&socket, token).map_err(io)?;
        self.meetings.insert(token, Meeting::new(socket, side, deadline_ns, &name, tag));
        self.meet(token);
        Ok(())
    }

    /// A tag that nobody else can know, and that is no other connection's.
    fn fresh_tag(&self, mask: u64) -> std::io::Result<u64> {
        loop {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
            let tag = u64::from_le_bytes(bytes) & mask;
            let is_used = self.peers.values().map(|peer| peer.tag_in).any(|other| other == tag)
                || self.meetings.values().any(|meeting| meeting.tag == tag);
            if !is_used {
                return Ok(tag);
            }
        }
    }

    fn meet(&mut self, token: u64) {
        let Some(mut meeting) = self.meetings.remove(&token) else { return };
        match meeting.advance() {
            Ok(None) => drop(self.meetings.insert(token, meeting)),
            Err(Ended) => self.not_met(token, meeting, FabricError::Refused),
            Ok(Some(terms)) => self.met(token, meeting, &terms),
        }
    }

    fn not_met(&mut self, token: u64, meeting: Meeting, error: impl FnOnce(String) -> FabricError) {
        if let Side::Made(name) = meeting.side {
            self.events.push_back(Came::Event(Event::Connected { peer: PeerId(token), outcome: Err(error(name)) }));
        }
    }

    /// Both sides know where to send.
    fn met(&mut self, token: u64, meeting: Meeting, terms: &Terms) {
        let Meeting { socket, side, tag, .. } = meeting;
        let outcome = self.join(token, socket, tag, terms, &side);
        let peer = PeerId(token);
        self.events.extend(match (side, outcome) {
            (Side::Accepted(hello), Ok(())) => Some(Came::Event(Event::Up { peer, hello, local: false })),
            (Side::Accepted(_), Err(_)) => None,
            (Side::Made(_), outcome) => Some(Came::Event(Event::Connected { peer, outcome })),
        });
    }

    fn join(
        &mut self,
        token: u64,
        socket: Descriptor,
        tag_in: u64,
        terms: &Terms,
        side: &Side,
    ) -> Result<(), FabricError> {
        let (Some(device), Some(ways)) = (&self.device, self.ways) else {
            return Err(FabricError::Unsupported("libfabric", "not open".into()));
        };
        let receives = match side {
            Side::Accepted(_) => ways.accepted_receives,
            Side::Made(_) => ways.connected_receives,
        };
        let used = self.peers.values().map(Peer::buffers).sum::<usize>();
        if used + receives > device.receives {
            let why = format!("its provider {} takes no more than {} buffers", ways.provider, device.receives);
            return Err(FabricError::Unsupported("libfabric", why));
        }
        let to = device.insert(&terms.name)?;
        let mut peer = Peer::new(socket, token, (terms.tag, tag_in), to, receives);
        let listens = peer.listen(device);
        self.peers.insert(token, peer);
        listens.map_err(|_| {
            self.remove(token);
            FabricError::Unsupported("libfabric", "its provider took no buffer".into())
        })
    }

    /// What has become of a connection of ours, if that is known.
    pub(super) fn take_outcome(&mut self, peer: PeerId) -> Option<Result<(), FabricError>> {
        let is_it = |came: &Came| matches!(came, Came::Event(Event::Connected { peer: of, .. }) if *of == peer);
        let at = self.events.iter().position(is_it)?;
        match self.events.remove(at) {
            Some(Came::Event(Event::Connected { outcome, .. })) => Some(outcome),
            _ => None,
        }
    }
}

/// The address of the interface that a connection goes by.
fn local_ip(socket: &Descriptor) -> Option<String> {
    let address = rustix::net::getsockname(socket).ok()?;
    SocketAddr::try_from(address).ok().map(|address| address.ip().to_string())
}
