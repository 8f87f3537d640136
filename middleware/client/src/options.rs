//! What a program can choose when it connects.

use talea_fabric::{Address, Spin};
use talea_model::ServerId;
use talea_model::limit::{DEFAULT_DEADLINE_MS, MAX_IN_FLIGHT};

use crate::core::place::ShortWay;
use crate::system::FabricPolicy;

/// Where a round trip and a copy by ourselves cost as much as two copies more and one into a ring.
const NEAR_BYTES: usize = 32 << 10;

/// Choices of [`crate::Client::connect`].
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Name of the system; `None`: that of `$TALEA_SYSTEM`, or the only one that runs here.
    pub system: Option<String>,
    /// Deadline of calls in milliseconds; `None`: 30 s.
    pub deadline_ms: Option<u64>,
    /// Fabric of the data plane; `None`: what the system's file says.
    pub fabric: Option<FabricPolicy>,
    /// Whether waits may spin; `None`: if cores are free, as the targets say.
    pub spin: Option<Spin>,
    /// Name of the program, for people; `None`: that of its executable.
    pub name: Option<String>,
}

/// Times and bounds of the client's machinery. The defaults are right for real fabrics, which lose messages only together
/// with the connection; simulations set `resend_ms`.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Name of the program, for people.
    pub name: String,
    /// The server that a session is opened at first.
    pub home: ServerId,
    /// Other servers where one can be had, for as long as no pool map tells of them.
    pub others: Vec<(ServerId, Address)>,
    /// Fabric of the data plane.
    pub fabric: FabricPolicy,
    /// Deadline of calls in milliseconds.
    pub deadline_ms: u64,
    /// After how long an unanswered request to a target is sent again, doubling; `None`: never on the same connection.
    pub resend_ms: Option<u64>,
    /// After how long the pool map is looked at while a target does not answer, and a control call is sent again.
    pub probe_ms: u64,
    /// Longest attempt to connect.
    pub connect_ms: u64,
    /// First pause after a refusal to connect or `Busy`; doubles up to `backoff_max_ms`.
    pub backoff_ms: u64,
    /// Longest such pause.
    pub backoff_max_ms: u64,
    /// A session moves to another server when its own has been out of reach for that long.
    pub move_after_ms: u64,
    /// A server that was out of reach for that long fails further calls after one attempt.
    pub lost_after_ms: u64,
    /// Requests in flight at one target.
    pub in_flight: usize,
    /// Longest round of a wait for steps.
    pub wait_round_ms: u64,
    /// Whether and how snapshots are read in place.
    pub short_way: ShortWay,
    /// From so many bytes on a piece of an array is read in place in views that change, too: there it costs a question each time.
    pub near_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            name: String::new(),
            home: ServerId(0),
            others: vec![],
            fabric: FabricPolicy::Auto,
            deadline_ms: DEFAULT_DEADLINE_MS,
            resend_ms: None,
            probe_ms: 3_000,
            connect_ms: 1_000,
            backoff_ms: 2,
            backoff_max_ms: 250,
            move_after_ms: 1_000,
            lost_after_ms: 5_000,
            in_flight: MAX_IN_FLIGHT,
            wait_round_ms: 10_000,
            short_way: ShortWay::default(),
            near_bytes: NEAR_BYTES,
        }
    }
}
