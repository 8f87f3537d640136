/*
 * A program that writes steps, for tests of the launcher: every rank writes its own block of a shared file, and a sync ends each
 * step.  Unmodified MPI-IO, of whichever MPI it is compiled with.
 *
 *   step PATH STEPS BYTES [PAUSE_MS]      blocks of BYTES bytes that hold the letter of (rank + step)
 *
 * Reads the last step back.  Exit status: 0, or 42 if something was not as it should be.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(const char *call, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    int length;
    if (code == MPI_SUCCESS)
        return;
    MPI_Error_string(code, text, &length);
    fprintf(stderr, "step: %s: %s\n", call, text);
    MPI_Abort(MPI_COMM_WORLD, 42);
}

int main(int argc, char **argv)
{
    int rank, steps, bytes, pause_ms;
    MPI_File file;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (argc < 4) {
        fprintf(stderr, "usage: step PATH STEPS BYTES [PAUSE_MS]\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    steps = atoi(argv[2]), bytes = atoi(argv[3]), pause_ms = argc > 4 ? atoi(argv[4]) : 0;
    char *block = malloc(bytes), *back = malloc(bytes);
    MPI_Offset at = (MPI_Offset)rank * bytes;
    check("open", MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    for (int step = 1; step <= steps; step++) {
        memset(block, 'a' + (rank + step) % 26, bytes);
        check("write", MPI_File_write_at_all(file, at, block, bytes, MPI_BYTE, MPI_STATUS_IGNORE));
        check("sync", MPI_File_sync(file));
        if (rank == 0)
            printf("step %d\n", step), fflush(stdout);
        usleep(1000 * pause_ms);
    }
    check("read", MPI_File_read_at_all(file, at, back, bytes, MPI_BYTE, MPI_STATUS_IGNORE));
    if (memcmp(block, back, bytes) != 0) {
        fprintf(stderr, "step: rank %d reads other bytes than it wrote\n", rank);
        MPI_Abort(MPI_COMM_WORLD, 42);
    }
    check("close", MPI_File_close(&file));
    MPI_Finalize();
    return 0;
}
