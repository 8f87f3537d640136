//! NVMe commands past the block layer: `IORING_OP_URING_CMD` on a namespace's character device (`/dev/ng*`; Linux 5.19 and later).
//!
//! Owns the commands' layout (NVM Express Base Specification 2.0 §3.3.3, NVM Command Set 1.0 §3.2) and the ring. The kernel splits
//! nothing here: a buffer goes as several commands if the device takes less at once. Must never run on a namespace that something
//! else has in use.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::queue::{BUFFER_BYTES, BUFFERS, Flight};

/// Most bytes of a command, whatever the device takes: Linux's driver gives it at most 127 pieces of memory (`NVME_MAX_SEGS`), each page
/// of a buffer may be one, and what has more is refused as an invalid argument.
const MOST_BYTES: usize = 256 << 10;
const _: () = assert!(MOST_BYTES <= BUFFER_BYTES);

/// `NVME_IOCTL_ID`: the namespace's number (linux/nvme_ioctl.h).
const IOCTL_ID: libc::c_ulong = 0x4e40;
/// `NVME_IOCTL_ADMIN_CMD`.
const IOCTL_ADMIN: libc::c_ulong = 0xc048_4e41;
/// `NVME_URING_CMD_IO`.
const URING_IO: u32 = 0xc048_4e80;

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const IDENTIFY: u8 = 0x06;
/// What identify is asked about.
const OF_NAMESPACE: u32 = 0;
const OF_CONTROLLER: u32 = 1;
/// Number of the flush among the buffers.
const FLUSH_NUMBER: usize = BUFFERS;

/// `struct nvme_passthru_cmd`, and `struct nvme_uring_cmd`, whose last field is reserved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Command {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

impl Command {
    /// As it stands in a ring's entry.
    fn bytes(&self) -> [u8; 80] {
        const { assert!(size_of::<Command>() == 72) };
        let mut bytes = [0; 80];
        // SAFETY: 72 bytes without padding: all fields are aligned by those before them.
        bytes[..72].copy_from_slice(&unsafe { std::mem::transmute::<Command, [u8; 72]>(*self) });
        bytes
    }
}

/// A namespace, as its device describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Namespace {
    id: u32,
    /// log2 of a block's bytes.
    block_shift: u32,
    capacity_bytes: u64,
    /// Most bytes of one command.
    most_bytes: usize,
}

/// A namespace's queue.
pub(super) struct Commands {
    ring: IoUring<squeue::Entry128, cqueue::Entry32>,
    file: File,
    namespace: Namespace,
    /// Commands of each buffer that have not ended, and the first one's failure.
    left: [u32; BUFFERS + 1],
    failed: [i32; BUFFERS + 1],
    /// The block device of the same namespace: nobody else can mount it or use it meanwhile.
    _claim: Option<File>,
}

impl Commands {
    /// The queue of a namespace's character device.
    pub(super) fn open(path: &Path, file: File) -> Result<Self, Error> {
        let claim = claim(path)?;
        let namespace = Namespace::of(&file)?;
        let each = BUFFER_BYTES.div_ceil(namespace.most_bytes);
        let entries = (BUFFERS * each + 1).next_power_of_two() as u32;
        let ring = IoUring::<squeue::Entry128, cqueue::Entry32>::builder().setup_coop_taskrun().build(entries)?;
        let (left, failed) = ([0; BUFFERS + 1], [0; BUFFERS + 1]);
        Ok(Self { ring, file, namespace, left, failed, _claim: claim })
    }

