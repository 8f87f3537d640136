/* Writes that fail on a rank which is told at once, some of them when a part of their data has been sent: nothing of their epoch may become
 * visible, and every rank's sync says so.  A refused argument changes nothing.  Argument: a directory that is not used. */
#include "check.h"

enum { MANY = 3 << 20 }; /* Ints: three buffers of the driver's conversion. */
static int rank, size, conversions, allowed;

static int extent_of(MPI_Datatype type, MPI_Aint *bytes, void *state) {
    int size;
    (void)state;
    MPI_Type_size(type, &size);
    *bytes = size;
    return MPI_SUCCESS;
}

/* Fails after as many conversions as are allowed. */
static int to_file(void *memory, MPI_Datatype type, int count, void *file, MPI_Offset position, void *state) {
    (void)type, (void)state;
    if (conversions++ >= allowed) return MPI_ERR_CONVERSION;
    memcpy(file, (int *)memory + position, count * sizeof(int));
    return MPI_SUCCESS;
}

static MPI_File opened(const char *path, const char *epoch) {
    MPI_File file;
    MPI_Info info;
    MPI_Info_create(&info);
    MPI_Info_set(info, "talea_epoch", epoch);
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, info, &file));
    MPI_Info_free(&info);
    return file;
}

static MPI_Offset size_of(const char *path) {
    MPI_File file;
    MPI_Offset bytes;
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_RDONLY, MPI_INFO_NULL, &file));
    OK(MPI_File_get_size(file, &bytes));
    OK(MPI_File_close(&file));
    return bytes;
}

/* All ranks write far beyond what is there; the last one's conversion fails after `good` buffers. */
static int failing_write(MPI_File file, int *data, int good, int collective) {
    OK(MPI_File_set_view(file, 4096 + (MPI_Offset)rank * MANY * 4, MPI_INT, MPI_INT, "failing", MPI_INFO_NULL));
    conversions = 0;
    allowed = rank == size - 1 ? good : MANY;
    int code = collective ? MPI_File_write_at_all(file, 0, data, MANY, MPI_INT, MPI_STATUS_IGNORE)
                          : MPI_File_write_at(file, 0, data, MANY, MPI_INT, MPI_STATUS_IGNORE);
    if (collective || rank == size - 1)
        FAILS(code, MPI_ERR_CONVERSION, "failing");
    else
        OK(code);
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    return code;
}

static void one_file(const char *path, int *data, int good, int collective) {
    MPI_File file = opened(path, "sync");
    OK(MPI_File_write_at_all(file, rank, &rank, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(file));
    failing_write(file, data, good, collective);
    FAILS(MPI_File_sync(file), MPI_ERR_CONVERSION, "failing");
    CHECK(size_of(path) == size);
    /* Told: the next epoch is like any other. */
    OK(MPI_File_write_at_all(file, size + rank, &rank, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    CHECK(size_of(path) == 2 * size);
}

/* No file is left of an epoch that made it and failed. */
static void only_write(int *data, int good, int collective) {
    MPI_File file = opened("/talea/run/failed-new", "sync");
    failing_write(file, data, good, collective);
    FAILS(MPI_File_close(&file), MPI_ERR_CONVERSION, "failing");
    CHECK(class_of(MPI_File_open(MPI_COMM_WORLD, "/talea/run/failed-new", MPI_MODE_RDONLY, MPI_INFO_NULL, &file)) ==
          MPI_ERR_NO_SUCH_FILE);
}

static void arguments(void) {
    MPI_File file = opened("/talea/run/failed-arguments", "sync");
    OK(MPI_File_write_at_all(file, rank, &rank, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    if (rank == size - 1) {
        CHECK(class_of(MPI_File_write_at(file, -3, &rank, 1, MPI_BYTE, MPI_STATUS_IGNORE)) != MPI_SUCCESS);
        CHECK(class_of(MPI_File_write_at(file, 0, &rank, -1, MPI_BYTE, MPI_STATUS_IGNORE)) == MPI_ERR_COUNT);
        CHECK(class_of(MPI_File_write_at(file, 0, NULL, 1, MPI_BYTE, MPI_STATUS_IGNORE)) == MPI_ERR_BUFFER);
    }
    OK(MPI_File_sync(file));
    CHECK(size_of("/talea/run/failed-arguments") == size);
    if (size == 1) {
        OK(MPI_File_close(&file));
        return;
    }
    /* In a collective call the others have written by then, and were told that it failed. */
    int code = MPI_File_write_at_all(file, size + rank, &rank, rank == size - 1 ? -1 : 1, MPI_BYTE, MPI_STATUS_IGNORE);
    CHECK(class_of(code) == MPI_ERR_COUNT);
    CHECK(class_of(MPI_File_sync(file)) == MPI_ERR_COUNT);
    CHECK(size_of("/talea/run/failed-arguments") == size);
    OK(MPI_File_close(&file));
}

int main(int argc, char **argv) {
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    OK(MPI_Register_datarep("failing", MPI_CONVERSION_FN_NULL, to_file, extent_of, NULL));
    int *data = calloc(MANY, sizeof(int));
    for (int good = 0; good < 2; good++) {
        for (int collective = 0; collective < 2; collective++) {
            one_file("/talea/run/failed", data, good, collective);
            only_write(data, good, collective);
            if (rank == 0) OK(MPI_File_delete("/talea/run/failed", MPI_INFO_NULL));
            MPI_Barrier(MPI_COMM_WORLD);
        }
    }
    arguments();
    free(data);
    OK(MPI_Finalize());
    return 0;
}
