/* Random views and datatypes against a plain-memory image that MPI's own packing keeps. (ROMIO of MPICH 4.0 is no oracle: it writes
 * wrong bytes from memory types whose displacements do not ascend.) Arguments: directory, seed, rounds. With several ranks the file
 * types are shares of distributed arrays. */
#include "check.h"

#define MOST (1 << 16)

static unsigned long long state;
static int below(int n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return n <= 1 ? 0 : (int)((state >> 33) % (unsigned)n);
}

static MPI_Datatype element;
static MPI_Count element_bytes;

static void free_type(MPI_Datatype *type) {
    int a, b, c, combiner;
    MPI_Type_get_envelope(*type, &a, &b, &c, &combiner);
    if (combiner != MPI_COMBINER_NAMED) MPI_Type_free(type);
}

static MPI_Aint extent_of(MPI_Datatype type) {
    MPI_Aint lower, extent;
    OK(MPI_Type_get_extent(type, &lower, &extent));
    return extent;
}

static MPI_Count size_of(MPI_Datatype type) {
    MPI_Count size;
    OK(MPI_Type_size_x(type, &size));
    return size;
}

/* Gives a type the lower bound 0 and an extent that covers it, so that copies in a row do not overlap. */
static MPI_Datatype covered(MPI_Datatype type) {
    MPI_Aint lower, extent, true_lower, true_extent;
    OK(MPI_Type_get_extent(type, &lower, &extent));
    OK(MPI_Type_get_true_extent(type, &true_lower, &true_extent));
    MPI_Aint upper = true_lower + true_extent;
    if (lower == 0 && extent >= upper) return type;
    upper = (upper + element_bytes - 1) / element_bytes * element_bytes;
    MPI_Datatype wider;
    OK(MPI_Type_create_resized(type, 0, upper, &wider));
    free_type(&type);
    return wider;
}

/* Displacements of n blocks of the lengths given, in units; ascending, or in random order for memory. */
static void places(int n, const int *lengths, int *at, int shuffle) {
    int next = below(3);
    for (int i = 0; i < n; i++) {
        at[i] = next;
        next += lengths[i] + below(3);
    }
    for (int i = n - 1; shuffle && i > 0; i--) {
        int j = below(i + 1);
        if (lengths[i] == lengths[j]) {
            int swap = at[i];
            at[i] = at[j], at[j] = swap;
        }
    }
}

static MPI_Datatype make(int depth, int shuffle);

static MPI_Datatype make_array(MPI_Datatype child) {
    int dims = 1 + below(3), sizes[3], parts[3], starts[3], zero[3], one[3], none[3], argument[3];
    MPI_Datatype type;
    for (int d = 0; d < dims; d++) {
        sizes[d] = 1 + below(5);
        parts[d] = 1 + below(sizes[d]);
        starts[d] = below(sizes[d] - parts[d] + 1);
        zero[d] = 0, one[d] = 1, argument[d] = MPI_DISTRIBUTE_DFLT_DARG;
        none[d] = below(2) ? MPI_DISTRIBUTE_NONE : below(2) ? MPI_DISTRIBUTE_BLOCK : MPI_DISTRIBUTE_CYCLIC;
    }
    (void)zero;
    int order = below(2) ? MPI_ORDER_C : MPI_ORDER_FORTRAN;
    if (below(4) == 0)
        OK(MPI_Type_create_darray(1, 0, dims, sizes, none, argument, one, order, child, &type));
    else
        OK(MPI_Type_create_subarray(dims, sizes, parts, starts, order, child, &type));
    return type;
}

static MPI_Datatype make_blocks(int kind, MPI_Datatype child, int shuffle) {
    int n = 1 + below(4), lengths[4], at[4], same = 1 + below(3);
    MPI_Aint bytes[4];
    MPI_Datatype type, types[4];
    for (int i = 0; i < n; i++) lengths[i] = kind == 2 || kind == 3 ? same : 1 + below(3);
    places(n, lengths, at, shuffle);
    for (int i = 0; i < n; i++) bytes[i] = at[i] * extent_of(child), types[i] = child;
    switch (kind) {
    case 0: OK(MPI_Type_indexed(n, lengths, at, child, &type)); break;
    case 1: OK(MPI_Type_create_hindexed(n, lengths, bytes, child, &type)); break;
    case 2: OK(MPI_Type_create_indexed_block(n, same, at, child, &type)); break;
    case 3: OK(MPI_Type_create_hindexed_block(n, same, bytes, child, &type)); break;
    default: OK(MPI_Type_create_struct(n, lengths, bytes, types, &type)); break;
    }
    return type;
}

