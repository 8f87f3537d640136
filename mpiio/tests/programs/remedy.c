/* Prints the text of a failed open; a second argument says that there is no driver at all. Local files are untouched by that. */
#include "check.h"

int main(int argc, char **argv) {
    MPI_File file;
    char text[MPI_MAX_ERROR_STRING];
    int length, rank, code;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    code = MPI_File_open(MPI_COMM_WORLD, "/talea/run/remedy", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file);
    CHECK(class_of(code) == (argc > 2 ? MPI_ERR_OTHER : MPI_ERR_IO));
    OK(MPI_Error_string(code, text, &length));
    if (rank == 0) puts(text);
    char path[4096];
    snprintf(path, sizeof path, "%s/local", argv[1]);
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    OK(MPI_File_write_at_all(file, rank, &rank, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
