//! Limits. Everything that a request can make grow has one, checked before anything is allocated.

/// Bytes of a dkey or akey.
pub const MAX_KEY_BYTES: usize = 4096;
/// Bytes of a single value or of one record.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Entries (dkey, akey, extents) of one request.
pub const MAX_ENTRIES: usize = 1024;
/// Extents of one request, over all entries.
pub const MAX_EXTENTS: usize = 4096;
/// Keys of one enumeration reply.
pub const MAX_ENUMERATED: usize = 1024;
/// Bytes of a container's name.
pub const MAX_CONTAINER_NAME_BYTES: usize = 127;
/// Containers of a pool.
pub const MAX_CONTAINERS: usize = 65_536;
/// Bytes of a commit's attributes (and of an inline manifest).
pub const MAX_ATTRIBUTES_BYTES: usize = 16 * 1024;
/// Servers of a system.
pub const MAX_SERVERS: usize = 65_536;
/// Targets of a pool.
pub const MAX_TARGETS: usize = 262_144;
/// Sessions of a pool.
pub const MAX_SESSIONS: usize = 1 << 20;
/// Open transactions of a pool.
pub const MAX_OPEN_TX: usize = 1 << 18;
/// Open transactions that the commit of an independent one can name.
pub const MAX_NAMED_TX: usize = 1024;
/// Requests in flight of one client at one target.
pub const MAX_IN_FLIGHT: usize = 64;
/// Default deadline of a call in milliseconds.
pub const DEFAULT_DEADLINE_MS: u64 = 30_000;
/// How far a proposed stamp may lie ahead of physical time, in milliseconds (docs/design.md §4 rule 1).
pub const MAX_CLOCK_AHEAD_MS: u64 = 10_000;
/// Committed steps that a container keeps readable by default, beside what followers still need.
pub const DEFAULT_KEPT_STEPS: u64 = 1_000;