    /// Size of the namespace in bytes.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.namespace.capacity_bytes
    }

    /// Sends a buffer at `address`, or fills it.
    pub(super) fn start(&mut self, number: usize, flight: Flight, address: *mut u8) -> Result<(), Error> {
        for command in self.namespace.commands(flight, address as u64) {
            self.push(number, &command)?;
        }
        // Writes at once: the device works while more is gathered. Reads are waited for, and go with that same call.
        if flight.write {
            let _ = self.ring.submit();
        }
        Ok(())
    }

    fn push(&mut self, number: usize, command: &Command) -> Result<(), Error> {
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = opcode::UringCmd80::new(fd, URING_IO).cmd(command.bytes()).build().user_data(number as u64);
        // SAFETY: the caller leaves the buffer alone until its commands have landed, and waits for all before it goes.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| Error::from(ErrorKind::WouldBlock))?;
        self.left[number] += 1;
        Ok(())
    }

    /// Waits for at least one command, and gives the buffers that are done with how that went.
    pub(super) fn landed(&mut self) -> Vec<(usize, Result<(), Error>)> {
        if self.ring.completion().is_empty() && self.ring.submit_and_wait(1).is_err() {
            // Interrupted or short of memory: what was pushed is still in the ring, so try again.
            std::thread::yield_now();
        }
        let ended: Vec<(usize, i32)> =
            self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        let mut done = Vec::new();
        for (number, result) in ended {
            let Some(left) = self.left.get_mut(number) else { continue };
            *left -= 1;
            if self.failed[number] == 0 {
                self.failed[number] = result;
            }
            if *left == 0 {
                done.push((number, outcome(std::mem::take(&mut self.failed[number]))));
            }
        }
        done
    }

    /// Makes durable what has landed. Nothing else may be in flight.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.push(FLUSH_NUMBER, &Command { opcode: FLUSH, nsid: self.namespace.id, ..Command::default() })?;
        loop {
            if let Some((_, result)) = self.landed().into_iter().find(|(number, _)| *number == FLUSH_NUMBER) {
                return result;
            }
        }
    }
}

/// What the kernel says of a command: 0, an errno below it, or the device's status above.
fn outcome(result: i32) -> Result<(), Error> {
    match result {
        0 => Ok(()),
        errno if errno < 0 => Err(Error::from_raw_os_error(-errno)),
        status => Err(Error::other(format!("the device answered with NVMe status {:#x}", status & 0x7ff))),
    }
}

impl Namespace {
    fn of(file: &File) -> Result<Self, Error> {
        // SAFETY: takes no argument, and gives the namespace's number.
        let id = unsafe { libc::ioctl(file.as_raw_fd(), IOCTL_ID) };
        let id = u32::try_from(id).ok().filter(|id| *id > 0).ok_or_else(Error::last_os_error)?;
        Self::described(id, &identify(file, id, OF_NAMESPACE)?, &identify(file, 0, OF_CONTROLLER)?)
    }

    /// From the two pages that identify gives (NVM Command Set §4.1.5.1, Base Specification §5.17.2.1).
    fn described(id: u32, namespace: &[u8; 4096], controller: &[u8; 4096]) -> Result<Self, Error> {
        let blocks = u64::from_le_bytes(std::array::from_fn(|at| namespace[at]));
        let format = namespace[26];
        let at = 128 + 4 * usize::from(format & 0xf | (format >> 1) & 0x30);
        let (metadata_bytes, block_shift) =
            (u16::from_le_bytes([namespace[at], namespace[at + 1]]), u32::from(namespace[at + 2]));
        if metadata_bytes != 0 || !(9..=12).contains(&block_shift) {
            let text = format!(
                "its blocks have 2^{block_shift} bytes and {metadata_bytes} of metadata: format it with 512 or 4096 and none"
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        // A power of two of the controller's smallest pages, which have 4 KiB where Linux runs; 0 is no limit.
        let most_bytes = match controller[77] {
            0 => MOST_BYTES,
            power => 4096_usize.checked_shl(power.into()).unwrap_or(MOST_BYTES).clamp(4096, MOST_BYTES),
        };
        let capacity_bytes = blocks.checked_shl(block_shift).unwrap_or(0);
        Ok(Self { id, block_shift, capacity_bytes, most_bytes })
    }

    /// The commands that move a buffer.
    fn commands(self, flight: Flight, address: u64) -> impl Iterator<Item = Command> {
        let parts = (0..flight.len).step_by(self.most_bytes);
        parts.map(move |at| {
            let bytes = (flight.len - at).min(self.most_bytes);
            let first = (flight.offset + at as u64) >> self.block_shift;
            Command {
                opcode: if flight.write { WRITE } else { READ },
                nsid: self.id,
                addr: address + at as u64,
                data_len: bytes as u32,
                cdw10: first as u32,
                cdw11: (first >> 32) as u32,
                // Counted from zero.
                cdw12: (bytes >> self.block_shift) as u32 - 1,
                ..Command::default()
            }
        })
    }
}

fn identify(file: &File, nsid: u32, of: u32) -> Result<[u8; 4096], Error> {
    let mut page = [0_u8; 4096];
    let addr = page.as_mut_ptr() as u64;
    let mut command = Command { opcode: IDENTIFY, nsid, addr, data_len: 4096, cdw10: of, ..Command::default() };
    // SAFETY: a command of the size that the number says, whose data goes to a page that lives until it is done.
    match unsafe { libc::ioctl(file.as_raw_fd(), IOCTL_ADMIN, &raw mut command) } {
        errno if errno < 0 => Err(Error::last_os_error()),
        status => outcome(status).map(|()| page),
    }
}

/// `/dev/ng0n1` is `/dev/nvme0n1`, past it. Claims that one, so that a mounted file system keeps us out, and we keep others out.
fn claim(path: &Path) -> Result<Option<File>, Error> {
    let Some(block) = block_device(path) else { return Ok(None) };
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(&block);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::new(error.kind(), format!("{} is in use: {error}", block.display()))),
    }
}

