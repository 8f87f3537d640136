/* A forked child's copy of a file is dead and harmless. One rank. */
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

int main(int argc, char **argv) {
    MPI_File file, other;
    int status, value = 7;
    OK(MPI_Init(&argc, &argv));
    OK(MPI_File_open(MPI_COMM_SELF, "/talea/run/forked", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    OK(MPI_File_write_at(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    pid_t child = fork();
    if (child == 0) {
        value = 9;
        int bad = MPI_File_write_at(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE) != MPI_ERR_FILE;
        bad |= MPI_File_sync(file) != MPI_ERR_FILE;
        bad |= MPI_File_open(MPI_COMM_SELF, "/talea/run/forked2", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &other) != MPI_ERR_FILE;
        bad |= MPI_File_close(&file) != MPI_ERR_FILE;
        exit(bad);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
