//! Collective buffering: the ranks of a node put their small pieces together before they go to the servers.
//!
//! Each chunk of the file belongs to one rank of the node for the length of a call; that rank gets everybody's pieces of it by one
//! exchange and moves them as few large ones. It reads nothing around them, so an epoch never gets bytes that nobody wrote
//! (docs/design.md §7). Whether it is worth it is decided anew in each call, by one all-reduce. Must never leave the exchange
//! half done: what fails on a rank is told at the call's end.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use talea_abi::Piece;

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::file::OpenFile;
use crate::transfer::{Checked, Direction};

/// Pieces of this many bytes and more go to the servers from where they are.
const SMALL_BYTES: i64 = 4096;
/// Fewer pieces on every rank than this are not worth an exchange.
const MANY_PIECES: i64 = 32;
/// Most bytes of one rank in an exchange: MPI counts them in ints, and they are copied.
const MOST_BYTES: i64 = 128 << 20;

/// The ranks of this file's communicator on this node.
pub(crate) struct Node {
    comm: MPI_Comm,
    size: usize,
}

impl Node {
    fn of(file: &OpenFile) -> Result<Node, Failure> {
        let (mpi, mut node, mut size) = (mpi()?, MPI_COMM_NULL(), 0);
        let (comm, rank) = (file.group.comm, file.group.rank);
        // SAFETY: the file's communicator; each call fills one value.
        unsafe {
            let value = (mpi.MPI_Comm_split_type)(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL(), &raw mut node);
            checked("MPI_Comm_split_type", value)?;
            checked("MPI_Comm_size", (mpi.MPI_Comm_size)(node, &raw mut size))?;
        }
        Ok(Node { comm: node, size: usize::try_from(size).unwrap_or(1).max(1) })
    }

    /// Frees the communicator.
    pub(crate) fn free(&self) {
        let mut comm = self.comm;
        if let Ok(mpi) = mpi() {
            // SAFETY: a communicator of this driver's, freed once at the file's end.
            unsafe { (mpi.MPI_Comm_free)(&raw mut comm) };
        }
    }
}

/// A node, once it is needed.
pub(crate) type LazyNode = OnceLock<Node>;

/// What this rank says to the decision: bytes of its pieces, their number, bytes in all. The maxima of all ranks decide.
pub(crate) fn numbers(file: &OpenFile, direction: Direction, call: &Checked) -> [i64; 3] {
    let allowed = !file.state().atomic
        && !call.view.representation.converts(direction == Direction::Write)
        && file.buffers(direction);
    let bytes = i64::try_from(call.bytes).unwrap_or(i64::MAX);
    if !allowed || bytes > MOST_BYTES {
        return [i64::MAX, 0, bytes];
    }
    let piece = call.view.average_piece().min(call.bytes).max(1);
    let pieces = i64::try_from(call.bytes / piece).unwrap_or(i64::MAX);
    [if bytes == 0 { 0 } else { i64::try_from(piece).unwrap_or(i64::MAX) }, pieces, bytes]
}

/// Is it worth it?
pub(crate) fn worthwhile([piece, pieces, bytes]: [i64; 3]) -> bool {
    piece < SMALL_BYTES && pieces >= MANY_PIECES && bytes <= MOST_BYTES
}

/// A piece of this rank on its way to the rank that moves it.
struct Mine {
    offset: u64,
    bytes: u64,
    memory: *mut u8,
}

/// Moves this rank's pieces together with the other ranks'. Returns its bytes that were moved. Collective.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
pub(crate) unsafe fn exchange(
    file: &OpenFile,
    direction: Direction,
    call: &Checked,
    start: i64,
) -> Result<u64, Failure> {
    let node = match file.node.get() {
        Some(node) => node,
        None => {
            let made = Node::of(file)?;
            file.node.get_or_init(|| made)
        }
    };
    // A rank whose pieces cannot be told takes part with none, and fails in the end.
    let (mine, failed) = match pieces_of(file, call, start, node.size) {
        Ok(mine) => (mine, None),
        Err(failure) => ((0..node.size).map(|_| Vec::new()).collect(), Some(failure)),
    };
    // SAFETY: passed on to the caller.
    let moved = unsafe {
        match direction {
            Direction::Write => write(file, node, &mine).map(|()| call.bytes),
            Direction::Read => read(file, node, &mine),
        }
    };
    failed.map_or(moved, Err)
}

