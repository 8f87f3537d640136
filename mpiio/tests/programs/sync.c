/* What sync makes visible, and what it costs: one reduction, one broadcast. Two or more ranks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include "check.h"

static int *reductions, *broadcasts, *others;

static int counters(void) {
    reductions = dlsym(RTLD_DEFAULT, "counted_reductions");
    broadcasts = dlsym(RTLD_DEFAULT, "counted_broadcasts");
    others = dlsym(RTLD_DEFAULT, "counted_others");
    return reductions && broadcasts && others;
}

static void reset(void) { *reductions = *broadcasts = *others = 0; }

#define COUNTED(r, b, o) CHECK(*reductions == (r) && *broadcasts == (b) && *others == (o))

int main(int argc, char **argv) {
    MPI_File writer, reader, again;
    MPI_Offset bytes;
    int rank, size, value, back;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(counters());
    const char *path = "/talea/run/sync";
    reset();
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_EXCL | MPI_MODE_RDWR, MPI_INFO_NULL, &writer));
    COUNTED(0, 1, 1);
    OK(MPI_File_sync(writer));
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_RDONLY, MPI_INFO_NULL, &reader));
    reset();
    value = 100 + rank;
    OK(MPI_File_write_at_all(writer, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_read_at_all(writer, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(back == value);
    /* Each collective call agrees on its outcome. */
    COUNTED(0, 0, 2);
    reset();
    OK(MPI_File_get_size(reader, &bytes));
    CHECK(bytes == 0);
    OK(MPI_File_sync(writer));
    COUNTED(1, 1, 0);
    /* The reader's base is still the one of its open. */
    OK(MPI_File_get_size(reader, &bytes));
    CHECK(bytes == 0);
    reset();
    OK(MPI_File_sync(reader));
    COUNTED(1, 1, 0);
    OK(MPI_File_read_at(reader, 4 * ((rank + 1) % size), &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(back == 100 + (rank + 1) % size);
    FAILS(MPI_File_write_at(reader, 0, &back, 1, MPI_INT, MPI_STATUS_IGNORE), MPI_ERR_READ_ONLY, "MPI_MODE_RDWR");
    /* A second handle on the same file shares the epoch: its sync only flushes. */
    OK(MPI_File_open(MPI_COMM_SELF, path, MPI_MODE_RDWR, MPI_INFO_NULL, &again));
    reset();
    value = 200 + rank;
    OK(MPI_File_write_at(again, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(again));
    OK(MPI_File_close(&again));
    COUNTED(0, 0, 0);
    OK(MPI_File_read_at(writer, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(back == value);
    OK(MPI_File_sync(reader));
    OK(MPI_File_read_at(reader, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(back == 100 + rank);
    reset();
    OK(MPI_File_close(&writer));
    COUNTED(1, 1, 0);
    OK(MPI_File_sync(reader));
    OK(MPI_File_read_at(reader, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(back == 200 + rank);
    reset();
    OK(MPI_File_close(&reader));
    /* Whether any rank used the shared pointer, which then has to go. */
    COUNTED(0, 0, 1);
    OK(MPI_Finalize());
    return 0;
}
