/* Failures of calls that one rank makes alone, in the corners of the rule that all ranks hear of them together. Arguments: a directory
 * that is not used, and the corner. The environment says which rank fails, until that is taken back. */
#include "check.h"

enum { MANY = 1 << 16 };
static int rank, many[MANY];

static MPI_File opened(int amode) {
    MPI_File file;
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/later", amode | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    return file;
}

/* The failure that was planned, on every rank. */
static void same(int code) { FAILS(code, MPI_ERR_IO, "server 1 is lost"); }

static void mended(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    unsetenv("TALEA_MOCK_FAIL");
}

static void write_mine(MPI_File file, int value) {
    OK(MPI_File_write_at(file, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
}

static int read_mine(MPI_File file) {
    int value = -1;
    OK(MPI_File_read_at(file, 4 * rank, &value, 1, MPI_INT, MPI_STATUS_IGNORE));
    return value;
}

/* The shared pointer's server is lost: a write has no place, and yet its rank goes on. */
static void shared(void) {
    MPI_File file = opened(MPI_MODE_CREATE);
    MPI_Request request;
    MPI_Status status;
    int bytes;
    OK(MPI_File_write_shared(file, &rank, 1, MPI_INT, &status));
    OK(MPI_Get_count(&status, MPI_BYTE, &bytes));
    CHECK(bytes == 4);
    OK(MPI_File_iwrite_shared(file, many, MANY, MPI_INT, &request));
    OK(MPI_Wait(&request, &status));
    OK(MPI_Get_count(&status, MPI_BYTE, &bytes));
    CHECK(bytes == sizeof many);
    same(MPI_File_sync(file));
    mended();
    write_mine(file, 1);
    OK(MPI_File_close(&file));
}

/* Another handle founded the epoch: the sync of this one commits nothing, and tells nevertheless. */
static void second(void) {
    MPI_File founder = opened(MPI_MODE_CREATE), file = opened(0);
    write_mine(file, 1);
    same(MPI_File_sync(file));
    mended();
    /* Told, but the epoch still holds what failed: the founder's sync must not commit it. */
    write_mine(file, 2);
    CHECK(MPI_File_sync(founder) != MPI_SUCCESS);
    OK(MPI_File_close(&file));
    OK(MPI_File_close(&founder));
}

/* Each rank has the file open by itself too, as PnetCDF does: what fails there is told where all ranks meet, at the founder's sync. */
static void self(void) {
    MPI_File founder = opened(MPI_MODE_CREATE), mine;
    MPI_Offset bytes;
    OK(MPI_File_open(MPI_COMM_SELF, "/talea/run/later", MPI_MODE_RDWR, MPI_INFO_NULL, &mine));
    write_mine(mine, 1);
    OK(MPI_File_get_size(mine, &bytes));
    OK(MPI_File_sync(mine));
    write_mine(mine, 1);
    OK(MPI_File_close(&mine));
    same(MPI_File_sync(founder));
    mended();
    write_mine(founder, 2);
    OK(MPI_File_close(&founder));
}

/* As above, and the founder's sync ends the epoch: what the other handle kept is gone with it, and its writes count again. */
static void ended(void) {
    MPI_File founder = opened(MPI_MODE_CREATE), file = opened(0);
    write_mine(file, 1);
    CHECK(MPI_File_sync(founder) != MPI_SUCCESS);
    mended();
    write_mine(file, 2);
    CHECK(read_mine(file) == 2);
    OK(MPI_File_write_at_all(file, 64 + 4 * rank, &rank, 1, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_sync(founder));
    OK(MPI_File_sync(file));
    OK(MPI_File_close(&file));
    OK(MPI_File_close(&founder));
    file = opened(0);
    CHECK(read_mine(file) == 2);
    OK(MPI_File_close(&file));
}

/* A file that is deleted at its close tells before it goes. */
static void deleted(void) {
    MPI_File file = opened(MPI_MODE_CREATE | MPI_MODE_DELETE_ON_CLOSE);
    write_mine(file, 1);
    same(MPI_File_close(&file));
    mended();
    CHECK(class_of(MPI_File_open(MPI_COMM_WORLD, "/talea/run/later", MPI_MODE_RDONLY, MPI_INFO_NULL, &file)) == MPI_ERR_NO_SUCH_FILE);
}

/* Where the file ends cannot be asked: a seek goes by what the rank knows. A reader's size is the snapshot's. */
static void end(void) {
    MPI_File file = opened(MPI_MODE_CREATE);
    OK(MPI_File_seek(file, 0, MPI_SEEK_END));
    OK(MPI_File_seek(file, 0, MPI_SEEK_SET));
    same(MPI_File_sync(file));
    mended();
    OK(MPI_File_close(&file));
}

/* A split collective tells at its end what was kept before it began, and so does an ordered write. */
static void split(void) {
    MPI_File file = opened(MPI_MODE_CREATE);
    write_mine(file, 1);
    OK(MPI_File_write_at_all_begin(file, 64, many, 1, MPI_INT));
    same(MPI_File_write_at_all_end(file, many, MPI_STATUS_IGNORE));
    same(MPI_File_write_ordered(file, many, 1, MPI_INT, MPI_STATUS_IGNORE));
    /* Those that write nothing of it, too. */
    OK(MPI_File_preallocate(file, 512));
    same(MPI_File_sync(file));
    mended();
    write_mine(file, 2);
    OK(MPI_File_sync(file));
    CHECK(read_mine(file) == 2);
    OK(MPI_File_close(&file));
}

/* Syncs commit nothing: each of them tells, until the close. */
static void at_close(void) {
    MPI_File file;
    MPI_Info info;
    MPI_Info_create(&info);
    MPI_Info_set(info, "talea_epoch", "close");
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/later", MPI_MODE_CREATE | MPI_MODE_RDWR, info, &file));
    MPI_Info_free(&info);
    write_mine(file, 1);
    same(MPI_File_sync(file));
    mended();
    write_mine(file, 2);
    same(MPI_File_sync(file));
    same(MPI_File_close(&file));
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } corners[] = {{"shared", shared}, {"second", second}, {"self", self}, {"ended", ended}, {"deleted", deleted},
                   {"end", end}, {"split", split}, {"close", at_close}};
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (size_t i = 0; i < sizeof corners / sizeof *corners; i++)
        if (strcmp(corners[i].name, argv[2]) == 0) corners[i].run();
    OK(MPI_Finalize());
    return 0;
}
