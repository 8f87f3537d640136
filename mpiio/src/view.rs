//! A file view: displacement, elementary type and file type, and the pieces that a call's data falls into.
//!
//! Owns the arithmetic from a position in the view to bytes in the file. Must never do I/O.

use std::ffi::c_void;

use talea_abi::Piece;

use crate::abi::*;
use crate::datatype::{self, Cursor, KeptType, Layout};
use crate::error::Failure;
use crate::representation::Representation;

/// Pieces handed to libtalea in one call: bounds the driver's memory, not the call.
const PIECES_PER_CALL: usize = 1 << 16;

/// A view of a file.
pub(crate) struct View {
    /// Where the view starts, in bytes.
    pub(crate) displacement: i64,
    /// The elementary type.
    pub(crate) etype: KeptType,
    /// The file type.
    pub(crate) filetype: KeptType,
    /// Bytes of the elementary type.
    pub(crate) etype_bytes: u64,
    /// The data representation, as the program named it.
    pub(crate) representation: Representation,
    layout: Layout,
}

impl View {
    /// The view of a file that has just been opened: plain bytes.
    pub(crate) fn plain() -> View {
        View {
            displacement: 0,
            etype: KeptType::predefined(MPI_BYTE()),
            filetype: KeptType::predefined(MPI_BYTE()),
            etype_bytes: 1,
            representation: Representation::Native,
            layout: Layout::dense(1),
        }
    }

    /// Checks and flattens the arguments of `MPI_File_set_view`.
    pub(crate) fn new(
        displacement: i64,
        etype: MPI_Datatype,
        filetype: MPI_Datatype,
        representation: Representation,
        writable: bool,
    ) -> Result<View, Failure> {
        if displacement < 0 {
            return Err(Failure::refused(MPI_ERR_ARG, format!("the view's displacement {displacement} is negative")));
        }
        let element = datatype::flatten_in(etype, &representation)?;
        let etype_bytes = element.bytes();
        let layout = if filetype == etype { element } else { datatype::flatten_in(filetype, &representation)? };
        if etype_bytes == 0 || layout.bytes() % etype_bytes != 0 {
            let text = format!("a file type of {} bytes is no multiple of the etype's {etype_bytes}", layout.bytes());
            return Err(Failure::refused(MPI_ERR_ARG, text));
        }
        check_for_files(&layout, "file type", writable)?;
        if filetype != etype {
            check_for_files(&datatype::flatten(etype)?, "etype", writable)?;
        }
        let etype = KeptType::duplicate(etype)?;
        let filetype = match KeptType::duplicate(filetype) {
            Ok(filetype) => filetype,
            Err(failure) => {
                etype.free();
                return Err(failure);
            }
        };
        Ok(View { displacement, etype, filetype, etype_bytes, representation, layout })
    }

    /// Frees the types that the view keeps.
    pub(crate) fn free(self) {
        self.etype.free();
        self.filetype.free();
    }

    /// Position in the view's data bytes, from one in elementary types.
    pub(crate) fn stream_position(&self, etypes: i64) -> Result<u64, Failure> {
        u64::try_from(etypes)
            .ok()
            .and_then(|etypes| etypes.checked_mul(self.etype_bytes))
            .ok_or_else(|| Failure::refused(MPI_ERR_ARG, format!("offset {etypes} is negative or exceeds 2^63 bytes")))
    }

    /// Byte offset in the file of a position in elementary types.
    pub(crate) fn byte_offset(&self, etypes: i64) -> Result<i64, Failure> {
        let position = self.stream_position(etypes)?;
        if self.layout.bytes() == 0 {
            return Ok(self.displacement);
        }
        self.layout.cursor(self.displacement, position)?.peek().map(|(at, _)| at)
    }

    /// Whole elementary types of the view that a file of `size` bytes holds: where MPI_SEEK_END counts from.
    pub(crate) fn etypes_in(&self, size: u64) -> i64 {
        let inside = size.saturating_sub(self.displacement.max(0).cast_unsigned());
        i64::try_from(self.layout.bytes_below(inside).div_ceil(self.etype_bytes)).unwrap_or(i64::MAX)
    }

    /// Bytes of the view's pieces on average.
    pub(crate) fn average_piece(&self) -> u64 {
        self.layout.average()
    }

    /// Bytes of the shortest piece that the view shows at once.
    pub(crate) fn finest(&self) -> u64 {
        self.layout.finest()
    }

    /// Pairs the view's bytes from `position` on with the memory's.
    pub(crate) fn pieces<'a>(
        &'a self,
        position: u64,
        memory: &'a Layout,
        address: *mut c_void,
        bytes: u64,
    ) -> Result<Pieces<'a>, Failure> {
        Ok(Pieces {
            file: self.layout.cursor(self.displacement, position)?,
            memory: memory.cursor(0, 0)?,
            address: address.cast(),
            left: bytes,
        })
    }
}

