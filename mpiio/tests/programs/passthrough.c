/* Files outside /talea/: the real MPI's, with and without Talea files beside them, and nothing of Talea's until the first one. */
#include <unistd.h>
#include "check.h"

static int mapped(const char *word) {
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) found |= strstr(line, word) != NULL;
    fclose(maps);
    return found;
}

static int threads(void) {
    char line[256];
    int count = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status)) sscanf(line, "Threads: %d", &count);
    fclose(status);
    return count;
}

/* ROMIO's nonblocking calls start threads of their own. */
static void local(const char *path, int rank, int nonblocking) {
    MPI_File file;
    MPI_Request request;
    MPI_Info info;
    MPI_Offset size;
    int value = rank, back = -1;
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    CHECK(MPI_File_f2c(MPI_File_c2f(file)) == file);
    OK(MPI_File_set_atomicity(file, 1));
    OK(MPI_File_set_atomicity(file, 0));
    OK(MPI_File_write_at_all(file, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    if (nonblocking) {
        OK(MPI_File_iread_at(file, 4 * rank, &back, 1, MPI_INT, &request));
        OK(MPI_Wait(&request, MPI_STATUS_IGNORE));
    } else {
        OK(MPI_File_read_at(file, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
    }
    CHECK(back == rank);
    OK(MPI_File_get_info(file, &info));
    OK(MPI_Info_free(&info));
    MPI_Barrier(MPI_COMM_WORLD);
    OK(MPI_File_write_shared(file, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(file));
    OK(MPI_File_get_size(file, &size));
    CHECK(size >= 4);
    OK(MPI_File_close(&file));
    CHECK(file == MPI_FILE_NULL);
    CHECK(class_of(MPI_File_open(MPI_COMM_WORLD, "/nonexistent/x", MPI_MODE_RDONLY, MPI_INFO_NULL, &file)) == MPI_ERR_NO_SUCH_FILE);
}

int main(int argc, char **argv) {
    char path[4096];
    MPI_File file;
    int rank;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int before = threads();
    snprintf(path, sizeof path, "%s/local", argv[1]);
    local(path, rank, 0);
    CHECK(!mapped("libtalea.so"));
    CHECK(threads() == before);
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/beside", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    CHECK(mapped("libtalea.so"));
    local(path, rank, 1);
    OK(MPI_File_close(&file));
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) OK(MPI_File_delete(path, MPI_INFO_NULL));
    OK(MPI_Finalize());
    return 0;
}
