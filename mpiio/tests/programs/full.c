/* A pool that is full, on real servers: the rank whose independent write finds no room goes on, all ranks hear of it together, and there
 * is room again afterwards. In an epoch of the file's own, and in an explicit one. */
#include "check.h"
#include "talea_mpi.h"

enum { MANY = 24 << 20 };
static int rank;

/* The same class on all ranks, and the cause in each rank's text. */
static void full(int code) { FAILS(code, MPI_ERR_NO_SPACE, "no space"); }

/* One rank writes more than there is room for, piece by piece, as if nothing were wrong. */
static void fill(MPI_File file, char *many) {
    for (int i = 0; rank == 1 && i < 4; i++)
        OK(MPI_File_write_at(file, (MPI_Offset)i * MANY, many, MANY, MPI_BYTE, MPI_STATUS_IGNORE));
    if (rank != 1) OK(MPI_File_write_at(file, rank, "x", 1, MPI_BYTE, MPI_STATUS_IGNORE));
}

static void small(MPI_File file) { OK(MPI_File_write_at(file, rank, "s", 1, MPI_BYTE, MPI_STATUS_IGNORE)); }

int main(int argc, char **argv) {
    MPI_File file;
    MPI_Offset bytes;
    MPI_Request request;
    talea_mpi_epoch_t epoch;
    uint64_t step, first;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    char *many = calloc(MANY, 1);
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/full", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    fill(file, many);
    full(MPI_File_sync(file));
    small(file);
    OK(MPI_File_sync(file));
    /* Nonblocking, told by a collective write, and then by the sync. */
    fill(file, many);
    OK(MPI_File_iwrite_at(file, 0, many, 1 << 20, MPI_BYTE, &request));
    OK(MPI_Wait(&request, MPI_STATUS_IGNORE));
    full(MPI_File_write_at_all(file, rank, "c", 1, MPI_BYTE, MPI_STATUS_IGNORE));
    full(MPI_File_sync(file));

    OK(talea_mpi_epoch_begin(MPI_COMM_WORLD, "run", &epoch));
    OK(talea_mpi_epoch_file(epoch, file));
    fill(file, many);
    /* It commits nothing, and would else say nothing. */
    full(MPI_File_sync(file));
    CHECK(talea_mpi_epoch_commit(epoch, NULL, 0, &step) != MPI_SUCCESS);
    small(file);
    OK(talea_mpi_epoch_commit(epoch, NULL, 0, &first));
    fill(file, many);
    full(talea_mpi_epoch_commit(epoch, NULL, 0, &step));
    fill(file, many);
    /* What failed is gone with the epoch. */
    OK(talea_mpi_epoch_end(&epoch));
    small(file);
    OK(MPI_File_sync(file));
    OK(MPI_File_get_size(file, &bytes));
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(bytes == size);
    OK(MPI_File_close(&file));
    free(many);
    OK(MPI_Finalize());
    return 0;
}