/// What MPI 4.1 §14.1.1 wants of a view's types: displacements that are not negative and never decrease, and nothing that overlaps
/// where the file is writable. The class is ROMIO's, which programs look for.
fn check_for_files(layout: &Layout, which: &str, writable: bool) -> Result<(), Failure> {
    let text = if !layout.is_monotonic() {
        format!("the {which}'s displacements must not be negative nor decrease")
    } else if writable && layout.overlaps() {
        format!("the {which}'s pieces overlap, which a file that is open for writing does not allow")
    } else {
        return Ok(());
    };
    Err(Failure::refused(MPI_ERR_IO, text))
}

/// The pieces of one call, in the order of the data.
pub(crate) struct Pieces<'a> {
    file: Cursor<'a>,
    memory: Cursor<'a>,
    address: *mut u8,
    left: u64,
}

impl Pieces<'_> {
    /// Fills `batch` with the next pieces, adjacent ones merged. Empty when there are no more.
    pub(crate) fn next_batch(&mut self, batch: &mut Vec<Piece>) -> Result<(), Failure> {
        batch.clear();
        while self.left > 0 {
            let (offset, in_file) = self.file.peek()?;
            let (displacement, in_memory) = self.memory.peek()?;
            let bytes = in_file.min(in_memory).min(self.left);
            let offset = u64::try_from(offset)
                .map_err(|_| Failure::refused(MPI_ERR_ARG, "the view reaches before the file's start"))?;
            if offset.checked_add(bytes).is_none_or(|end| end > i64::MAX.cast_unsigned()) {
                return Err(Failure::refused(MPI_ERR_ARG, "an offset exceeds 2^63 bytes"));
            }
            let displacement =
                isize::try_from(displacement).map_err(|_| Failure::refused(MPI_ERR_ARG, "a buffer exceeds memory"))?;
            // With MPI_BOTTOM the displacement is the address itself, hence the wrapping sum.
            let memory = self.address.wrapping_offset(displacement);
            let full = batch.len() == PIECES_PER_CALL;
            match batch.last_mut() {
                Some(last)
                    if last.offset + last.bytes == offset
                        && last.memory.addr().wrapping_add(last.bytes as usize) == memory.addr() =>
                {
                    last.bytes += bytes;
                }
                _ if full => return Ok(()),
                _ => batch.push(Piece { offset, bytes, memory: memory.cast() }),
            }
            self.file.advance(bytes);
            self.memory.advance(bytes);
            self.left -= bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(displacement: i64, runs: Vec<(i64, u64)>, extent: i64, etype_bytes: u64) -> View {
        View { displacement, etype_bytes, layout: Layout::new(runs, extent), ..View::plain() }
    }

    #[test]
    fn contiguous_data_in_a_plain_view_is_one_piece_into_the_callers_buffer() {
        let mut buffer = [0_u8; 64];
        let view = View::plain();
        let memory = Layout::dense(8);
        let mut pieces = view.pieces(100, &memory, buffer.as_mut_ptr().cast(), 64).unwrap();
        let mut batch = Vec::new();
        pieces.next_batch(&mut batch).unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!((batch[0].offset, batch[0].bytes), (100, 64));
        assert_eq!(batch[0].memory.addr(), buffer.as_ptr().addr());
        pieces.next_batch(&mut batch).unwrap();
        assert!(batch.is_empty());
    }

    #[test]
    fn holes_in_memory_and_in_the_file_cut_pieces_where_either_has_one() {
        let view = view(10, vec![(0, 4), (6, 2)], 10, 2);
        let memory = Layout::new(vec![(0, 3)], 5);
        let mut pieces = view.pieces(2, &memory, std::ptr::null_mut(), 9).unwrap();
        let mut batch = Vec::new();
        pieces.next_batch(&mut batch).unwrap();
        let got: Vec<_> = batch.iter().map(|p| (p.offset, p.bytes, p.memory.addr())).collect();
        assert_eq!(got, [(12, 2, 0), (16, 1, 2), (17, 1, 5), (20, 2, 6), (22, 2, 10), (26, 1, 12)]);
    }

    #[test]
    fn the_end_of_the_file_in_a_view_counts_only_what_the_view_shows() {
        let view = view(10, vec![(0, 4), (6, 2)], 10, 2);
        assert_eq!(view.etypes_in(0), 0);
        assert_eq!(view.etypes_in(14), 2);
        assert_eq!(view.etypes_in(17), 3);
        assert_eq!(view.etypes_in(22), 4);
        assert_eq!(view.byte_offset(2).unwrap(), 16);
        assert!(view.byte_offset(-1).is_err());
    }
}
