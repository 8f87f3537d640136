/* The shared pointer: each write gets a place of its own, ordered calls those of their ranks, and a new view begins at zero. */
#include "check.h"

static int rank, size;

static MPI_File opened(const char *path, int amode) {
    MPI_File file;
    OK(MPI_File_open(MPI_COMM_WORLD, path, amode, MPI_INFO_NULL, &file));
    return file;
}

static MPI_Offset position(MPI_File file) {
    MPI_Offset offset = -1;
    OK(MPI_File_get_position_shared(file, &offset));
    return offset;
}

/* Records of two numbers (rank, turn): all of them are there, each once and whole, whatever their order. */
static void unordered(void) {
    MPI_File file = opened("/talea/run/shared", MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_Request request;
    MPI_Status status;
    int turns = 12, count, record[2], *all = calloc(size * turns, sizeof record), *seen = calloc(size * turns, sizeof(int));
    OK(MPI_File_set_view(file, 8, MPI_INT, MPI_INT, "native", MPI_INFO_NULL));
    for (int turn = 0; turn < turns; turn++) {
        record[0] = rank;
        record[1] = turn;
        if (turn % 3) {
            OK(MPI_File_write_shared(file, record, 2, MPI_INT, &status));
        } else {
            OK(MPI_File_iwrite_shared(file, record, 2, MPI_INT, &request));
            OK(MPI_Wait(&request, &status));
        }
        OK(MPI_Get_count(&status, MPI_INT, &count));
        CHECK(count == 2);
    }
    OK(MPI_File_sync(file));
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK(position(file) == 2 * size * turns);
    OK(MPI_File_read_at_all(file, 0, all, 2 * size * turns, MPI_INT, &status));
    for (int i = 0; i < size * turns; i++) {
        CHECK(all[2 * i] >= 0 && all[2 * i] < size && all[2 * i + 1] >= 0 && all[2 * i + 1] < turns);
        CHECK(seen[all[2 * i] * turns + all[2 * i + 1]]++ == 0);
    }
    /* Reading by the shared pointer takes each record once as well. */
    OK(MPI_File_seek_shared(file, 0, MPI_SEEK_SET));
    int sum = 0, total;
    for (int turn = 0; turn < turns; turn++) {
        OK(MPI_File_read_shared(file, record, 2, MPI_INT, &status));
        sum += 1 + record[0] * turns + record[1];
    }
    MPI_Allreduce(&sum, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(total == size * turns * (size * turns + 1) / 2);
    OK(MPI_File_read_shared(file, record, 2, MPI_INT, &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == 0);
    OK(MPI_File_close(&file));
}

static void ordered(void) {
    MPI_File file = opened("/talea/run/ordered", MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_Status status;
    int mine[8], back[8], count;
    for (int i = 0; i < 8; i++) mine[i] = 100 * rank + i;
    /* Rank r writes r + 1 numbers, then one. */
    OK(MPI_File_set_view(file, 0, MPI_INT, MPI_INT, "native", MPI_INFO_NULL));
    OK(MPI_File_write_ordered(file, mine, rank + 1, MPI_INT, &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == rank + 1);
    OK(MPI_File_write_ordered_begin(file, mine, 1, MPI_INT));
    FAILS(MPI_File_write_all_end(file, mine, &status), MPI_ERR_IO, "no split collective");
    OK(MPI_File_write_ordered_end(file, mine, &status));
    int before = rank * (rank + 1) / 2, all = size * (size + 1) / 2;
    CHECK(position(file) == all + size);
    OK(MPI_File_seek_shared(file, -all - size, MPI_SEEK_END));
    CHECK(position(file) == 0);
    OK(MPI_File_read_ordered(file, back, rank + 1, MPI_INT, &status));
    CHECK(memcmp(back, mine, sizeof(int) * (rank + 1)) == 0);
    OK(MPI_File_read_ordered_begin(file, back, 1, MPI_INT));
    OK(MPI_File_read_ordered_end(file, back, &status));
    CHECK(back[0] == mine[0]);
    OK(MPI_File_read_at(file, before, back, rank + 1, MPI_INT, &status));
    CHECK(memcmp(back, mine, sizeof(int) * (rank + 1)) == 0);
    OK(MPI_File_seek_shared(file, 3, MPI_SEEK_SET));
    OK(MPI_File_seek_shared(file, 2, MPI_SEEK_CUR));
    CHECK(position(file) == 5);
    if (size > 1) FAILS(MPI_File_seek_shared(file, rank, MPI_SEEK_SET), MPI_ERR_NOT_SAME, "different arguments");
    FAILS(MPI_File_seek_shared(file, -9, MPI_SEEK_CUR), MPI_ERR_ARG, "before the start");
    /* One rank's bad call is everybody's, and moves nothing. */
    CHECK(class_of(MPI_File_write_ordered(file, mine, rank == 0 ? -1 : 1, MPI_INT, &status)) == MPI_ERR_COUNT);
    CHECK(position(file) == 5);
    OK(MPI_File_set_view(file, 4, MPI_INT, MPI_INT, "native", MPI_INFO_NULL));
    CHECK(position(file) == 0);
    OK(MPI_File_close(&file));
}

/* In append mode all pointers begin at the end. */
static void appended(void) {
    char text[4] = "....", back[12] = "";
    MPI_File file = opened("/talea/run/appended", MPI_MODE_CREATE | MPI_MODE_WRONLY);
    if (rank == 0) OK(MPI_File_write(file, "head", 4, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    file = opened("/talea/run/appended", MPI_MODE_RDWR | MPI_MODE_APPEND);
    CHECK(position(file) == 4);
    OK(MPI_File_write_ordered(file, text, 2, MPI_BYTE, MPI_STATUS_IGNORE));
    CHECK(position(file) == 4 + 2 * size);
    OK(MPI_File_seek_shared(file, 0, MPI_SEEK_SET));
    CHECK(position(file) == 0);
    OK(MPI_File_read_at_all(file, 0, back, 6, MPI_BYTE, MPI_STATUS_IGNORE));
    CHECK(memcmp(back, "head..", 6) == 0);
    OK(MPI_File_close(&file));
}

static void sequential(void) {
    MPI_File file = opened("/talea/run/sequential", MPI_MODE_CREATE | MPI_MODE_WRONLY | MPI_MODE_SEQUENTIAL);
    int value = rank;
    FAILS(MPI_File_write_at(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE), MPI_ERR_UNSUPPORTED_OPERATION, "SEQUENTIAL");
    FAILS(MPI_File_write(file, &value, 1, MPI_INT, MPI_STATUS_IGNORE), MPI_ERR_UNSUPPORTED_OPERATION, "SEQUENTIAL");
    FAILS(MPI_File_seek(file, 0, MPI_SEEK_SET), MPI_ERR_UNSUPPORTED_OPERATION, "SEQUENTIAL");
    OK(MPI_File_write_ordered(file, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_set_view(file, MPI_DISPLACEMENT_CURRENT, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_write_ordered(file, &value, 4, MPI_BYTE, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    file = opened("/talea/run/sequential", MPI_MODE_RDONLY | MPI_MODE_DELETE_ON_CLOSE);
    int *all = calloc(size, 2 * sizeof(int));
    FAILS(MPI_File_set_view(file, MPI_DISPLACEMENT_CURRENT, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL), MPI_ERR_ARG, "SEQUENTIAL");
    OK(MPI_File_read_at_all(file, 0, all, 2 * size, MPI_INT, MPI_STATUS_IGNORE));
    for (int i = 0; i < 2 * size; i++) CHECK(all[i] == i % size);
    OK(MPI_File_close(&file));
}

/* In atomic mode a write of many pieces is seen whole or not at all, by readers that do not synchronize. */
static void atomic(void) {
    MPI_File file = opened("/talea/run/atomic", MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_Datatype strided;
    int flag = 5, values[64];
    OK(MPI_Type_vector(64, 1, 5000, MPI_INT, &strided));
    OK(MPI_Type_commit(&strided));
    OK(MPI_File_get_atomicity(file, &flag));
    CHECK(flag == 0);
    if (size > 1) FAILS(MPI_File_set_atomicity(file, rank), MPI_ERR_NOT_SAME, "different flags");
    OK(MPI_File_set_atomicity(file, 7));
    OK(MPI_File_get_atomicity(file, &flag));
    CHECK(flag == 1);
    OK(MPI_File_set_view(file, 0, MPI_INT, strided, "native", MPI_INFO_NULL));
    for (int i = 0; i < 64; i++) values[i] = -1;
    if (rank == 0) OK(MPI_File_write_at(file, 0, values, 64, MPI_INT, MPI_STATUS_IGNORE));
    MPI_Barrier(MPI_COMM_WORLD);
    for (int turn = 0; turn < 8; turn++) {
        if (rank % 2) {
            for (int i = 0; i < 64; i++) values[i] = 100 * rank + turn;
            OK(MPI_File_write_at(file, 0, values, 64, MPI_INT, MPI_STATUS_IGNORE));
        } else {
            OK(MPI_File_read_at(file, 0, values, 64, MPI_INT, MPI_STATUS_IGNORE));
            for (int i = 1; i < 64; i++) CHECK(values[i] == values[0]);
        }
    }
    OK(MPI_File_set_atomicity(file, 0));
    OK(MPI_File_close(&file));
    OK(MPI_Type_free(&strided));
}

int main(int argc, char **argv) {
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    unordered();
    ordered();
    appended();
    sequential();
    atomic();
    OK(MPI_Finalize());
    return 0;
}
