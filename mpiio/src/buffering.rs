//! Collective buffering: the ranks of a node put their small pieces together before they go to the servers.
//!
//! Each chunk of the file belongs to one rank of the node for the length of a call; that rank gets everybody's pieces of it by one
//! exchange and moves them as few large ones. It reads nothing around them, so an epoch never gets bytes that nobody wrote
//! (docs/design.md §7). Whether it is worth it is decided anew in each call, by one all-reduce. Must never leave the exchange
//! half done: what fails on a rank is told at the call's end.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use image::Image;
use talea_abi::Piece;
use trains::{Parcel, Train};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::file::OpenFile;
use crate::transfer::{Checked, Direction};

mod image;
mod trains;

/// Pieces of this many bytes and more go to the servers from where they are.
const SMALL_BYTES: i64 = 4096;
/// Fewer pieces on every rank than this are not worth an exchange.
const MANY_PIECES: i64 = 32;
/// Most bytes of one rank in an exchange: they are copied.
const MOST_BYTES: i64 = 128 << 20;

/// Most bytes of a message: MPI counts them in ints.
const MOST_MESSAGE_BYTES: u64 = 1 << 30;
/// Most bytes from the first to the last piece of a rank, for each byte of them and each rank: with more between them they do not
/// become few large ones.
const MOST_SPREAD: i64 = 4;
/// Ranks that are counted for that at most.
const MOST_NEIGHBOURS: i64 = 16;

/// The ranks of this file's communicator on this node.
pub(crate) struct Node {
    comm: MPI_Comm,
    rank: usize,
    size: usize,
}

