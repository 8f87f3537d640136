/* Hints that say when a file commits and which state is meant, on real servers whose container has no steps yet. */
#include "check.h"

static int rank;

static int opened(MPI_Comm comm, const char *path, int amode, const char *key, const char *value, const char *other, const char *more, MPI_File *file) {
    MPI_Info info;
    OK(MPI_Info_create(&info));
    if (key) OK(MPI_Info_set(info, key, value));
    if (other) OK(MPI_Info_set(info, other, more));
    int code = MPI_File_open(comm, path, amode, info, file);
    OK(MPI_Info_free(&info));
    return code;
}

/* The file's number in a step, or the class of the failure, negative. */
static int in_step(const char *step, const char *wait) {
    MPI_File file;
    int value = 0;
    int code = opened(MPI_COMM_WORLD, "/talea/run/hints", MPI_MODE_RDONLY, "talea_step", step, wait ? "talea_wait" : NULL, wait, &file);
    if (code != MPI_SUCCESS) return -class_of(code);
    OK(MPI_File_read_at_all(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    return value;
}

/* talea_epoch=none: what a write stored is there for everybody when it returns, and no step is made. */
static void without_epochs(void) {
    MPI_File file, reader;
    MPI_Offset bytes;
    int value = 100 + rank, size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    OK(opened(MPI_COMM_WORLD, "/talea/run/bare", MPI_MODE_CREATE | MPI_MODE_RDWR, "talea_epoch", "none", NULL, NULL, &file));
    OK(MPI_File_write_at(file, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    MPI_Barrier(MPI_COMM_WORLD);
    for (int who = 0; who < size; who++) {
        value = 0;
        OK(MPI_File_read_at(file, 4 * who, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
        CHECK(value == 100 + who);
    }
    OK(opened(MPI_COMM_SELF, "/talea/run/bare", MPI_MODE_RDONLY, NULL, NULL, NULL, NULL, &reader));
    OK(MPI_File_get_size(reader, &bytes));
    CHECK(bytes == 4 * size);
    OK(MPI_File_read_at(reader, 4 * (size - 1), &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(value == 100 + size - 1);
    OK(MPI_File_close(&reader));
    MPI_Barrier(MPI_COMM_WORLD);
    OK(MPI_File_set_size(file, 2));
    OK(MPI_File_sync(file));
    OK(MPI_File_get_size(file, &bytes));
    CHECK(bytes == 2);
    OK(MPI_File_close(&file));
}

int main(int argc, char **argv) {
    MPI_File file;
    int value = 7;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    OK(opened(MPI_COMM_WORLD, "/talea/run/hints", MPI_MODE_CREATE | MPI_MODE_RDWR, "talea_epoch", "close", "striping_unit", "65536", &file));
    OK(MPI_File_write_at_all(file, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(file));
    CHECK(in_step("1", NULL) == -MPI_ERR_NO_SUCH_FILE);
    MPI_Info used;
    char text[MPI_MAX_INFO_VAL + 1];
    int flag;
    OK(MPI_File_get_info(file, &used));
    OK(MPI_Info_get(used, "striping_unit", MPI_MAX_INFO_VAL, text, &flag));
    CHECK(flag && strcmp(text, "65536") == 0);
    OK(MPI_Info_free(&used));
    OK(MPI_File_close(&file));
    CHECK(in_step("1", "10000") == 7);
    value = 8;
    OK(opened(MPI_COMM_WORLD, "/talea/run/hints", MPI_MODE_RDWR, NULL, NULL, NULL, NULL, &file));
    OK(MPI_File_write_at_all(file, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(file));
    CHECK(in_step("2", NULL) == 8);
    CHECK(in_step("1", NULL) == 7);
    CHECK(in_step("99", "60") == -MPI_ERR_NO_SUCH_FILE);
    CHECK(in_step("soon", NULL) == -MPI_ERR_ARG);
    OK(MPI_File_close(&file));
    CHECK(class_of(opened(MPI_COMM_WORLD, "/talea/run/hints", MPI_MODE_RDWR, "talea_step", "1", NULL, NULL, &file)) == MPI_ERR_READ_ONLY);
    CHECK(class_of(opened(MPI_COMM_WORLD, "/talea/run/hints", MPI_MODE_RDWR, "talea_epoch", "never", NULL, NULL, &file)) == MPI_ERR_UNSUPPORTED_OPERATION);
    without_epochs();
    CHECK(in_step("3", "60") == -MPI_ERR_NO_SUCH_FILE);
    OK(MPI_Finalize());
    return 0;
}
