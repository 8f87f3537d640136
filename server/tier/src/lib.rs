//! Media that hold bytes: pmem, NVMe, RAM, and the simulated medium that knows what was flushed (docs/design.md §5).
//!
//! Owns: the bytes of one target's share of a tier, and what "durable" means on each kind of medium.
//! Must never: know what the bytes mean, hand out a pointer that outlives a borrow, or move bytes once written.

mod board;
pub mod config;
pub mod error;
pub mod image;
mod map;
pub mod media;
pub mod medium;
pub mod nvme;
pub mod pmem;
pub mod ram;
pub mod record;
mod room;
pub mod sim;
mod stream;

pub use config::{TierConfig, TierKind, TiersConfig, open_media, open_medium};
pub use error::TierError;
pub use image::ImageMedium;
pub use media::{Address, Media, Tier};
pub use medium::{Medium, MediumKind, Share};
pub use nvme::NvmeMedium;
pub use pmem::PmemMedium;
pub use ram::RamMedium;
pub use record::{Playback, RecordedMedium, Recorder, Step, Survives};
pub use sim::{SimMedium, SimRead, Torn};
