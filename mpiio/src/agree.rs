//! How the ranks of a file's communicator agree: one broadcast of an outcome, one reduction of summaries, one all-reduce of numbers.
//!
//! Owns the layouts of these messages. Every rank must call these functions in the same order whatever failed on it: that is
//! what keeps ranks from waiting for each other for ever.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::file::Group;
use crate::storage;

/// Bytes of a failure's text in a message.
const TEXT_BYTES: usize = 480;
/// Class, rank, weight and length of the text, then the text.
const VERDICT_HEAD_BYTES: usize = 16;
const VERDICT_BYTES: usize = VERDICT_HEAD_BYTES + TEXT_BYTES;
/// Bytes of a broadcast; a result that does not fit takes a second one.
const BROADCAST_BYTES: usize = 4096;
const RESULT_BYTES: usize = BROADCAST_BYTES - VERDICT_BYTES - 8;

/// Writes an outcome of `rank` into the first [`VERDICT_BYTES`] of a message.
fn put_verdict(message: &mut [u8], rank: c_int, outcome: &Result<(), Failure>) {
    let (class, rank, weight, text) = match outcome {
        Ok(()) => (MPI_SUCCESS, rank, 0, String::new()),
        Err(Failure::Remote { rank, class, text }) => (*class, *rank, 0, text.clone()),
        Err(failure) => (failure.class(), rank, failure.weight(), failure.to_string()),
    };
    let text = &text.as_bytes()[..text.len().min(TEXT_BYTES)];
    message[..4].copy_from_slice(&class.to_ne_bytes());
    message[4..8].copy_from_slice(&rank.to_ne_bytes());
    message[8..12].copy_from_slice(&weight.to_ne_bytes());
    message[12..16].copy_from_slice(&c_int::try_from(text.len()).unwrap_or(0).to_ne_bytes());
    message[VERDICT_HEAD_BYTES..VERDICT_HEAD_BYTES + text.len()].copy_from_slice(text);
}

fn integer(message: &[u8], at: usize) -> c_int {
    message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, c_int::from_ne_bytes)
}

fn get_verdict(message: &[u8]) -> Result<(), Failure> {
    let (class, rank) = (integer(message, 0), integer(message, 4));
    if class == MPI_SUCCESS {
        return Ok(());
    }
    let length = usize::try_from(integer(message, 12)).unwrap_or(0).min(TEXT_BYTES);
    let text = String::from_utf8_lossy(&message[VERDICT_HEAD_BYTES..VERDICT_HEAD_BYTES + length]).into_owned();
    Err(Failure::Remote { rank, class, text })
}

/// Gives rank 0's outcome and result to all ranks. `outcome` is looked at on rank 0 only.
pub(crate) fn broadcast(
    group: &Group,
    outcome: Result<(), Failure>,
    result: Vec<u8>,
) -> Result<(Result<(), Failure>, Vec<u8>), Failure> {
    if group.size == 1 {
        return Ok((outcome, result));
    }
    let mut message = vec![0_u8; BROADCAST_BYTES];
    if group.rank == 0 {
        put_verdict(&mut message, 0, &outcome);
        message[VERDICT_BYTES..VERDICT_BYTES + 8].copy_from_slice(&(result.len() as u64).to_ne_bytes());
        let here = result.len().min(RESULT_BYTES);
        message[VERDICT_BYTES + 8..VERDICT_BYTES + 8 + here].copy_from_slice(&result[..here]);
    }
    send_all(group, 0, &mut message)?;
    let length = message[VERDICT_BYTES..VERDICT_BYTES + 8].try_into().map_or(0, u64::from_ne_bytes);
    let length = usize::try_from(length).unwrap_or(0);
    if length > RESULT_BYTES {
        let mut rest = if group.rank == 0 { result.clone() } else { vec![0_u8; length] };
        send_all(group, 0, &mut rest)?;
        return Ok((if group.rank == 0 { outcome } else { get_verdict(&message) }, rest));
    }
    if group.rank == 0 {
        return Ok((outcome, result));
    }
    let start = VERDICT_BYTES + 8;
    Ok((get_verdict(&message), message[start..start + length].to_vec()))
}

fn send_all(group: &Group, from: c_int, message: &mut [u8]) -> Result<(), Failure> {
    let count = c_int::try_from(message.len())
        .map_err(|_| Failure::refused(MPI_ERR_INTERN, "an answer of libtalea exceeds 2 GiB"))?;
    // SAFETY: a buffer of `count` bytes on every rank, and a communicator of this driver's.
    let value = unsafe { (mpi()?.MPI_Bcast)(message.as_mut_ptr().cast(), count, MPI_BYTE(), from, group.comm) };
    checked("MPI_Bcast", value)
}

