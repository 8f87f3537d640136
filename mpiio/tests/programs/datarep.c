/* external32, a representation of the program's own, and datatypes that MPI 4's large-count constructors make. */
#include "check.h"
#include <stddef.h>
#include <stdint.h>

static int rank, size;

/* A representation that keeps an int in eight bytes: its negation, then a mark. */
static int extent_of(MPI_Datatype type, MPI_Aint *bytes, void *state) {
    CHECK(type == MPI_INT && *(int *)state == 42);
    *bytes = 8;
    return MPI_SUCCESS;
}

static int to_file(void *memory, MPI_Datatype type, int count, void *file, MPI_Offset position, void *state) {
    int32_t *out = file;
    CHECK(position == 0 && *(int *)state == 42);
    for (int i = 0; i < count; i++) {
        out[2 * i] = -((int *)memory)[i];
        out[2 * i + 1] = 77;
    }
    (void)type;
    return MPI_SUCCESS;
}

static int from_file(void *memory, MPI_Datatype type, int count, void *file, MPI_Offset position, void *state) {
    int32_t *in = file;
    CHECK(position == 0 && *(int *)state == 42);
    for (int i = 0; i < count; i++) {
        if (in[2 * i + 1] != 77) return MPI_ERR_CONVERSION;
        ((int *)memory)[i] = -in[2 * i];
    }
    (void)type;
    return MPI_SUCCESS;
}

static MPI_File opened(const char *path) {
    MPI_File file;
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    return file;
}

static void external32(void) {
    MPI_File file = opened("/talea/run/external32");
    MPI_Datatype view;
    MPI_Aint extent;
    MPI_Status status;
    char name[128];
    unsigned char raw[8];
    int values[6], back[6], count;
    double number = 1.5 + rank, got = 0;
    OK(MPI_File_set_view(file, 0, MPI_INT, MPI_INT, "external32", MPI_INFO_NULL));
    OK(MPI_File_get_view(file, &(MPI_Offset){0}, &view, &view, name));
    CHECK(strcmp(name, "external32") == 0);
    OK(MPI_File_get_type_extent(file, MPI_INT, &extent));
    CHECK(extent == 4);
    /* Every second int in memory, and ranks interleaved in the file. */
    MPI_Datatype sparse, mine;
    OK(MPI_Type_vector(3, 1, 2, MPI_INT, &sparse));
    OK(MPI_Type_commit(&sparse));
    OK(MPI_Type_create_resized(MPI_INT, 0, size * 4, &mine));
    OK(MPI_Type_commit(&mine));
    for (int i = 0; i < 6; i++) values[i] = 0x01020300 * (rank + 1) + i;
    OK(MPI_File_set_view(file, 4 * rank, MPI_INT, mine, "external32", MPI_INFO_NULL));
    OK(MPI_File_write_all(file, values, 1, sparse, &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == 3);
    memset(back, 0, sizeof back);
    OK(MPI_File_read_at_all(file, 0, back, 4, MPI_INT, &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == 3 && back[0] == values[0] && back[1] == values[2] && back[2] == values[4]);
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_read_at(file, 4 * rank, raw, 4, MPI_BYTE, &status));
    CHECK(raw[0] == rank + 1 && raw[1] == 2 * (rank + 1) && raw[2] == 3 * (rank + 1) && raw[3] == 0);
    MPI_Barrier(MPI_COMM_WORLD);
    OK(MPI_File_set_view(file, 0, MPI_DOUBLE, MPI_DOUBLE, "external32", MPI_INFO_NULL));
    OK(MPI_File_write_at_all(file, rank, &number, 1, MPI_DOUBLE, &status));
    OK(MPI_File_read_at_all(file, rank, &got, 1, MPI_DOUBLE, &status));
    CHECK(got == number);
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_read_at(file, 0, raw, 8, MPI_BYTE, &status));
    CHECK(raw[0] == 0x3f && raw[1] == 0xf8 && raw[7] == 0);
    OK(MPI_Type_free(&sparse));
    OK(MPI_Type_free(&mine));
    OK(MPI_File_close(&file));
}