static MPI_Datatype make(int depth, int shuffle) {
    MPI_Datatype type, child;
    if (depth == 0) {
        OK(MPI_Type_dup(element, &type));
        return type;
    }
    child = make(depth - 1, shuffle);
    int n = 1 + below(4), length = 1 + below(3), stride = length + below(3);
    switch (below(10)) {
    case 0: OK(MPI_Type_contiguous(n, child, &type)); break;
    case 1: OK(MPI_Type_vector(n, length, stride, child, &type)); break;
    case 2: OK(MPI_Type_create_hvector(n, length, stride * extent_of(child), child, &type)); break;
    case 3: OK(MPI_Type_create_resized(child, 0, extent_of(child) + below(3) * element_bytes, &type)); break;
    case 4: type = make_array(child); break;
    default: type = make_blocks(below(5), child, shuffle); break;
    }
    free_type(&child);
    return covered(type);
}

static MPI_Datatype bounded(int depth, int shuffle) {
    for (;;) {
        MPI_Datatype type = make(below(depth + 1), shuffle);
        if (size_of(type) > 0 && extent_of(type) < MOST / 8) {
            OK(MPI_Type_commit(&type));
            return type;
        }
        free_type(&type);
    }
}

/* This rank's share of a random distributed array. */
static MPI_Datatype share(int rank, int size) {
    int dims = 1 + below(3), sizes[3], kinds[3], arguments[3], grid[3] = {0, 0, 0};
    MPI_Datatype type;
    MPI_Dims_create(size, dims, grid);
    for (int d = 0; d < dims; d++) {
        sizes[d] = size + below(9);
        kinds[d] = below(2) ? MPI_DISTRIBUTE_BLOCK : MPI_DISTRIBUTE_CYCLIC;
        arguments[d] = kinds[d] == MPI_DISTRIBUTE_CYCLIC && below(2) ? 1 + below(2) : MPI_DISTRIBUTE_DFLT_DARG;
    }
    int order = below(2) ? MPI_ORDER_C : MPI_ORDER_FORTRAN;
    OK(MPI_Type_create_darray(size, rank, dims, sizes, kinds, arguments, grid, order, element, &type));
    OK(MPI_Type_commit(&type));
    return type;
}

static void write_one(MPI_File file, int how, MPI_Offset offset, const void *data, int count, MPI_Datatype type, MPI_Status *status) {
    MPI_Request request;
    switch (how) {
    case 0: OK(MPI_File_write_at_all(file, offset, data, count, type, status)); return;
    case 1: OK(MPI_File_seek(file, offset, MPI_SEEK_SET)); OK(MPI_File_write_all(file, data, count, type, status)); return;
    case 2: OK(MPI_File_write_at(file, offset, data, count, type, status)); return;
    case 3: OK(MPI_File_iwrite_at(file, offset, data, count, type, &request)); OK(MPI_Wait(&request, status)); return;
    default: OK(MPI_File_write_at_all_begin(file, offset, data, count, type)); OK(MPI_File_write_at_all_end(file, data, status)); return;
    }
}

static void read_one(MPI_File file, int how, MPI_Offset offset, void *data, int count, MPI_Datatype type, MPI_Status *status) {
    MPI_Offset position;
    switch (how) {
    case 0: OK(MPI_File_read_at_all(file, offset, data, count, type, status)); return;
    case 1:
        OK(MPI_File_seek(file, offset, MPI_SEEK_SET));
        OK(MPI_File_read(file, data, count, type, status));
        OK(MPI_File_get_position(file, &position));
        CHECK(position == offset + count * size_of(type) / element_bytes);
        return;
    default: OK(MPI_File_read_at(file, offset, data, count, type, status)); return;
    }
}

/* What the file should hold, by MPI's own packing: the view's data bytes are gathered from the image, replaced where the call wrote,
 * and scattered again. */
static char image[2 * MOST];

static void expect_write(MPI_Offset displacement, MPI_Datatype filetype, MPI_Offset offset, const char *packed, int bytes) {
    static char stream[2 * MOST], before[2 * MOST], changed[2 * MOST], all[2 * MOST];
    int from = offset * element_bytes, position = 0, per_tile = size_of(filetype);
    int tiles = per_tile ? (from + bytes + per_tile - 1) / per_tile : 0;
    memcpy(before, image, sizeof image);
    if (tiles) {
        OK(MPI_Pack(image + displacement, tiles, filetype, stream, sizeof stream, &position, MPI_COMM_SELF));
        memcpy(stream + from, packed, bytes);
        position = 0;
        OK(MPI_Unpack(stream, sizeof stream, &position, image + displacement, tiles, filetype, MPI_COMM_SELF));
    }
    /* The ranks' shares do not overlap: what each changed makes up the whole. */
    for (int i = 0; i < (int)sizeof image; i++) changed[i] = image[i] ^ before[i];
    OK(MPI_Allreduce(changed, all, sizeof image, MPI_BYTE, MPI_BXOR, MPI_COMM_WORLD));
    for (int i = 0; i < (int)sizeof image; i++) image[i] = before[i] ^ all[i];
}

