/* A library that uses MPI, loaded privately, as Python loads its extension modules. */
#include "check.h"

int use_mpi(const char *directory) {
    MPI_File file;
    char path[4096];
    int value = 5, back = 0;
    OK(MPI_Init(NULL, NULL));
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/plugin", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    OK(MPI_File_write_at_c(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_read_at_all_c(file, 0, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(back == value);
    OK(MPI_File_close(&file));
    snprintf(path, sizeof path, "%s/plugin", directory);
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    OK(MPI_File_write_at(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
