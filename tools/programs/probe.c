/*
 * One call of MPI-IO and what it says of it, for tests of messages.  One process, without mpiexec.
 *
 *   probe open PATH          opens PATH for reading and writing, creating it
 *   probe read PATH          opens PATH for reading
 *   probe fill PATH MIB      writes so many MiB in pieces of 1 MiB, syncing after the first, until something fails
 *
 * Prints "CALL: class N: text" for the first call that fails. Exit status: 0 nothing failed, 42 something did.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE (1 << 20)

static int said(const char *call, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    int class, length;
    if (code == MPI_SUCCESS)
        return 0;
    MPI_Error_class(code, &class);
    MPI_Error_string(code, text, &length);
    const char *name = class == MPI_ERR_NO_SUCH_FILE ? "NO_SUCH_FILE" : class == MPI_ERR_BAD_FILE ? "BAD_FILE"
                     : class == MPI_ERR_NO_SPACE     ? "NO_SPACE"     : class == MPI_ERR_IO       ? "IO"
                     : class == MPI_ERR_ACCESS       ? "ACCESS"       : "OTHER";
    printf("%s: %s: %s\n", call, name, text);
    return 42;
}

static int fill(const char *path, long pieces)
{
    MPI_File file;
    char *data = malloc(PIECE);
    int failed = said("open", MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    if (failed || data == NULL)
        return failed ? failed : 1;
    memset(data, 'a', PIECE);
    for (long i = 0; i < pieces && !failed; i++) {
        failed = said("write", MPI_File_write_at(file, i * PIECE, data, PIECE, MPI_BYTE, MPI_STATUS_IGNORE));
        if (i == 0 && !failed)
            failed = said("sync", MPI_File_sync(file));
        memset(data, 'b', PIECE);
    }
    int closed = said("close", MPI_File_close(&file));
    free(data);
    return failed ? failed : closed;
}

int main(int argc, char **argv)
{
    MPI_File file;
    int status = 2;
    MPI_Init(&argc, &argv);
    if (argc == 4 && strcmp(argv[1], "fill") == 0)
        status = fill(argv[2], atol(argv[3]));
    else if (argc == 3) {
        int mode = strcmp(argv[1], "read") == 0 ? MPI_MODE_RDONLY : MPI_MODE_CREATE | MPI_MODE_RDWR;
        status = said("open", MPI_File_open(MPI_COMM_WORLD, argv[2], mode, MPI_INFO_NULL, &file));
        if (status == 0)
            MPI_File_close(&file);
    }
    MPI_Finalize();
    return status;
}