static void compare_file(MPI_File file) {
    static char bytes[2 * MOST];
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_read_at_all(file, 0, bytes, sizeof bytes, MPI_BYTE, MPI_STATUS_IGNORE));
    CHECK(memcmp(bytes, image, sizeof image) == 0);
}

/* Reads through the view what has just been written, into a buffer of the same type: data where the type has data, the rest untouched. */
static void read_back(MPI_File file, MPI_Offset offset, const char *packed, int bytes, int count, MPI_Datatype memtype) {
    static char got[2 * MOST], wanted[2 * MOST];
    MPI_Status status;
    int position = 0, read;
    memset(got, 0x55, sizeof got);
    memset(wanted, 0x55, sizeof wanted);
    OK(MPI_Unpack(packed, bytes, &position, wanted, count, memtype, MPI_COMM_SELF));
    read_one(file, below(3), offset, got, count, memtype, &status);
    OK(MPI_Get_count(&status, MPI_BYTE, &read));
    CHECK(read == bytes);
    CHECK(memcmp(got, wanted, sizeof got) == 0);
}

static void one_round(MPI_File file, int rank, int size) {
    static const MPI_Datatype basic[5] = {MPI_BYTE, MPI_SHORT, MPI_INT, MPI_DOUBLE, MPI_FLOAT};
    static char data[2 * MOST], packed[2 * MOST];
    /* All ranks draw the same numbers, so that they agree on the shape of the file. */
    int which = below(6), position = 0;
    if (which == 5) OK(MPI_Type_contiguous(3, MPI_BYTE, &element));
    else OK(MPI_Type_dup(basic[which], &element));
    OK(MPI_Type_commit(&element));
    element_bytes = size_of(element);
    MPI_Datatype filetype = size == 1 ? bounded(3, 0) : share(rank, size);
    MPI_Datatype memtype = bounded(2, 1);
    MPI_Offset displacement = below(64), offset = below(20), place;
    int how = below(5), count = 1 + below(4);
    if (size > 1) {
        /* Shares do not overlap within the first tile: every rank writes its whole share of it. */
        free_type(&memtype);
        OK(MPI_Type_dup(element, &memtype));
        count = size_of(filetype) / element_bytes;
        offset = 0;
    }
    for (int i = 0; i < (int)sizeof data; i++) data[i] = below(256) + rank;
    OK(MPI_Pack(data, count, memtype, packed, sizeof packed, &position, MPI_COMM_SELF));
    MPI_Status status;
    int written;
    OK(MPI_File_set_view(file, displacement, element, filetype, "native", MPI_INFO_NULL));
    OK(MPI_File_get_byte_offset(file, 0, &place));
    CHECK(place >= displacement);
    write_one(file, how, offset, data, count, memtype, &status);
    OK(MPI_Get_count(&status, MPI_BYTE, &written));
    CHECK(written == position);
    MPI_Barrier(MPI_COMM_WORLD);
    read_back(file, offset, packed, position, count, memtype);
    expect_write(displacement, filetype, offset, packed, position);
    compare_file(file);
    MPI_Barrier(MPI_COMM_WORLD);
    free_type(&filetype);
    free_type(&memtype);
    MPI_Type_free(&element);
}

/* What MPI 4.1 14.1.1 forbids in a view's types. */
static void forbidden_types(MPI_File file) {
    static const int displacements[3][2] = {{-2, 2}, {3, 0}, {0, 1}}, lengths[3][2] = {{1, 1}, {1, 1}, {3, 1}};
    for (int i = 0; i < 3; i++) {
        MPI_Datatype type;
        OK(MPI_Type_indexed(2, lengths[i], displacements[i], MPI_INT, &type));
        OK(MPI_Type_commit(&type));
        FAILS(MPI_File_set_view(file, 0, MPI_INT, type, "native", MPI_INFO_NULL), MPI_ERR_IO, "file type");
        FAILS(MPI_File_set_view(file, 0, type, type, "native", MPI_INFO_NULL), MPI_ERR_IO, "file type");
        OK(MPI_Type_free(&type));
    }
}

int main(int argc, char **argv) {
    MPI_File file;
    int rank, size;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    state = strtoull(argv[2], NULL, 10);
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/views", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    OK(MPI_File_set_size(file, sizeof image));
    forbidden_types(file);
    for (int i = 0; i < atoi(argv[3]); i++) one_round(file, rank, size);
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
