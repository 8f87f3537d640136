/* How a program ends with files open. The second argument says how: finalize, exit, abort, signal. Two or more ranks. */
#include <signal.h>
#include <unistd.h>
#include "check.h"

static MPI_File library, forgotten, own, reading;
static int rank;

/* As HDF5 does it: files are closed when MPI_COMM_SELF's attributes are deleted, after a last write. */
static int on_self(MPI_Comm comm, int key, void *value, void *extra) {
    char last = 'L';
    (void)comm, (void)key, (void)value, (void)extra;
    OK(MPI_File_write_at(library, rank, &last, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&library));
    return MPI_SUCCESS;
}

int main(int argc, char **argv) {
    char byte = 'x', name[64];
    int key, size;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    OK(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, on_self, &key, NULL));
    OK(MPI_Comm_set_attr(MPI_COMM_SELF, key, NULL));
    int amode = MPI_MODE_CREATE | MPI_MODE_RDWR;
    /* Another number of files on each rank before the shared ones. */
    for (int i = 0; i < rank; i++) {
        snprintf(name, sizeof name, "/talea/run/own-%d-%d", rank, i);
        OK(MPI_File_open(MPI_COMM_SELF, name, amode, MPI_INFO_NULL, &own));
        if (i == 0) OK(MPI_File_close(&own));
    }
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/library", amode, MPI_INFO_NULL, &library));
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/forgotten", amode, MPI_INFO_NULL, &forgotten));
    OK(MPI_File_write_at(forgotten, rank, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_write_at(library, rank, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(library));
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/library", MPI_MODE_RDONLY, MPI_INFO_NULL, &reading));
    byte = 'y';
    OK(MPI_File_write_at(library, size + rank, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    MPI_Barrier(MPI_COMM_WORLD);
    if (strcmp(argv[2], "exit") == 0) _exit(0);
    if (strcmp(argv[2], "abort") == 0) MPI_Abort(MPI_COMM_WORLD, 1);
    if (strcmp(argv[2], "signal") == 0) raise(SIGKILL);
    OK(MPI_Finalize());
    return 0;
}