/* Structs of several predefined types, holes between their members, nested and repeated; and what MPICH cannot convert is refused. */
struct mixed {
    double d;
    int i;
    short s;
    char c;
    long l[2];
};

static void mixed(void) {
    struct mixed values[5], back[5];
    unsigned char raw[26];
    MPI_Datatype plain, padded, pair;
    MPI_Status status;
    int count, lengths[] = {1, 1, 1, 1, 2};
    MPI_Aint at[] = {offsetof(struct mixed, d), offsetof(struct mixed, i), offsetof(struct mixed, s), offsetof(struct mixed, c),
                     offsetof(struct mixed, l)};
    MPI_Datatype types[] = {MPI_DOUBLE, MPI_INT, MPI_SHORT, MPI_CHAR, MPI_LONG};
    memset(values, 0, sizeof values), memset(back, 0, sizeof back);
    for (int k = 0; k < 5; k++) {
        values[k] = (struct mixed){1.5 + k, 0x01020304 + k, -2 - k, 'a' + k, {77 + k, -k}};
    }
    OK(MPI_Type_create_struct(5, lengths, at, types, &plain));
    OK(MPI_Type_create_resized(plain, 0, sizeof(struct mixed), &padded));
    OK(MPI_Type_commit(&padded));
    MPI_File file = opened("/talea/run/mixed");
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "external32", MPI_INFO_NULL));
    OK(MPI_File_write_at_all(file, 5 * 23 * rank, values, 5, padded, &status));
    OK(MPI_Get_count(&status, padded, &count));
    CHECK(count == 5);
    OK(MPI_File_read_at_all(file, 5 * 23 * rank, back, 5, padded, &status));
    CHECK(memcmp(values, back, sizeof values) == 0);
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_read_at(file, 23 * (5 * rank + 1), raw, 23, MPI_BYTE, &status));
    static const unsigned char wanted[23] = {0x40, 0x04, 0, 0, 0, 0, 0, 0, 1, 2, 3, 5, 0xff, 0xfd, 'b', 0, 0, 0, 78, 0xff, 0xff, 0xff, 0xff};
    CHECK(memcmp(raw, wanted, 23) == 0);
    /* A long has four bytes in external32 with every MPI, also where it stands alone. */
    OK(MPI_File_set_view(file, 0, MPI_LONG, MPI_LONG, "external32", MPI_INFO_NULL));
    MPI_Aint extent;
    OK(MPI_File_get_type_extent(file, MPI_LONG, &extent));
    CHECK(extent == 4);
    OK(MPI_Type_dup(MPI_2INT, &pair));
    int two[2] = {1, 2}, code;
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "external32", MPI_INFO_NULL));
    code = class_of(MPI_File_write_at(file, 0, two, 1, pair, &status));
    CHECK(code == MPI_SUCCESS || code == MPI_ERR_UNSUPPORTED_DATAREP);
    OK(MPI_Type_free(&pair));
    OK(MPI_Type_free(&plain));
    OK(MPI_Type_free(&padded));
    OK(MPI_File_close(&file));
}

