//! One connection's rings and doorbell: sending, taking, and when it is safe to sleep.
//!
//! Owns the order in which both are used, which the model check tries in all interleavings: publish, then ring for a sleeper;
//! say that we sleep, fence, then look once more. Must never do I/O but the doorbell's.

use std::io::IoSlice;

use crate::Message;
use crate::ring::Lied;
use crate::ring::consumer::Consumer;
use crate::ring::doorbell::Doorbell;
use crate::ring::layout::{Geometry, SLEEPS_FOR_DATA, SLEEPS_FOR_ROOM, Side};
use crate::ring::mapping::Mapping;
use crate::ring::producer::{Producer, PushError};
use crate::ring::sync::{Arc, Bell};

pub(crate) struct Link {
    producer: Producer,
    consumer: Consumer,
    doorbell: Arc<Doorbell>,
    /// The head at which a push was refused for lack of room.
    full_at: Option<u64>,
}

impl Link {
    /// Our end of a mapping: we are `side`, and `bell` wakes the other.
    pub(crate) fn new(mapping: &Arc<Mapping>, geometry: Geometry, side: Side, bell: Bell) -> Self {
        let doorbell = Arc::new(Doorbell::new(mapping.clone(), side, bell));
        let from = geometry.lane_from(side.other());
        Link {
            producer: Producer::new(mapping.clone(), geometry.lane_from(side)),
            consumer: Consumer::new(mapping.clone(), from, doorbell.clone()),
            doorbell,
            full_at: None,
        }
    }

    /// Publishes one message, and wakes the other side if it sleeps.
    pub(crate) fn push(&mut self, parts: &[IoSlice<'_>]) -> Result<(), PushError> {
        match self.producer.push(parts) {
            Ok(()) => {
                self.full_at = None;
                self.doorbell.published(SLEEPS_FOR_DATA);
                Ok(())
            }
            Err(error) => {
                if error == PushError::Full {
                    self.full_at = Some(self.producer.head_seen());
                }
                Err(error)
            }
        }
    }

    /// Takes the next message.
    pub(crate) fn pop(&mut self) -> Result<Option<Message>, Lied> {
        self.consumer.pop()
    }

    /// Whether there is a message, or room where there was none. Room is told once.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.consumer.has_data() || self.has_room_again()
    }

    fn has_room_again(&mut self) -> bool {
        let room = self.full_at.is_some_and(|head| self.producer.head_now() != head);
        if room {
            self.full_at = None;
        }
        room
    }

    /// Says that we are about to sleep. [`fence_sleep`](super::doorbell::fence_sleep) and a last look must follow.
    pub(crate) fn say_asleep(&self) {
        let room = if self.full_at.is_some() { SLEEPS_FOR_ROOM } else { 0 };
        self.doorbell.sleep_for(SLEEPS_FOR_DATA | room);
    }

    /// Says that we are awake.
    pub(crate) fn say_awake(&self) {
        self.doorbell.awake();
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}
