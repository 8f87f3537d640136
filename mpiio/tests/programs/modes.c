/* Access modes and the error classes of open, delete and bad paths. Two or more ranks. */
#include "check.h"

static MPI_File file;

static int open_as(const char *path, int amode) {
    return MPI_File_open(MPI_COMM_WORLD, path, amode, MPI_INFO_NULL, &file);
}

int main(int argc, char **argv) {
    char byte = 'x', got[2];
    int rank;
    MPI_Offset offset;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const char *path = "/talea/run/modes";
    FAILS(open_as(path, MPI_MODE_RDONLY), MPI_ERR_NO_SUCH_FILE, "MPI_MODE_CREATE");
    CHECK(file == MPI_FILE_NULL);
    FAILS(open_as("/talea/nowhere/x", MPI_MODE_CREATE | MPI_MODE_RDWR), MPI_ERR_NO_SUCH_FILE, "no container nowhere");
    FAILS(open_as("/talea/run", MPI_MODE_CREATE | MPI_MODE_RDWR), MPI_ERR_BAD_FILE, "/talea/CONTAINER/PATH");
    FAILS(open_as(path, 0), MPI_ERR_AMODE, "exactly one");
    FAILS(open_as(path, MPI_MODE_RDONLY | MPI_MODE_CREATE), MPI_ERR_AMODE, "MPI_MODE_RDWR");
    FAILS(open_as(path, MPI_MODE_RDWR | MPI_MODE_CREATE | MPI_MODE_SEQUENTIAL), MPI_ERR_AMODE, "SEQUENTIAL");
    FAILS(open_as(path, MPI_MODE_CREATE | (rank ? MPI_MODE_WRONLY : MPI_MODE_RDWR)), MPI_ERR_NOT_SAME, "different access modes");
    OK(open_as(path, MPI_MODE_CREATE | MPI_MODE_EXCL | MPI_MODE_WRONLY));
    OK(MPI_File_write_at(file, rank, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    FAILS(MPI_File_read_at(file, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE), MPI_ERR_ACCESS, "MPI_MODE_RDWR");
    OK(MPI_File_close(&file));
    FAILS(open_as(path, MPI_MODE_CREATE | MPI_MODE_EXCL | MPI_MODE_RDWR), MPI_ERR_FILE_EXISTS, "exists");
    /* The alias names the same file. */
    OK(open_as("talea:run/modes", MPI_MODE_RDWR | MPI_MODE_APPEND));
    OK(MPI_File_get_position(file, &offset));
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(offset == size);
    OK(MPI_File_read_at(file, 0, got, 2, MPI_BYTE, MPI_STATUS_IGNORE));
    CHECK(got[0] == 'x' && got[1] == 'x');
    OK(MPI_File_close(&file));
    OK(open_as(path, MPI_MODE_RDONLY));
    FAILS(MPI_File_set_size(file, 3), MPI_ERR_READ_ONLY, "MPI_MODE_RDWR");
    FAILS(MPI_File_preallocate(file, 3), MPI_ERR_READ_ONLY, "MPI_MODE_RDWR");
    OK(MPI_File_close(&file));
    /* Delete-on-close aborts what was not synced, then unlinks. */
    OK(open_as(path, MPI_MODE_RDWR | MPI_MODE_DELETE_ON_CLOSE));
    OK(MPI_File_write_at(file, rank, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    FAILS(open_as(path, MPI_MODE_RDONLY), MPI_ERR_NO_SUCH_FILE, "no file");
    FAILS(MPI_File_delete(path, MPI_INFO_NULL), MPI_ERR_NO_SUCH_FILE, "modes");
    OK(open_as(path, MPI_MODE_CREATE | MPI_MODE_RDWR));
    OK(MPI_File_close(&file));
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) OK(MPI_File_delete(path, MPI_INFO_NULL));
    OK(MPI_Finalize());
    return 0;
}