/// Makes each number the maximum over all ranks.
fn maximum(group: &Group, numbers: &mut [i64]) -> Result<(), Failure> {
    let mine = numbers.to_vec();
    let count = c_int::try_from(mine.len())
        .map_err(|_| Failure::refused(MPI_ERR_INTERN, "too many numbers in a reduction of the driver"))?;
    // SAFETY: both arrays have `count` elements of MPI_LONG_LONG's size, and all ranks call with the same count.
    let value = unsafe {
        (mpi()?.MPI_Allreduce)(
            mine.as_ptr().cast(),
            numbers.as_mut_ptr().cast(),
            count,
            MPI_LONG_LONG(),
            MPI_MAX(),
            group.comm,
        )
    };
    checked("MPI_Allreduce", value)
}

/// Every rank's number, in the order of the ranks.
pub(crate) fn gather(group: &Group, mine: i64) -> Result<Vec<i64>, Failure> {
    if group.size == 1 {
        return Ok(vec![mine]);
    }
    let mut all = vec![0_i64; usize::try_from(group.size).unwrap_or(0)];
    let kind = MPI_LONG_LONG();
    // SAFETY: one number goes out, and there is room for one of each rank.
    let value = unsafe {
        (mpi()?.MPI_Allgather)((&raw const mine).cast(), 1, kind, all.as_mut_ptr().cast(), 1, kind, group.comm)
    };
    checked("MPI_Allgather", value).map(|()| all)
}

/// Ends a collective call: if it failed on any rank, it fails on all of them with one class and one text, which names the server
/// if one is lost. One small all-reduce; after a failure also one broadcast of the text by the rank whose failure was chosen.
pub(crate) fn outcome<T>(group: &Group, mine: Result<T, Failure>) -> Result<T, Failure> {
    let (value, []) = outcome_and_maximum(group, mine, [])?;
    Ok(value)
}

/// As [`outcome`], with the maximum of each number in the same all-reduce. A rank that failed gives the smallest ones.
pub(crate) fn outcome_and_maximum<T, const N: usize>(
    group: &Group,
    mine: Result<T, Failure>,
    numbers: [i64; N],
) -> Result<(T, [i64; N]), Failure> {
    if group.size == 1 {
        return mine.map(|value| (value, numbers));
    }
    let mut reduced = vec![choice(group.rank, mine.as_ref().err())];
    reduced.extend(if mine.is_ok() { numbers } else { [i64::MIN; N] });
    maximum(group, &mut reduced)?;
    let (worst, numbers) = (reduced[0], std::array::from_fn(|index| reduced[index + 1]));
    let Some(chosen) = rank_of_choice(worst) else { return mine.map(|value| (value, numbers)) };
    let mut message = vec![0_u8; VERDICT_BYTES];
    put_verdict(&mut message, group.rank, &mine.as_ref().map(|_| ()).map_err(Failure::clone));
    send_all(group, chosen, &mut message)?;
    match (mine, get_verdict(&message)) {
        (Err(failure), _) if chosen == group.rank => Err(failure),
        (_, Err(failure)) => Err(failure),
        // Cannot be: the chosen rank has failed.
        (mine, Ok(())) => mine.map(|value| (value, numbers)),
    }
}

/// A failure as a number: the heaviest has the largest one, of equals that of the lowest rank. Zero is success.
fn choice(rank: c_int, failure: Option<&Failure>) -> i64 {
    failure.map_or(0, |failure| {
        // Never zero: a weight is at least one.
        (i64::from(failure.weight()) << 32) | i64::from(c_int::MAX - rank)
    })
}

fn rank_of_choice(choice: i64) -> Option<c_int> {
    (choice != 0).then(|| c_int::MAX - c_int::try_from(choice & i64::from(u32::MAX)).unwrap_or(c_int::MAX))
}

/// Start of two numbers in a message of a reduction, after its own length and a verdict.
const NUMBERS_START: usize = 8 + VERDICT_BYTES.next_multiple_of(8);
/// Length of a message of a reduction before its summary.
const SUMMARY_START: usize = NUMBERS_START + 16;

fn put_numbers(message: &mut [u8], numbers: [i64; 2]) {
    message[NUMBERS_START..NUMBERS_START + 8].copy_from_slice(&numbers[0].to_ne_bytes());
    message[NUMBERS_START + 8..SUMMARY_START].copy_from_slice(&numbers[1].to_ne_bytes());
}

fn get_numbers(message: &[u8]) -> [i64; 2] {
    let number = |at: usize| message[at..at + 8].try_into().map_or(i64::MIN, i64::from_ne_bytes);
    [number(NUMBERS_START), number(NUMBERS_START + 8)]
}

