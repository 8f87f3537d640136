//! The NVMe tier on a file, beside the same file under a plain io_uring loop: as much in flight, in the same pieces, without the
//! tier's copies and bookkeeping. TALEA_BENCH_DIR chooses the file system (default: /var/tmp).

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use io_uring::{IoUring, opcode, types};
use talea_tier::{Medium, NvmeMedium};

const FILE_BYTES: u64 = 256 << 20;
const PIECE_BYTES: usize = 512 << 10;

/// The floor: pieces of aligned memory straight to the file.
struct Raw {
    ring: IoUring,
    file: File,
    memory: Vec<u8>,
    start: usize,
}

impl Raw {
    fn open(path: &Path, bytes: usize) -> Self {
        let file = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
        let memory = vec![7; bytes + 4096];
        let start = memory.as_ptr().align_offset(4096);
        Self { ring: IoUring::new(64).unwrap(), file, memory, start }
    }

    /// Writes or reads `bytes` at `offset`; a write ends with the device's flush.
    fn transfer(&mut self, offset: u64, bytes: usize, write: bool) {
        let mut pieces = 0;
        for at in (0..bytes).step_by(PIECE_BYTES) {
            let len = PIECE_BYTES.min(bytes - at) as u32;
            let address = self.memory[self.start + at..].as_mut_ptr();
            let (fd, offset) = (types::Fd(self.file.as_raw_fd()), offset + at as u64);
            let entry = match write {
                true => opcode::Write::new(fd, address, len).offset(offset).build(),
                false => opcode::Read::new(fd, address, len).offset(offset).build(),
            };
            // SAFETY: memory and file outlive the operation: all are waited for below.
            unsafe { self.ring.submission().push(&entry) }.unwrap();
            pieces += 1;
        }
        self.ring.submit_and_wait(pieces).unwrap();
        assert!(self.ring.completion().take(pieces).all(|done| done.result() > 0));
        if write {
            self.file.sync_data().unwrap();
        }
    }
}

fn nvme(criterion: &mut Criterion) {
    let directory = std::env::var_os("TALEA_BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let path = directory.join(format!("talea-bench-tier-{}", std::process::id()));
    let Ok(mut medium) = NvmeMedium::open(&path, FILE_BYTES) else { return };
    let data = vec![7; 8 << 20];
    // Every block has been written once: a fresh file measures the file system.
    (0..FILE_BYTES / data.len() as u64).for_each(|n| medium.write(n * data.len() as u64, &data).unwrap());
    medium.persist().unwrap();
    println!("{:?}", medium.queue_kind());
    for bytes in [4 << 10, 64 << 10, 1 << 20, 8 << 20] {
        let mut raw = Raw::open(&path, bytes);
        let places = FILE_BYTES / bytes as u64;
        let mut next = 0u64;
        let mut place = || {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (next >> 33) % places * bytes as u64
        };
        for (name, write) in [("nvme write and flush", true), ("nvme read", false)] {
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Bytes(bytes as u64));
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            group.bench_function(BenchmarkId::new("floor: io_uring", bytes), |bencher| {
                bencher.iter(|| raw.transfer(place(), bytes, write));
            });
            let mut out = vec![0; bytes];
            group.bench_function(BenchmarkId::new("tier", bytes), |bencher| {
                bencher.iter(|| match write {
                    true => {
                        medium.write(place(), &data[..bytes]).unwrap();
                        medium.persist().unwrap();
                    }
                    false => medium.read(place(), black_box(&mut out)).unwrap(),
                });
            });
            group.finish();
        }
    }
    drop(medium);
    let _ = std::fs::remove_file(&path);
}

criterion_group!(benches, nvme);
criterion_main!(benches);