fn block_device(path: &Path) -> Option<PathBuf> {
    let rest = path.file_name()?.to_str()?.strip_prefix("ng")?;
    Some(path.with_file_name(format!("nvme{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(format: u8, entry: usize, shift: u8, metadata: u8, power: u8) -> ([u8; 4096], [u8; 4096]) {
        let (mut namespace, mut controller) = ([0; 4096], [0; 4096]);
        namespace[..8].copy_from_slice(&1000_u64.to_le_bytes());
        namespace[26] = format;
        (namespace[128 + 4 * entry], namespace[128 + 4 * entry + 2]) = (metadata, shift);
        controller[77] = power;
        (namespace, controller)
    }

    #[test]
    fn a_namespace_is_what_its_device_says() {
        let (namespace, controller) = pages(2, 2, 12, 0, 5);
        let found = Namespace::described(1, &namespace, &controller).unwrap();
        let right = Namespace { id: 1, block_shift: 12, capacity_bytes: 4_096_000, most_bytes: 128 << 10 };
        assert_eq!(found, right);
        // More than sixteen formats, and no limit.
        let (namespace, controller) = pages(0x21, 17, 9, 0, 0);
        let found = Namespace::described(1, &namespace, &controller).unwrap();
        assert_eq!((found.block_shift, found.most_bytes), (9, MOST_BYTES));
        let (namespace, controller) = pages(0, 0, 9, 8, 5);
        assert!(Namespace::described(1, &namespace, &controller).is_err(), "metadata beside the blocks");
    }

    #[test]
    fn a_buffer_goes_in_commands_that_the_device_takes() {
        let namespace = Namespace { id: 3, block_shift: 9, capacity_bytes: 1 << 40, most_bytes: 128 << 10 };
        let flight = Flight { offset: (5 << 40) + 4096, len: (256 << 10) + 4096, write: true };
        let commands: Vec<Command> = namespace.commands(flight, 0x10000).collect();
        let shape = |command: &Command| (command.addr, command.data_len, command.cdw12);
        let shapes: Vec<_> = commands.iter().map(shape).collect();
        assert_eq!(shapes, [(0x10000, 131_072, 255), (0x30000, 131_072, 255), (0x50000, 4096, 7)]);
        let first = |command: &Command| u64::from(command.cdw11) << 32 | u64::from(command.cdw10);
        assert_eq!(first(&commands[1]), ((5 << 40) + 4096 + 131_072) / 512);
        assert!(commands.iter().all(|command| command.opcode == WRITE && command.nsid == 3));
        let bytes = commands[0].bytes();
        assert_eq!(
            (bytes[0], bytes[4], &bytes[24..32], &bytes[72..]),
            (1, 3, &0x10000_u64.to_le_bytes()[..], &[0; 8][..])
        );
    }

    #[test]
    fn the_block_device_of_a_namespace_is_known_by_its_name() {
        assert_eq!(block_device(Path::new("/dev/ng2n1")), Some("/dev/nvme2n1".into()));
        assert_eq!(block_device(Path::new("/dev/null")), None);
    }
}
