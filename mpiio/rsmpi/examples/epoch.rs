//! Two files in one epoch, and the ranks that wrote them following their own steps: run it with
//! `talea run -- mpiexec -n 2 epoch`.

use std::error::Error;
use std::ffi::CString;

use mpi::ffi;
use mpi::traits::{AsRaw, Communicator, CommunicatorCollectives};
use talea_client::{Client, ConnectOptions};
use talea_rsmpi::{Epoch, Followed, Follower};

fn checked(code: i32) -> Result<(), Box<dyn Error>> {
    if code == 0 { Ok(()) } else { Err(format!("MPI error {code}").into()) }
}

fn opened(comm: ffi::MPI_Comm, name: &str, amode: u32) -> Result<ffi::MPI_File, Box<dyn Error>> {
    let path = CString::new(format!("/talea/run/{name}"))?;
    let mut file = std::mem::MaybeUninit::uninit();
    // SAFETY: a NUL-terminated path, and a place for the handle, which is read only if MPI filled it.
    unsafe {
        checked(ffi::MPI_File_open(comm, path.as_ptr(), amode.cast_signed(), ffi::RSMPI_INFO_NULL, file.as_mut_ptr()))?;
        Ok(file.assume_init())
    }
}

fn closed(mut file: ffi::MPI_File) -> Result<(), Box<dyn Error>> {
    // SAFETY: an open file, closed once.
    checked(unsafe { ffi::MPI_File_close(&raw mut file) })
}

/// One number at this rank's place, written or read.
fn number(file: ffi::MPI_File, rank: i32, value: Option<i64>) -> Result<i64, Box<dyn Error>> {
    let mut data = value.unwrap_or(-1);
    let (at, place) = (i64::from(rank) * 8, (&raw mut data).cast());
    let mut status = std::mem::MaybeUninit::uninit();
    // SAFETY: an open file, one number of memory and a place for the status.
    checked(unsafe {
        match value {
            Some(_) => ffi::MPI_File_write_at_all(file, at, place, 8, ffi::RSMPI_UINT8_T, status.as_mut_ptr()),
            None => ffi::MPI_File_read_at_all(file, at, place, 8, ffi::RSMPI_UINT8_T, status.as_mut_ptr()),
        }
    })?;
    Ok(data)
}

fn main() -> Result<(), Box<dyn Error>> {
    let universe = mpi::initialize().ok_or("MPI did not start")?;
    let world = universe.world();
    let (rank, comm) = (world.rank(), world.as_raw());
    let create = ffi::MPI_MODE_CREATE | ffi::MPI_MODE_RDWR;
    let files = [opened(comm, "rust-a", create)?, opened(comm, "rust-b", create)?];
    let epoch = Epoch::begin(&world, "run")?;
    for file in files {
        // SAFETY: open files of this process.
        unsafe { epoch.file(file) }?;
    }
    let mut first = 0;
    for turn in 1..=3 {
        for file in files {
            number(file, rank, Some(turn))?;
            // A sync of a file in an explicit epoch commits nothing.
            // SAFETY: an open file.
            checked(unsafe { ffi::MPI_File_sync(file) })?;
        }
        let step = epoch.commit(None)?;
        first = if turn == 1 { step } else { first };
        if i64::try_from(step - first)? != turn - 1 {
            return Err(format!("commit {turn} made step {step}, the first one {first}").into());
        }
        for name in ["rust-a", "rust-b"] {
            let reader = opened(comm, &format!(".talea/steps/{step}/{name}"), ffi::MPI_MODE_RDONLY)?;
            let seen = number(reader, rank, None)?;
            closed(reader)?;
            if seen != turn {
                return Err(format!("step {step} of {name} has {seen} instead of {turn}").into());
            }
        }
    }
    epoch.end()?;
    for file in files {
        closed(file)?;
    }
    let client = if rank == 0 { Some(Client::connect(&ConnectOptions::default())?) } else { None };
    let container = client.as_ref().map(|client| client.container_open("run")).transpose()?;
    let mut follower = Follower::new(&world, container.as_ref(), first - 1);
    for turn in 0..3 {
        match follower.wait(10_000) {
            Followed::Step { step, .. } if step == first + turn => {}
            other => return Err(format!("rank {rank}: {other:?} {:?}", follower.error()).into()),
        }
    }
    world.barrier();
    if rank == 0 {
        println!("three steps of two files");
    }
    Ok(())
}