/// This rank's pieces for each rank of the node, by the chunk that they lie in.
fn pieces_of(file: &OpenFile, call: &Checked, start: i64, ranks: usize) -> Result<Vec<Vec<Mine>>, Failure> {
    let chunk_bytes = file.storage.info()?.chunk_bytes.max(1);
    let mut all: Vec<Vec<Mine>> = (0..ranks).map(|_| Vec::new()).collect();
    if call.bytes == 0 {
        return Ok(all);
    }
    let position = call.view.stream_position(start)?;
    let mut pieces = call.view.pieces(position, &call.memory, call.buffer.address, call.bytes)?;
    let mut batch: Vec<Piece> = Vec::new();
    loop {
        pieces.next_batch(&mut batch)?;
        if batch.is_empty() {
            return Ok(all);
        }
        for piece in &batch {
            if piece.memory.is_null() {
                return Err(Failure::refused(MPI_ERR_BUFFER, "the buffer is null"));
            }
            let (mut offset, end) = (piece.offset, piece.offset + piece.bytes);
            while offset < end {
                let chunk = offset / chunk_bytes;
                let bytes = end.min((chunk + 1).saturating_mul(chunk_bytes)) - offset;
                let memory = piece.memory.cast::<u8>().wrapping_add((offset - piece.offset) as usize);
                all[(chunk % ranks as u64) as usize].push(Mine { offset, bytes, memory });
                offset += bytes;
            }
        }
    }
}

