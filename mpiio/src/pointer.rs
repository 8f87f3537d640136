//! Shared file pointers (MPI 4.1 §14.4.4) and the lock of atomic mode (§14.6.1), over counters that libtalea keeps for a
//! collective open.
//!
//! A counter's change is atomic and visible to all at once, whatever becomes of the epoch. Owns the counters' numbers. Must
//! never ask MPI for progress of another rank outside of collective calls: a rank may compute for a day.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use talea_abi::{COUNTER_ADD, COUNTER_GET, COUNTER_SET};

use crate::abi::*;
use crate::agree;
use crate::error::Failure;
use crate::file::OpenFile;

/// Tickets drawn for the lock of atomic mode.
const TICKETS: u32 = 0;
/// Tickets whose holders are done.
const SERVED: u32 = 1;
/// The pointer of the first view; each MPI_File_set_view, which sets the pointer to zero, takes the next number.
const FIRST_POINTER: u32 = 2;
/// Counters that one close forgets at most: a program that uses the pointer in more views than this leaves a few bytes behind.
const FORGOTTEN_AT_ONCE: u32 = 4096;
/// How long the lock's present holder may take. A rank that died with it ends the epoch anyway.
const HOLDER_DEADLINE: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// The shared pointer's counter in the present view. From its first use on the close knows that there is something to forget.
fn pointer(file: &OpenFile) -> u32 {
    let mut state = file.state();
    let number = FIRST_POINTER.saturating_add(state.views);
    state.counters.extend(number);
    number
}

/// What the shared pointer counts from: in MPI_MODE_APPEND the file's end at the open, until a view is set (§14.2.1).
fn base(file: &OpenFile) -> i64 {
    if file.state().views == 0 { file.first_position } else { 0 }
}

/// The numbers of the counters that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used(Option<(u32, u32)>);

impl Used {
    fn extend(&mut self, number: u32) {
        let (first, last) = self.0.unwrap_or((number, number));
        self.0 = Some((first.min(number), last.max(number)));
    }

    /// Two numbers whose maximum over all ranks tells what any of them used.
    pub(crate) fn numbers(self) -> [i64; 2] {
        self.0.map_or([i64::MIN; 2], |(first, last)| [-i64::from(first), i64::from(last)])
    }
}

/// Forgets what any rank used: `all` is the maximum of all ranks' [`Used::numbers`]. On one rank, when all have stopped.
pub(crate) fn forget(file: &OpenFile, all: [i64; 2]) -> Result<(), Failure> {
    let [first, last] = all;
    let (Ok(first), Ok(last)) = (u32::try_from(first.saturating_neg()), u32::try_from(last)) else { return Ok(()) };
    file.storage.forget_counters(first, last.min(first.saturating_add(FORGOTTEN_AT_ONCE)))
}

/// Takes `etypes` elementary types from the shared pointer: returns where they begin.
pub(crate) fn take(file: &OpenFile, etypes: i64) -> Result<i64, Failure> {
    file.storage.counter(pointer(file), COUNTER_ADD, etypes).map(|taken| taken.saturating_add(base(file)))
}

/// As [`take`] for all ranks in their order, in a collective call: one all-gather, one change by rank 0, one broadcast. If any
/// rank's part is refused, the pointer stays where it is on all.
pub(crate) fn take_in_order(file: &OpenFile, etypes: Result<i64, Failure>) -> Result<i64, Failure> {
    let group = &file.group;
    let mine = etypes.as_ref().map_or(-1, |etypes| *etypes);
    let all = agree::gather(group, mine)?;
    if all.contains(&-1) {
        agree::outcome(group, etypes)?;
    }
    let mut sum = 0_i64;
    let mut before_me = 0;
    for (rank, etypes) in all.iter().enumerate() {
        if c_int::try_from(rank) == Ok(group.rank) {
            before_me = sum;
        }
        let next = sum.checked_add(*etypes);
        sum = next.ok_or_else(|| Failure::refused(MPI_ERR_ARG, "the ranks' parts together exceed 2^63"))?;
    }
    let taken = if group.rank == 0 { take(file, sum) } else { Ok(0) };
    Ok(told_by_first(file, taken)?.saturating_add(before_me))
}

/// Rank 0's outcome and number, on all ranks.
fn told_by_first(file: &OpenFile, number: Result<i64, Failure>) -> Result<i64, Failure> {
    let bytes = number.as_ref().copied().unwrap_or(0).to_ne_bytes().to_vec();
    let (outcome, bytes) = agree::broadcast(&file.group, number.map(drop), bytes)?;
    outcome?;
    Ok(bytes.try_into().map_or(0, i64::from_ne_bytes))
}

