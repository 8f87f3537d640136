/* One rank fails (the environment says where): all get the same class, nobody hangs. The second argument is the call that fails,
 * the third the rank. */
#include "check.h"

int main(int argc, char **argv) {
    MPI_File file;
    int rank, size, code, class, lowest, highest;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const char *call = argv[2];
    int failing = atoi(argv[3]);
    code = MPI_File_open(MPI_COMM_WORLD, "/talea/run/agree", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file);
    if (strcmp(call, "open") && strcmp(call, "attach")) {
        OK(code);
        code = MPI_File_write_at_all(file, 4 * rank, &rank, 1, MPI_INT, MPI_STATUS_IGNORE);
        if (strcmp(call, "write") == 0) {
            /* Only this rank learns of it at once ... */
            CHECK((code != MPI_SUCCESS) == (rank == failing));
        } else {
            OK(code);
        }
        /* ... and all of them when the epoch should commit. */
        code = strcmp(argv[4], "sync") == 0 ? MPI_File_sync(file) : MPI_File_close(&file);
    }
    class = class_of(code);
    CHECK(class != MPI_SUCCESS);
    MPI_Allreduce(&class, &lowest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&class, &highest, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    CHECK(lowest == highest);
    if (rank == failing && strcmp(call, "write")) FAILS(code, class, "server 1 is lost");
    if (strcmp(call, "open") == 0 || strcmp(call, "attach") == 0) {
        CHECK(file == MPI_FILE_NULL);
    } else if (strcmp(argv[4], "sync") == 0) {
        MPI_File_close(&file);
    } else {
        CHECK(file == MPI_FILE_NULL);
    }
    OK(MPI_Finalize());
    return 0;
}
