/* What the interposer counts: one file, three collective writes, two reads. */
#include "check.h"

int main(int argc, char **argv) {
    MPI_File file;
    int rank, size, got;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/interposed", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    for (int i = 0; i < 3; i++) {
        int value = 10 * i + rank;
        OK(MPI_File_write_at_all(file, 4 * (size * i + rank), &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    }
    for (int i = 0; i < 2; i++) {
        OK(MPI_File_read_at_all(file, 4 * (size * i + rank), &got, 1, MPI_INT, MPI_STATUS_IGNORE));
        CHECK(got == 10 * i + rank);
    }
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