impl Node {
    fn of(file: &OpenFile) -> Result<Node, Failure> {
        let (mpi, mut node, mut size, mut mine) = (mpi()?, MPI_COMM_NULL(), 0, 0);
        let (comm, rank) = (file.group.comm, file.group.rank);
        // SAFETY: the file's communicator; each call fills one value.
        unsafe {
            let value = (mpi.MPI_Comm_split_type)(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL(), &raw mut node);
            checked("MPI_Comm_split_type", value)?;
            checked("MPI_Comm_size", (mpi.MPI_Comm_size)(node, &raw mut size))?;
            checked("MPI_Comm_rank", (mpi.MPI_Comm_rank)(node, &raw mut mine))?;
        }
        let size = usize::try_from(size).unwrap_or(1).max(1);
        Ok(Node { comm: node, rank: usize::try_from(mine).unwrap_or(0), size })
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

/// What this rank says to the decision: bytes of its pieces, their number, bytes in all, and how many bytes of the file there are
/// for each of them. The maxima of all ranks decide.
pub(crate) fn numbers(file: &OpenFile, direction: Direction, call: &Checked, start: i64) -> [i64; 4] {
    let allowed = !file.state().atomic
        && !call.view.representation.converts(direction == Direction::Write)
        && file.buffers(direction);
    let bytes = i64::try_from(call.bytes).unwrap_or(i64::MAX);
    if !allowed || bytes > MOST_BYTES {
        return [i64::MAX, 0, bytes, 0];
    }
    if bytes == 0 {
        return [0; 4];
    }
    // A piece ends where a run of the memory or of the view does.
    let cuts = |finest: u64| call.bytes / finest.max(1) + 1;
    let most_pieces = cuts(call.memory.finest()).saturating_add(cuts(call.view.finest()));
    if trains::most_bytes(call.bytes, most_pieces) > MOST_MESSAGE_BYTES {
        return [i64::MAX, 0, bytes, 0];
    }
    let piece = call.view.average_piece().min(call.bytes).max(1);
    let pieces = i64::try_from(call.bytes / piece).unwrap_or(i64::MAX);
    let span = call.span(start).map_or(i64::MAX, |span| span / bytes);
    [i64::try_from(piece).unwrap_or(i64::MAX), pieces, bytes, span]
}

/// Is it worth it, for a file that `ranks` ranks have open?
pub(crate) fn worthwhile([piece, pieces, bytes, spread]: [i64; 4], ranks: c_int) -> bool {
    let near = spread <= MOST_SPREAD * i64::from(ranks).min(MOST_NEIGHBOURS);
    piece < SMALL_BYTES && pieces >= MANY_PIECES && bytes <= MOST_BYTES && near
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
    let chunk_bytes = file.storage.info()?.chunk_bytes.max(1);
    let mut parcels: Vec<Parcel> = vec![Parcel::default(); node.size];
    // SAFETY: the caller vouches for the memory.
    let packed = each_piece(call, start, chunk_bytes, node.size, |owner, piece, same_chunk| unsafe {
        let parcel = &mut parcels[owner];
        parcel.add(piece.offset, piece.bytes, same_chunk);
        if direction == Direction::Write {
            append(&mut parcel.data, piece.memory, piece.bytes as usize);
        }
        Ok(())
    });
    // A rank whose pieces cannot be told takes part with none, and fails in the end.
    if packed.is_err() {
        parcels.fill(Parcel::default());
    }
    // SAFETY: passed on to the caller.
    let moved = unsafe {
        match direction {
            Direction::Write => write(file, node, parcels, chunk_bytes).map(|()| call.bytes),
            Direction::Read => read(file, node, parcels, chunk_bytes, (call, start)),
        }
    };
    packed.and(moved).inspect_err(|failure| {
        // Others may have written what this rank gave them, and it some of theirs.
        if direction == Direction::Write {
            file.spoil(failure);
        }
    })
}

/// Calls `take` with each of this rank's pieces, cut at the borders of chunks, the rank of the node that its chunk belongs to, and
/// whether it lies in the same chunk as the last one.
fn each_piece(
    call: &Checked,
    start: i64,
    chunk_bytes: u64,
    ranks: usize,
    mut take: impl FnMut(usize, &Piece, bool) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if call.bytes == 0 {
        return Ok(());
    }
    let position = call.view.stream_position(start)?;
    let mut pieces = call.view.pieces(position, &call.memory, call.buffer.address, call.bytes)?;
    let mut batch: Vec<Piece> = Vec::new();
    // The present chunk, and whose it is.
    let (mut begin, mut chunk_end, mut owner) = (1, 0, 0);
    loop {
        pieces.next_batch(&mut batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        for piece in &batch {
            if piece.memory.is_null() {
                return Err(Failure::refused(MPI_ERR_BUFFER, "the buffer is null"));
            }
            let (mut offset, end) = (piece.offset, piece.offset + piece.bytes);
            while offset < end {
                let same = (begin..chunk_end).contains(&offset);
                if !same {
                    let chunk = offset / chunk_bytes;
                    begin = chunk * chunk_bytes;
                    (chunk_end, owner) = (begin.saturating_add(chunk_bytes), (chunk % ranks as u64) as usize);
                }
                let bytes = end.min(chunk_end) - offset;
                let memory = piece.memory.cast::<u8>().wrapping_add((offset - piece.offset) as usize).cast();
                take(owner, &Piece { offset, bytes, memory }, same)?;
                offset += bytes;
            }
        }
    }
}

/// Appends memory of the program's.
///
/// # Safety
/// `memory` is readable for `bytes` bytes.
unsafe fn append(data: &mut Vec<u8>, memory: *const c_void, bytes: usize) {
    if bytes == 8 {
        // SAFETY: eight bytes, of any alignment. One load: this is the inner loop of fine-grained writes.
        data.extend_from_slice(&unsafe { memory.cast::<[u8; 8]>().read() });
    } else {
        // SAFETY: passed on to the caller.
        data.extend_from_slice(unsafe { std::slice::from_raw_parts(memory.cast::<u8>(), bytes) });
    }
}

fn garbled() -> Failure {
    Failure::refused(MPI_ERR_INTERN, "a rank of this node sent a list of pieces that cannot be read")
}

/// Writes what the ranks have for this one.
fn write(file: &OpenFile, node: &Node, mut parcels: Vec<Parcel>, chunk_bytes: u64) -> Result<(), Failure> {
    let mine = std::mem::take(&mut parcels[node.rank]);
    let incoming = swap(node, parcels.into_iter().map(Parcel::into_message).collect())?;
    let mut sources: Vec<(Vec<Train>, &[u8])> = vec![(mine.trains, &mine.data)];
    for message in incoming.others() {
        let (trains, data) = trains::opened(message, chunk_bytes).ok_or_else(garbled)?;
        if trains::total(&trains) != Some(data.len() as u64) {
            return Err(garbled());
        }
        sources.push((trains, data));
    }
    let mut image = Image::over(sources.iter().flat_map(|(trains, _)| trains), chunk_bytes);
    for (trains, data) in &sources {
        let mut rest = *data;
        for train in trains {
            let (data, after) = rest.split_at(train.total() as usize);
            rest = after;
            image.paint(train, data);
        }
    }
    let list = pieces_of(&mut image);
    // SAFETY: the image lives until the call is over.
    if list.is_empty() { Ok(()) } else { unsafe { file.storage.write(&list) } }
}

/// What is covered of an image, for libtalea.
fn pieces_of(image: &mut Image) -> Vec<Piece> {
    let (runs, base) = (image.runs(), image.bytes.as_mut_ptr());
    runs.iter()
        .map(|run| Piece { offset: run.offset, bytes: run.bytes as u64, memory: base.wrapping_add(run.at).cast() })
        .collect()
}

/// # Safety
/// The pieces' memory is writable.
unsafe fn read(
    file: &OpenFile,
    node: &Node,
    mut parcels: Vec<Parcel>,
    chunk_bytes: u64,
    (call, start): (&Checked, i64),
) -> Result<u64, Failure> {
    let mine = std::mem::take(&mut parcels[node.rank]);
    let asked = swap(node, parcels.into_iter().map(Parcel::into_message).collect())?;
    // Whatever fails here, the others wait for an answer: an empty one.
    let (answers, own) = match answers(file, node, mine.trains, &asked, chunk_bytes) {
        Ok((answers, image, end)) => (answers, Ok((image, end))),
        Err(failure) => (vec![Vec::new(); node.size], Err(failure)),
    };
    let incoming = swap(node, answers)?;
    let (image, own_end) = own?;
    let mut streams: Vec<(&[u8], Option<u64>)> = (0..node.size).map(|rank| incoming.stream(rank)).collect();
    let mut moved = 0;
    // SAFETY: the caller vouches for the memory, and neither image nor message is part of it.
    each_piece(call, start, chunk_bytes, node.size, |owner, piece, _| unsafe {
        let (stream, end) = &mut streams[owner];
        if owner == node.rank {
            let bytes = own_end.saturating_sub(piece.offset).min(piece.bytes) as usize;
            hand_out(&image.bytes[image.place(piece.offset)..][..bytes], piece.memory);
            moved += bytes as u64;
        } else if let Some(end) = end {
            let bytes = end.saturating_sub(piece.offset).min(piece.bytes) as usize;
            let (data, after) = stream.split_at_checked(bytes).ok_or_else(garbled)?;
            *stream = after;
            hand_out(data, piece.memory);
            moved += bytes as u64;
        }
        Ok(())
    })?;
    Ok(moved)
}

/// Copies to the program's memory.
///
/// # Safety
/// `memory` is writable for as many bytes, and not part of `data`.
unsafe fn hand_out(data: &[u8], memory: *mut c_void) {
    if let Ok(eight) = <[u8; 8]>::try_from(data) {
        // SAFETY: eight bytes, of any alignment.
        unsafe { memory.cast::<[u8; 8]>().write(eight) };
    } else {
        // SAFETY: passed on to the caller.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), memory.cast::<u8>(), data.len()) };
    }
}

/// Reads what the ranks asked for, each byte once. An answer has the asker's bytes up to the file's end, then that end.
fn answers(
    file: &OpenFile,
    node: &Node,
    mine: Vec<Train>,
    asked: &Incoming,
    chunk_bytes: u64,
) -> Result<(Vec<Vec<u8>>, Image, u64), Failure> {
    let mut wanted: Vec<Vec<Train>> = Vec::with_capacity(node.size);
    for rank in 0..node.size {
        let of_others = || trains::opened(asked.message(rank), chunk_bytes).ok_or_else(garbled);
        wanted.push(if rank == node.rank { mine.clone() } else { of_others()?.0 });
    }
    let mut image = Image::over(wanted.iter().flatten(), chunk_bytes);
    wanted.iter().flatten().for_each(|train| image.cover(train));
    let list = pieces_of(&mut image);
    // SAFETY: the image lives until the call is over, and nobody else has it.
    let end = if list.is_empty() { 0 } else { unsafe { file.storage.read(&list) }? };
    let answer = |(rank, trains): (usize, &Vec<Train>)| {
        let mut message = Vec::new();
        if rank != node.rank {
            message.reserve_exact(trains::total(trains).unwrap_or(0) as usize + 8);
            trains.iter().for_each(|train| image.collect(train, end, &mut message));
            message.extend_from_slice(&end.to_ne_bytes());
        }
        message
    };
    let answers = wanted.iter().enumerate().map(answer).collect();
    Ok((answers, image, end))
}

/// What the other ranks sent.
struct Incoming {
    rank: usize,
    messages: Vec<Vec<u8>>,
}

impl Incoming {
    fn message(&self, rank: usize) -> &[u8] {
        &self.messages[rank]
    }

    fn others(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.messages.len()).filter(|rank| *rank != self.rank).map(|rank| self.message(rank))
    }

    /// A rank's answer: data, and the file's end; none of a rank that failed, which tells everybody.
    fn stream(&self, rank: usize) -> (&[u8], Option<u64>) {
        let mut message = self.message(rank);
        let end = trains::last_number(&mut message);
        (message, end)
    }
}

/// Sends each other rank of the node its message and receives theirs: their sizes, then pair by pair, so that only single messages
/// are counted in ints.
fn swap(node: &Node, outgoing: Vec<Vec<u8>>) -> Result<Incoming, Failure> {
    let length = |message: &Vec<u8>| c_int::try_from(message.len()).map_err(|_| garbled());
    let mpi = mpi()?;
    let sizes: Vec<c_int> = outgoing.iter().map(length).collect::<Result<_, _>>()?;
    let mut theirs: Vec<c_int> = vec![0; node.size];
    // Sizes travel as four bytes each.
    let (from, into) = (sizes.as_ptr().cast::<c_void>(), theirs.as_mut_ptr().cast::<c_void>());
    // SAFETY: arrays with one int for each rank of the node.
    let value = unsafe { (mpi.MPI_Alltoall)(from, 4, MPI_BYTE(), into, 4, MPI_BYTE(), node.comm) };
    checked("MPI_Alltoall", value)?;
    let mut messages = vec![Vec::new(); node.size];
    // No MPI's status is larger.
    let mut status = [0_u64; 8];
    for step in 1..node.size {
        let (to, from) = ((node.rank + step) % node.size, (node.rank + node.size - step) % node.size);
        let mut message = vec![0_u8; usize::try_from(theirs[from]).unwrap_or(0)];
        let (source, target) = (outgoing[to].as_ptr().cast(), message.as_mut_ptr().cast());
        let (to_rank, from_rank) = (c_int::try_from(to).unwrap_or(0), c_int::try_from(from).unwrap_or(0));
        // SAFETY: both buffers have the sizes that both sides know, the status is large enough, and the communicator is the driver's.
        let value = unsafe {
            (mpi.MPI_Sendrecv)(
                source,
                sizes[to],
                MPI_BYTE(),
                to_rank,
                0,
                target,
                theirs[from],
                MPI_BYTE(),
                from_rank,
                0,
                node.comm,
                status.as_mut_ptr().cast(),
            )
        };
        checked("MPI_Sendrecv", value)?;
        messages[from] = message;
    }
    Ok(Incoming { rank: node.rank, messages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_few_ones_and_scattered_ones_go_by_themselves() {
        assert!(worthwhile([8, 4096, 32768, 4], 4));
        assert!(!worthwhile([SMALL_BYTES, 4096, 1 << 24, 1], 4));
        assert!(!worthwhile([8, 4, 32, 1], 4));
        assert!(!worthwhile([i64::MAX, 4096, 32768, 1], 4));
        assert!(!worthwhile([8, 4096, 32768, 17], 4));
        assert!(!worthwhile([8, 4096, 32768, 65], 1 << 20));
    }
}