/// What rank 0 has after a reduction.
pub(crate) struct Reduced {
    /// Success, or the heaviest failure of all ranks. Success on other ranks.
    pub(crate) flushed: Result<(), Failure>,
    /// All summaries merged, if none failed.
    pub(crate) summary: Vec<u8>,
    /// The maximum of each number.
    pub(crate) numbers: [i64; 2],
}

/// How the summaries of a file are reduced: one element of a datatype that holds a whole message, and an operation of ours.
#[derive(Debug)]
pub(crate) struct Reduction {
    datatype: MPI_Datatype,
    operation: MPI_Op,
    summary_bytes: usize,
}

impl Reduction {
    /// Prepares reductions of summaries of `summary_bytes`. Local.
    pub(crate) fn new(group: &Group, summary_bytes: u64) -> Result<Reduction, Failure> {
        let summary_bytes = usize::try_from(summary_bytes)
            .ok()
            .filter(|bytes| c_int::try_from(bytes.saturating_add(SUMMARY_START)).is_ok())
            .ok_or_else(|| {
                Failure::refused(MPI_ERR_INTERN, format!("libtalea wants summaries of {summary_bytes} bytes"))
            })?;
        let mut reduction = Reduction { datatype: MPI_DATATYPE_NULL(), operation: MPI_OP_NULL(), summary_bytes };
        if group.size > 1 {
            let mpi = mpi()?;
            let count = c_int::try_from(SUMMARY_START + summary_bytes).unwrap_or(0);
            // SAFETY: each call fills one handle of this struct; the operation has the type that MPI asks for.
            unsafe {
                let value = (mpi.MPI_Type_contiguous)(count, MPI_BYTE(), &raw mut reduction.datatype);
                checked("MPI_Type_contiguous", value)?;
                checked("MPI_Type_commit", (mpi.MPI_Type_commit)(&raw mut reduction.datatype))?;
                checked("MPI_Op_create", (mpi.MPI_Op_create)(merge_messages, 1, &raw mut reduction.operation))?;
            }
        }
        Ok(reduction)
    }

    /// Frees MPI's objects.
    pub(crate) fn free(&self) {
        let Ok(mpi) = mpi() else { return };
        let (mut datatype, mut operation) = (self.datatype, self.operation);
        if datatype != MPI_DATATYPE_NULL() {
            // SAFETY: a datatype of this driver's, freed once at the file's end.
            unsafe { (mpi.MPI_Type_free)(&raw mut datatype) };
        }
        if operation != MPI_OP_NULL() {
            // SAFETY: an operation of this driver's, freed once at the file's end.
            unsafe { (mpi.MPI_Op_free)(&raw mut operation) };
        }
    }

    /// Reduces every rank's summary and numbers to rank 0.
    pub(crate) fn run(
        &self,
        group: &Group,
        numbers: [i64; 2],
        flush: impl FnOnce(&mut [u8]) -> Result<(), Failure>,
    ) -> Result<Reduced, Failure> {
        let mut message = vec![0_u8; SUMMARY_START + self.summary_bytes];
        let flushed = flush(&mut message[SUMMARY_START..]);
        if group.size == 1 {
            return Ok(Reduced { flushed, summary: message.split_off(SUMMARY_START), numbers });
        }
        let length = message.len() as u64;
        message[..8].copy_from_slice(&length.to_ne_bytes());
        put_verdict(&mut message[8..], group.rank, &flushed);
        put_numbers(&mut message, numbers);
        let mut merged = vec![0_u8; message.len()];
        // SAFETY: both buffers hold one element of the datatype; all ranks call with the same datatype and operation.
        let value = unsafe {
            (mpi()?.MPI_Reduce)(
                message.as_ptr().cast(),
                merged.as_mut_ptr().cast(),
                1,
                self.datatype,
                self.operation,
                0,
                group.comm,
            )
        };
        checked("MPI_Reduce", value)?;
        let flushed = if group.rank == 0 { get_verdict(&merged[8..]) } else { Ok(()) };
        let numbers = get_numbers(&merged);
        Ok(Reduced { flushed, summary: merged.split_off(SUMMARY_START), numbers })
    }
}

