/* One epoch over two files and an object, on real servers: other handles see all of it or nothing. Links with libtalea. */
#include "check.h"
#include "talea.h"
#include "talea_mpi.h"

static int rank, size;

static MPI_File opened(MPI_Comm comm, const char *path, int amode) {
    MPI_File file = MPI_FILE_NULL;
    int code = MPI_File_open(comm, path, amode, MPI_INFO_NULL, &file);
    if (code != MPI_SUCCESS && !(amode & MPI_MODE_CREATE)) return MPI_FILE_NULL;
    OK(code);
    return file;
}

/* The first number of a file as an outsider sees it, and its size. */
static int seen(const char *path, MPI_Offset *bytes) {
    int value = -1;
    MPI_File file = opened(MPI_COMM_SELF, path, MPI_MODE_RDONLY);
    *bytes = -1;
    if (file == MPI_FILE_NULL) return -1;
    OK(MPI_File_get_size(file, bytes));
    OK(MPI_File_read_at(file, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_close(&file));
    return value;
}

static void write_all(MPI_File file, int turn) {
    int values[2] = {turn, rank};
    OK(MPI_File_write_at_all(file, rank * sizeof values, values, sizeof values, MPI_BYTE, MPI_STATUS_IGNORE));
}

static uint64_t object_value(talea_container_t *container, talea_oid_t oid) {
    uint64_t value = 0;
    talea_fetch_t fetch = {.key = {"d", 1, "a", 1}, .data = &value, .data_bytes = sizeof value};
    CHECK(talea_object_fetch(container, NULL, NULL, oid, &fetch, 1) == TALEA_OK);
    return fetch.found ? value : 0;
}

/* Files that know nothing of epochs but an info key, as those that a library opens, are in the one that was begun last. */
static void by_key(talea_mpi_epoch_t epoch) {
    MPI_File file, own;
    MPI_Info info;
    MPI_Offset bytes;
    int value = rank + 1;
    OK(MPI_Info_create(&info));
    OK(MPI_Info_set(info, "talea_epoch", "explicit"));
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/key", MPI_MODE_CREATE | MPI_MODE_RDWR, info, &file));
    /* A second handle of a rank's own shares the first one's epoch. */
    OK(MPI_File_open(MPI_COMM_SELF, "/talea/run/key", MPI_MODE_RDWR, info, &own));
    CHECK(class_of(talea_mpi_epoch_file(epoch, file)) == MPI_ERR_ARG);
    OK(MPI_File_write_at(own, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(own));
    OK(MPI_File_sync(file));
    OK(MPI_File_close(&own));
    OK(MPI_File_close(&file));
    CHECK(seen("/talea/run/key", &bytes) == -1 && bytes <= 0);
    MPI_Barrier(MPI_COMM_WORLD);
    OK(talea_mpi_epoch_commit(epoch, NULL, 0, NULL));
    CHECK(seen("/talea/run/key", &bytes) == 1 && bytes == 4 * size);
    MPI_Barrier(MPI_COMM_WORLD);
    /* Without an epoch of theirs nothing is opened, nor made. */
    char lonely[64];
    snprintf(lonely, sizeof lonely, "/talea/run/lonely-%d", rank);
    if (size > 1) FAILS(MPI_File_open(MPI_COMM_SELF, lonely, MPI_MODE_CREATE | MPI_MODE_RDWR, info, &own), MPI_ERR_UNSUPPORTED_OPERATION, "talea_mpi_epoch_begin");
    FAILS(MPI_File_open(MPI_COMM_WORLD, "/talea/other/x", MPI_MODE_CREATE | MPI_MODE_RDWR, info, &file), MPI_ERR_UNSUPPORTED_OPERATION, "talea_mpi_epoch_begin");
    CHECK(seen(lonely, &bytes) == -1 && bytes == -1);
    /* A reader has no epoch. */
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/key", MPI_MODE_RDONLY, info, &file));
    OK(MPI_File_close(&file));
    OK(MPI_Info_free(&info));
}

/* Rank `who` writes the object inside the epoch; returns the summary of it. */
static size_t write_object(talea_mpi_epoch_t epoch, talea_container_t *container, talea_oid_t oid, uint64_t value, char *summary, size_t room) {
    char blob[1024];
    size_t bytes = sizeof blob;
    talea_epoch_t *joined;
    OK(talea_mpi_epoch_blob(epoch, blob, &bytes));
    CHECK(talea_epoch_join(container, blob, bytes, &joined) == TALEA_OK);
    talea_update_t update = {.key = {"d", 1, "a", 1}, .data = &value, .data_bytes = sizeof value};
    CHECK(talea_object_update(container, joined, oid, &update, 1) == TALEA_OK);
    CHECK(talea_epoch_summary(joined, summary, &room) == TALEA_OK);
    return room;
}

int main(int argc, char **argv) {
    MPI_Offset bytes;
    talea_mpi_epoch_t epoch, none;
    uint64_t step, first = 0;
    talea_system_t *system;
    talea_container_t *container;
    talea_oid_t oid;
    static char summary[1 << 16];
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(talea_connect(NULL, 30000, &system) == TALEA_OK);
    CHECK(talea_container_open(system, "run", &container) == TALEA_OK);
    CHECK(talea_object_id("S1", 7, 9, &oid) == TALEA_OK);
    CHECK(class_of(talea_mpi_epoch_begin(MPI_COMM_WORLD, "nowhere", &none)) == MPI_ERR_NO_SUCH_FILE);
    MPI_File a = opened(MPI_COMM_WORLD, "/talea/run/a", MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_File b = opened(MPI_COMM_WORLD, "/talea/run/b", MPI_MODE_CREATE | MPI_MODE_RDWR);
    write_all(a, 1);
    OK(talea_mpi_epoch_begin(MPI_COMM_WORLD, "run", &epoch));
    OK(talea_mpi_epoch_file(epoch, a));
    OK(talea_mpi_epoch_file(epoch, b));
    CHECK(class_of(talea_mpi_epoch_file(epoch, b)) == MPI_ERR_ARG);
    /* What was written before has been committed with the entry. */
    CHECK(seen("/talea/run/a", &bytes) == 1 && bytes == 8 * size);
    CHECK(seen("/talea/run/b", &bytes) == -1);
    for (int turn = 2; turn < 5; turn++) {
        write_all(a, turn);
        write_all(b, turn);
        size_t objects = write_object(epoch, container, oid, turn, summary, sizeof summary);
        /* A sync is none of its own steps. */
        OK(MPI_File_sync(a));
        MPI_Barrier(MPI_COMM_WORLD);
        CHECK(seen("/talea/run/a", &bytes) == turn - 1);
        CHECK(seen("/talea/run/b", &bytes) == (turn == 2 ? -1 : turn - 1));
        CHECK(object_value(container, oid) == (turn == 2 ? 0 : (uint64_t)turn - 1));
        MPI_Barrier(MPI_COMM_WORLD);
        OK(talea_mpi_epoch_commit(epoch, summary, objects, &step));
        if (turn == 2) first = step;
        CHECK(step == first + turn - 2);
        CHECK(seen("/talea/run/a", &bytes) == turn && bytes == 8 * size);
        CHECK(seen("/talea/run/b", &bytes) == turn && bytes == 8 * size);
        CHECK(object_value(container, oid) == (uint64_t)turn);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    /* A file that is closed before the commit is in it all the same. */
    write_all(a, 7);
    write_all(b, 7);
    OK(MPI_File_close(&b));
    CHECK(seen("/talea/run/b", &bytes) == 4);
    MPI_Barrier(MPI_COMM_WORLD);
    OK(talea_mpi_epoch_commit(epoch, NULL, 0, &step));
    CHECK(step == first + 3);
    CHECK(seen("/talea/run/a", &bytes) == 7 && seen("/talea/run/b", &bytes) == 7);
    by_key(epoch);
    /* What is not committed is gone with the end, and the file goes on by itself. */
    MPI_Barrier(MPI_COMM_WORLD);
    write_all(a, 8);
    none = epoch;
    OK(talea_mpi_epoch_end(&epoch));
    CHECK(epoch == NULL);
    CHECK(class_of(talea_mpi_epoch_commit(none, NULL, 0, NULL)) == MPI_ERR_ARG);
    int value = -1;
    OK(MPI_File_read_at(a, 0, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    CHECK(value == 7 && seen("/talea/run/a", &bytes) == 7);
    MPI_Barrier(MPI_COMM_WORLD);
    write_all(a, 9);
    OK(MPI_File_sync(a));
    CHECK(seen("/talea/run/a", &bytes) == 9);
    MPI_Barrier(MPI_COMM_WORLD);
    OK(MPI_File_close(&a));
    /* A communicator that follows: the steps of above, and then the deadline. */
    talea_mpi_follower_t follower;
    talea_step_t told;
    CHECK(talea_mpi_follow(MPI_COMM_WORLD, container, first - 1, &follower) == TALEA_OK);
    for (uint64_t next = first; next <= first + 6; next++) {
        CHECK(talea_mpi_wait(&follower, 10000, &told) == TALEA_OK);
        CHECK(told.step == next);
    }
    CHECK(talea_mpi_wait(&follower, 0, &told) == TALEA_NOT_READY);
    talea_mpi_unfollow(&follower);
    talea_container_close(container);
    talea_disconnect(system);
    OK(MPI_Finalize());
    return 0;
}