/// Appends the list of pieces to a message: their number, then offset and length of each.
fn put_list(pieces: &[Mine], message: &mut Vec<u8>) {
    message.extend((pieces.len() as u64).to_ne_bytes());
    for piece in pieces {
        message.extend(piece.offset.to_ne_bytes());
        message.extend(piece.bytes.to_ne_bytes());
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (front, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_ne_bytes(*front))
}

/// Takes a list off a message.
fn get_list(message: &mut &[u8]) -> Option<Vec<(u64, usize)>> {
    let count = usize::try_from(number(message)?).ok()?;
    (0..count).map(|_| Some((number(message)?, usize::try_from(number(message)?).ok()?))).collect()
}

fn garbled() -> Failure {
    Failure::refused(MPI_ERR_INTERN, "a rank of this node sent a list of pieces that cannot be read")
}

/// # Safety
/// The pieces' memory is readable.
unsafe fn write(file: &OpenFile, node: &Node, mine: &[Vec<Mine>]) -> Result<(), Failure> {
    let outgoing: Vec<Vec<u8>> = mine
        .iter()
        .map(|pieces| {
            let mut message = Vec::new();
            put_list(pieces, &mut message);
            for piece in pieces {
                // SAFETY: the caller vouches for the memory.
                message.extend(unsafe { std::slice::from_raw_parts(piece.memory, piece.bytes as usize) });
            }
            message
        })
        .collect();
    let incoming = swap(node, &outgoing)?;
    let mut parts: Vec<(u64, &[u8])> = Vec::new();
    for message in &incoming {
        let mut rest = &message[..];
        for (offset, bytes) in get_list(&mut rest).ok_or_else(garbled)? {
            let (data, after) = rest.split_at_checked(bytes).ok_or_else(garbled)?;
            rest = after;
            parts.push((offset, data));
        }
    }
    let mut runs = joined(&parts);
    let list: Vec<Piece> = runs
        .iter_mut()
        .map(|(offset, data)| Piece { offset: *offset, bytes: data.len() as u64, memory: data.as_mut_ptr().cast() })
        .collect();
    if list.is_empty() {
        return Ok(());
    }
    // SAFETY: the runs live until the call is over.
    unsafe { file.storage.write(&list) }
}

/// Puts parts together that touch or overlap, in the order of their offsets.
fn joined(parts: &[(u64, &[u8])]) -> Vec<(u64, Vec<u8>)> {
    let mut order: Vec<&(u64, &[u8])> = parts.iter().collect();
    order.sort_by_key(|(offset, _)| *offset);
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for &&(offset, data) in &order {
        match runs.last_mut() {
            Some((begin, run)) if offset <= *begin + run.len() as u64 => {
                let at = (offset - *begin) as usize;
                let over = (run.len() - at).min(data.len());
                run[at..at + over].copy_from_slice(&data[..over]);
                run.extend(&data[over..]);
            }
            _ => runs.push((offset, data.to_vec())),
        }
    }
    runs
}

/// # Safety
/// The pieces' memory is writable.
unsafe fn read(file: &OpenFile, node: &Node, mine: &[Vec<Mine>]) -> Result<u64, Failure> {
    let outgoing: Vec<Vec<u8>> = mine
        .iter()
        .map(|pieces| {
            let mut message = Vec::new();
            put_list(pieces, &mut message);
            message
        })
        .collect();
    let asked = swap(node, &outgoing)?;
    let lists: Option<Vec<_>> = asked.iter().map(|message| get_list(&mut &message[..])).collect();
    // Whatever fails here, the others wait for an answer: an empty one.
    let answered = lists.ok_or_else(garbled).and_then(|lists| answers(file, &lists));
    let (answers, failed) = match answered {
        Ok(answers) => (answers, None),
        Err(failure) => (vec![Vec::new(); node.size], Some(failure)),
    };
    let incoming = swap(node, &answers)?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let mut moved = 0;
    for (pieces, message) in mine.iter().zip(&incoming) {
        let mut rest = &message[..];
        // An empty answer is one of a rank that failed, which tells everybody.
        let Some(end) = number(&mut rest) else { continue };
        for piece in pieces {
            let bytes = end.saturating_sub(piece.offset).min(piece.bytes) as usize;
            let (data, after) = rest.split_at_checked(bytes).ok_or_else(garbled)?;
            rest = after;
            // SAFETY: the caller vouches for the memory, and the message is not part of it.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), piece.memory, bytes) };
            moved += bytes as u64;
        }
    }
    Ok(moved)
}

/// Reads what the ranks asked for, each byte once; an answer has the file's end, then the pieces up to it.
fn answers(file: &OpenFile, lists: &[Vec<(u64, usize)>]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut wanted: Vec<(u64, u64)> =
        lists.iter().flatten().map(|&(offset, bytes)| (offset, offset.saturating_add(bytes as u64))).collect();
    wanted.sort_unstable();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in wanted {
        match runs.last_mut() {
            Some(run) if begin <= run.1 => run.1 = run.1.max(end),
            _ => runs.push((begin, end)),
        }
    }
    let mut buffers: Vec<Vec<u8>> = runs.iter().map(|(begin, end)| vec![0; (end - begin) as usize]).collect();
    let list: Vec<Piece> = runs
        .iter()
        .zip(&mut buffers)
        .map(|(run, data)| Piece { offset: run.0, bytes: data.len() as u64, memory: data.as_mut_ptr().cast() })
        .collect();
    // SAFETY: the buffers live until the call is over, and nobody else has them.
    let end = if list.is_empty() { 0 } else { unsafe { file.storage.read(&list) }? };
    let answer = |pieces: &Vec<(u64, usize)>| {
        let mut message = end.to_ne_bytes().to_vec();
        for &(offset, bytes) in pieces {
            let run = runs.partition_point(|run| run.0 <= offset).saturating_sub(1);
            let at = (offset - runs[run].0) as usize;
            let bytes = (end.saturating_sub(offset)).min(bytes as u64) as usize;
            message.extend(&buffers[run][at..at + bytes]);
        }
        message
    };
    Ok(lists.iter().map(answer).collect())
}

/// Sends each rank of the node its message and receives theirs.
fn swap(node: &Node, outgoing: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Failure> {
    let length = |bytes: usize| c_int::try_from(bytes).map_err(|_| garbled());
    let mpi = mpi()?;
    let sizes: Vec<c_int> = outgoing.iter().map(|message| length(message.len())).collect::<Result<_, _>>()?;
    let mut theirs: Vec<c_int> = vec![0; node.size];
    // Sizes travel as four bytes each.
    let (from, into) = (sizes.as_ptr().cast::<c_void>(), theirs.as_mut_ptr().cast::<c_void>());
    // SAFETY: arrays with one int for each rank of the node.
    let value = unsafe { (mpi.MPI_Alltoall)(from, 4, MPI_BYTE(), into, 4, MPI_BYTE(), node.comm) };
    checked("MPI_Alltoall", value)?;
    let places = |sizes: &[c_int]| -> Result<(Vec<c_int>, usize), Failure> {
        let mut sum = 0;
        let places = sizes
            .iter()
            .map(|size| {
                let place = length(sum);
                sum += usize::try_from(*size).unwrap_or(0);
                place
            })
            .collect::<Result<_, _>>()?;
        Ok((places, sum))
    };
    let ((out_places, _), (in_places, bytes)) = (places(&sizes)?, places(&theirs)?);
    let sent = outgoing.concat();
    let mut received = vec![0_u8; bytes];
    // SAFETY: sizes and places lie within both buffers, and each rank knows the other's.
    let value = unsafe {
        (mpi.MPI_Alltoallv)(
            sent.as_ptr().cast(),
            sizes.as_ptr(),
            out_places.as_ptr(),
            MPI_BYTE(),
            received.as_mut_ptr().cast(),
            theirs.as_ptr(),
            in_places.as_ptr(),
            MPI_BYTE(),
            node.comm,
        )
    };
    checked("MPI_Alltoallv", value)?;
    let mut rest = &received[..];
    let take = |size: &c_int| {
        let (front, after) = rest.split_at(usize::try_from(*size).unwrap_or(0));
        rest = after;
        front.to_vec()
    };
    Ok(theirs.iter().map(take).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_parts_become_one_run_and_the_later_of_two_overlapping_ones_wins() {
        let parts: Vec<(u64, &[u8])> =
            vec![(4, &[4, 5]), (0, &[0, 1]), (2, &[2, 3]), (10, &[10, 11, 12]), (11, &[21]), (20, &[])];
        let runs = joined(&parts);
        assert_eq!(runs, [(0, vec![0, 1, 2, 3, 4, 5]), (10, vec![10, 21, 12]), (20, vec![])]);
    }

    #[test]
    fn a_list_survives_its_message_and_a_cut_one_is_told() {
        let pieces =
            [(7, 3), (u64::MAX, 1)].map(|(offset, bytes)| Mine { offset, bytes, memory: std::ptr::null_mut() });
        let mut message = Vec::new();
        put_list(&pieces, &mut message);
        assert_eq!(get_list(&mut &message[..]), Some(vec![(7, 3), (u64::MAX, 1)]));
        assert_eq!(get_list(&mut &message[..message.len() - 1]), None);
        assert_eq!(get_list(&mut &[][..]), None);
    }

    #[test]
    fn large_pieces_and_few_ones_go_by_themselves() {
        assert!(worthwhile([8, 4096, 32768]));
        assert!(!worthwhile([SMALL_BYTES, 4096, 1 << 24]));
        assert!(!worthwhile([8, 4, 32]));
        assert!(!worthwhile([i64::MAX, 4096, 32768]));
    }
}