/// MPI's reduction operation: merges messages of [`Reduction::run`].
unsafe extern "C" fn merge_messages(from: *mut c_void, into: *mut c_void, count: *mut c_int, _: *mut MPI_Datatype) {
    let merged = catch_unwind(AssertUnwindSafe(|| {
        if from.is_null() || into.is_null() || count.is_null() {
            return;
        }
        // SAFETY: MPI passes the number of elements.
        let count = usize::try_from(unsafe { *count }).unwrap_or(0);
        if count == 0 {
            return;
        }
        // SAFETY: each element begins with its own length, equal on all ranks (agreed at open).
        let bytes = usize::try_from(unsafe { from.cast::<u64>().read_unaligned() }).unwrap_or(0);
        for index in 0..count {
            // SAFETY: MPI's buffers hold `count` elements of `bytes` bytes each and do not overlap.
            let (from, into) = unsafe {
                (
                    std::slice::from_raw_parts(from.cast::<u8>().add(index * bytes), bytes),
                    std::slice::from_raw_parts_mut(into.cast::<u8>().add(index * bytes), bytes),
                )
            };
            merge_message(into, from);
        }
    }));
    if merged.is_err() {
        // Nothing may unwind into MPI; the caller finds the message unmerged and its epoch fails to commit for lack of targets.
        eprintln!("talea: merging two summaries failed internally");
    }
}

/// The heaviest failure wins, of equals that of the lowest rank; a summary that cannot be merged is a failure too.
fn merge_message(into: &mut [u8], from: &[u8]) {
    if from.len() < SUMMARY_START || into.len() != from.len() {
        return;
    }
    let (mine, theirs) = (get_numbers(into), get_numbers(from));
    put_numbers(into, [mine[0].max(theirs[0]), mine[1].max(theirs[1])]);
    let failed = |message: &[u8]| integer(message, 8) != MPI_SUCCESS;
    let rank = |message: &[u8]| integer(message, 12);
    let order = |message: &[u8]| (std::cmp::Reverse(integer(message, 16)), rank(message));
    if failed(from) && (!failed(into) || order(from) < order(into)) {
        into[8..NUMBERS_START].copy_from_slice(&from[8..NUMBERS_START]);
        return;
    }
    if failed(into) {
        return;
    }
    if !storage::merge(&mut into[SUMMARY_START..], &from[SUMMARY_START..]) {
        let text = "libtalea could not merge the summaries of two ranks: sync again, or close and reopen the file";
        let rank = rank(into).min(rank(from));
        put_verdict(&mut into[8..], rank, &Err(Failure::refused(MPI_ERR_INTERN, text)));
    }
}

#[cfg(test)]
mod tests {
    use talea_abi::Code;

    use super::*;

    fn message(rank: c_int, outcome: &Result<(), Failure>) -> Vec<u8> {
        let mut message = vec![0_u8; SUMMARY_START + 16];
        put_verdict(&mut message[8..], rank, outcome);
        message
    }

    #[test]
    fn the_failure_of_the_lowest_rank_survives_whatever_the_order_of_merging() {
        let failures: Vec<_> = [3, 1, 2]
            .map(|rank| message(rank, &Err(Failure::refused(MPI_ERR_IO + rank, format!("rank {rank}")))))
            .to_vec();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut into = failures[order[0]].clone();
            for &next in &order[1..] {
                merge_message(&mut into, &failures[next]);
            }
            let expected = Failure::Remote { rank: 1, class: MPI_ERR_IO + 1, text: "rank 1".to_owned() };
            assert_eq!(get_verdict(&into[8..]), Err(expected));
        }
    }

    #[test]
    fn a_lost_server_is_told_before_what_follows_from_its_loss() {
        let lost = Failure::Storage { doing: "write", code: Code::ServerLost, text: "server 1 is lost".to_owned() };
        let over = Failure::Storage { doing: "write", code: Code::Aborted, text: "the epoch is over".to_owned() };
        let (mut into, from) = (message(0, &Err(over.clone())), message(3, &Err(lost.clone())));
        merge_message(&mut into, &from);
        let expected = Failure::Remote { rank: 3, class: MPI_ERR_IO, text: lost.to_string() };
        assert_eq!(get_verdict(&into[8..]), Err(expected));
        let mut numbers = [choice(0, Some(&over)), choice(3, Some(&lost)), choice(5, Some(&lost)), choice(1, None)];
        numbers.sort_unstable();
        assert_eq!(numbers.map(rank_of_choice), [None, Some(0), Some(5), Some(3)]);
    }

    #[test]
    fn a_failure_beats_success_and_a_long_text_is_cut() {
        let mut into = message(0, &Ok(()));
        merge_message(&mut into, &message(7, &Err(Failure::refused(MPI_ERR_IO, "x".repeat(5000)))));
        match get_verdict(&into[8..]) {
            Err(Failure::Remote { rank: 7, class: MPI_ERR_IO, text }) => assert_eq!(text.len(), TEXT_BYTES),
            other => panic!("unexpected verdict {other:?}"),
        }
    }
}