static void own(void) {
    static int state = 42;
    int values[2000], back[2000], raw[2];
    MPI_Aint extent;
    if (MPI_Register_datarep("negated", from_file, to_file, extent_of, &state) != MPI_SUCCESS) CHECK(!"registered");
    CHECK(class_of(MPI_Register_datarep("negated", from_file, to_file, extent_of, &state)) != MPI_SUCCESS);
    MPI_File file = opened("/talea/run/own");
    OK(MPI_File_set_view(file, 0, MPI_INT, MPI_INT, "negated", MPI_INFO_NULL));
    OK(MPI_File_get_type_extent(file, MPI_INT, &extent));
    CHECK(extent == 8);
    for (int i = 0; i < 2000; i++) values[i] = 5000 * rank + i;
    OK(MPI_File_write_at_all(file, 2000 * rank, values, 2000, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_read_at_all(file, 2000 * rank, back, 2000, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(memcmp(values, back, sizeof values) == 0);
    OK(MPI_File_set_view(file, 0, MPI_INT, MPI_INT, "native", MPI_INFO_NULL));
    OK(MPI_File_read_at(file, 4000 * rank + 6, raw, 2, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(raw[0] == -(5000 * rank + 3) && raw[1] == 77);
    OK(MPI_File_set_view(file, 4, MPI_INT, MPI_INT, "negated", MPI_INFO_NULL));
    CHECK(class_of(MPI_File_read_at(file, 0, back, 1, MPI_INT, MPI_STATUS_IGNORE)) == MPI_ERR_CONVERSION);
    OK(MPI_File_close(&file));
}

#if MPI_VERSION >= 4
/* The same bytes through a file view of `type` and through packing. */
static void one(MPI_File file, MPI_Datatype type) {
    MPI_Count bytes, lower, extent;
    OK(MPI_Type_commit(&type));
    OK(MPI_Type_size_c(type, &bytes));
    OK(MPI_Type_get_extent_c(type, &lower, &extent));
    char *data = malloc(bytes), *space = calloc(1, 4096), *wanted = calloc(1, 4096);
    int position = 0;
    for (int i = 0; i < bytes; i++) data[i] = 1 + i % 120;
    OK(MPI_Unpack(data, bytes, &position, wanted, 1, type, MPI_COMM_SELF));
    OK(MPI_File_set_size(file, 0));
    OK(MPI_File_set_view(file, 0, MPI_BYTE, type, "native", MPI_INFO_NULL));
    if (rank == 0) OK(MPI_File_write_at(file, 0, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE));
    MPI_Barrier(MPI_COMM_WORLD);
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_read_at_all(file, 0, space, 4096, MPI_BYTE, MPI_STATUS_IGNORE));
    CHECK(memcmp(space, wanted, 4096) == 0);
    OK(MPI_Type_free(&type));
    free(data), free(space), free(wanted);
}

static void large_counts(void) {
    MPI_File file = opened("/talea/run/large");
    MPI_Datatype t;
    MPI_Count lengths[] = {2, 1, 3}, places[] = {1, 5, 9}, bytes[] = {4, 24, 60}, sizes[] = {6, 8}, parts[] = {2, 3}, starts[] = {1, 4};
    int distributions[] = {MPI_DISTRIBUTE_BLOCK, MPI_DISTRIBUTE_CYCLIC}, arguments[] = {MPI_DISTRIBUTE_DFLT_DARG, 2}, grid[] = {1, 2};
    MPI_Datatype types[] = {MPI_INT, MPI_DOUBLE, MPI_CHAR};
    OK(MPI_Type_contiguous_c(7, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_vector_c(3, 2, 5, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_create_hvector_c(3, 2, 20, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_indexed_c(3, lengths, places, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_create_hindexed_c(3, lengths, bytes, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_create_indexed_block_c(3, 2, places, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_create_hindexed_block_c(3, 2, bytes, MPI_INT, &t)); one(file, t);
    OK(MPI_Type_create_struct_c(3, lengths, bytes, types, &t)); one(file, t);
    OK(MPI_Type_create_subarray_c(2, sizes, parts, starts, MPI_ORDER_C, MPI_SHORT, &t)); one(file, t);
    OK(MPI_Type_create_darray_c(2, 1, 2, sizes, distributions, arguments, grid, MPI_ORDER_FORTRAN, MPI_SHORT, &t)); one(file, t);
    OK(MPI_Type_create_resized_c(MPI_INT, 0, 12, &t)); one(file, t);
    OK(MPI_File_close(&file));
}
#else
static void large_counts(void) {}
#endif

int main(int argc, char **argv) {
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    external32();
    mixed();
    own();
    large_counts();
    OK(MPI_Finalize());
    return 0;
}