/// `MPI_File_seek_shared` (§14.4.4.3). Collective; all ranks must give the same arguments.
pub(crate) fn seek(file: &OpenFile, offset: i64, whence: c_int) -> Result<(), Failure> {
    let checked = file.require_random().and_then(|()| match whence {
        MPI_SEEK_SET | MPI_SEEK_CUR | MPI_SEEK_END => Ok(()),
        other => Err(Failure::refused(MPI_ERR_ARG, format!("{other} is no whence: use MPI_SEEK_SET, _CUR or _END"))),
    });
    let whence_number = i64::from(whence);
    let numbers = [offset, offset.saturating_neg(), whence_number, -whence_number];
    let (_, [most, least, highest, lowest]) = agree::outcome_and_maximum(&file.group, checked, numbers)?;
    if most != least.saturating_neg() || highest != -lowest {
        return Err(Failure::refused(MPI_ERR_NOT_SAME, "the ranks gave different arguments to MPI_File_seek_shared"));
    }
    // All ranks learn the number's counter, so that each knows that there is one.
    let number = pointer(file);
    let moved = if file.group.rank == 0 { move_to(file, number, offset, whence) } else { Ok(0) };
    told_by_first(file, moved).map(drop)
}

fn move_to(file: &OpenFile, number: u32, offset: i64, whence: c_int) -> Result<i64, Failure> {
    let base = match whence {
        MPI_SEEK_CUR => file.storage.counter(number, COUNTER_GET, 0)?.saturating_add(base(file)),
        MPI_SEEK_END => file.view().etypes_in(file.storage.size()?),
        _ => 0,
    };
    let position = base.checked_add(offset).filter(|position| *position >= 0).ok_or_else(|| {
        Failure::refused(MPI_ERR_ARG, format!("seeking by {offset} leads before the start of the view or beyond 2^63"))
    })?;
    file.storage.counter(number, COUNTER_SET, position.saturating_sub(self::base(file)))
}

/// `MPI_File_get_position_shared`.
pub(crate) fn position(file: &OpenFile) -> Result<i64, Failure> {
    file.require_random()?;
    present(file)
}

fn present(file: &OpenFile) -> Result<i64, Failure> {
    file.storage.counter(pointer(file), COUNTER_GET, 0).map(|count| count.saturating_add(base(file)))
}

/// Where the shared pointer is, in bytes of the file.
pub(crate) fn place_in_bytes(file: &OpenFile) -> Result<i64, Failure> {
    let etypes = present(file)?;
    file.view().byte_offset(etypes)
}

/// `MPI_File_set_atomicity` (§14.6.1). Collective; all ranks must give the same flag.
pub(crate) fn set_atomicity(file: &OpenFile, flag: c_int) -> Result<(), Failure> {
    let wanted = i64::from(flag != 0);
    let (_, [most, least]) = agree::outcome_and_maximum(&file.group, Ok(()), [wanted, -wanted])?;
    if most != -least {
        return Err(Failure::refused(MPI_ERR_NOT_SAME, "the ranks gave different flags to MPI_File_set_atomicity"));
    }
    let mut state = file.state();
    state.atomic = flag != 0;
    if state.atomic && file.writable() {
        state.counters.extend(TICKETS);
        state.counters.extend(SERVED);
    }
    Ok(())
}

/// Does `work` alone among all ranks of the file, if it is in atomic mode and can be written: a reader's snapshot never changes.
pub(crate) fn alone<T>(file: &OpenFile, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    if !file.state().atomic || !file.writable() {
        return work();
    }
    let ticket = file.storage.counter(TICKETS, COUNTER_ADD, 1)?;
    await_turn(file, ticket)?;
    let done = work();
    let released = file.storage.counter(SERVED, COUNTER_ADD, 1);
    done.and_then(|done| released.map(|_| done))
}

fn await_turn(file: &OpenFile, ticket: i64) -> Result<(), Failure> {
    let (mut last, mut since, mut pause) = (-1, Instant::now(), SHORTEST_PAUSE);
    loop {
        let served = file.storage.counter(SERVED, COUNTER_GET, 0)?;
        if served >= ticket {
            return Ok(());
        }
        if served != last {
            (last, since, pause) = (served, Instant::now(), SHORTEST_PAUSE);
        } else if since.elapsed() > HOLDER_DEADLINE {
            let text =
                "a rank has held the file in atomic mode for too long: it is stuck or gone; close and reopen the file";
            return Err(Failure::refused(MPI_ERR_IO, text));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_of_all_ranks_numbers_covers_what_each_used() {
        let mut used = [Used::default(), Used::default(), Used::default()];
        assert_eq!(used[0].numbers(), [i64::MIN; 2]);
        used[1].extend(7);
        used[2].extend(3);
        used[2].extend(5);
        let all = used.map(Used::numbers).into_iter().reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        assert_eq!(all, Some([-3, 7]));
    }
}
