/* Prints the text of a failed open. */
#include "check.h"

int main(int argc, char **argv) {
    MPI_File file;
    char text[MPI_MAX_ERROR_STRING];
    int length, rank, code;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    code = MPI_File_open(MPI_COMM_WORLD, "/talea/run/remedy", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file);
    CHECK(class_of(code) == MPI_ERR_IO);
    OK(MPI_Error_string(code, text, &length));
    if (rank == 0) puts(text);
    OK(MPI_Finalize());
    return 0;
}
